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
from {{ cookiecutter.__package }}.sessions.store import ScopedState

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


@pytest.fixture
def damaged(uri: str, stored: None) -> None:
    """Damage a session of Ada, a value of Grace and a value of the app; each has a sound neighbour."""

    async def damage() -> None:
        async with create_session_service(uri) as service:
            ada = await service.get_session(app_name=APP_NAME, user_id="ada", session_id="empty")
            grace = await service.get_session(
                app_name=APP_NAME, user_id="grace", session_id="other"
            )
            assert ada
            assert grace
            for session, data, state in (
                (ada, b"{", ScopedState(app={"spoiled": b"{", "sound": b"1"})),
                (grace, b'{"author": "u"}', ScopedState(user={"spoiled": b"", "sound": b"2"})),
            ):
                await service.store.append(
                    session.head.key,
                    expected=session.position,
                    event=data,
                    timestamp=1.0,
                    state=state,
                    now=session.last_update_time,
                )

    asyncio.run(damage())


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
def test_show_says_where_it_looked(run: Run) -> None:
    for arguments, where in (
        (
            (),
            f"'nowhere' in app {APP_NAME!r}: it was deleted, has expired, or belongs to another app",
        ),
        (("--user", "grace"), "'nowhere' of user 'grace' in app"),
    ):
        result = run("show", "nowhere", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"There is no session {where}" in result.stderr
    assert "or belongs to another user (--user) or app (--app)." in result.stderr


@pytest.mark.usefixtures("stored")
def test_id_can_be_shortened_while_it_is_unique(run: Run, uri: str) -> None:
    add(uri, "ada", "talk-2")
    add(uri, "grace", "tea")
    result = run("show", "t")
    assert result.exit_code == 1
    for candidate in ("'talk' of user 'ada'", "'talk-2' of user 'ada'", "'tea' of user 'grace'"):
        assert candidate in result.stderr
    assert "Session tea of user grace" in run("show", "t", "--user", "grace").stdout
    assert "Session talk of user ada" in run("show", "talk").stdout  # an exact id wins
    assert json.loads(run("export", "talk-").stdout.splitlines()[-1])["id"] == "talk-2"
    assert "Session tea of user grace: 0 events" in run("delete", "--yes", "te").stderr
    assert run("show", "tea").exit_code == 1
    assert run("delete", "--yes", "--user", "grace", "").exit_code == 1
    assert run("show", "other").exit_code == 0


@pytest.mark.usefixtures("stored")
def test_name_from_the_web_interface_is_shown(run: Run, uri: str) -> None:
    delta = {"__session_metadata__": {"displayName": "Whales"}}
    add(uri, "ada", "named", Event(author="user", actions=EventActions(state_delta=delta)))
    header, *lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert header[-1] == "NAME"
    assert {line[0]: line[-1] for line in lines} == {
        "talk": "",
        "empty": "",
        "other": "",
        "named": "Whales",
    }
    shown = run("show", "named").stdout
    assert "Session named 'Whales' of user ada" in shown
    assert "user\t(renamed to 'Whales')" in shown
    assert "__session_metadata__" not in shown


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
def test_import_finishes_what_was_interrupted(run: Run) -> None:
    exported = run("export", "talk").stdout
    before = json.loads(run("show", "talk", "--json").stdout)
    session = exported.splitlines()[-1]
    run("delete", "--yes", "talk")
    half = json.loads(session)
    del half["events"][2:]
    run("import", "-", input=json.dumps(half))

    result = run("import", "-", "--verify", input=exported)
    assert result.stderr == "Copied 1 session, skipped 0 that were there already.\n"
    assert json.loads(run("show", "talk", "--json").stdout) == before
    result = run("import", "-", input=exported)
    assert result.stderr == "Copied 0 sessions, skipped 1 that were there already.\n"


@pytest.mark.usefixtures("stored")
def test_import_never_overwrites_another_session(run: Run) -> None:
    exported = run("export", "talk").stdout.replace("message 3", "another message")
    before = run("show", "talk", "--json").stdout
    result = run("import", "-", input=exported)
    assert result.exit_code == 1
    assert "session 'talk' of user 'ada'" in result.stderr
    assert "the target's session with this id has other events" in result.stderr
    assert run("show", "talk", "--json").stdout == before


@pytest.mark.usefixtures("stored")
def test_import_takes_the_files_of_adk(run: Run, uri: str) -> None:
    before = json.loads(run("show", "talk", "--json").stdout)

    async def saved() -> tuple[str, str]:
        async with create_session_service(uri) as service:
            talk = await service.get_session(app_name=APP_NAME, user_id="ada", session_id="talk")
            assert talk is not None
            by_run = talk.model_dump_json(indent=2, exclude_none=True, by_alias=True)
            return by_run, json.dumps(talk.model_dump(mode="json", by_alias=True))

    for text in asyncio.run(saved()):
        run("erase", "--yes", "--user", "ada")
        result = run("import", "-", "--ttl", "7d", input=text)
        assert result.stderr == "Copied 1 session, skipped 0 that were there already.\n"
        after = json.loads(run("show", "talk", "--json").stdout)
        assert after["events"][:2] == before["events"][:2]
        assert after["state"]["user:name"] == "Ada"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not JSON", "Expecting value"),
        ("[1, 2]", "it is not an exported session"),
        ('{"format": 2}', "it is not an exported session of format 1"),
        ('{"format": 1, "app": "a", "user": "u"}', "'id' is missing"),
        ('{"format": 1, "app": "a", "user": "u", "id": 7}', "are not all texts"),
        (
            '{"format": 1, "app": "a", "user": "u", "id": "i", "updated": 1, "ttl": "soon", "state": {},'
            ' "events": []}',
            "ttl 'soon' is not a time to live",
        ),
        (
            '{"format": 1, "app": "a", "user": "u", "id": "i", "updated": 1, "ttl": 0, "state": {},'
            ' "events": [{"timestamp": "x"}]}',
            "event cannot be read",
        ),
        (
            '{"format": 1, "app": "a", "user": "u", "id": "i", "updated": 1, "ttl": 0, "state": {},'
            ' "events": [{"content": {"\\u001b[2J\\u2028": 1}}]}',
            "\\x1b[2J",
        ),
    ],
)
def test_import_names_the_bad_line(run: Run, line: str, problem: str) -> None:
    result = run("import", "-", input=f"\n{line}\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Line 2 of <stdin> cannot be imported: ")
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("stored")
def test_delete_shows_the_sessions_and_asks(run: Run) -> None:
    for typed in ("n\n", ""):
        result = run("delete", "talk", "empty", "talk", input=typed)
        first, second, *_ = result.stderr.splitlines()
        assert first.startswith("Session talk of user ada: 3 events, last update 20")
        assert second.startswith("Session empty of user ada: 0 events, last update 20")
        assert "Delete 2 sessions for good?" in result.stderr
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            1,
            "Error: Nothing was deleted.",
        )
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


