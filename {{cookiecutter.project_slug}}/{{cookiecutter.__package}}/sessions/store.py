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

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from .uri import SessionURI


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

    incarnation: str
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


@dataclass(frozen=True, slots=True)
class SessionRecord:
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


class SessionStore(ABC):
    """A database of sessions. Every method may raise `StoreUnavailable` of `errors.py`.

    The methods are called from any task and any event loop. A cancelled call may or may not have
    taken effect, but leaves the store usable.
    """

    @classmethod
    @abstractmethod
    def from_uri(cls, uri: "SessionURI") -> Self:
        """Return the store that a URI describes. Nothing is connected before the first call.

        The store takes its options out of `uri.options`.

        Raises:
            ConfigurationError: the URI cannot work.
        """

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the data is, for people: host, port and database, or a file. Never a password."""

    @property
    def innermost(self) -> "SessionStore":
        """The store itself, if this one is wrapped around another."""
        return self

    @abstractmethod
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        """Create a session at revision 0 and merge its state into that of its app and user.

        All or nothing: a refused creation changes no state. If a live session has this very
        `incarnation`, the call was delivered twice, and the session counts as created.

        Raises:
            AlreadyExists: there is a live session under the key.
        """

    @abstractmethod
    async def load(
        self,
        key: SessionKey,
        *,
        now: float,
        after_revision: int = 0,
        limit: int | None = None,
        since: float | None = None,
    ) -> SessionRecord | None:
        """Return a session with all its state and the wanted end of its log, or None.

        Args:
            after_revision: leave out the events up to this one.
            limit: at most this many of the last events; 0 for none.
            since: only the events after the last one that is older than this timestamp.
        """

    @abstractmethod
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

    @abstractmethod
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        """Return the live sessions of a user, or of all users of the app, without events."""

    @abstractmethod
    async def delete(self, key: SessionKey) -> None:
        """Delete a session with its events and its own state. A missing session is no error."""

    @abstractmethod
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        """Return the state that all sessions of the user share."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the database answers and can be used."""

    @abstractmethod
    async def close(self) -> None:
        """Release all connections. The store opens new ones when it is used again."""

    async def missing(self) -> str | None:
        """Say what does not exist yet and the first write would create, or return None.

        Commands that only read call this, so that reading never creates a database.
        """
        return None

    async def prepare(self) -> None:
        """Create what the first session needs. What exists already stays.

        Only a store that does not create it by itself, because it costs money or takes other
        rights, has something to do here.
        """
        return None
