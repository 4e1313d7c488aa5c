"""The contents of objects: JSON, with bytes as Latin-1 letters.

Names of fields are stored. Renaming or removing one changes the format.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..store import Head, Position, ScopedState, SessionKey, StoredEvent

FORMAT = 1
"""The number of the format. Incompatible changes increase it."""
DAY = 86_400

Stamp = tuple[float, int, str]
"""The time at which a value was set: time, generation and name of the object that set it."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event object."""

    event: StoredEvent
    expires_at: float | None
    """When the session expires if this is its last event."""
    state: ScopedState
    """The changes of state."""

    @classmethod
    def decode(cls, content: bytes) -> "EventRecord":
        record = _load(content)
        return cls(_event(record["event"]), record["expires_at"], _scopes(record["state"]))


@dataclass(frozen=True, slots=True)
class Segment:
    """A reference to an object with a run of old events."""

    name: str
    first: int
    last: int
    oldest: float
    """The lowest timestamp of the events."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head object: the session as of the last compaction."""

    head: Head
    state: Mapping[str, bytes]
    """The session's own."""
    shared: ScopedState = field(default_factory=ScopedState)
    """What the creation set for user and app, until the first compaction."""
    segments: Sequence[Segment] = ()
    """The segments, with all events up to this revision."""

    @property
    def revision(self) -> int:
        """Return the revision of this state."""
        return self.head.position.revision

    @classmethod
    def decode(cls, content: bytes) -> "Checkpoint":
        record = _load(content)
        head = record["head"]
        key, position = SessionKey(**head.pop("key")), Position(**head.pop("position"))
        return cls(
            Head(key, position, **head),
            _values(record["state"]),
            _scopes(record["shared"]),
            [Segment(**segment) for segment in record["segments"]],
        )


@dataclass(frozen=True, slots=True)
class SharedValue:
    """A value of app or user state."""

    key: str
    value: bytes
    stamp: Stamp
    user_id: str | None = None
    """The user whose state it is, because the name of the object may have only a hash."""

    @classmethod
    def decode(cls, content: bytes) -> "SharedValue":
        record = _load(content)
        time, generation, name = record["stamp"]
        stamp = (time, generation, name)
        return cls(record["key"], _bytes(record["value"]), stamp, record["user_id"])


def decode_segment(content: bytes) -> list[StoredEvent]:
    """Return the events of a segment."""
    return [_event(event) for event in _load(content)]


def encode(record: EventRecord | Checkpoint | SharedValue | Sequence[StoredEvent]) -> bytes:
    """Return the content of an object."""
    return json.dumps({"format": FORMAT, "record": record}, default=_plain).encode()


def keep_until(head: Head) -> float | None:
    """Return the custom time of new objects: a day after the expiry of the session."""
    return None if head.expires_at is None else head.expires_at + DAY


def _load(content: bytes) -> Any:
    stored = json.loads(content)
    if stored["format"] != FORMAT:
        raise ValueError(f"it has format {stored['format']}, which a newer version writes")
    return stored["record"]


def _plain(value: Any) -> Any:
    """Convert a value to JSON data."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return dict(value)
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _event(record: Mapping[str, Any]) -> StoredEvent:
    return StoredEvent(record["revision"], record["timestamp"], _bytes(record["data"]))


def _scopes(record: Mapping[str, Any]) -> ScopedState:
    return ScopedState(*(_values(record[scope]) for scope in ("app", "user", "session")))


def _values(record: Mapping[str, str]) -> dict[str, bytes]:
    return {key: _bytes(value) for key, value in record.items()}


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
