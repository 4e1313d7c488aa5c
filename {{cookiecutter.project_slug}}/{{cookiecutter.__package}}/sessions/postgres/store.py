"""Sessions in PostgreSQL. An append is one statement and one round trip, and so is a read.

An append updates the row of the session if incarnation and revision match, and only then inserts the event and
writes the state. A second writer waits for the first, and then its revision no longer matches. State is one row
for each key: appends wait for each other only if they set the same key, and they write keys in one order, which
prevents deadlocks. A read is one statement and therefore one snapshot.

Foreign keys delete events and state together with their session. Any process that writes also deletes, in the
background, sessions that expired some minutes ago.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import asyncpg
from typing_extensions import override

from ..per_loop import PerLoop
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
    next_expiry,
)
from ..uri import SessionURI
from . import statements as sql
from .connections import Connections
from .errors import FAILURES, TABLES_MISSING, translated
from .options import PostgresOptions, postgres_options
from .records import names, session_records, state_arguments
from .schema import prepare, read_version

CLEAN_EVERY = 1.0
"""Seconds between two purges of expired sessions by a process."""
CLEAN_BATCH = 20
"""Expired sessions that are removed in one statement."""
REWRITE_BATCH = 500
"""Events that are replaced in one statement."""

USERS_PAGE = 1_000


class PostgresStore(SessionStore):
    """A `SessionStore` in PostgreSQL. See `from_uri` for its options."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._connections = PerLoop(lambda: Connections(options), Connections.close)
        self._has_tables = False
        self._next_cleaning = 0.0

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://[user:password@]host[:port][,host[:port]…]/database`.

        Options: `schema` of the tables, `max_connections` in one event loop, `timeout` of an operation in
        seconds, `statement_cache_size=0` to prepare no statements, and those of `DRIVER_OPTIONS`.
        """
        return cls(postgres_options(uri))

    @property
    @override
    def location(self) -> str:
        """Hosts and database."""
        return self._options.location

    @override
    async def missing(self) -> str | None:
        connections = self._connections.get()
        try:
            version = await connections.finish(read_version(connections))
        except FAILURES as error:
            raise translated(error, self.location) from error
        schema = self._options.schema
        return None if version else f"Schema {schema!r} of {self.location} has no tables"

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        expires_at = next_expiry(None, ttl=ttl, now=now)
        arguments = (*names(key), incarnation, now, ttl, expires_at, *state_arguments(state))
        while True:
            rows = await self._fetch(sql.CREATE, *arguments)
            if not (found := session_records(key.app_name, rows)):
                continue  # another creation was committed after the snapshot
            [record] = found
            if any(row["kind"] == sql.SESSION and row["session_number"] is None for row in rows):
                self._clean()
                return replace(record, state=_merged(record.state, state))
            if record.head.expired(now):
                await self._fetch(sql.DELETE, *names(key), now)
            elif record.head.position.incarnation != incarnation:
                raise AlreadyExists
            else:
                return record

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
        arguments = (*names(key), now, after_revision, limit, since)
        rows = await self._fetch(sql.LOAD, *arguments)
        return next(iter(session_records(key.app_name, rows)), None)

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
        position = (expected.incarnation, expected.revision)
        arguments = (*names(key), *position, timestamp, event, now)
        changes = state_arguments(state, event)
        if any(changes):
            rows = await self._fetch(sql.APPEND_WITH_STATE, *arguments, *changes)
        else:
            rows = await self._fetch(sql.APPEND, *arguments)
        [(written, ttl, expires_at)] = rows
        if written is None:
            raise NotFound
        if not written:
            raise Stale
        self._clean()
        head = Position(expected.incarnation, expected.revision + 1)
        return Head(key, head, timestamp, ttl, expires_at)

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        ids = names(old.head.key)
        session = (*ids, old.head.position.incarnation)
        for start in range(0, len(old.events), REWRITE_BATCH):
            before, after = (each.events[start : start + REWRITE_BATCH] for each in (old, new))
            columns = (
                [e.revision for e in before],
                [e.data for e in before],
                [e.data for e in after],
            )
            await self._fetch(sql.REPLACE_EVENTS, *session, *columns)
        for statement, owner, values, others in zip(
            sql.REPLACE_STATE,
            (ids[:1], ids[:2], session),
            (old.state.app, old.state.user, old.state.session),
            (new.state.app, new.state.user, new.state.session),
            strict=True,
        ):
            for name, value in values.items():
                await self._fetch(statement, *owner, name.encode(), value, others[name])

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        if user_id is None:
            rows = await self._fetch(sql.LIST_APP, app_name.encode(), now)
        else:
            rows = await self._fetch(sql.LIST_USER, app_name.encode(), user_id.encode(), now)
        return session_records(app_name, rows)

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._fetch(sql.DELETE, *names(key), None)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        rows = await self._fetch(sql.READ_USER_STATE, app_name.encode(), user_id.encode())
        return {row["key"].decode(): row["value"] for row in rows}

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        rows = await self._fetch(sql.READ_APP_STATE, app_name.encode())
        return {row["key"].decode(): row["value"] for row in rows}

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        last = b""
        while rows := await self._fetch(sql.READ_USERS, app_name.encode(), last, USERS_PAGE):
            for row in rows:
                yield row["user_id"].decode()
            last = rows[-1]["digest"]

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        if user_id is None:
            await self._fetch(sql.ERASE_APP_STATE, app_name.encode())
            return 0
        [(removed,)] = await self._fetch(sql.ERASE_USER, app_name.encode(), user_id.encode())
        return int(removed)

    @override
    async def ping(self) -> None:
        # An append to no session and a deletion of none need all permissions.
        session, no_state = names(SessionKey("", "", "")), state_arguments(ScopedState())
        await self._fetch(sql.APPEND_WITH_STATE, *session, "", -1, 0.0, b"", 0.0, *no_state)
        await self._fetch(sql.DELETE, *session, 0.0)

    @override
    async def close(self) -> None:
        await self._connections.close()

    async def _fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """Run a statement that is safe to repeat. The first call creates the tables.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached, refuses the call, or did not answer in time.
            ConfigurationError: the session URI or the schema cannot be used.
            ValueError: PostgreSQL cannot store one of the arguments.
        """
        connections = self._connections.get()
        try:
            if not self._has_tables:
                await connections.finish(prepare(connections))
                self._has_tables = True
            return await connections.fetch(
                sql.in_schema(statement, self._options.schema), *arguments
            )
        except FAILURES as error:
            if isinstance(error, TABLES_MISSING):
                self._has_tables = False
            raise translated(error, self.location) from error

    def _clean(self) -> None:
        """Start a purge of expired sessions in the background from time to time."""
        if time.monotonic() >= self._next_cleaning:
            self._next_cleaning = time.monotonic() + CLEAN_EVERY
            self._connections.get().spawn(self._delete_removable())

    async def _delete_removable(self) -> None:
        if len(await self._fetch(sql.DELETE_REMOVABLE, CLEAN_BATCH)) == CLEAN_BATCH:
            self._next_cleaning = 0.0  # there may be more


def _merged(before: ScopedState, state: ScopedState) -> ScopedState:
    app, user = {**before.app, **state.app}, {**before.user, **state.user}
    return ScopedState(app, user, state.session)
