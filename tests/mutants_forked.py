"""Run in the baked project's Python by `tests/mutants.py`: try one mutant after another, each in a fork.

ADK is imported once; importing it for every mutant would take longer than most of their tests. A line of
input is what to give pytest and how many seconds one test may take; a line of output is how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = "os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.truncate shutil.rmtree"
HANGS = -1
IMPORTED_ONCE = """
    pytest pytest_asyncio hypothesis hypothesis.strategies google.adk.runners google.adk.auth.auth_tool
    google.adk.sessions.sqlite_session_service google.adk.sessions.in_memory_session_service
""".split()


def guard(root: Path) -> None:
    """From now on, refuse this process every change to files outside of a folder."""
    inside = f"{root}{os.sep}"

    def check(name: Any, folder: int = -1) -> None:
        if isinstance(name, int) or folder not in (-1, None):
            return  # opened, and so looked at, before
        path = os.path.realpath(os.fsdecode(name))
        if not path.startswith(inside) and path not in ("/dev/null", str(root)):
            raise PermissionError(f"a mutant wanted to write {path}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & WRITING:
            check(arguments[0])
        elif event == "sqlite3.connect":
            name = os.fsdecode(arguments[0])
            if name != ":memory:" and not name.endswith("?mode=ro"):
                check(name)
        elif event in CHANGES:
            check(arguments[0])
            if event == "os.rename":
                check(arguments[1])

    sys.addaudithook(hook)


class Progress:
    """Tells that a test has ended, so that one that hangs is told from many that take their time."""

    def __init__(self, pipe: int) -> None:
        """Take the end of a pipe to write to."""
        self.pipe = pipe

    def pytest_runtest_logfinish(self) -> None:
        """Hear of it from pytest."""
        os.write(self.pipe, b".")


def attempt(arguments: list[str], seconds: float, temporary: Path) -> str:
    """Run pytest in a fork and say how it ended: `killed`, `survived`, `timeout`, or what is wrong."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    ended, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        guard(Path.cwd())
        import pytest

        status = 3
        try:
            status = int(pytest.main(arguments, plugins=[Progress(pipe)]))
        finally:
            os._exit(status)
    os.close(pipe)
    while select.select([ended], [], [], seconds)[0]:
        if not os.read(ended, 1_000):
            _, status = os.waitpid(child, 0)
            break
    else:
        status = HANGS
    os.close(ended)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it may have started
    if status == HANGS:
        os.waitpid(child, 0)
        return "timeout"
    code = os.waitstatus_to_exitcode(status)
    # 1: a test failed; 2 and 4: the project could not even be imported
    return {0: "survived", 1: "killed", 2: "killed", 4: "killed"}.get(code, f"status {code}")


def main() -> None:
    """Answer each line until there is none."""
    os.nice(10)
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    temporary = Path(os.environ["TMPDIR"])
    print("ready", flush=True)
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        print(attempt(arguments, seconds, temporary), flush=True)


if __name__ == "__main__":
    main()
