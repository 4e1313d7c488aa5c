"""With SESSION_KEYS set, events and state values are encrypted before they reach the store."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from {{ cookiecutter.__package }}.sessions import create_session_service, environment
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    CorruptSession,
)
from {{ cookiecutter.__package }}.sessions.keys import new_key, session_keys
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import (
    ScopedState,
    SessionKey,
    SessionRecord,
)

from ..sessions.support import APP, SESSION, USER, create, event, get, texts, with_options

KEY = SessionKey(APP, USER, SESSION)
STATE = {"own": "secret", "user:name": "secret", "app:motd": "secret"}

Keys = Callable[..., None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Set SESSION_KEYS to these keys. At first there is one."""
    monkeypatch.delenv("SESSION_KEYS_FILE", raising=False)
    monkeypatch.setattr(environment, "dotenv_files", list)

    def use(*keys: str) -> None:
        monkeypatch.setenv("SESSION_KEYS", ",".join(keys))

    use(new_key())
    return use


async def raw(service: PersistentSessionService, key: SessionKey = KEY) -> SessionRecord:
    """Return a session as the database has it."""
    record = await service.store.innermost.load(key, now=0.0)
    assert record
    return record


async def encrypted_session(uri: str) -> None:
    """Store a session with one event, and state in all scopes."""
    async with create_session_service(uri) as service:
        session = await create(service, state=STATE)
        await service.append_event(session, event("secret", user__name="secret"))


@pytest.mark.usefixtures("keys")
async def test_database_gets_no_clear_text(uri: str) -> None:
    await encrypted_session(uri)
    async with create_session_service(uri) as service:
        assert "encrypted with key" in str(service)
        session = await get(service)
        assert (texts(session), session.state) == (["secret"], STATE)
        assert "secret" not in str(await raw(service))
        (listed,) = (await service.list_sessions(app_name=APP)).sessions
        assert listed.state == STATE
        assert await service.get_user_state(app_name=APP, user_id=USER) == {"name": "secret"}


