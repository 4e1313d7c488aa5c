"""Records that cannot be read: cut off, of another type, or written by a version yet to come.

They cost their own session a clear error, and no other session anything. They are put where they are
through the store, which takes bytes as they come.
"""

import json
from contextlib import suppress
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from {{ cookiecutter.__package }}.sessions.codec import (
    decode_event,
    decode_state,
    encode_event,
    encode_state,
)
from {{ cookiecutter.__package }}.sessions.errors import CorruptSession
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession
from {{ cookiecutter.__package }}.sessions.store import ScopedState
from {{ cookiecutter.__package }}.sessions.values import _FROM_TEXT, TAG

from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts

GOOD = encode_event(event(own=b"\xff"), {"own": b"\xff"})
FIELDS = json.loads(GOOD)

EVENTS = {
    "nothing": b"",
    "cut": GOOD[:-20],
    "cut in a letter": '{"author": "é'.encode()[:-1],
    "no text": b"\xff\xfe\x00",
    "no object": b"[]",
    "null": b"null",
    "another type": json.dumps(FIELDS | {"timestamp": "noon"}).encode(),
    "a newer version": json.dumps(FIELDS | {"content": {"parts": [{"smell": "rose"}]}}).encode(),
    "a newer type": GOOD.replace(b'"bytes"', b'"bits"'),
}
VALUES = {
    "nothing": b"",
    "cut": b'{"a": [1, 2',
    "no text": b"\xff\xfe\x00",
    "a newer type": b'{"$type": "bits", "value": 1}',
    "a wrong value": b'{"$type": "datetime", "value": {}}',
    "no value": b'{"$type": "bytes"}',
}


async def poison(
    service: PersistentSessionService, data: bytes, state: ScopedState | None = None
) -> None:
    """Append a bad record to the usual session, behind a good one, and have a second session."""
    session = await create(service)
    await create(service, "second", state={"own": 2})
    await create(service, "third", user_id="other", state={"own": 3})
    await service.append_event(session, event("good", own=1))
    assert isinstance(session, PersistentSession)
    await service.store.append(
        session.head.key,
        expected=session.position,
        event=data,
        timestamp=2.0,
        state=state or ScopedState(),
        now=session.last_update_time,
    )


async def complaint(service: PersistentSessionService, **more: Any) -> str:
    """Return the sentence that reading the poisoned session ends with."""
    with pytest.raises(CorruptSession) as caught:
        await get(service, **more)
    said = str(caught.value)
    assert said.startswith(f"Session {SESSION!r} of user {USER!r} in app {APP!r} is damaged: ")
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("data", EVENTS.values(), ids=EVENTS.keys())
async def test_damaged_event_affects_only_its_session(
    service: PersistentSessionService, data: bytes
) -> None:
    await poison(service, data)
    for _ in range(2):
        assert "event" in await complaint(service)
        assert (await get(service, "second")).state == {"own": 2}
    for user_id, expected in ((USER, {SESSION, "second"}), (None, {SESSION, "second", "third"})):
        listed = (await service.list_sessions(app_name=APP, user_id=user_id)).sessions
        assert {session.id for session in listed} == expected
    await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    again = await create(service)
    await service.append_event(again, event("healed"))
    assert texts(await get(service)) == ["healed"]


@pytest.mark.parametrize("data", VALUES.values(), ids=VALUES.keys())
async def test_damaged_state_value_is_named(service: PersistentSessionService, data: bytes) -> None:
    await poison(service, GOOD, ScopedState(session={"spoiled": data}))
    assert "'spoiled'" in await complaint(service)
    assert (await get(service, "second")).state == {"own": 2}
    listed = (await service.list_sessions(app_name=APP)).sessions
    assert {session.id: session.state for session in listed} == {
        SESSION: {},
        "second": {"own": 2},
        "third": {"own": 3},
    }


@pytest.mark.parametrize("scope", ["user", "app"])
async def test_damaged_shared_value_is_omitted_and_logged(
    service: PersistentSessionService, scope: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It hurts nobody: sessions are read, listed and created without that one value."""
    await poison(service, GOOD, ScopedState(**{scope: {"spoiled": b"{", "good": b"1"}}))
    caplog.clear()
    session = await get(service)
    assert session.state[f"{scope}:good"] == 1
    assert f"{scope}:spoiled" not in session.state
    (logged,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"'{scope}:spoiled'" in logged
    listed = (await service.list_sessions(app_name=APP)).sessions
    assert {session.id for session in listed} == {SESSION, "second", "third"}
    assert await create(service, "new")
    if scope == "user":
        assert (await get(service, "third", user_id="other")).state == {"own": 3}
        assert await service.get_user_state(app_name=APP, user_id=USER) == {"good": 1}


async def test_filtered_out_damage_is_ignored(service: PersistentSessionService) -> None:
    """Only what is returned is read, and so a damaged beginning can be left behind."""
    await poison(service, b"{")
    session = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    await service.append_event(
        next(found for found in session if found.id == SESSION), event("later", timestamp=3.0)
    )
    for config in (GetSessionConfig(num_recent_events=1), GetSessionConfig(after_timestamp=3.0)):
        assert texts(await get(service, config=config)) == ["later"]
    await complaint(service)
    assert await exists(service, "second")


def test_problem_of_a_record_is_reported() -> None:
    with pytest.raises(
        CorruptSession, match=r"state key 'user:a' cannot be read \(EOF while parsing"
    ):
        decode_state({"a": b"{"}, prefix="user:")
    with pytest.raises(CorruptSession, match=r"event cannot be read \(Invalid JSON: EOF"):
        decode_event(b"{")


async def test_unknown_field_is_ignored(service: PersistentSessionService) -> None:
    """ADK's Event ignores fields that it does not know, and what is stored keeps them."""
    await poison(service, json.dumps(FIELDS | {"aFieldOfTomorrow": 1}).encode())
    assert texts(await get(service)) == ["good", "hello"]


SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.builds(
            lambda name, value: {TAG: name, "value": value},
            st.sampled_from([*_FROM_TEXT, "unheard"]) | inner,
            inner,
        )
    ),
    max_leaves=8,
)


class TestArbitraryBytes:
    """Whatever is stored is read as a value or refused as damaged; nothing else ever happens."""

    @staticmethod
    def _read(data: bytes) -> None:
        with suppress(CorruptSession):
            assert isinstance(decode_event(data), Event)

    @staticmethod
    def _read_state(data: bytes) -> None:
        with suppress(CorruptSession):
            assert encode_state(decode_state({"key": data}))

    @given(st.binary())
    def test_any_bytes(self, data: bytes) -> None:
        self._read(data)
        self._read_state(data)

    @given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 5))
    def test_an_event_with_some_bytes_changed(self, at: int, new: bytes, length: int) -> None:
        self._read(GOOD[:at] + new + GOOD[at + length :])

    @given(SOME_JSON)
    def test_any_json(self, value: Any) -> None:
        data = to_json(value, inf_nan_mode="constants")
        self._read_state(data)
        self._read(data)

    @given(st.sampled_from(sorted(FIELDS)), SOME_JSON)
    def test_an_event_with_a_field_of_another_kind(self, name: str, value: Any) -> None:
        self._read(to_json(FIELDS | {name: value}, inf_nan_mode="constants"))

    @given(SOME_JSON)
    def test_an_event_with_any_state(self, value: Any) -> None:
        actions = FIELDS["actions"] | {"stateDelta": {"own": value}}
        self._read(to_json(FIELDS | {"actions": actions}, inf_nan_mode="constants"))
