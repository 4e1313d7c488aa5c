"""The test server of a project, run by the project's Python in the project's folder."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from .child import ROOT, private_output
from .contestants import contestants_of


def main() -> None:
    """Serve until standard input ends."""
    say = private_output()
    sys.path.remove(str(ROOT))  # its package `tests` would hide the project's folder of that name
    servers = import_module("tests.servers")
    settings = getattr(contestants_of(sys.argv[1]), "SERVER", {})
    with (
        TemporaryDirectory(dir=Path.cwd()) as folder,
        servers.backend.serve(Path(folder), servers.SCHEME, **settings) as uri,
    ):
        say({"uri": uri})
        sys.stdin.read()


if __name__ == "__main__":
    main()
