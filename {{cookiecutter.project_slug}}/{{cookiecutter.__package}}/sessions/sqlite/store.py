"""Sessions in one SQLite file: nothing to install, nothing to run, several processes at once.

The standard library's `sqlite3` runs in threads of this store: one that writes, a few that read. Each
operation is one function and so one hop to a thread and back, where a driver that hands over statement
by statement (aiosqlite) pays for five. WAL mode lets readers and the writer work at the same time.

A commit waits for the disk. What else is to be written meanwhile waits, and is then committed together,
so that many sessions that are written at once share the wait.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from typing_extensions import override

from ..errors import ConfigurationError, StoreUnavailable
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
from .threads import Threads, Write

T = TypeVar("T")

APPLICATION_ID = 0x41444B53
"""Marks our files (`ADKS` in ASCII), as https://www.sqlite.org/pragma.html#pragma_application_id has it."""
SCHEMA_VERSION = 1

PURGE_EVERY = 1.0
"""Seconds between two looks of the writer for expired sessions."""
PURGE_GRACE = 300.0
"""Seconds that an expired session is left in the file, in case another process has a slower clock."""
PURGE_BATCH = 100
MOST_AT_ONCE = 64
"""Writes that are committed together at most."""

SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    app_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    ttl INTEGER NOT NULL,
    expires_at REAL,
    purge_at REAL,
    UNIQUE (app_name, user_id, session_id)
);

CREATE INDEX sessions_to_purge ON sessions (purge_at) WHERE purge_at IS NOT NULL;

CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    timestamp REAL NOT NULL,
    data BLOB NOT NULL
);

CREATE TRIGGER events_of_deleted AFTER DELETE ON sessions BEGIN
    DELETE FROM events WHERE place BETWEEN old.id << 32 AND (old.id + 1 << 32) - 1;
END;

CREATE TABLE session_state (
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (session, key)
) WITHOUT ROWID;

CREATE TABLE user_state (
    app_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app_name, user_id, key)
) WITHOUT ROWID;

CREATE TABLE app_state (
    app_name TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app_name, key)
) WITHOUT ROWID;
"""

# An event's place is its session's id × 2³² + its revision: one B-tree holds all logs, each in a row, and
# an append touches one page of it. A session is due for a purge (`purge_at`) for up to an hour longer
# than it lives, so that this index is written once in a while and not by every append.

HEAD = "id, incarnation, revision, updated_at, ttl, expires_at"
NAMED = "app_name = ?1 AND user_id = ?2 AND session_id = ?3"
LIVE = "(expires_at IS NULL OR expires_at > ?4)"
SESSION, OWN, USER, APP = range(4)
"""What a row of `FIND` is about."""
FIND = f"""
SELECT {SESSION}, {HEAD} FROM sessions WHERE {NAMED}
UNION ALL SELECT {OWN}, key, value, 0, 0, 0, 0 FROM session_state
    WHERE session = (SELECT id FROM sessions WHERE {NAMED})
UNION ALL SELECT {USER}, key, value, 0, 0, 0, 0 FROM user_state WHERE app_name = ?1 AND user_id = ?2
UNION ALL SELECT {APP}, key, value, 0, 0, 0, 0 FROM app_state WHERE app_name = ?1
"""
ADVANCE = f"""
UPDATE sessions SET revision = revision + 1, updated_at = ?6,
    expires_at = CASE ttl WHEN 0 THEN NULL ELSE max(expires_at, ?4 + ttl) END
