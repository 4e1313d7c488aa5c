"""Encrypted records: what was changed or moved is refused, and no text is found where the data is stored."""

import asyncio
import itertools
import logging
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.adk.sessions.session import Session

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.codec import decode_state
from {{ cookiecutter.__package }}.sessions.encryption import EncryptedStore
from {{ cookiecutter.__package }}.sessions.errors import CorruptSession
from {{ cookiecutter.__package }}.sessions.keys import new_key
from {{ cookiecutter.__package }}.sessions.rotation import count_keys, encrypt_anew
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import serve
from ..sessions.support import APP, USER, create, event, get, texts
from .figures import Figure, repetitions

Place = tuple[str | int, ...]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set SESSION_KEYS, unless the tests were started with keys."""
    if not os.environ.get("SESSION_KEYS"):
        monkeypatch.setenv("SESSION_KEYS", new_key())


@pytest.fixture
def store(service: PersistentSessionService) -> EncryptedStore:
    """The encryption of a service."""
    assert isinstance(service.store, EncryptedStore)
    return service.store


def places() -> Iterator[Place]:
    """Yield places that a careless encoding could confuse."""
    ids = ("", "a", "a/b", '","', '"', "\x00", "ä", "1")
    for app, user, other in itertools.product(ids[:4], ids[:4], ids):
        yield "app", app + user, other
        yield "user", app, user, other
        yield "state", app, user, other, "incarnation", "1"
        yield "event", app, user, other, "incarnation", 1
        yield "event", app, user, "session", other, 1


def refused(store: EncryptedStore, data: bytes, *place: str | int) -> bool:
    """Return whether a record is refused at a place."""
    try:
        decode_state({"value": store.decrypt(data, *place)})
    except CorruptSession:
        return True
    return False


def test_moved_records_are_refused(store: EncryptedStore, figure: Figure) -> None:
    records = {place: store.encrypt(b"1", *place) for place in places()}
    assert not any(refused(store, data, *place) for place, data in records.items())
    moves = list(itertools.permutations(list(records)[:150], 2))
    assert all(refused(store, records[origin], *target) for origin, target in moves)
    figure("moves", len(moves))


def test_changed_records_are_refused(store: EncryptedStore, figure: Figure) -> None:
    changes = 0
    for place in itertools.islice(places(), 20):
        data = store.encrypt(b'"text"', *place)
        whole = int.from_bytes(data)
        flipped = [(whole ^ 1 << bit).to_bytes(len(data)) for bit in range(8 * len(data))]
        cut = [data[:length] for length in range(len(data))]
        for changed in (*flipped, *cut, data + b"\x00"):
            assert refused(store, changed, *place), changed
            changes += 1
    figure("changes", changes)


async def test_exchanged_records_of_a_database_are_refused(
    service: PersistentSessionService, store: EncryptedStore, caplog: pytest.LogCaptureFixture
) -> None:
    session = await create(service, state={"a": 1, "b": 2, "user:a": 1, "user:b": 2})
    for number in range(4):
        await service.append_event(session, event(str(number)))
    old = await store.innermost.load(session.head.key, now=0.0)  # type: ignore[attr-defined]
    assert old
    # The same incarnation, with two events, two values and two shared values exchanged.
    one, two = old.events[0], old.events[2]
    events = [replace(one, data=two.data), replace(two, data=one.data)]
    await store.innermost.rewrite(replace(old, events=[one, two]), replace(old, events=events))
    await service.close()
    with pytest.raises(CorruptSession, match="event cannot be read"):
        await get(service)
    user = dict(zip(old.state.user, reversed([*old.state.user.values()]), strict=True))
    swapped = replace(old, events=(), state=replace(old.state, user=user))
    await store.innermost.rewrite(replace(old, events=()), swapped)
    with caplog.at_level(logging.ERROR):
        assert await service.get_user_state(app_name=APP, user_id=USER) == {}
    assert caplog.text.count("moved from another place") == 2


async def test_rotations_during_turns_lose_and_refuse_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    keys, services, rotations = [new_key() for _ in range(3)], [], 0
    for first in range(3):
        monkeypatch.setenv("SESSION_KEYS", " ".join(keys[first:] + keys[:first]))
        services.append(create_session_service(uri))

    async def talk(number: int) -> Session:
        service = services[number % 3]
        session = await create(service, str(number), user_id=f"user {number % 2}")
        for turn in range(repetitions(400, 60)):
            state: dict[str, Any] = {"own": turn, f"user__{number}": turn, f"app__{number}": turn}
            await service.append_event(session, event(str(turn), **state))
        return session

    async def rotate() -> None:
        nonlocal rotations
        while not talks.done():
            await encrypt_anew(services[rotations % 3].store, APP)
            rotations += 1

    talks = asyncio.gather(*map(talk, range(4)))
    await asyncio.gather(talks, rotate())
    await encrypt_anew(services[0].store, APP)
    last = [turns[-1] for turns in map(texts, talks.result())]
    monkeypatch.setenv("SESSION_KEYS", keys[0])
    async with create_session_service(uri) as service:
        assert len(await count_keys(service.store, APP)) == 1
        for number, session in enumerate(talks.result()):
            stored = await get(service, session.id, user_id=session.user_id)
            assert texts(stored) == texts(session)
            assert stored.state["own"] == session.state["own"]
            for scope in ("user", "app"):
                assert stored.state[f"{scope}:{number}"] == int(last[number] or "")
    for each in services:
        await each.close()
    figure("rotations", rotations)


async def test_no_text_is_found_where_the_data_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear, encrypted = secrets.token_hex(8), secrets.token_hex(8)
    with serve(tmp_path) as uri:
        await write(uri, encrypted)
        monkeypatch.delenv("SESSION_KEYS")
        await write(uri, clear)
    stored = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for data in list(stored):
        with suppress(zlib.error):  # objects of Cloud Storage are compressed
            stored.append(zlib.decompress(data))
    assert any(clear.encode() in data for data in stored)
    assert not any(encrypted.encode() in data for data in stored)


async def write(uri: str, mark: str) -> None:
    """Store a mark in an event and in state of all scopes, and read it, which may copy it."""
    async with create_session_service(uri) as service:
        state = {"own": mark, "user:own": mark, "app:own": mark}
        session = await create(service, mark[:4], user_id=mark[4:], app_name=mark[2:6], state=state)
        for number in range(20):
            text = f"{mark} {number} {secrets.token_hex(4_000)}"  # too long for metadata of objects
            await service.append_event(session, event(text, own=mark))
        await get(service, mark[:4], user_id=mark[4:], app_name=mark[2:6])
        innermost = service.store.innermost
        for client in (innermost, getattr(getattr(innermost, "_copies", None), "_redis", None)):
            if call := getattr(client, "call", None):
                await call("CONFIG", "SET", "rdbcompression", "no")
                await call("SAVE")
