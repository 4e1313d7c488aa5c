"""Counts which records need which key, and encrypts records anew with the first one."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from google.adk.platform import time as platform_time

from .encryption import EncryptedStore, convert_record
from .errors import ConfigurationError
from .keys import CLEAR_TEXT, KEYS_VARIABLE, name_of_key
from .store import Head, Position, ScopedState, SessionKey, SessionRecord, SessionStore

PASSES = 10
"""Passes over all records. The second one finds those that were changed by others during the first."""


async def count_keys(store: SessionStore, app_name: str) -> dict[str, tuple[int, int]]:
    """Return how many sessions of an app, and shared values, need each key, by its name."""
    raw = store.inner if isinstance(store, EncryptedStore) else store
    sessions: Counter[str] = Counter()
    values: Counter[str] = Counter()
    async for record in _stored(raw, app_name):
        own = [*record.state.session.values(), *(event.data for event in record.events)]
        sessions.update({name_of_key(data) or CLEAR_TEXT for data in own})
        shared = [*record.state.app.values(), *record.state.user.values()]
        values.update(name_of_key(data) or CLEAR_TEXT for data in shared)
    return {name: (sessions[name], values[name]) for name in sessions.keys() | values.keys()}


async def encrypt_anew(store: SessionStore, app_name: str) -> None:
    """Encrypt what is not encrypted with the first key. What cannot be read is left as it is.

    Raises:
        ConfigurationError: there are no keys, or wrong ones, or the store cannot replace records.
    """
    if not isinstance(store, EncryptedStore):
        raise ConfigurationError(f"{KEYS_VARIABLE} is not set: `sessions new-key` makes a key.")
    await store.check_keys(platform_time.get_time())
    for _ in range(PASSES):
        changed = False
        async for record in _stored(store.inner, app_name):
            old, new = _differences(record, await convert_record(store.renew, record))
            if old != new:
                await store.inner.rewrite(old, new)
                changed = True
        if not changed:
            return


async def _stored(store: SessionStore, app_name: str) -> AsyncIterator[SessionRecord]:
    """Yield all that is stored of an app: its state, and user by user their state and their sessions."""

    def shared(user_id: str, state: ScopedState) -> SessionRecord:
        key = SessionKey(app_name, user_id, "")
        return SessionRecord(Head(key, Position("", 0), 0.0, 0, None), state)

    yield shared("", ScopedState(app=await store.app_state(app_name)))
    async for user_id in store.users(app_name):
        yield shared(user_id, ScopedState(user=await store.user_state(app_name, user_id)))
        for listed in await store.list(app_name, user_id, now=platform_time.get_time()):
            record = await store.load(listed.head.key, now=platform_time.get_time())
            if record is not None:
                yield replace(record, state=ScopedState(session=record.state.session))


def _differences(old: SessionRecord, new: SessionRecord) -> tuple[SessionRecord, SessionRecord]:
    """Return both records with only those events and values that differ."""
    pairs = [pair for pair in zip(old.events, new.events, strict=True) if pair[0] != pair[1]]

    def without(state: ScopedState, other: ScopedState) -> ScopedState:
        def changed(values: Mapping[str, bytes], others: Mapping[str, bytes]) -> dict[str, bytes]:
            return {name: data for name, data in values.items() if data != others[name]}

        return ScopedState(
            changed(state.app, other.app),
            changed(state.user, other.user),
            changed(state.session, other.session),
        )

    return (
        replace(old, state=without(old.state, new.state), events=[pair[0] for pair in pairs]),
        replace(new, state=without(new.state, old.state), events=[pair[1] for pair in pairs]),
    )