WHERE {NAMED} AND {LIVE} AND incarnation = ?5 AND revision = ?7 RETURNING {HEAD}, purge_at
"""


class SQLiteStore(SessionStore):
    """A `SessionStore` in a file. See `from_uri` for its options."""

    def __init__(
        self, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 10.0
    ) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._ready = threading.Lock()
        self._checked = False
        self._next_purge = 0.0
        self._threads = Threads()

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme:///relative.db` or `scheme:////absolute.db`.

        Options: `synchronous=FULL|NORMAL` (an acknowledged event survives a power cut, or only a
        crash of the process) and `busy_timeout` (seconds to wait for another process's write).
        """
        if uri.hosts or uri.username:
            raise ConfigurationError(
                f"The session URI names a host, {uri.hosts!r}, but SQLite is a file: write"
                f" {uri.scheme}:///relative.db or {uri.scheme}:////absolute.db."
            )
        if len(uri.path) < 2 or uri.path.endswith("/"):
            raise ConfigurationError(
                f"The session URI names no file: write {uri.scheme}:///relative.db or"
                f" {uri.scheme}:////absolute.db."
            )
        return cls(
            Path(uri.path[1:]),
            synchronous=uri.options.take("synchronous", _synchronous, "FULL"),
            busy_timeout=uri.options.take("busy_timeout", positive, 10.0),
        )

    @property
    @override
    def location(self) -> str:
        """The absolute path of the file."""
        return str(self.path.absolute())

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        return await self._write(self._create, key, incarnation, state, now, ttl)

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
        return await self._read(self._load, key, now, after_revision, limit, since)

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
        return await self._write(self._append, key, expected, event, timestamp, state, now)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        return await self._read(self._list, app_name, user_id, now)

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._write(self._delete, key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return await self._read(
            lambda db: dict(
                db.execute(
                    "SELECT key, value FROM user_state WHERE app_name = ? AND user_id = ?",
                    (app_name, user_id),
                ).fetchall()
            )
        )

    @override
    async def ping(self) -> None:
        # A write transaction, because a file that can be read may be on a read-only file system.
        await self._write(lambda _: None)

    @override
    async def close(self) -> None:
        # Whoever comes from now on gets new threads; what has begun is finished by the old ones.
        threads, self._threads, self._checked = self._threads, Threads(), False
        await asyncio.get_running_loop().run_in_executor(None, threads.close)

    # Each of the following runs in one thread. Those that write run in a transaction, possibly with others:
    # before they raise what the seam names, they must not have written anything.

    def _create(
        self,
        db: sqlite3.Connection,
        key: SessionKey,
        incarnation: str,
        state: ScopedState,
        now: float,
        ttl: int,
    ) -> SessionRecord:
        with suppress(NotFound):
            rowid, found = _find(db, key)
            if not found.head.expired(now):
                if found.head.position.incarnation != incarnation:
                    raise AlreadyExists
                return found
            db.execute("DELETE FROM sessions WHERE id = ?", (rowid,))
        expires_at = next_expiry(None, ttl=ttl, now=now)
        (rowid,) = db.execute(
            "INSERT INTO sessions (app_name, user_id, session_id, incarnation, revision, updated_at, ttl,"
            " expires_at, purge_at) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?) RETURNING id",
            (*_names(key), incarnation, now, ttl, expires_at, _purge_at(expires_at, ttl)),
        ).fetchone()
        _write_state(db, rowid, key, state)
        self._purge(db, now)
        return _find(db, key)[1]

    def _append(
        self,
        db: sqlite3.Connection,
        key: SessionKey,
        expected: Position,
        event: bytes,
        timestamp: float,
        state: ScopedState,
        now: float,
    ) -> Head:
        row = db.execute(
            ADVANCE, (*_names(key), now, expected.incarnation, timestamp, expected.revision)
        ).fetchone()
        if row is None:
            _, found = _find(db, key)
            raise NotFound if found.head.expired(now) else Stale
        (rowid, head), purge_at = _head(key, row[:-1]), row[-1]
        db.execute(
            "INSERT INTO events (place, timestamp, data) VALUES (?, ?, ?)",
            ((rowid << 32) + head.position.revision, timestamp, event),
        )
        if head.expires_at is not None and head.expires_at > purge_at:
            later = _purge_at(head.expires_at, head.ttl)
            db.execute("UPDATE sessions SET purge_at = ? WHERE id = ?", (later, rowid))
        _write_state(db, rowid, key, state)
        self._purge(db, now)
        return head

    def _load(
        self,
        db: sqlite3.Connection,
        key: SessionKey,
        now: float,
        after_revision: int,
        limit: int | None,
        since: float | None,
    ) -> SessionRecord | None:
        """Read head and state in one statement, and then the events up to that revision.

        Events never change, so both together are what one moment would show. Only if the session is
        deleted in between, events are missing; then all is read again, in one transaction.
        """
        for again in (False, True):
            if again:
                db.execute("BEGIN")
            try:
                rowid, found = _find(db, key)
            except NotFound:
                return None
            if found.head.expired(now):
                return None
            base, last = rowid << 32, found.head.position.revision
            first = after_revision if limit is None else max(after_revision, last - limit)
            if since is not None and first < last:
                older = db.execute(
                    "SELECT place FROM events WHERE place BETWEEN ? AND ? AND timestamp < ?"
                    " ORDER BY place DESC LIMIT 1",
                    (base + first + 1, base + last, since),
                ).fetchone()
                first = older[0] - base if older else first
            if first >= last:
                return found
            rows = db.execute(
                "SELECT place - ?, timestamp, data FROM events WHERE place BETWEEN ? AND ?"
                " ORDER BY place",
                (base, base + first + 1, base + last),
            ).fetchall()
            if len(rows) == last - first:
                break
        return replace(found, events=[StoredEvent(*row) for row in rows])

    def _list(
        self, db: sqlite3.Connection, app_name: str, user_id: str | None, now: float
    ) -> Sequence[SessionRecord]:
        where, names = ("app_name = ?", [app_name])
        if user_id is not None:
            where, names = f"{where} AND user_id = ?", [app_name, user_id]
        db.execute("BEGIN")
        states: dict[int, dict[str, bytes]] = {}
        for session, name, value in db.execute(
            "SELECT session, key, value FROM session_state JOIN sessions ON id = session"
            f" WHERE {where}",
            names,
        ):
            states.setdefault(session, {})[name] = value
        users: dict[str, dict[str, bytes]] = {}
        for user, name, value in db.execute(
            f"SELECT user_id, key, value FROM user_state WHERE {where}", names
        ):
            users.setdefault(user, {})[name] = value
        app = dict(
            db.execute(
                "SELECT key, value FROM app_state WHERE app_name = ?", (app_name,)
            ).fetchall()
        )
        rows = db.execute(
            f"SELECT user_id, session_id, {HEAD} FROM sessions WHERE {where}"
            " AND (expires_at IS NULL OR expires_at > ?)",
            (*names, now),
        ).fetchall()
        db.execute("COMMIT")
        found = []
        for user, session_id, *fields in rows:
            rowid, head = _head(SessionKey(app_name, user, session_id), fields)
            found.append(
                SessionRecord(head, ScopedState(app, users.get(user, {}), states.get(rowid, {})))
            )
        return found

    def _delete(self, db: sqlite3.Connection, key: SessionKey) -> None:
        db.execute(
            "DELETE FROM sessions WHERE app_name = ? AND user_id = ? AND session_id = ?",
            _names(key),
        )

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        """Remove some of what expired a while ago, on the back of a write that happens anyway."""
        if time.monotonic() < self._next_purge:
            return
        gone = db.execute(
            "DELETE FROM sessions WHERE id IN"
            " (SELECT id FROM sessions WHERE purge_at <= ? LIMIT ?)",
            (now - PURGE_GRACE, PURGE_BATCH),
        ).rowcount
        if gone < PURGE_BATCH:
            self._next_purge = time.monotonic() + PURGE_EVERY

    # Connections and transactions.

    async def _write(self, operation: Callable[..., T], *arguments: Any) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threads = self._threads
        threads.waiting.append(Write(operation, arguments, future))
        threads.writer.submit(self._write_all, threads)
        return await future

    def _write_all(self, threads: Threads) -> None:
        """Commit all that waits; who comes when it has been done finds nothing left to do."""
        writes: list[Write] = []
        with suppress(IndexError):
            while len(writes) < MOST_AT_ONCE:
                writes.append(threads.waiting.popleft())
        if not writes:
            return
        try:
            results: Sequence[Any] = self._commit(threads, writes)
        except StoreUnavailable as error:
            results = [error] * len(writes)
        except BaseException:
            # One of them went wrong and took the others along: each on its own, then.
            results = [self._commit_alone(threads, write) for write in writes]
        for write, result in zip(writes, results, strict=True):
            write.settle(result)

    def _commit_alone(self, threads: Threads, write: Write) -> Any:
        try:
            return self._commit(threads, [write])[0]
        except BaseException as error:
            return error

    def _commit(self, threads: Threads, writes: Sequence[Write]) -> Sequence[Any]:
        """Run operations in one transaction; what the seam names is a result like any other."""
        with self._translated():
            db = self._connection(threads)
            db.execute("BEGIN IMMEDIATE")
            try:
                results = []
                for write in writes:
                    try:
                        results.append(write.operation(db, *write.arguments))
                    except (AlreadyExists, NotFound, Stale) as refusal:
                        results.append(refusal)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return results

    async def _read(self, operation: Callable[..., T], *arguments: Any) -> T:
        threads = self._threads
        return await threads.readers.run(self._query, threads, operation, arguments)

    def _query(
        self, threads: Threads, operation: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        with self._translated():
            db = self._connection(threads)
            try:
                return operation(db, *arguments)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _connection(self, threads: Threads) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(threads.own, "db", None)
        if db is None:
            db = threads.own.db = self._connect()
            threads.opened.append(db)
        return db

    def _connect(self) -> sqlite3.Connection:
        with self._ready:
            if not self._checked:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _refuse_foreign_file(self.path)
            db = sqlite3.connect(
                self.path,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if not self._checked:
                    self._prepare(db)
                    self._checked = True
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA synchronous = {self._synchronous}")
            except BaseException:
                db.close()
                raise
            return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Create the schema, in whichever of several processes comes first."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                # Not covered by the busy timeout while another process does the same.
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            for statement in SCHEMA.split("\n\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what SQLite and the file system say in codes."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "locked" in text or "busy" in text:
                mend = (
                    f"another process has been writing for more than {self._busy_timeout:g} seconds;"
                    " raise busy_timeout or look for a process that hangs"
                )
            elif "full" in text:
                mend = "the disk is full; make room"
            elif "readonly" in text or "unable to open" in text:
                mend = "it cannot be written; check the permissions of the file and of its folder"
            else:
                mend = text
            raise StoreUnavailable(f"SQLite file {self.location}: {mend}.") from error
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(
                f"SQLite file {self.location} is damaged ({error}); restore it from a backup."
            ) from error
        except OSError as error:
            raise StoreUnavailable(
                f"SQLite file {self.location} cannot be used: {error.strerror or error}."
            ) from error


def _synchronous(text: str) -> str:
    if text.upper() not in {"FULL", "NORMAL"}:
        raise ValueError("write FULL or NORMAL")
    return text.upper()


def _refuse_foreign_file(path: Path) -> None:
    """Raise unless the file is new, empty, or ours; it is opened for reading only."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise ConfigurationError(f"{path.absolute()} is not a SQLite file: name another one.")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("PRAGMA busy_timeout = 10000")
        application_id = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if application_id != APPLICATION_ID and tables:
        owner = (
            "ADK's own session service"
            if {"sessions", "events", "app_states", "user_states"} <= tables
            else "another program"
        )
        raise ConfigurationError(f"{path.absolute()} is a database of {owner}: name another file.")
    if application_id == APPLICATION_ID and version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path.absolute()} was written by a newer version of this program (schema {version},"
            f" this one knows {SCHEMA_VERSION}): upgrade the program or name another file."
        )


def _names(key: SessionKey) -> tuple[str, str, str]:
    return key.app_name, key.user_id, key.session_id


def _purge_at(expires_at: float | None, ttl: int) -> float | None:
    return None if expires_at is None else expires_at + min(ttl, 3600)


def _head(key: SessionKey, row: Sequence[Any]) -> tuple[int, Head]:
    rowid, incarnation, revision, updated_at, ttl, expires_at = row
    return rowid, Head(key, Position(incarnation, revision), updated_at, ttl, expires_at)


def _find(db: sqlite3.Connection, key: SessionKey) -> tuple[int, SessionRecord]:
    """Return the row of a session, expired or not, and its state: one statement, one moment."""
    rowid, head = 0, None
    state: dict[int, dict[str, bytes]] = {OWN: {}, USER: {}, APP: {}}
    for what, *row in db.execute(FIND, _names(key)):
        if what == SESSION:
            rowid, head = _head(key, row)
        else:
            state[what][row[0]] = row[1]
    if head is None:
        raise NotFound
    return rowid, SessionRecord(head, ScopedState(state[APP], state[USER], state[OWN]))


def _write_state(db: sqlite3.Connection, rowid: int, key: SessionKey, state: ScopedState) -> None:
    for table, scope, values in (
        ("app_state", (key.app_name,), state.app),
        ("user_state", (key.app_name, key.user_id), state.user),
        ("session_state", (rowid,), state.session),
    ):
        if values:
            places = "?, " * len(scope)
            db.executemany(
                f"INSERT OR REPLACE INTO {table} VALUES ({places}?, ?)",
                [(*scope, *item) for item in values.items()],
            )
