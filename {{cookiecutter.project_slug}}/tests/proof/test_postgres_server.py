"""The tests' PostgreSQL server ends with the process that started it, and its folder can be reused."""

import subprocess
import sys
from pathlib import Path

from {{ cookiecutter.__package }}.sessions.config import SCHEME

from ..servers import postgres as server


def serve_until_killed(directory: str) -> None:
    """Run a server on a folder, and print a line once it runs."""
    with server.serve(Path(directory), SCHEME) as uri:
        server.execute(uri, "CREATE TABLE kept ()")
        print("ready", flush=True)
        sys.stdin.read()


def test_folder_of_a_killed_server_can_be_reused(tmp_path: Path) -> None:
    directory = tmp_path / "a folder"
    directory.mkdir()
    code = f"from {__name__} import serve_until_killed; serve_until_killed({str(directory)!r})"
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=pipe, stdout=pipe
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"ready\n"
        killed.kill()
    with server.serve(directory, SCHEME) as uri:
        assert server.execute(uri, "SELECT * FROM kept") == []
