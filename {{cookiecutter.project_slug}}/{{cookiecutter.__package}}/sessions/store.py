"""The seam: the interface of a store, and the records that cross it.

A store knows one database and nothing of ADK. It sees ids, revisions, timestamps and opaque bytes. The
service above it (`service.py`) knows ADK and no database. Every store follows these rules:

1. The event log is the truth. The revision of a session is the number of its events. An append writes event
   n+1 exactly once, in one atomic step with its state.
2. An append costs the same at event 10 and at event 10,000. State is stored key by key.
3. A writer whose `expected` position is not the head is refused with `Stale`.
4. Ids are data: any string, including the empty one. No id reaches the data of another.
5. Expiry is decided by the given `now`. An expired session does not exist. The store removes it later.
6. A list costs what it returns. Filters run in the database.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .uri import SessionURI


class AlreadyExists(Exception):
    """A live session has this key."""


class NotFound(Exception):
    """No live session has this key."""


class Stale(Exception):
    """Since the writer read the session, it got an event, or was deleted and created again."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The full name of a session. Ids are unique for a user, and users for an app."""

    app_name: str
    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Position:
    """A revision of one incarnation of a session."""

    incarnation: str
    """Random and new for each creation. It distinguishes sessions with the same id."""
    revision: int
    """The number of events of the session."""


@dataclass(frozen=True, slots=True)
class Head:
    """A session without its state and its events. Times are epoch seconds."""

    key: SessionKey
    position: Position
    updated_at: float
    """The timestamp of the last event, or of the creation."""
    ttl: int
    """Seconds that the session lives after its last event. 0 means for ever."""
    expires_at: float | None

    def expired(self, now: float) -> bool:
        """Return whether the session has expired at `now`."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class ScopedState:
    """State by scope. Each value is encoded, and keys have no prefix."""

    app: Mapping[str, bytes] = field(default_factory=dict)
    user: Mapping[str, bytes] = field(default_factory=dict)
    session: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the log. Filters use the timestamp, and `data` is opaque."""

    revision: int
    """1 for the first event of a session."""
    timestamp: float
    data: bytes


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as a store returns it. `events` are in order and without gaps."""

    head: Head
    state: ScopedState
    events: Sequence[StoredEvent] = ()


def next_expiry(expires_at: float | None, *, ttl: int, now: float) -> float | None:
    """Return the new expiry of a session that gets an event at `now`.

    It is never earlier than before, because the clock of the writer may be slow.
    """
    if ttl == 0:
        return None
    return max(expires_at or 0.0, now + ttl)


class SessionStore(ABC):
    """A database of sessions. Every method may raise `StoreUnavailable`.

    Methods are called from any task and any event loop. A cancelled call may or may not have taken effect, but
    leaves the store usable.
    """

    @classmethod
    @abstractmethod
    def from_uri(cls, uri: "SessionURI") -> Self:
        """Return the store of a URI. It connects on first use.

        The store takes its options out of `uri.options`.

        Raises:
            ConfigurationError: the URI cannot work.
        """

    @property
    @abstractmethod
    def location(self) -> str:
        """Host, port and database, or a file, for people. It never has a password."""

    @property
    def innermost(self) -> "SessionStore":
        """The store itself, if this one is wrapped around another."""
        return self

    @abstractmethod
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        """Create a session at revision 0, and merge its state into that of its app and user.

        A refused creation changes nothing. If a live session has this `incarnation`, the call is a repetition
        and succeeds.

        Raises:
            AlreadyExists: another live session has this key.
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
        """Return a session with its state and the selected events, or None.

        Args:
            after_revision: only events after this revision.
            limit: at most this many of the last events. 0 means none.
            since: only events after the last one that is older than this timestamp.
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
        """Write event `expected.revision + 1` with its state, and extend the expiry.

        A refused append changes nothing.

        Raises:
            NotFound: no live session has this key.
            Stale: its position is not the expected one.
        """

    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        """Replace events and state values by those of `new`, which has the same revisions and keys.

        A value or an event is replaced only if it is still the one of `old`, and if it belongs to a session, only
        in the same incarnation. Nothing else changes: no revision, no time, no expiry. The call need not be
        atomic, and may be repeated. Only the rotation of keys (`rotation.py`) needs it.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot replace records: it has no `rewrite`."
        )

    @abstractmethod
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        """Return the live sessions of a user, or of all users of the app, without events."""

    @abstractmethod
    async def delete(self, key: SessionKey) -> None:
        """Delete a session with its events and its own state, if it exists."""

    @abstractmethod
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        """Return the state that all sessions of the user share."""

    @abstractmethod
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        """Return the state that all sessions of the app share."""

    @abstractmethod
    def users(self, app_name: str) -> AsyncIterator[str]:
        """Yield each user with sessions, live or expired, or with state in the app, once and in any order.

        Users are read in pages. Users that come or go meanwhile may be left out.
        """

    @abstractmethod
    async def erase(self, app_name: str, user_id: str | None) -> int:
        """Remove all that is stored of a user, and return the number of sessions.

        These are its sessions, live or expired, with what waits to be cleaned up, its state, and all copies. Without
        a user, only the state of the app is removed. Writes of the user that are under way may survive.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Check that the database can be used."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections. The store can be used again."""

    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        """Take a lease for `ttl` seconds, or extend it. Return False if another holder has it.

        By default a lease is a session without events. Stores override `lease` and `release` if they can do
        this with fewer requests.
        """
        try:
            record = await self.create(
                key, incarnation=holder, state=ScopedState(), now=now, ttl=ttl
            )
            if record.head.updated_at < now:  # the holder has it already
                await self.append(
                    key,
                    expected=record.head.position,
                    event=b"{}",
                    timestamp=now,
                    state=ScopedState(),
                    now=now,
                )
        except (AlreadyExists, NotFound, Stale):
            return False
        return True

    async def release(self, key: SessionKey, *, holder: str) -> None:
        """Give a lease back that has not expired."""
        await self.delete(key)

    async def unlisted(self, app_name: str, user_id: str | None) -> Sequence[str]:
        """Return why sessions of a user, or values of its state or of the app's, are left out of what is read.

        By default nothing is left out. Records that are only damaged inside are returned, and refused by the codec.
        """
        return ()

    async def missing(self) -> str | None:
        """Return what the first write would create, or None if it exists.

        Commands that only read call this, so that they never create a database.
        """
        return None

    async def prepare(self) -> None:
        """Create what the first session needs, if it does not exist.

        The default does nothing. Stores override it if the creation costs money or takes other permissions.
        """
        return None
