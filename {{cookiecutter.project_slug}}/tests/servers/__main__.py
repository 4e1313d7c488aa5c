"""`python -m tests.servers -- COMMAND …` runs a command with a server for its sessions.

If SESSION_SERVICE_URI is set, in the environment or in `.env`, that server is used. Otherwise a server
is started with its data in `.data`, and stopped when the command ends. Concurrent commands share it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from dotenv import dotenv_values
from filelock import FileLock, Timeout

from . import serve

VARIABLE = "SESSION_SERVICE_URI"


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("Name a command: python -m tests.servers -- COMMAND …", file=sys.stderr)
        return 2
    project = Path(__file__).resolve().parents[2]
    given = os.environ.get(VARIABLE) or dotenv_values(project / ".env").get(VARIABLE)
    with nullcontext(given) if given else shared(project / ".data") as uri:
        process = subprocess.Popen(command, env=os.environ | {VARIABLE: uri})
        # Ctrl-C reaches the command as well, which decides. SIGTERM is passed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


@contextmanager
def shared(data: Path) -> Iterator[str]:
    """Start the server of the folder, or share the one that another command has started."""
    data.mkdir(mode=0o700, exist_ok=True)
    address = data / "server.uri"
    lock = FileLock(data / "server.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        while not address.exists():
            time.sleep(0.01)
        yield address.read_text(encoding="utf-8")
        return
    try:
        with serve(data) as uri:
            starting = address.with_suffix(".new")
            starting.write_text(uri, encoding="utf-8")
            starting.replace(address)
            yield uri
    finally:
        address.unlink(missing_ok=True)
        lock.release()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
