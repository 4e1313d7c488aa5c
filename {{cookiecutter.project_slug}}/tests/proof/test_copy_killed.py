"""Copies that are killed and begun again."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from google.adk.sessions.sqlite_session_service import SqliteSessionService

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT

from .test_transfer import fill, read_all

SESSIONS = 150
KILLS = 10


def test_killed_copy_loses_and_doubles_nothing(uri: str, tmp_path: Path) -> None:
    path, moments = tmp_path / "adk.db", random.Random(1)
    source = SqliteSessionService(str(path))
    asyncio.run(fill(source, SESSIONS))
    command = [sys.executable, "-m", APP_NAME, "sessions", "copy", "--from", f"sqlite:///{path}"]
    command += ["--to", uri, "--ttl", "0"]

    wanted = asyncio.run(read_all(source))
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 3.0))  # the first second loads ADK
        process.kill()
        process.wait()
    done = subprocess.run(
        [*command, "--verify"],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    async def compared() -> None:
        async with create_session_service(uri) as service:
            assert {
                key: (session["events"], session["state"])
                for key, session in (await read_all(service)).items()
            } == {key: (session["events"], session["state"]) for key, session in wanted.items()}

    asyncio.run(compared())
