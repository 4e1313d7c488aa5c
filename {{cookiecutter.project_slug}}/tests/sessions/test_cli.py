"""The commands `sessions …` and `doctor`."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.commands.doctor import doctor
from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

Run = Callable[..., Result]


@pytest.fixture
def run(uri: str) -> Run:
    """Run one of the `sessions` commands on the URI of the test."""

    def run(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(sessions, [*arguments, "--uri", uri], **more)

    return run


@pytest.fixture
def stored(uri: str) -> None:
    """Store two sessions of Ada and one of Grace. `talk` has events, state and its own TTL."""

    async def store() -> None:
        async with create_session_service(uri) as service:
            await create(service, "ada", "talk", state={"topic": "whales"}, ttl="7d")
            await create(service, "ada", "empty")
            await create(service, "grace", "other")
            talk = await service.get_session(app_name=APP_NAME, user_id="ada", session_id="talk")
            assert talk is not None
            deltas: list[dict[str, Any]] = [{"user:name": "Ada"}, {"n": 1}, {"n": {1, 2}}]
            for number, delta in enumerate(deltas, 1):
                await service.append_event(talk, event(number, f"message {number}", delta))

    asyncio.run(store())


def add(uri: str, user: str, session: str, *events: Event, **more: Any) -> None:
    """Store one session."""

    async def store() -> None:
        async with create_session_service(uri) as service:
            created = await create(service, user, session, **more)
            for each in events:
                await service.append_event(created, each)

    asyncio.run(store())


async def create(
    service: PersistentSessionService, user: str, session: str, **more: Any
) -> PersistentSession:
    return await service.create_session(app_name=APP_NAME, user_id=user, session_id=session, **more)


def event(number: int, text: str, delta: dict[str, Any]) -> Event:
    return Event(
        id=f"event-{number}",
        author="user",
        timestamp=1_700_000_000.25 + number,
        content=types.Content(role="user", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta),
    )


def test_init_can_be_repeated(run: Run) -> None:
    for _ in range(2):
        result = run("init")
        assert result.exit_code == 0
        assert result.stderr.startswith("Ready: ")


@pytest.mark.usefixtures("stored")
def test_list_shows_all_sessions_or_those_of_one_user(run: Run) -> None:
    header, *lines = run("list").stdout.splitlines()
    assert header.split("\t") == ["SESSION", "USER", "EVENTS", "LAST UPDATE", "EXPIRES"]
    assert {tuple(line.split("\t")[:3]) for line in lines} == {
        ("talk", "ada", "3"),
        ("empty", "ada", "0"),
        ("other", "grace", "0"),
    }
    (grace,) = json.loads(run("list", "--user", "grace", "--json").stdout)
    assert (grace["id"], grace["user"], grace["app"]) == ("other", "grace", APP_NAME)
    assert json.loads(run("list", "--app", "another", "--json").stdout) == []


def test_list_reports_that_there_are_no_sessions(run: Run) -> None:
    run("init")
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"There are no sessions in app {APP_NAME!r}.\n"


@pytest.mark.usefixtures("stored")
def test_show_prints_events_and_state(run: Run) -> None:
    shown = run("show", "talk").stdout
    assert "Session talk of user ada" in shown
    assert ": 3 events, last update 20" in shown
    assert "topic\twhales" in shown
    assert "user:name\tAda" in shown
    assert "user\tmessage 2" in shown


@pytest.mark.usefixtures("stored")
def test_show_needs_a_user_if_two_share_the_id(run: Run, uri: str) -> None:
    add(uri, "grace", "talk")
    result = run("show", "talk")
    assert result.exit_code == 1
    assert "2 sessions match 'talk', such as 'talk' of user 'ada', 'talk' of user" in result.stderr
    assert "Session talk of user grace" in run("show", "talk", "--user", "grace").stdout


@pytest.mark.usefixtures("stored")
def test_session_without_events_is_one_line(run: Run) -> None:
    (line,) = run("show", "other").stdout.splitlines()
    assert line.startswith("Session other of user grace: 0 events, last update 20")


@pytest.mark.usefixtures("stored")
def test_export_names_the_contradiction(run: Run) -> None:
    result = run("export", "--all", "talk")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: --all exports all sessions: leave it out, or the session ids." in result.stderr
    assert "Error: Name the sessions to export, or give --all." in run("export").stderr


@pytest.mark.usefixtures("stored")
def test_import_restores_exported_sessions(run: Run, tmp_path: Path) -> None:
    before = json.loads(run("show", "talk", "--json").stdout)
    exported = run("export", "--all").stdout
    file = tmp_path / "sessions.jsonl"
    file.write_text(exported, encoding="utf-8")
    assert run("delete", "--yes", "talk", "empty", "other").exit_code == 0

    result = run("import", "--verify", str(file))
    assert (result.exit_code, result.stderr) == (
        0,
        "Copied 3 sessions, skipped 0 that were there already.\n",
    )

    assert json.loads(run("show", "talk", "--json").stdout) == before
    assert [event["id"] for event in before["events"]] == ["event-1", "event-2", "event-3"]
    assert before["events"][0]["timestamp"] == 1_700_000_001.25
    assert before["ttl"] == 7 * 86_400


@pytest.mark.usefixtures("stored")
def test_export_has_the_state_of_users_without_sessions(run: Run) -> None:
    run("delete", "--yes", "talk", "empty")
    exported = run("export", "--all").stdout
    assert run("erase", "--yes", "--user", "ada").exit_code == 0
    assert run("import", "-", input=exported).exit_code == 0
    assert '"shared": {"name": "Ada"}' in run("export", "--all").stdout


@pytest.mark.usefixtures("stored")
def test_delete_shows_the_sessions_and_asks(run: Run) -> None:
    for typed in ("n\n", ""):
        result = run("delete", "talk", "empty", "talk", input=typed)
        first, second, *_ = result.stderr.splitlines()
        assert first.startswith("Session talk of user ada: 3 events, last update 20")
        assert second.startswith("Session empty of user ada: 0 events, last update 20")
        assert "Delete 2 sessions for good?" in result.stderr
        assert result.exit_code == 1
        assert result.stderr.endswith("Error: Nothing was deleted.\n")
    assert run("show", "talk").exit_code == 0
    assert run("delete", "talk", "empty", input="y\n").exit_code == 0
    assert run("show", "talk").exit_code == 1
    assert run("show", "other").exit_code == 0


@pytest.mark.usefixtures("stored")
def test_delete_is_all_or_nothing(run: Run) -> None:
    result = run("delete", "--yes", "talk", "nowhere")
    assert result.exit_code == 1
    assert "There is no session 'nowhere'" in result.stderr
    assert run("show", "talk").exit_code == 0


@pytest.mark.usefixtures("stored")
def test_erase_removes_a_user_and_nobody_else(run: Run) -> None:
    result = run("erase", "--user", "ada", input="n\n")
    assert "Erase user 'ada' in app" in result.stderr
    assert "(2 sessions, 1 value of state, and what has expired)" in result.stderr
    assert result.stderr.endswith("Error: Nothing was erased.\n")
    result = run("erase", "--user", "ada", input="y\n")
    assert result.stderr.endswith(
        f"Erased user 'ada' in app {APP_NAME!r}: 2 sessions, 1 value of state.\n"
    )
    (left,) = map(json.loads, run("export", "--all").stdout.splitlines())
    assert left["user"] == "grace"


@pytest.mark.usefixtures("stored")
def test_check_reports_that_nothing_is_damaged(run: Run) -> None:
    result = run("check", "--remove")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Nothing is damaged in 3 sessions of app {APP_NAME!r}.\n"


@pytest.mark.parametrize(
    "command", [["list"], ["show", "x"], ["export", "--all"], ["check"], ["erase", "--user", "x"]]
)
def test_reading_commands_create_nothing(run: Run, uri: str, command: list[str]) -> None:
    async def missing() -> str | None:
        async with create_session_service(uri) as service:
            return await service.store.missing()

    before = asyncio.run(missing())
    result = run(*command)
    if before:
        assert result.exit_code == 1
        assert result.stderr == f"Error: {before}: it is created with the first session.\n"
    CliRunner().invoke(doctor, ["--uri", uri])
    assert asyncio.run(missing()) == before


def test_invalid_uri_is_reported_in_one_sentence() -> None:
    result = CliRunner().invoke(sessions, ["list", "--uri", "nowhere://me:secret@host"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The session URI has an unknown scheme 'nowhere'")
    assert "secret" not in result.output


def test_doctor_passes(run: Run, uri: str) -> None:
    run("init")
    result = CliRunner().invoke(doctor, ["--uri", uri])
    assert result.exit_code == 0, result.output
    assert all(line.startswith("ok ") for line in result.stdout.splitlines())
    assert "google-adk" in result.stdout
    assert "a session was created" in result.stdout


def test_doctor_reports_a_problem_and_continues() -> None:
    result = CliRunner().invoke(doctor, ["--uri", "nowhere://me:secret@host"])
    assert result.exit_code == 1
    assert "wrong The session URI has an unknown scheme 'nowhere'" in result.stdout
    assert "ok    Python" in result.stdout
    assert "secret" not in result.output


def test_doctor_leaves_no_session(run: Run, uri: str) -> None:
    run("init")
    CliRunner().invoke(doctor, ["--uri", uri])
    assert "no sessions" in CliRunner().invoke(sessions, ["list", "--uri", uri]).stderr
