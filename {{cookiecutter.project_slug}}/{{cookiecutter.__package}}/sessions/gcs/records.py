"""What the objects of `gcs.py` hold, as JSON; bytes are written as the letters of the same numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store import Head, Position, ScopedState, SessionKey, StoredEvent

DAY = 86_400
FORMAT = 1
"""Of a head. A later one that this cannot be read as gets another number."""

Stamp = tuple[int, int, str]
"""When a value was written: time and generation of the object that brought it, and its name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, with the state that it brings."""

    event: StoredEvent
    expires_at: float | None
    """When the session expires that has this as its last event."""
    state: ScopedState

    def encode(self) -> bytes:
        """Return the content of the event's object."""
        return _dump([_event(self.event), self.expires_at, _scopes(self.state)])

    @classmethod
    def decode(cls, content: bytes) -> "Entry":
        """Return what `encode` was given."""
        event, expires_at, scopes = json.loads(content)
        return cls(_read_event(event), expires_at, _read_scopes(scopes))


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a run of old events is kept together."""

    name: str
    generation: int
    first: int
    last: int
    oldest: float
    """The lowest of the timestamps."""
    keep_until: float | None


@dataclass(frozen=True, slots=True)
class Base:
    """What the head object of a session holds: all that is known as of one revision."""

    head: Head
    state: Mapping[str, bytes]
    """The session's own state as of that revision."""
    shared: ScopedState
    """At revision 0, the state that the creation brought for user and app."""
    segments: Sequence[Segment] = ()
    keep_until: float | None = None
    """From when on the bucket may remove the head or a segment by itself."""

    def encode(self) -> bytes:
        """Return the content of the head object."""
        head, key = self.head, self.head.key
        fields = {
            "format": FORMAT,
            "key": [key.app_name, key.user_id, key.session_id],
            "incarnation": head.position.incarnation,
            "revision": head.position.revision,
            "updated_at": head.updated_at,
            "ttl": head.ttl,
            "expires_at": head.expires_at,
            "state": dict(self.state),
            "shared": _scopes(self.shared),
            "segments": [
                [
                    *(part.name, part.generation),
                    *(part.first, part.last, part.oldest, part.keep_until),
                ]
                for part in self.segments
            ],
            "keep_until": self.keep_until,
        }
        return _dump(fields)

    @classmethod
    def decode(cls, content: bytes) -> "Base":
        """Return what `encode` was given."""
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise ValueError(f"it has format {fields['format']}, which a newer version writes")
        head = Head(
            SessionKey(*fields["key"]),
            Position(fields["incarnation"], fields["revision"]),
            fields["updated_at"],
            fields["ttl"],
            fields["expires_at"],
        )
        segments = [Segment(*part) for part in fields["segments"]]
        state, shared = _read_state(fields["state"]), _read_scopes(fields["shared"])
        return cls(head, state, shared, segments, fields["keep_until"])


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a key of user or app state."""

    key: str
    value: bytes
    stamp: Stamp
    generation: int = field(default=0, compare=False)
    """Of the object that it was read from."""

    def encode(self) -> bytes:
        """Return the content of the key's object."""
        return _dump([self.key, self.value, self.stamp])

    @classmethod
    def decode(cls, content: bytes, generation: int) -> "Value":
        """Return what `encode` was given."""
        key, value, (time, stamped, name) = json.loads(content)
        return cls(key, value.encode("latin-1"), (time, stamped, name), generation)


def encode_events(events: Sequence[StoredEvent]) -> bytes:
    """Return the content of a segment."""
    return _dump([_event(event) for event in events])


def decode_events(content: bytes) -> list[StoredEvent]:
    """Return what `encode_events` was given."""
    return [_read_event(event) for event in json.loads(content)]


def _dump(value: Any) -> bytes:
    return json.dumps(value, default=lambda data: data.decode("latin-1")).encode()


def _event(event: StoredEvent) -> Sequence[Any]:
    return [event.revision, event.timestamp, event.data]


def _read_event(fields: Sequence[Any]) -> StoredEvent:
    revision, timestamp, data = fields
    return StoredEvent(revision, timestamp, data.encode("latin-1"))


def _scopes(state: ScopedState) -> Sequence[Mapping[str, bytes]]:
    return [dict(state.app), dict(state.user), dict(state.session)]


def _read_scopes(scopes: Sequence[Mapping[str, str]]) -> ScopedState:
    app, user, session = map(_read_state, scopes)
    return ScopedState(app, user, session)


def _read_state(state: Mapping[str, str]) -> dict[str, bytes]:
    return {key: value.encode("latin-1") for key, value in state.items()}


def keep_until(head: Head) -> float | None:
    """Return from when on the bucket may remove what is written at this head."""
    return None if head.expires_at is None else head.expires_at + _slack(head)


def fades(until: float | None, head: Head) -> bool:
    """Whether the bucket might remove what was written once, while the session is still live."""
    if until is None or head.expires_at is None:
        return False
    return until < head.expires_at + _slack(head) / 2


def _slack(head: Head) -> float:
    return float(max(head.ttl, DAY))
