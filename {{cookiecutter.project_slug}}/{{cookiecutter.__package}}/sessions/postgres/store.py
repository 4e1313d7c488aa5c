"""Sessions in PostgreSQL: one statement, and so one round trip, for an append and for a read.

An append is one statement that updates the session's row, which no other append to this session can do at
the same time, and only if that matched inserts the event and writes the state. At PostgreSQL's default
isolation a second writer waits for the first and then finds that its revision is no longer the current
one. State is one row for each key: appends wait for each other only where they set the same key, and
write keys in one order, so that no two wait for each other. A read is one statement, and thus one snapshot.

A deleted session is first marked as expired for everybody. After that no event can come in, and what the
session had is removed by a statement that sees all of it; a process that dies in between leaves the rest
to whoever removes what has expired.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Self
from urllib.parse import urlencode

import asyncpg

from typing_extensions import override

from ..errors import ConfigurationError, StoreUnavailable
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
    StoredEvent,
    next_expiry,
)
from ..uri import SessionURI, positive
from .connections import Connections, lost
from .schema import prepare, quoted
from .statements import APP, EVENT, HEAD, OWN, USER, Statements

logger = logging.getLogger(__name__)

DRIVER_OPTIONS = (
    "host",
    "port",
    "dbname",
    "database",
    "user",
    "password",
    "passfile",
    "service",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
    "krbsrvname",
    "gsslib",
    "application_name",
    "options",
)
"""What asyncpg takes from the query of a URI; the last two it hands on to the server."""

PURGE_EVERY = 1.0
"""Seconds between two looks of a process for expired sessions."""
PURGE_BATCH = 20

LARGEST = 500_000_000
"""Bytes that one write may have: PostgreSQL ends at 1 GB, counted in its text form, which is twice as long."""

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)
"""What comes out of asyncpg. Its texts hold no password, and neither do those of PostgreSQL."""

REPLIES = {
    "28P01": "it refuses the credentials; check user and password in the session URI",
    "28000": "it does not let this user in ({}); check the user, its pg_hba.conf and sslmode",
    "3D000": "it has no such database; create it, or check the end of the session URI",
    "42501": "the user lacks a permission ({}); the README says which ones it needs",
    "53100": "its disk is full; make room",
    "53200": "it is out of memory",
    "53300": "it has no connection left; raise its max_connections, or lower ours, or use PgBouncer",
    "25006": "it takes no writes, as a standby does; name the primary, or all hosts",
    "57P03": "it is starting up or shutting down; try again in a moment",
    "57014": "it cancelled the statement, as its statement_timeout or an administrator wants it",
    "3F000": "the tables of sessions are gone; the next call makes them anew",
    "42P01": "the tables of sessions are gone; the next call makes them anew",
    "42703": "the tables of sessions are not those of this version; start the program again",
}
"""What the server answers, by its SQLSTATE, and what to do; {} is its own text."""


class PostgresStore(SessionStore):
    """A `SessionStore` in PostgreSQL. See `from_uri` for its options."""

    def __init__(
        self, connect: Callable[[], Connections], *, location: str, schema: str = "sessions"
    ) -> None:
        self._connections = PerLoop(connect, lambda connections: connections.close())
        self._location = location
        self._schema = schema
        self._statements = Statements(quoted(schema))
        self._ready = False
        self._next_purge = 0.0

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://[user:password@]host[:port][,host[:port]…]/database`.

        Options: `schema` that holds the tables, `max_connections` of one process in one event loop,
        `timeout` of one operation in seconds, `statement_cache_size=0` to keep no statements on the
        server, and those of `DRIVER_OPTIONS`.
        """
        take = uri.options.take
        schema = take("schema", _schema, "sessions")
        timeout = take("timeout", positive, 5.0)
        most = take("max_connections", _at_least_one, 10)
        prepared = take("statement_cache_size", int, 100) != 0
        options = uri.options.take_for_driver(DRIVER_OPTIONS)
        for host in uri.hosts.split(","):
            port = host.rpartition("]")[2].partition(":")[2]
            if port and not port.isdecimal():
                raise ConfigurationError(f"Port {port!r} in the session URI is not a number.")
        if "," in uri.hosts + options.get("host", ""):
            options.setdefault("target_session_attrs", "read-write")
        settings = {
            "dsn": f"postgresql://{uri.hosts}?{urlencode(options)}",
            "user": uri.username,
            "password": uri.password,
            "database": uri.path[1:] or None,
            "timeout": timeout,
            "statement_cache_size": 0,
        }
        hosts = uri.hosts or options.get("host") or options.get("service") or "the default host"
        database = uri.path or f"/{options.get('dbname') or options.get('database') or ''}"
        return cls(
            lambda: Connections(settings, most=most, timeout=timeout, prepared=prepared),
            location=f"{hosts}{database.rstrip('/')}",
            schema=schema,
        )

    @property
    @override
    def location(self) -> str:
        """Hosts and database."""
        return self._location

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        expires_at = next_expiry(None, ttl=ttl, now=now)
        scopes, values = _by_scope(state)
        while True:
            rows = await self._run(
                self._statements.create(scopes),
                *_names(key),
                incarnation,
                now,
                ttl,
                expires_at,
                *values,
            )
            found = _stored(key, rows)
            if found is None:
                continue  # somebody else's creation was committed after our look: look again
            if any(row["kind"] == HEAD and row["id"] is None for row in rows):
                break
            if found.head.expired(now):
                await self._remove(self._statements.bury_expired, *_names(key), now)
            elif found.head.position.incarnation != incarnation:
                raise AlreadyExists
            elif (again := await self.load(key, now=now, limit=0)) is not None:
                return again
        self._purge(now)
        before = found.state
        app, user = {**before.app, **state.app}, {**before.user, **state.user}
        return SessionRecord(found.head, ScopedState(app, user, state.session))

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
        arguments = (*_names(key), now, after_revision, limit, since)
        return _stored(key, await self._run(self._statements.load, *arguments))

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
        scopes, values = _by_scope(state, len(event))
        [row] = await self._run(
            self._statements.append(scopes),
            *_names(key),
            *(expected.incarnation, expected.revision, now, timestamp, event, *values),
        )
        outcome, ttl, expires_at = row
        if outcome is None:
            raise NotFound
        if not outcome:
            raise Stale
        self._purge(now)
        position = Position(expected.incarnation, expected.revision + 1)
        return Head(key, position, timestamp, ttl, expires_at)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        if user_id is None:
            rows = await self._run(self._statements.list_app, app_name.encode(), now)
        else:
            rows = await self._run(
                self._statements.list_user, app_name.encode(), now, user_id.encode()
            )
        app: dict[str, bytes] = {}
        users: dict[bytes, dict[str, bytes]] = {}
        own: dict[int, dict[str, bytes]] = {}
        for row in rows:
            if row["kind"] == APP:
                app[row["key"].decode()] = row["value"]
            elif row["kind"] == USER:
                users.setdefault(row["owner"], {})[row["key"].decode()] = row["value"]
            elif row["kind"] == OWN:
                own.setdefault(row["id"], {})[row["key"].decode()] = row["value"]
        found = []
        for row in rows:
            if row["kind"] == HEAD:
                user = users.get(sha256(row["owner"]).digest(), {})
                key = SessionKey(app_name, row["owner"].decode(), row["key"].decode())
                state = ScopedState(app, user, own.get(row["id"], {}))
                found.append(SessionRecord(_head(key, row), state))
        return found

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._remove(self._statements.bury, *_names(key))

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        rows = await self._run(self._statements.user_state, app_name.encode(), user_id.encode())
        return {row["key"].decode(): row["value"] for row in rows}

    @override
    async def ping(self) -> None:
        # An append to no session and the removal of none need every permission that there is.
        nothing = ScopedState({"": b""}, {"": b""}, {"": b""})
        scopes, values = _by_scope(nothing)
        arguments = (b"", b"", b"", "", -1, 0.0, 0.0, b"", *values)
        await self._run(self._statements.append(scopes), *arguments)
        await self._run(self._statements.clear, [])

    @override
    async def close(self) -> None:
        await self._connections.close()

    async def _run(self, sql: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        with self._translated():
            connections = self._connections.get()
            if not self._ready:
                await prepare(connections, self._schema)
                self._ready = True
            try:
                return await connections.fetch(sql, *arguments)
            except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
                self._ready = False  # somebody has dropped the tables
                raise

    async def _remove(self, bury: str, *arguments: Any) -> int:
        ids = [row["id"] for row in await self._run(bury, *arguments)]
        if ids:
            await self._run(self._statements.clear, sorted(ids))
        return len(ids)

    def _purge(self, now: float) -> None:
        """Have what expired a while ago removed, once in a while and on nobody's time."""
        if time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + PURGE_EVERY
            self._connections.get().spawn(self._purge_once(now))

    async def _purge_once(self, now: float) -> None:
        try:
            if await self._remove(self._statements.bury_some, int(now), PURGE_BATCH) == PURGE_BATCH:
                self._next_purge = 0.0
        except StoreUnavailable as error:
            logger.debug("Expired sessions stay for now: %s", error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what went wrong."""
        try:
            yield
        except FAILURES as error:
            if isinstance(error, ValueError) and not isinstance(error, OSError):
                text = _first_line(error)
                raise ConfigurationError(f"The session URI cannot be used: {text}.") from error
            raise StoreUnavailable(f"PostgreSQL at {self._location}: {_explain(error)}.") from error


def _explain(error: Exception) -> str:
    text = _first_line(error)
    if mend := REPLIES.get(getattr(error, "sqlstate", None) or ""):
        return mend.format(text)
    if isinstance(error, TimeoutError):
        return "it did not answer in time; check that it runs and is not overloaded"
    if "rejected SSL upgrade" in text:
        return "it does not speak TLS; use another sslmode, or turn on ssl on the server"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return f"its certificate is not accepted ({reason}); check the host, and sslrootcert"
    if isinstance(error, FileNotFoundError):
        return "a file or a socket that the session URI names is not there"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "none of the hosts takes writes; check that there is a primary among them"
    if lost(error):
        return f"it cannot be reached ({text}); check that it runs, and host and port in the session URI"
    return text


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _schema(text: str) -> str:
    if not text or "\0" in text or len(text.encode()) > 63:
        raise ValueError("write a name of 1 to 63 bytes")
    return text


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError("write a number above 0")
    return number


def _names(key: SessionKey) -> tuple[bytes, bytes, bytes]:
    return key.app_name.encode(), key.user_id.encode(), key.session_id.encode()


def _by_scope(state: ScopedState, size: int = 0) -> tuple[str, list[list[bytes]]]:
    """Return which scopes have values, and for each of these its keys and its values."""
    scopes, arguments = "", []
    for letter, values in (("s", state.session), ("u", state.user), ("a", state.app)):
        if values:
            scopes += letter
            keys = [key.encode() for key in values]
            arguments += [keys, list(values.values())]
            size += sum(map(len, keys)) + sum(map(len, values.values()))
    if size > LARGEST:
        raise ValueError(
            f"An event of {size / 1e6:.0f} MB with its state is too large for PostgreSQL: keep what is"
            " that large as an artifact."
        )
    return scopes, arguments


def _head(key: SessionKey, row: asyncpg.Record) -> Head:
    position = Position(row["incarnation"], row["revision"])
    return Head(key, position, row["time"], row["ttl"], row["expires_at"])


def _stored(key: SessionKey, rows: Sequence[asyncpg.Record]) -> SessionRecord | None:
    head, first = None, len(rows)
    states: dict[int, dict[str, bytes]] = {APP: {}, USER: {}, OWN: {}}
    for place, row in enumerate(rows):
        kind = row["kind"]
        if kind == EVENT:  # as all that follow
            first = place
            break
        if kind == HEAD:
            head = _head(key, row)
        else:
            states[kind][row["key"].decode()] = row["value"]
    if head is None:
        return None
    log = [_event(row) for row in rows[first:]]
    return SessionRecord(head, ScopedState(states[APP], states[USER], states[OWN]), log)


def _event(row: asyncpg.Record) -> StoredEvent:
    return StoredEvent(row["revision"], row["time"], row["value"])
