"""Counts which records need which key, and encrypts records anew with the first one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.adk.platform import time as platform_time

from .encryption import EncryptedStore, convert_record
from .errors import ConfigurationError
from .keys import KEYS_VARIABLE, name_of_key
from .store import ScopedState, SessionKey, SessionRecord, SessionStore

ATTEMPTS = 10
"""Attempts to renew a session that changes meanwhile."""

CLEAR_TEXT = "clear text"


@dataclass(frozen=True, slots=True)
class Survey:
    """How many sessions and shared values need each key, by its name."""

    known: Sequence[str]
    """The keys of this process. The first one encrypts."""
    sessions: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> str:
        """The key that encrypts."""
        return self.known[0] if self.known else CLEAR_TEXT

    @property
    def needed(self) -> set[str]:
        """The keys that a record needs."""
        return self.sessions.keys() | self.values.keys()

    def role(self, name: str) -> str:
        """Return what this process does with a key."""
        if name == self.first:
            return "writes"
        return "reads" if name in (*self.known, CLEAR_TEXT) else f"missing in {KEYS_VARIABLE}"


async def survey(store: SessionStore, app_name: str) -> Survey:
    """Read everything of an app, and count what needs which key."""
    found = Survey(list(map(str, store.keys)) if isinstance(store, EncryptedStore) else [])
    raw = store.inner if isinstance(store, EncryptedStore) else store
    shared: dict[tuple[str | None, str], bytes] = {}
    for listed in await raw.list(app_name, None, now=platform_time.get_time()):
        key = listed.head.key
        record = await raw.load(key, now=platform_time.get_time())
        if record is None:
            continue
        own = [*record.state.session.values(), *(event.data for event in record.events)]
        found.sessions.update({_key_of(data) for data in own})
        shared |= {(None, name): data for name, data in record.state.app.items()}
        shared |= {(key.user_id, name): data for name, data in record.state.user.items()}
    found.values.update(map(_key_of, shared.values()))
    return found


async def encrypt_anew(store: SessionStore, app_name: str) -> None:
    """Encrypt what is not encrypted with the first key. What cannot be read is left as it is.

    Raises:
        ConfigurationError: there are no keys, or the store cannot replace records.
    """
    if not isinstance(store, EncryptedStore):
        raise ConfigurationError(f"{KEYS_VARIABLE} is not set: `sessions new-key` makes a key.")
    for listed in await store.inner.list(app_name, None, now=platform_time.get_time()):
        await _encrypt_session_anew(store, listed.head.key)


async def _encrypt_session_anew(store: EncryptedStore, key: SessionKey) -> None:
    for _ in range(ATTEMPTS):
        old = await store.inner.load(key, now=platform_time.get_time())
        if old is None:
            return
        old, new = _changes(old, await convert_record(store.renew, old))
        if old == new:
            return
        await store.inner.rewrite(old, new)


def _changes(old: SessionRecord, new: SessionRecord) -> tuple[SessionRecord, SessionRecord]:
    """Return both records with only those events and values that differ."""
    events = [pair for pair in zip(old.events, new.events, strict=True) if pair[0] != pair[1]]
    names = {
        scope: [name for name, data in values.items() if data != getattr(new.state, scope)[name]]
        for scope, values in _by_scope(old).items()
    }

    def changed(record: SessionRecord, index: int) -> SessionRecord:
        state = {
            scope: {name: values[name] for name in names[scope]}
            for scope, values in _by_scope(record).items()
        }
        return replace(
            record, state=ScopedState(**state), events=[pair[index] for pair in events]
        )

    return changed(old, 0), changed(new, 1)


def _by_scope(record: SessionRecord) -> dict[str, Mapping[str, bytes]]:
    state = record.state
    return {"app": state.app, "user": state.user, "session": state.session}


def _key_of(data: bytes) -> str:
    return name_of_key(data) or CLEAR_TEXT
