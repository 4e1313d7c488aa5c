"""Every way to start the agent finds the same sessions, and a restart forgets nothing.

These tests start the real programs and talk to them over HTTP. To be quick they start them all at once.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from google.adk.cli import main as adk

from {{ cookiecutter.__package }} import command_line
from {{ cookiecutter.__package }}.command_line import check_scheme, main, with_defaults
from {{ cookiecutter.__package }}.sessions.config import BACKEND_TITLE, SCHEME
from {{ cookiecutter.__package }}.settings import APP_NAME, PACKAGE, PROJECT

from .servers import namespace

STARTS_WITHIN = 300.0
USER = "test_user"  # the user that `adk run` speaks as

PYTHON = [sys.executable, "-m", APP_NAME]
ADK = [shutil.which("adk", path=str(Path(sys.executable).parent)) or "adk"]

SERVERS = {
    "python -m … web": [*PYTHON, "web"],
    "adk web .": [*ADK, "web", "."],
    "adk web <package>": [*ADK, "web", APP_NAME],
    "adk api_server .": [*ADK, "api_server", "."],
}


class Program:
    """A program of this project, started with a session URI; its output is kept in a file."""

    def __init__(self, arguments: Sequence[str], uri: str, output: Path) -> None:
        self.output = output
        environment = {**os.environ, "MODEL": "offline", "SESSION_SERVICE_URI": uri}
        if arguments[0] in ADK:
            # ADK itself does not read the variable: the URI is an option like any other.
            arguments = [*arguments[:2], f"--session_service_uri={uri}", *arguments[2:]]
            del environment["SESSION_SERVICE_URI"]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                arguments,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def printed(self) -> str:
        """Return what it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """Return the exit status, once it has ended."""
        return self.process.wait(STARTS_WITHIN)

    def kill(self) -> None:
        """End it at once, without a chance to save anything."""
        self.process.kill()
        self.process.wait()


