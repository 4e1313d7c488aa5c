"""Commands: short ids, names, damaged records, imports that are interrupted or refused, and what is escaped."""

import asyncio
import json

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.store import ScopedState

from ..sessions import test_cli as cli
from ..sessions.test_cli import Run, add

run, stored = cli.run, cli.stored


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


@pytest.mark.usefixtures("damaged")
def test_erase_removes_an_app(run: Run) -> None:
    assert run("erase", "--yes").exit_code == 2
    assert run("erase", "--yes", "--app", APP_NAME).exit_code == 0
    assert run("export", "--all").stdout == ""
    assert run("check").exit_code == 0


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


def test_control_characters_are_escaped(run: Run, uri: str) -> None:
    add(uri, "eve", "\x1b[2J\nx", state={"k\t": "\x1b]0;title\x07"})
    shown = run("list").stdout + run("show", "\x1b[2J\nx").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J x" in shown