@pytest.mark.usefixtures("damaged")
def test_erase_removes_an_app(run: Run) -> None:
    assert run("erase", "--yes").exit_code == 2
    assert run("erase", "--yes", "--app", APP_NAME).exit_code == 0
    assert run("export", "--all").stdout == ""
    assert run("check").exit_code == 0


@pytest.mark.usefixtures("stored")
def test_check_reports_that_nothing_is_damaged(run: Run) -> None:
    result = run("check", "--remove")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Nothing is damaged in 3 sessions of app {APP_NAME!r}.\n"


@pytest.mark.usefixtures("damaged")
def test_check_lists_damaged_records(run: Run) -> None:
    for arguments, ending in (
        ([], "There are 3 damaged records; --remove removes them."),
        (["--remove"], "Nothing was removed."),
    ):
        result = run("check", *arguments, input="n\n")
        assert result.exit_code == 1
        # Older versions of click show what was typed on standard output.
        header, *lines = [line for line in result.stdout.splitlines() if "\t" in line]
        assert header.split("\t") == ["DAMAGED", "USER", "PROBLEM"]
        assert {tuple(line.split("\t")[:2]) for line in lines} == {
            ("session empty", "ada"),
            ("user:spoiled", "grace"),
            ("app:spoiled", ""),
        }
        assert all("cannot be read" in line for line in lines)
        assert result.stderr.endswith(f"Error: {ending}\n")


@pytest.mark.usefixtures("damaged")
def test_check_removes_only_damaged_records(run: Run) -> None:
    result = run("check", "--remove", input="y\n")
    assert result.exit_code == 0
    assert result.stderr.endswith("Removed 3 damaged records.\n")
    assert run("check").stderr == f"Nothing is damaged in 2 sessions of app {APP_NAME!r}.\n"
    other = json.loads(run("show", "other", "--json").stdout)
    assert other["state"] == {
        **dict.fromkeys(("app:spoiled", "user:spoiled")),
        "app:sound": 1,
        "user:sound": 2,
    }
    assert len(other["events"]) == 1
    assert len(json.loads(run("show", "talk", "--json").stdout)["events"]) == 3


@pytest.mark.usefixtures("damaged")
def test_session_that_cannot_be_read_can_be_deleted(run: Run) -> None:
    assert run("delete", "--yes", "empty").exit_code == 0
    assert "session empty" not in run("check").stdout


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


def test_control_characters_are_escaped(run: Run, uri: str) -> None:
    add(uri, "eve", "\x1b[2J\nx", state={"k\t": "\x1b]0;title\x07"})
    shown = run("list").stdout + run("show", "\x1b[2J\nx").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J x" in shown


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
