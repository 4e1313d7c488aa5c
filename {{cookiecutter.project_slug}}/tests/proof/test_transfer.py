"""Copies from ADK's services, and what erasing leaves."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.codec import encode_state
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.commands.transfer import (
    Content,
    Found,
    Target,
)
from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import ScopedState, SessionKey

from ..sessions.support import ODD_IDS, event

pytestmark = pytest.mark.filterwarnings(
    # ADK's SqliteSessionService leaves a connection to the garbage collection. Python 3.13 and later warn of it.
    "ignore:unclosed database:ResourceWarning",
    "ignore:Exception ignored while finalizing database:pytest.PytestUnraisableExceptionWarning",
)

Run = Callable[..., Result]
Contents = dict[tuple[str, str], Any]
"""Sessions by user and id."""


@pytest.fixture
def run(uri: str) -> Run:
    """Run `sessions copy` to the URI of the test."""

    def run(source: str, *arguments: str) -> Result:
        return CliRunner().invoke(sessions, ["copy", "--from", source, "--to", uri, *arguments])

    return run


async def fill(service: BaseSessionService, sessions: int) -> None:
    """Write sessions with a few events each, and delete the only session of one user."""
    odd = [each for each in ODD_IDS if each and "\x00" not in each and each == each.strip()]
    for number in range(sessions):
        user = odd[number % len(odd)][:100]
        session = await service.create_session(
            app_name=APP_NAME,
            user_id=user,
            session_id=f"{number}",
            state={"n": number, "app:n": number, "user:of": user},
        )
        for turn in range(number % 4):
            said = event(f"{turn}", timestamp=1_700_000_000.25 + turn, n=turn, user__turn=turn)
            await service.append_event(session, said)
    await service.create_session(
        app_name=APP_NAME, user_id="gone", session_id="x", state={"user:name": "Ada"}
    )
    await service.delete_session(app_name=APP_NAME, user_id="gone", session_id="x")


async def read_all(service: BaseSessionService) -> Contents:
    """Return all sessions of the app as JSON data, without what differs between services."""
    found = {}
    for listed in (await service.list_sessions(app_name=APP_NAME)).sessions:
        session = await service.get_session(
            app_name=APP_NAME, user_id=listed.user_id, session_id=listed.id
        )
        assert session is not None
        found[listed.user_id, listed.id] = session.model_dump(mode="json")
    return found


def test_copy_takes_all_that_adk_has(run: Run, uri: str, tmp_path: Path) -> None:
    path = tmp_path / "adk.db"
    source = f"sqlite:///{path}"

    async def write() -> Contents:
        service = SqliteSessionService(str(path))
        await fill(service, 30)
        return await read_all(service)

    async def written() -> tuple[Contents, dict[str, Any]]:
        async with create_session_service(uri) as service:
            gone = await service.get_user_state(app_name=APP_NAME, user_id="gone")
            return await read_all(service), gone

    before = asyncio.run(write())
    result = run(source, "--verify", "--ttl", "0")
    assert result.stderr.endswith("Copied 30 sessions, skipped 0 that were there already.\n")
    after, gone = asyncio.run(written())
    assert after == before
    assert gone == {"name": "Ada"}
    result = run(source, "--ttl", "0")
    assert result.stderr.endswith("Copied 0 sessions, skipped 30 that were there already.\n")


def test_copy_leaves_a_session_that_went_on_as_it_is(run: Run, uri: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'adk.db'}"

    async def write() -> None:
        service = SqliteSessionService(str(tmp_path / "adk.db"))
        session = await service.create_session(app_name=APP_NAME, user_id="u", session_id="s")
        for number in range(3):
            await service.append_event(session, event(f"{number}", n=number))

    async def go_on() -> Contents:
        async with create_session_service(uri) as service:
            session = await service.get_session(app_name=APP_NAME, user_id="u", session_id="s")
            assert session
            for number in range(3, 5):
                await service.append_event(session, event(f"{number}", n=number))
            return await read_all(service)

    async def read() -> Contents:
        async with create_session_service(uri) as service:
            return await read_all(service)

    asyncio.run(write())
    assert run(source).exit_code == 0
    before = asyncio.run(go_on())
    result = run(source, "--verify")
    assert result.stderr.endswith("Copied 0 sessions, skipped 1 that were there already.\n")
    assert asyncio.run(read()) == before


def test_copy_names_what_cannot_be_read_and_takes_the_rest(
    run: Run, uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "adk.db"
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]

    async def write() -> None:
        service = SqliteSessionService(str(path))
        for user in ("damaged", "deep", "sound"):
            state = {"own": user, "user:name": user}
            await service.create_session(
                app_name=APP_NAME, user_id=user, session_id="s", state=state
            )
        await service.create_session(
            app_name=APP_NAME, user_id="deep", session_id="t", state={"user:deep": deep}
        )

    async def read() -> dict[str, Any]:
        async with create_session_service(uri) as service:
            found = (await service.list_sessions(app_name=APP_NAME)).sessions
            return {f"{each.user_id} {each.id}": each.state for each in found}

    asyncio.run(write())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE user_states SET state = '{' WHERE user_id = 'damaged'")
    result = run(f"sqlite:///{path}")
    assert result.exit_code == 1
    assert f"Error: list of sessions of user 'damaged' in app '{APP_NAME}'" in result.stderr
    assert f"Error: state of user 'deep' in app '{APP_NAME}': State key 'deep'" in result.stderr
    assert asyncio.run(read()) == {
        "sound s": {"own": "sound", "user:name": "sound"},
        "deep s": {"own": "deep", "user:name": "deep"},
        "deep t": {"user:name": "deep"},
    }


def test_exported_and_imported_again_nothing_but_the_damaged_is_lost(uri: str) -> None:
    def command(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(sessions, [*arguments, "--uri", uri], **more)

    async def write() -> Contents:
        async with create_session_service(uri) as service:
            for user in ODD_IDS:
                state = {"user:of": user, "app:n": {1, 2}, "own": (1, user)}
                session = await service.create_session(
                    app_name=APP_NAME, user_id=user, session_id=f"of {user}", state=state
                )
                for turn in range(len(user) % 3):
                    await service.append_event(session, event(user, n=turn, user__n=turn))
            await service.create_session(
                app_name=APP_NAME, user_id="gone", session_id="x", state={"user:name": "Ada"}
            )
            await service.delete_session(app_name=APP_NAME, user_id="gone", session_id="x")
            before = await read_all(service)
            damaged = await service.create_session(app_name=APP_NAME, user_id="a", session_id="d")
            await service.store.append(
                damaged.head.key,
                expected=damaged.position,
                event=b"{",
                timestamp=1.0,
                state=ScopedState(),
                now=damaged.last_update_time,
            )
            return before

    before = asyncio.run(write())
    exported = command("export", "--all")
    assert exported.exit_code == 1
    assert exported.stderr.endswith("Error: 1 of the records could not be exported.\n")
    assert command("erase", "--yes", "--app", APP_NAME).exit_code == 0
    assert command("export", "--all").stdout == ""
    assert command("import", "--verify", "-", input=exported.stdout).exit_code == 0

    async def read() -> tuple[Contents, list[str]]:
        async with create_session_service(uri) as service:
            return await read_all(service), [each async for each in service.store.users(APP_NAME)]

    after, users = asyncio.run(read())
    assert after.keys() == before.keys()
    for key, session in before.items():
        if session["events"]:
            assert after[key] == session
        else:
            assert after[key]["state"] == session["state"]
    assert sorted(users) == sorted([*ODD_IDS, "gone"])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("sqlite:///nowhere.db", "There is no file 'nowhere.db'."),
        ("nowhere://host", "unknown scheme 'nowhere'"),
        ("adk+nowhere://host", "adk+redis://"),
    ],
)
def test_source_that_cannot_be_opened_is_named(run: Run, source: str, problem: str) -> None:
    result = run(source)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1


async def test_users_are_named_while_anything_of_them_is_stored(
    service: PersistentSessionService,
) -> None:
    for user in ODD_IDS:
        await service.create_session(
            app_name="app", user_id=user, session_id="1", state={"user:a": 1}
        )
    await service.create_session(app_name="app", user_id="no state", session_id="1")
    await service.create_session(app_name="app/", user_id="of another app", state={"user:a": 1})
    for user in ODD_IDS[::2]:
        await service.delete_session(app_name="app", user_id=user, session_id="1")
    found = [user async for user in service.store.users("app")]
    assert sorted(found) == sorted([*ODD_IDS, "no state"])


async def test_erase_leaves_others_alone(service: PersistentSessionService) -> None:
    for user in ODD_IDS:
        session = await service.create_session(
            app_name="app", user_id=user, session_id="1", state={"user:a": 1, "app:a": 1}
        )
        await service.append_event(session, event(a=1))
    for user in ODD_IDS:
        assert await service.erase(app_name="app", user_id=user) == 1
        assert not await service.store.user_state("app", user)
        left = ODD_IDS[ODD_IDS.index(user) + 1 :]
        found = await service.list_sessions(app_name="app")
        assert sorted(each.user_id for each in found.sessions) == sorted(left)
    assert [user async for user in service.store.users("app")] == []
    assert await service.store.app_state("app")
    await service.erase(app_name="app", user_id=None)
    assert not await service.store.app_state("app")


async def test_verify_reports_state_that_differs(uri: str) -> None:
    """Also if the session has the same events, and its state has the same keys."""
    content = Content(0.0, 0, encode_state({"key": "source"}), [])

    async def read() -> Content:
        return content

    async def records() -> AsyncIterator[Found]:
        yield Found(SessionKey("app", "user", "id"), read)

    async with create_session_service(uri) as service:
        state = {"key": "target"}
        await service.create_session(app_name="app", user_id="user", session_id="id", state=state)
        target = Target(service.store, default_ttl=0, verify=True)
        counts = await target.write(records(), lambda _: None)
    assert (counts.copied, counts.skipped) == (0, 0)
    assert "what was written is not what is there now" in counts.problems[0]
