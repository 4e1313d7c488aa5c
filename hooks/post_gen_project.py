"""Removes the files that the chosen backend does not need, and prints the next steps.

It runs in the folder of the new project, with the answers rendered into the last line. If it fails,
cookiecutter removes the folder. It uses only the standard library, and neither git nor a network.
"""

import io
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any


def drop_other_backends(project: Path, answers: dict[str, Any]) -> None:
    """Remove the stores, test servers and tests of other backends.

    The folder `redis`, `redis.py`, `redis_….py`, `test_redis.py` and `test_redis_….py` belong to the module
    `redis`. `files` in the row of a backend lists its other files.
    """
    backends = answers["_backends"]
    chosen = backends[answers["backend"]]
    kept = set(chosen["modules"])
    dropped = {module for row in backends.values() for module in row["modules"]} - kept
    others = re.compile(rf"(test_)?({'|'.join(sorted(dropped))})(_.*|\..*)?")
    tests = project / "tests"
    stores = project / answers["__package"] / "sessions"
    for folder in (stores, tests / "sessions", tests / "servers", tests / "proof"):
        for path in [path for path in folder.glob("*") if others.fullmatch(path.name)]:
            remove(path)
    for module in kept - {chosen["store"]["module"]}:
        # These tests need that module as the store.
        for path in (*tests.glob(f"*/test_{module}*.py"), *tests.glob(f"proof/{module}_*.py")):
            remove(path)
    files = {file for row in backends.values() for file in row.get("files", [])}
    for file in files - set(chosen.get("files", [])):
        path = project / file.format(package=answers["__package"])
        if path.exists():
            remove(path)


def drop_proof(project: Path) -> None:
    """Remove the tests that prove the session service itself."""
    shutil.rmtree(project / "tests" / "proof")


def drop_caches(project: Path) -> None:
    """Remove caches that tools left in the template's folder."""
    for name in ("__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
        for path in [path for path in project.rglob(name) if ".venv" not in path.parts]:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, and its parent if that is empty then."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


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


def main(answers: dict[str, Any]) -> None:
    """Finish the project in the current folder."""
    project = Path.cwd()
    drop_other_backends(project, answers)
    if answers["__proof"] != "yes":
        drop_proof(project)
    if answers["license"] == "Proprietary":
        (project / "LICENSE").unlink(missing_ok=True)
    drop_caches(project)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the console may lack letters of the folder
    print(next_steps(project, answers))


if __name__ == "__main__":
    main(json.loads(r"""{{ cookiecutter | tojson }}"""))
