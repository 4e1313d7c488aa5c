"""Sessions in memory with a journal on disk: an example to replace by your own store.

All data is in the dictionaries below. Each `Change` of them goes through `_commit`, which applies all of it or
nothing. A change is first written to the journal (`journal.py`), and before each operation the store applies
the changes of other processes. docs/writing-a-store.md explains the methods.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

from typing_extensions import override

from ..errors import ConfigurationError
from ..store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
    Stale,
    StoredEvent,
    next_expiry,
)
from ..uri import SessionURI, positive
from .journal import Change, Journal

T = TypeVar("T")

GRACE = 300.0
"""Seconds that an expired session is kept, because the clock of another process may be slow."""


@dataclass(slots=True)
class Session:
    """A session. Its events are `events[0]` to `events[head.position.revision - 1]`."""

    head: Head
    state: dict[str, bytes] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)


@dataclass(slots=True)
class User:
    """A user of an app: the sessions by id, and the state that they share."""

    sessions: dict[str, Session] = field(default_factory=dict)
    state: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class App:
    """An app: the users by id, and the state that they share."""

    users: dict[str, User] = field(default_factory=dict)
    state: dict[str, bytes] = field(default_factory=dict)


class CustomStore(SessionStore):
    """A `SessionStore` in memory. See `from_uri` for its options."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._apps: dict[str, App] = {}
        self._lock = threading.Lock()

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme:///relative.jsonl`, `scheme:////absolute.jsonl`, or `scheme://` for no file.

        Option: `lock_timeout`, the seconds to wait for another process that uses the file.
        """
        if uri.hosts or uri.username:
            raise ConfigurationError(
                f"The session URI names a host, {uri.hosts!r}, but this store is a file: write"
                f" {uri.scheme}:///relative.jsonl, or {uri.scheme}:// to keep nothing on disk."
            )
        path = Path(uri.path[1:]) if len(uri.path) > 1 else None
        return cls(Journal(path, uri.options.take("lock_timeout", positive, 5.0)))

    @property
    @override
    def location(self) -> str:
        return self._journal.location

    @override
    async def missing(self) -> str | None:
        return None if self._journal.exists else f"The journal {self.location} does not exist"

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        def operation() -> SessionRecord:
            session = self._find(key, now)
            if session is None:
                expires_at = next_expiry(None, ttl=ttl, now=now)
                head = Head(
                    key, Position(incarnation, 0), updated_at=now, ttl=ttl, expires_at=expires_at
                )
                self._commit(Change(key, head, state))
                self._tidy(now)
            elif session.head.position.incarnation != incarnation:
                raise AlreadyExists
            return self._stored(key)

        return await self._alone(operation)

    @override
    async def load(
        self,
        key: SessionKey,
        *,
        now: float,
        after_revision: int = 0,
        limit: int | None = None,
        since: float | None = None,
    ) -> SessionRecord | None:
        def operation() -> SessionRecord | None:
            session = self._find(key, now)
            if session is None:
                return None
            first, last = after_revision, len(session.events)
            if limit is not None:
                first = max(first, last - limit)
            if since is not None:
                while last > first and session.events[last - 1].timestamp >= since:
                    last -= 1
                first = last
            return self._stored(key, session.events[first:])

        return await self._alone(operation)

    @override
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
        def operation() -> Head:
            session = self._find(key, now)
            if session is None:
                raise NotFound
            old = session.head
            if old.position != expected:
                raise Stale
            head = replace(
                old,
                position=Position(expected.incarnation, expected.revision + 1),
                updated_at=timestamp,
                expires_at=next_expiry(old.expires_at, ttl=old.ttl, now=now),
            )
            stored = StoredEvent(head.position.revision, timestamp, event)
            self._commit(Change(key, head, state, stored))
            return head

        return await self._alone(operation)

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        def operation() -> None:
            app = self._apps.get(old.head.key.app_name, App())
            user = self._user(old.head.key.app_name, old.head.key.user_id)
            session = user.sessions.get(old.head.key.session_id)
            scopes = [(app.state, old.state.app, new.state.app)]
            scopes += [(user.state, old.state.user, new.state.user)]
            if session and session.head.position.incarnation == old.head.position.incarnation:
                scopes += [(session.state, old.state.session, new.state.session)]
                changes = dict(zip(old.events, new.events, strict=True))
                session.events = [changes.get(event, event) for event in session.events]
            for values, before, after in scopes:
                values.update({n: after[n] for n, data in before.items() if values.get(n) == data})
            self._journal.rewrite(self._everything())

        await self._alone(operation)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        def operation() -> Sequence[SessionRecord]:
            app = self._apps.get(app_name, App())
            ids = app.users if user_id is None else {user_id} & app.users.keys()
            heads = [session.head for each in ids for session in app.users[each].sessions.values()]
            return [self._stored(head.key) for head in heads if not head.expired(now)]

        return await self._alone(operation)

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._alone(lambda: self._commit(Change(key, None)))

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return await self._alone(lambda: dict(self._user(app_name, user_id).state))

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        return await self._alone(lambda: dict(self._apps.get(app_name, App()).state))

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        def operation() -> Sequence[str]:
            users = self._apps.get(app_name, App()).users
            return [name for name, user in users.items() if user.sessions or user.state]

        for user in await self._alone(operation):
            yield user

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        def operation() -> int:
            app = self._apps.get(app_name, App())
            if user_id is None:
                app.state.clear()
                removed = 0
            else:
                removed = len(app.users.pop(user_id, User()).sessions)
            self._journal.rewrite(self._everything())  # a journal keeps all changes until then
            return removed

        return await self._alone(operation)

    @override
    async def ping(self) -> None:
        await self._alone(lambda: None)

    @override
    async def close(self) -> None:
        """Do nothing: no file is open between two operations."""

    # Each operation runs alone, after all committed changes were applied.

    async def _alone(self, operation: Callable[[], T]) -> T:
        return await asyncio.to_thread(self._run, operation)

    def _run(self, operation: Callable[[], T]) -> T:
        with self._lock, self._journal.locked() as news:
            if news.from_the_start:
                self._apps.clear()
            for change in news.changes:
                self._apply(change)
            return operation()

    def _find(self, key: SessionKey, now: float) -> Session | None:
        session = self._user(key.app_name, key.user_id).sessions.get(key.session_id)
        return None if session is None or session.head.expired(now) else session

    def _user(self, app_name: str, user_id: str) -> User:
        return self._apps.get(app_name, App()).users.get(user_id, User())

    def _stored(self, key: SessionKey, events: Sequence[StoredEvent] = ()) -> SessionRecord:
        """Return a session with copies of its state, because later operations change the original."""
        app = self._apps[key.app_name]
        user = app.users[key.user_id]
        session = user.sessions[key.session_id]
        state = ScopedState(dict(app.state), dict(user.state), dict(session.state))
        return SessionRecord(session.head, state, events)

    def _commit(self, change: Change) -> None:
        """Write a change to the journal, and then apply it."""
        self._journal.write(change)
        self._apply(change)

    def _apply(self, change: Change) -> None:
        key, head = change.key, change.head
        app = self._apps.setdefault(key.app_name, App())
        user = app.users.setdefault(key.user_id, User())
        if head is None:
            user.sessions.pop(key.session_id, None)
        else:
            session = user.sessions.get(key.session_id)
            if session is None or session.head.position.incarnation != head.position.incarnation:
                session = user.sessions[key.session_id] = Session(head)
            session.head = head
            session.state.update(change.state.session)
            session.events.extend(filter(None, [change.event]))
        user.state.update(change.state.user)
        app.state.update(change.state.app)

    def _tidy(self, now: float) -> None:
        """Remove expired sessions and rewrite the journal, once most of its lines are obsolete."""
        if not self._journal.grown:
            return
        for app in self._apps.values():
            for user_id, user in [*app.users.items()]:
                for session_id, session in [*user.sessions.items()]:
                    if session.head.expired(now - GRACE):
                        del user.sessions[session_id]
                if not user.sessions and not user.state:
                    del app.users[user_id]
        self._journal.rewrite(self._everything())

    def _everything(self) -> Iterator[Change]:
        """Yield changes that recreate all data."""
        for app_name, app in self._apps.items():
            yield Change(SessionKey(app_name, "", ""), None, ScopedState(app=app.state))
            for user_id, user in app.users.items():
                yield Change(SessionKey(app_name, user_id, ""), None, ScopedState(user=user.state))
                for session in user.sessions.values():
                    key, head = session.head.key, session.head
                    yield Change(key, head, ScopedState(session=session.state))
                    yield from (Change(key, head, event=event) for event in session.events)
