"""The seam: what a backend must be able to do, and the records that cross it.

A store knows one database and nothing of ADK. It sees ids, revisions, timestamps and opaque bytes.
The service above it (`service.py`) knows ADK and no database. Rules that every store keeps:

1. The event log is the truth. The revision of a session is the number of its events; an append
   writes event n+1 exactly once, in one atomic step with its state.
2. An append costs the same at event 10 and at event 10,000. State is kept key by key.
3. A writer whose `expected` position is not the head is refused with `Stale`.
4. Ids are data: any string, empty ones too, and no id reaches the data of another.
5. Expiry is decided by the `now` that is passed in: an expired session is not there. The database
   removes it later, by its own means.
6. A list costs what it returns. Filters run in the database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload, runtime_checkable


class AlreadyExists(Exception):
    """There is a live session under that key."""


class NotFound(Exception):
    """There is no live session under that key."""


class Stale(Exception):
    """The session has moved on, or was deleted and created again, since the writer read it."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The full name of a session: ids are only unique below their user, users below their app."""

    app_name: str
    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log of one incarnation of a session."""

    mark: str
    """Random, new with each creation: tells a session from its successor under the same id."""
    revision: int
    """How many events the session has."""


@dataclass(frozen=True, slots=True)
class Head:
    """All that is known of a session beside its state and its events. Times are epoch seconds."""

    key: SessionKey
    position: Position
    updated_at: float
    """The timestamp of the last event, or of the creation."""
    ttl: int
    """Seconds that the session lives after its last event; 0 means for ever."""
    expires_at: float | None

    def expired(self, now: float) -> bool:
        """Whether the session is over for a reader whose clock shows `now`."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class ScopedState:
    """State by scope, encoded value by value; the keys have no prefix."""

    app: Mapping[str, bytes] = field(default_factory=dict)
    user: Mapping[str, bytes] = field(default_factory=dict)
    session: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of the log. The timestamp is there for filters; `data` is opaque."""

    revision: int
    """1 for the first event of a session."""
    timestamp: float
    data: bytes


class StoredLog(Sequence[StoredEvent]):
    """The end of a log as a driver returned it: what becomes an event when it is asked for.

    To make thousands at once would keep other tasks waiting.

    Args:
        records: what the driver returned, an item for each event.
        read: makes the event of an item; its place, from 0, comes first.
    """

    def __init__(self, records: Sequence[Any], read: Callable[[int, Any], StoredEvent]) -> None:
        self._records = records
        self._read = read

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> StoredEvent: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[StoredEvent]: ...
    def __getitem__(self, place: int | slice) -> StoredEvent | Sequence[StoredEvent]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return self._read(range(len(self))[place], self._records[place])


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store gives back of a session. `events` are in order and without gaps."""

    head: Head
    state: ScopedState
    events: Sequence[StoredEvent] = ()


def next_expiry(expires_at: float | None, *, ttl: int, now: float) -> float | None:
    """Return when a session expires that gets an event at `now`.

    Never earlier than before: a writer whose clock is behind must not cut a session short.
    """
    if ttl == 0:
        return None
    return max(expires_at or 0.0, now + ttl)


class SessionStore(Protocol):
    """A database of sessions. Every method may raise `StoreUnavailable` of `errors.py`.

    The methods are called from any task and any event loop. A cancelled call may or may not have
    taken effect, but leaves the store usable.
    """

    @property
    def location(self) -> str:
        """Where the data is, for people: host, port and database, or a file. Never a password."""

    async def create(
        self, key: SessionKey, *, mark: str, state: ScopedState, now: float, ttl: int
    ) -> Stored:
        """Create a session at revision 0 and merge its state into what app and user have.

        All or nothing: a refused creation changes no state. A live session that has this very
        `mark` is the reply to a call that was delivered twice and counts as created.

        Raises:
            AlreadyExists: there is a live session under the key.
        """

    async def load(
        self,
        key: SessionKey,
        *,
        now: float,
        after_revision: int = 0,
        limit: int | None = None,
        since: float | None = None,
    ) -> Stored | None:
        """Return a session with all its state and the wanted end of its log, or None.

        Args:
            after_revision: leave out the events up to this one.
            limit: at most so many of the last events; 0 for none.
            since: only the events behind the last one that is older than this timestamp.
        """

    async def append(
        self,
        key: SessionKey,
        *,
        expected: Position,
        event: bytes,
        timestamp: float,
        state: ScopedState,
        now: float,
    ) -> Head:
        """Write event `expected.revision + 1` with its state and slide the expiry, or do nothing.

        Raises:
            NotFound: there is no live session under the key.
            Stale: its position is not the expected one.
        """

    async def list(self, app_name: str, user_id: str | None, *, now: float) -> Sequence[Stored]:
        """Return the live sessions of a user, or of all users of the app, without events."""

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with its events and its own state; one that is not there is no error."""

    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        """Return the state that all sessions of the user share."""

    async def ping(self) -> None:
        """Return when the database answers and can be used."""

    async def close(self) -> None:
        """Release all connections. The store opens new ones when it is used again."""


@runtime_checkable
class Preparable(Protocol):
    """A store whose database must be told to begin, because it costs money or takes other rights."""

    async def prepare(self) -> None:
        """Create what the first session needs; what is there already stays."""
