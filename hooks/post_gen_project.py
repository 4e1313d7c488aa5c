"""Removes the files that the answers leave out, and prints the next steps.

It runs in the folder of the new project, with the answers rendered into the last line. If it fails,
cookiecutter removes the folder. It uses only the standard library, and neither git nor a network.
"""

import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def drop(project: Path, paths: Sequence[str]) -> None:
    """Remove files that only other projects have, unless the owner of an existing project has made them."""
    aside = project / ".set-aside"
    for path in paths:
        written, before = project / path, aside / path
        if before.is_file() and before.read_bytes() != written.read_bytes():
            before.replace(written)
            continue
        written.unlink()
        for folder in written.parents:
            if any(folder.iterdir()):
                break
            folder.rmdir()
    shutil.rmtree(aside, ignore_errors=True)


def drop_caches(project: Path) -> None:
    """Remove caches that tools left in the template's folder."""
    for name in ("__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
        for path in [path for path in project.rglob(name) if ".venv" not in path.parts]:
            shutil.rmtree(path)


def next_steps(project: Path, answers: dict[str, Any]) -> str:
    """Return three lines: the session URI, the folder and the first commands."""
    row = answers["_backends"][answers["backend"]]
    uri = row["default_uri"].replace("{scheme}", answers["scheme"])
    folder = shlex.quote(str(project)) if os.name == "posix" else f'"{project}"'
    return (
        f"Your agent is in {project.name}. Its sessions are in {row['title']} at {uri}\n"
        f"  cd {folder}\n"
        "  make demo && make test   (`make help` lists all commands)"
    )


def main(answers: dict[str, Any], left_out: Sequence[str]) -> None:
    """Finish the project in the current folder."""
    project = Path.cwd()
    drop_caches(project)
    drop(project, left_out)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the console may lack letters of the folder
    print(next_steps(project, answers))


if __name__ == "__main__":
    main(
        json.loads(r"""{{ cookiecutter | tojson }}"""),
        json.loads(r"""{{ cookiecutter | left_out | tojson }}"""),
    )