async def test_wrong_and_missing_keys_are_refused_at_the_start(
    uri: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await encrypted_session(uri)
    name = str(session_keys()[0])
    keys(new_key())
    async with create_session_service(uri) as service:
        with pytest.raises(ConfigurationError, match=f"with key {name}, which SESSION_KEYS does"):
            await service.check()
        with pytest.raises(ConfigurationError, match=f"with key {name}, which SESSION_KEYS does"):
            await create(service, "another")
        with pytest.raises(CorruptSession, match=f"encrypted with key {name}, which SESSION_KEYS"):
            await get(service)
    monkeypatch.delenv("SESSION_KEYS")
    async with create_session_service(uri) as service:
        with pytest.raises(ConfigurationError, match=f"with key {name}, and SESSION_KEYS is not"):
            await service.check()
        with pytest.raises(CorruptSession, match=f"encrypted with key {name}, and SESSION_KEYS is"):
            await get(service)
    with pytest.raises(ConfigurationError, match="encryption=required, and SESSION_KEYS is not"):
        create_session_service(with_options(uri, "encryption=required"))


@pytest.mark.usefixtures("keys")
async def test_moved_records_are_refused(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    await encrypted_session(uri)
    async with create_session_service(uri) as service:
        await create(service, "other", user_id="eve", state=STATE)
        mine, theirs = await raw(service), await raw(service, SessionKey(APP, "eve", "other"))
        await put(service, theirs, user=mine.state.user)
        with caplog.at_level(logging.ERROR):
            session = await get(service, "other", user_id="eve")
        assert "user:name" not in session.state
        assert caplog.text.count("moved from another place") == 1
        await put(service, theirs, session=mine.state.session)
        with pytest.raises(CorruptSession, match="moved from another place"):
            await get(service, "other", user_id="eve")
        await put(service, mine, events=[replace(mine.events[0], data=mine.state.session["own"])])
        with pytest.raises(CorruptSession, match="moved from another place"):
            await get(service)


async def put(service: PersistentSessionService, record: SessionRecord, **parts: Any) -> None:
    """Replace events or one scope of the state in the database."""
    events = parts.pop("events", ())
    old = ScopedState(**{scope: getattr(record.state, scope) for scope in parts})
    await service.store.innermost.rewrite(
        replace(record, state=old, events=record.events[: len(events)]),
        replace(record, state=ScopedState(**parts), events=events),
    )


async def test_clear_text_can_be_read_until_it_is_refused(
    uri: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SESSION_KEYS")
    await encrypted_session(uri)
    keys(new_key())
    async with create_session_service(uri) as service:
        await service.append_event(await get(service), event("encrypted"))
        assert texts(await get(service)) == ["secret", "encrypted"]
    async with create_session_service(with_options(uri, "encryption=required")) as service:
        with pytest.raises(
            CorruptSession, match="in clear text, which encryption=required refuses"
        ):
            await get(service)


async def test_rotation_encrypts_everything_anew_while_sessions_are_used(
    uri: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SESSION_KEYS")
    await encrypted_session(uri)
    old, new = new_key(), new_key()
    keys(old)
    async with create_session_service(uri) as service:
        await service.append_event(await get(service), event("old key", more=1))
        await create(service, user_id="gone", state={"user:name": "kept"})
        await service.delete_session(app_name=APP, user_id="gone", session_id=SESSION)
    keys(new, old)
    async with create_session_service(uri) as service:
        session, said = await get(service), ["secret", "old key"]

        async def talk() -> None:
            for number in range(20):
                await service.append_event(session, event(str(number), own=number))
                said.append(str(number))

        rotation = asyncio.to_thread(run, uri, "rotate")
        _, (status, output) = await asyncio.gather(talk(), rotation)
        assert status == 0, output
        assert texts(await get(service)) == said
    keys(new)
    async with create_session_service(with_options(uri, "encryption=required")) as service:
        await service.check()
        session = await get(service)
        assert texts(session) == said
        assert session.state == STATE | {"own": 19, "more": 1}
        assert await service.get_user_state(app_name=APP, user_id="gone") == {"name": "kept"}
    status, output = await asyncio.to_thread(run, uri, "keys")
    assert [line.split("\t")[1:] for line in output.splitlines()[1:]] == [["1", "3", "writes"]]


async def test_keys_that_are_still_needed_are_counted(uri: str, keys: Keys) -> None:
    await encrypted_session(uri)
    old = str(session_keys()[0])
    keys(new_key())
    status, output = await asyncio.to_thread(run, uri, "keys")
    assert (status, output.splitlines()[1:]) == (0, [f"{old}\t1\t2\tnot in SESSION_KEYS"])
    status, output = await asyncio.to_thread(run, uri, "rotate")
    assert status == 1
    assert f"encrypted with key {old}, which SESSION_KEYS does not have" in output


def run(uri: str, command: str, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of a command."""
    result = CliRunner().invoke(sessions, [command, "--app", APP, "--uri", uri])
    return result.exit_code, result.output


def test_keys_come_from_the_environment_or_a_file(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = (CliRunner().invoke(sessions, ["new-key"]).output.strip() for _ in range(2))
    keys(one, two)
    expected = session_keys()
    assert len(expected) == 2
    (tmp_path / "keys").write_text(f"{one}\n{two}\n")
    monkeypatch.setenv("SESSION_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(ConfigurationError, match="either SESSION_KEYS or SESSION_KEYS_FILE"):
        session_keys()
    monkeypatch.delenv("SESSION_KEYS")
    assert session_keys() == expected


@pytest.mark.parametrize("wrong", ["short", "a" * 42, "ä" * 43, "a" * 42 + "!"])
def test_wrong_key_is_refused_without_showing_it(keys: Keys, wrong: str) -> None:
    keys(new_key(), wrong)
    with pytest.raises(ConfigurationError, match="Key 2 of SESSION_KEYS is not 32 bytes") as caught:
        session_keys()
    assert wrong not in str(caught.value)
