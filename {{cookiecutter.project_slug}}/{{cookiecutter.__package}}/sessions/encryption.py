"""Encryption of events and state values before they reach the store, with AES-256-GCM.

    01 | id of the key, 4 bytes | nonce, 12 bytes | ciphertext | tag, 16 bytes

What is encrypted is bound to its place: an event to its app, user, session, incarnation and revision, a value to
those that share it and to its state key. The place is a part of the key: HKDF derives one for each place from a key
of SESSION_KEYS. So a record that was changed, swapped or moved cannot be decrypted. AES-GCM allows 2³² random nonces
for a key, and no place is written that often.

A record that cannot be decrypted is handed on as an `Unreadable`, which the codec refuses like any damaged record.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from pydantic_core import to_json
from typing_extensions import override

from .keys import (
    CHECK,
    ENCRYPTED,
    KEY_BYTES,
    RESERVED,
    Key,
    Unreadable,
    name_of_key,
    refuse_wrong_keys,
)
from .store import Head, Position, ScopedState, SessionKey, SessionRecord, SessionStore, StoredEvent
from .wrapper import StoreWrapper

NONCE_BYTES = 12
SLICE = 200
"""Records that are converted in a row, which takes a millisecond or two. Then other tasks run."""
PASSING_TTL = 60
"""Seconds after which the session that has written the check record expires if it could not be deleted."""

Convert = Callable[..., bytes]
"""Takes a record and its place, and returns another record for that place."""


class EncryptedStore(StoreWrapper):
    """A store with encrypted events and state values.

    Args:
        inner: the store that gets what is encrypted.
        keys: all of them decrypt. The first one encrypts.
        required: whether records in clear text are refused.
    """

    def __init__(self, inner: SessionStore, keys: Sequence[Key], *, required: bool = False) -> None:
        super().__init__(inner)
        self._first, self._header = keys[0], keys[0].header
        self._by_header = {key.header: key for key in keys}
        self.required = required
        self._checked = False
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, **more: Any
    ) -> SessionRecord:
        await self.check_keys(now)
        state = convert_state(self.encrypt, key, incarnation, state)
        record = await self.inner.create(key, incarnation=incarnation, state=state, now=now, **more)
        return await convert_record(self.decrypt, record)

    @override
    async def load(self, key: SessionKey, **selection: Any) -> SessionRecord | None:
        record = await self.inner.load(key, **selection)
        return await convert_record(self.decrypt, record) if record else None

    @override
    async def append(
        self,
        key: SessionKey,
        *,
        expected: Position,
        event: bytes,
        state: ScopedState,
        now: float,
        **more: Any,
    ) -> Head:
        await self.check_keys(now)
        place = _place_of_event(key, expected.incarnation, expected.revision + 1)
        event = self.encrypt(event, *place)
        state = convert_state(self.encrypt, key, expected.incarnation, state)
        return await self.inner.append(
            key, expected=expected, event=event, state=state, now=now, **more
        )

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        found: list[SessionRecord] = []
        for record in await self.inner.list(app_name, user_id, now=now):
            found.append(await convert_record(self.decrypt, record))
            if len(found) % SLICE == 0:
                await asyncio.sleep(0)
        return found

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        state = ScopedState(user=await self.inner.user_state(app_name, user_id))
        return convert_state(self.decrypt, SessionKey(app_name, user_id, ""), "", state).user

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        state = ScopedState(app=await self.inner.app_state(app_name))
        return convert_state(self.decrypt, SessionKey(app_name, "", ""), "", state).app

    def encrypt(self, data: bytes, *place: str | int) -> bytes:
        """Return data encrypted for a place with the first key."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self._header + nonce + _cipher(self._first, place).encrypt(nonce, data, None)

    def decrypt(self, data: bytes, *place: str | int) -> bytes:
        """Return the data of a record at a place, or why it cannot be read."""
        header = data[: len(self._header)]
        if header[:1] != ENCRYPTED:
            refusal = b"in clear text, which encryption=required refuses"
            return Unreadable(refusal) if self.required else data
        key = self._by_header.get(header)
        if key is None:
            name = name_of_key(data)
            return Unreadable(
                f"encrypted with key {name}, which SESSION_KEYS does not have".encode()
            )
        nonce, rest = data[len(header) :][:NONCE_BYTES], data[len(header) + NONCE_BYTES :]
        try:
            return _cipher(key, place).decrypt(nonce, rest, None)
        except (InvalidTag, ValueError):
            return Unreadable(b"changed since it was encrypted, or moved from another place")

    def renew(self, data: bytes, *place: str | int) -> bytes:
        """Return a record encrypted with the first key, or as it is if it cannot be read."""
        if data[: len(self._header)] == self._header:
            return data
        clear = self.decrypt(data, *place)
        return data if isinstance(clear, Unreadable) else self.encrypt(clear, *place)

    async def check_keys(self, now: float) -> None:
        """Before the first write, read the check record, and write it anew with the first key.

        Raises:
            ConfigurationError: this process does not have the store's keys.
        """
        if self._checked:
            return
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if self._checked:
                return
            record = (await self.inner.user_state(RESERVED, "")).get(CHECK)
            if record:
                clear = self.decrypt(record, "user", RESERVED, "", CHECK)
                refuse_wrong_keys(self.location, clear)
            if record is None or name_of_key(record) != str(self._first):
                await self._write_check_record(now)
            self._checked = True

    async def _write_check_record(self, now: float) -> None:
        passing = SessionKey(RESERVED, "", secrets.token_hex(8))
        state = convert_state(self.encrypt, passing, "", ScopedState(user={CHECK: b"true"}))
        await self.inner.create(
            passing, incarnation=passing.session_id, state=state, now=now, ttl=PASSING_TTL
        )
        await self.inner.delete(passing)


async def convert_record(convert: Convert, record: SessionRecord) -> SessionRecord:
    """Return a session with its events and its state converted."""
    key, incarnation = record.head.key, record.head.position.incarnation
    events: list[StoredEvent] = []
    for event in record.events:
        place = _place_of_event(key, incarnation, event.revision)
        events.append(StoredEvent(event.revision, event.timestamp, convert(event.data, *place)))
        if len(events) % SLICE == 0:
            await asyncio.sleep(0)
    state = convert_state(convert, key, incarnation, record.state)
    return replace(record, state=state, events=events)


def convert_state(
    convert: Convert, key: SessionKey, incarnation: str, state: ScopedState
) -> ScopedState:
    """Return state with its values converted."""

    def converted(values: Mapping[str, bytes], *scope: str) -> Mapping[str, bytes]:
        return {name: convert(data, *scope, name) for name, data in values.items()}

    return ScopedState(
        converted(state.app, "app", key.app_name),
        converted(state.user, "user", key.app_name, key.user_id),
        converted(state.session, "state", key.app_name, key.user_id, key.session_id, incarnation),
    )


def _place_of_event(key: SessionKey, incarnation: str, revision: int) -> tuple[str | int, ...]:
    return "event", key.app_name, key.user_id, key.session_id, incarnation, revision


def _cipher(key: Key, place: Sequence[str | int]) -> AESGCM:
    """Return the cipher of a place. As JSON, no two places are the same."""
    return AESGCM(HKDFExpand(SHA256(), KEY_BYTES, to_json(place)).derive(key.secret))
