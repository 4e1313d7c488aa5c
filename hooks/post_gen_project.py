"""Keeps what the chosen backend needs, drops the rest, and says what to do next.

It runs in the new project's folder, with the answers rendered into the last line. If it failed,
cookiecutter would remove the folder: there is never half a project. It needs nothing but the
standard library, and neither git nor a network.
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
    """Remove the stores, test servers and tests of the backends that were not chosen.

    The folder `redis`, `redis.py`, `test_redis.py` and `test_redis_….py` belong to the module `redis`.
    Whatever else belongs to a backend is listed under `files` in its row.
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
        # These test that module alone as the store.
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
    """Remove what tools left in the template's folder when somebody worked on it there."""
    for name in ("__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"):
        for path in [path for path in project.rglob(name) if ".venv" not in path.parts]:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, and the folder around it once that is empty."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def next_steps(project: Path, answers: dict[str, Any]) -> str:
    """Say in three lines what came out and what to do with it."""
    row = answers["_backends"][answers["backend"]]
    uri = row["default_uri"].replace("{scheme}", answers["scheme"])
    folder = shlex.quote(str(project)) if os.name == "posix" else f'"{project}"'
    return (
        f"Your agent is in {project.name}; its sessions live in {row['title']} at {uri}\n"
        f"  cd {folder}\n"
        "  make demo && make test   (and `make help` for the rest)"
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
        sys.stdout.reconfigure(errors="replace")  # a console need not know the folder's letters
    print(next_steps(project, answers))


if __name__ == "__main__":
    main(json.loads(r"""{{ cookiecutter | tojson }}"""))