class Server(Program):
    """A program that answers HTTP as soon as it is up."""

    def __init__(self, arguments: Sequence[str], uri: str, output: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        super().__init__([*arguments, f"--port={port}"], uri, output)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def ready(self) -> "Server":
        """Wait until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.http.get("/health").raise_for_status()
                return self
            except httpx.HTTPError:
                time.sleep(0.05)
        pytest.fail(f"The server did not start:\n{self.printed()}")

    def kill(self) -> None:
        self.http.close()
        super().kill()

    def create(self, session: str, **options: Any) -> None:
        """Create a session."""
        body = {"session_id": session, "options": options}
        self._json("POST", f"/apps/{APP_NAME}/users/{USER}/sessions", json=body)

    def get(self, session: str) -> dict[str, Any]:
        """Return a session."""
        found: dict[str, Any]
        found = self._json("GET", f"/apps/{APP_NAME}/users/{USER}/sessions/{session}")
        return found

    def say(self, session: str, text: str) -> str:
        """Say something in a session and return the answer."""
        message = {"role": "user", "parts": [{"text": text}]}
        body = {"app_name": APP_NAME, "user_id": USER, "session_id": session}
        events = self._json("POST", "/run", json=body | {"new_message": message})
        answer: str = events[-1]["content"]["parts"][0]["text"]
        return answer

    def _json(self, method: str, path: str, **more: Any) -> Any:
        response = self.http.request(method, path, **more)
        assert response.is_success, f"{response.text}\n{self.printed()}"
        return response.json()


@contextmanager
def started(program: Program) -> Iterator[Any]:
    """Kill the program in the end."""
    try:
        yield program
    finally:
        program.kill()


@pytest.fixture(scope="module")
def corner(server_uri: str) -> Iterator[str]:
    """A corner of the real server for all tests of this file."""
    with namespace(server_uri) as own:
        yield own


@pytest.fixture(scope="module")
def programs(corner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Tell a name to one server, kill it, and start all the others."""
    folder = tmp_path_factory.mktemp("programs")
    with started(Server([*PYTHON, "api_server"], corner, folder / "first")) as server:
        server.ready().create("talk")
        assert "Nice to meet you, Ada" in server.say("talk", "My name is Ada")
    with ExitStack() as stack:
        programs: dict[str, Program] = {
            name: Server(arguments, corner, folder / str(number))
            for number, (name, arguments) in enumerate(SERVERS.items())
        }
        programs["adk run"] = Program([*ADK, "run", APP_NAME, "Who am I?"], corner, folder / "run")
        programs["nobody"] = Program([*ADK, "run", APP_NAME, "Hi"], "nobody://h", folder / "nobody")
        for program in programs.values():
            stack.enter_context(started(program))
        yield programs


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_knows_what_was_told_before_the_restart(
    programs: dict[str, Any], corner: str, name: str
) -> None:
    server = programs[name].ready()
    assert "Your name is Ada." in server.say("talk", "What is my name?")
    first = server.get("talk")["events"][0]
    assert first["content"]["parts"][0]["text"] == "My name is Ada"
    scheme, _, _ = corner.partition(":")
    assert f"Sessions: {scheme} → {BACKEND_TITLE}" in server.printed()


def test_a_session_gets_a_ttl_of_its_own_over_http(programs: dict[str, Any]) -> None:
    server = programs["adk web ."].ready()
    server.create("short", ttl="90s")
    assert "expires in 1m" in server.say("short", "session report")


def test_adk_run_finds_the_same_sessions(programs: dict[str, Any]) -> None:
    assert programs["adk run"].wait() == 0
    assert "Your name is Ada." in programs["adk run"].printed()


def test_adk_ends_with_one_sentence_where_nobody_knows_the_scheme(programs: dict[str, Any]) -> None:
    assert programs["nobody"].wait() == 1
    *_, last = programs["nobody"].printed().splitlines()
    assert last.startswith("Error: The session URI has the scheme 'nobody', which nobody knows")
    assert "Traceback" not in programs["nobody"].printed()


@pytest.mark.parametrize(
    ("arguments", "completed"),
    [
        ("web", "web PACKAGE --session_service_uri=URI"),
        ("web --port 80", "web PACKAGE --session_service_uri=URI --port 80"),
        ("web .", "web --session_service_uri=URI ."),
        ("web --session_service_uri memory://", "web PACKAGE --session_service_uri memory://"),
        ("web --session_service_uri=memory:// .", "web --session_service_uri=memory:// ."),
        ("web --no_use_local_storage", "web PACKAGE --no_use_local_storage"),
        ("api_server .", "api_server --session_service_uri=URI ."),
        ("run", "run PACKAGE --session_service_uri=URI"),
        ("run hello", "run PACKAGE --session_service_uri=URI hello"),
        ("run tests hello", "run --session_service_uri=URI tests hello"),
        ("run --in_memory", "run PACKAGE --in_memory"),
        ("create another", "create another"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_python_m_fills_in_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, arguments: str, completed: str
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("SESSION_SERVICE_URI", f"{SCHEME}://here")
    expected = completed.replace("PACKAGE", str(PACKAGE)).replace("URI", f"{SCHEME}://here")
    assert with_defaults(adk, arguments.split()) == expected.split()


@pytest.mark.parametrize("uri", ["nobody://me:secret@host", f"{SCHEME}+nobody://me:secret@host"])
def test_python_m_ends_with_one_sentence_where_nobody_knows_the_scheme(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setattr(command_line, "load_environment", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(["web", "--session_service_uri", uri])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: The session URI has the scheme")
    assert "secret" not in error


@pytest.mark.parametrize(
    "uri",
    [f"{SCHEME}://", f"{SCHEME.upper()}://", "memory://", "sqlite:///x", "mysql+aiomysql://h"],
)
def test_schemes_of_ours_and_of_adk_are_known(uri: str) -> None:
    check_scheme(uri)


@pytest.mark.parametrize("uri", ["", "localhost", "oracle://h", "://h"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(click.ClickException):
        check_scheme(uri)


def test_help_names_our_commands_beside_those_of_adk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "load_environment", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in ("doctor", "run", "sessions", "web"))
