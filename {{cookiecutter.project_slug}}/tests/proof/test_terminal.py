"""The command line on a terminal, in a pipe and in a shell."""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT

COMMAND = f"{APP_NAME}-cli"
SESSION_ID = "5f0c9f8e-6f0b-4a59-9b8b-0a8e5f1c2d3e"


@pytest.fixture
def stored(uri: str) -> None:
    """Store a session."""

    async def store() -> None:
        async with create_session_service(uri) as service:
            await service.create_session(app_name=APP_NAME, user_id="ada", session_id=SESSION_ID)

    asyncio.run(store())


def start(
    uri: str, *arguments: str, stdout: int | IO[bytes], variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    settings = {"SESSION_SERVICE_URI": uri, "NO_COLOR": "", **(variables or {})}
    return subprocess.Popen(
        [Path(sys.executable).with_name(COMMAND), *arguments],
        cwd=PROJECT,
        env=os.environ | settings,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.usefixtures("stored")
def test_write_error_is_reported_in_one_sentence(uri: str) -> None:
    with open("/dev/full", "wb") as full:
        started = start(uri, "sessions", "export", "--all", stdout=full)
    assert started.communicate()[1] == (
        "Error: The output cannot be written: No space left on device.\n"
    )
    assert started.returncode == 1


@pytest.mark.usefixtures("stored")
def test_closed_pipe_ends_a_command_quietly(uri: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    started = start(uri, "sessions", "list", stdout=writing)
    os.close(writing)
    assert started.communicate()[1] == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.usefixtures("stored")
def test_terminal_gets_whole_ids_and_no_unwanted_colour(uri: str) -> None:
    assert SESSION_ID in in_terminal(uri, "sessions", "list", COLUMNS="40")
    assert "\x1b[" in in_terminal(uri, "doctor")
    assert "\x1b" not in in_terminal(uri, "doctor", NO_COLOR="1")


def in_terminal(uri: str, *arguments: str, **variables: str) -> str:
    """Return what a command shows on a terminal."""
    ours, theirs = os.openpty()
    started = start(uri, *arguments, variables=variables, stdout=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux ends it
        while more := os.read(ours, 4096):
            shown += more
    os.close(ours)
    assert started.communicate()[1] == ""
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no bash")
def test_shell_completes_commands() -> None:
    """The command of the README, in bash."""
    script = f"""
        PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
        eval "$(_{APP_NAME.upper()}_CLI_COMPLETE=bash_source {COMMAND})"
        COMP_WORDS=({COMMAND} sessions ex) COMP_CWORD=2
        _{APP_NAME}_cli_completion {COMMAND}
        echo $COMPREPLY
    """
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("export\n", "")
