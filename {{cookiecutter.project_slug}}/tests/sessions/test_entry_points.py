"""Every way to start the agent finds the same sessions, also after a restart.

The tests start the real programs, all at once to save time, and talk to them over HTTP.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import click
import pytest
from google.adk.cli import main as adk

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.command_line import (
    check_scheme,
    main,
    with_defaults,
)
from {{ cookiecutter.__package }}.sessions.config import (
    AGENT_FOLDER,
    APP_NAME,
    BACKEND_TITLE,
    SCHEME,
)
from {{ cookiecutter.__package }}.sessions.environment import PROJECT

from ..servers import namespace
from .programs import ADK, AGENTS, PYTHON, USER, Program, Server
from .support import texts

FIRST = [*PYTHON, "serve", str(AGENTS)]

SERVERS = {
    "python -m … web": [*PYTHON, "web", str(AGENTS)],
    "adk web .": [*ADK, "web", "."],
    "adk api_server .": [*ADK, "api_server", "."],
}


@pytest.fixture(scope="module")
def corner(server_uri: str) -> Iterator[str]:
    """A namespace for all tests of this file."""
    with namespace(server_uri) as own:
        yield own


@pytest.fixture(scope="module")
def programs(corner: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """Store a conversation with one server, kill it, and start all the others."""
    folder = tmp_path_factory.mktemp("programs")
    with Server(FIRST, corner, folder / "first") as server:
        server.ready().create("talk", app="noter", state={"user:name": "Ada"})
        assert server.say("talk", 'note {"key": "topic", "value": "whales"}') == '{"before": null}'
    asyncio.run(create_one_of_the_project(corner))
    run = [*PYTHON, "run", str(AGENTS / "noter"), 'note {"key": "user:name", "value": "Countess"}']
    with ExitStack() as stack:
        started: dict[str, Program] = {
            name: Server(arguments, corner, folder / str(number))
            for number, (name, arguments) in enumerate(SERVERS.items())
        }
        started["run"] = Program(run, corner, folder / "run")
        for program in started.values():
            stack.enter_context(program)
        yield started


async def create_one_of_the_project(uri: str) -> None:
    """Create a session of the project's own agent."""
    async with create_session_service(uri) as service:
        await service.create_session(
            app_name=APP_NAME, user_id=USER, session_id="mine", state={"topic": "krill"}
        )


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_finds_stored_sessions(
    programs: dict[str, Program], corner: str, name: str
) -> None:
    server = programs[name]
    assert isinstance(server, Server)
    assert server.ready().get("mine")["state"] == {"topic": "krill"}
    scheme, _, _ = corner.partition(":")
    assert f"Sessions: {scheme} → {BACKEND_TITLE}" in server.printed()


def test_conversation_continues_after_a_restart(programs: dict[str, Program]) -> None:
    server = programs["python -m … web"]
    assert isinstance(server, Server)
    answer = server.ready().say("talk", 'note {"key": "topic", "value": "squid"}')
    assert answer == '{"before": "whales"}'
    events = server.get("talk", app="noter")["events"]
    assert len(events) == 8, "two turns of a message, a call, a result and an answer"


def test_session_can_be_created_with_its_own_ttl_over_http(programs: dict[str, Program]) -> None:
    """ADK passes `options` of the request to `create_session`."""
    server = programs["adk web ."]
    assert isinstance(server, Server)
    server.ready().create("short", options={"ttl": "90s"})
    response = server.http.post(
        f"/apps/{APP_NAME}/users/{USER}/sessions", json={"options": {"ttl": "soon"}}
    )
    assert not response.is_success, "an invalid TTL is refused"


def test_run_stores_the_conversation(programs: dict[str, Program], corner: str) -> None:
    assert programs["run"].wait() == 0, programs["run"].printed()

    async def stored() -> list[str | None]:
        async with create_session_service(corner) as service:
            listed = await service.list_sessions(app_name="noter", user_id=USER)
            (own,) = [session.id for session in listed.sessions if session.id != "talk"]
            session = await service.get_session(app_name="noter", user_id=USER, session_id=own)
            assert session is not None
            assert session.state["user:name"] == "Countess"
            return texts(session)

    assert asyncio.run(stored())[-1] == '{"before": "Ada"}'


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
def test_python_m_fills_in_agent_folder_and_uri(
    monkeypatch: pytest.MonkeyPatch, arguments: str, completed: str
) -> None:
    monkeypatch.chdir(PROJECT)
    uri = f"{SCHEME}://here"
    monkeypatch.setenv("SESSION_SERVICE_URI", uri)
    expected = [
        word.replace("PACKAGE", str(AGENT_FOLDER)).replace("URI", uri) for word in completed.split()
    ]
    assert with_defaults(adk, arguments.split()) == expected


@pytest.mark.parametrize("uri", ["nobody://me:secret@host", f"{SCHEME}+nobody://me:secret@host"])
def test_python_m_refuses_an_unknown_scheme_in_one_sentence(
    capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["web", "--session_service_uri", uri])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: The session URI has an unknown scheme")
    assert "secret" not in error


@pytest.mark.parametrize(
    "uri",
    [f"{SCHEME}://", f"{SCHEME.upper()}://", "memory://", "sqlite:///x", "mysql+aiomysql://h"],
)
def test_schemes_of_the_project_and_of_adk_are_accepted(uri: str) -> None:
    check_scheme(uri)


@pytest.mark.parametrize("uri", ["", "localhost", "oracle://h", "://h"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(click.ClickException):
        check_scheme(uri)


def test_help_lists_own_and_adk_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(
        f"\n  {command} " in printed for command in ("doctor", "run", "serve", "sessions", "web")
    )
