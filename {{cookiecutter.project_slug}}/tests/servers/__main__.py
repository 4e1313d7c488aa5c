"""`python -m tests.servers -- COMMAND …` runs a command with a server to keep its sessions.

That is the server which SESSION_SERVICE_URI names, in the environment or in `.env`; where it names none,
one is started with its data in `.data`, and stopped when the command ends.
"""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from dotenv import dotenv_values

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
    data = project / ".data"
    if not given:
        data.mkdir(exist_ok=True)
    with nullcontext(given) if given else serve(data) as uri:
        # Ctrl-C goes to the command too: it decides, and the server outlives it by a moment.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = subprocess.Popen(
                command,
                env=os.environ | {VARIABLE: uri},
                preexec_fn=None if os.name == "nt" else _listen_to_ctrl_c,
            )
            return process.wait()
        finally:
            signal.signal(signal.SIGINT, previous)


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
