"""Sessions in one SQLite file: nothing to install, nothing to run, several processes at once.

The standard library's `sqlite3` runs in threads of this store: one that writes, a few that read. Each
operation is one function and so one hop to a thread and back, where a driver that hands over statement
by statement (aiosqlite) pays for five. WAL mode lets readers and the writer work at the same time.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from ..errors import ConfigurationError, StoreUnavailable
from ..store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    Stale,
    Stored,
    StoredEvent,
    next_expiry,
)
from ..uri import SessionURI, positive

T = TypeVar("T")

APPLICATION_ID = 0x41444B53
"""Marks our files (`ADKS` in ASCII), as https://www.sqlite.org/pragma.html#pragma_application_id has it."""
SCHEMA_VERSION = 1

PURGE_EVERY = 1.0
"""Seconds between two looks of the writer for expired sessions."""
PURGE_GRACE = 300.0
"""Seconds that an expired session is left in the file, in case another process has a slower clock."""
PURGE_BATCH = 100
READERS = 4

SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    app_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    mark TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    ttl INTEGER NOT NULL,
    expires_at REAL,
    UNIQUE (app_name, user_id, session_id)
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE events (
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    timestamp REAL NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (session, revision)
) WITHOUT ROWID;
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

HEAD = "id, app_name, user_id, session_id, mark, revision, updated_at, ttl, expires_at"
FIND = f"SELECT {HEAD} FROM sessions WHERE app_name = ? AND user_id = ? AND session_id = ?"
LIVE = "(expires_at IS NULL OR expires_at > ?)"


class SQLiteStore:
    """A `SessionStore` in a file. See `from_uri` for its options."""

    def __init__(
        self, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 10.0
    ) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._ready = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._connections = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._checked = False
        self._next_purge = 0.0
        self._writer = ThreadPoolExecutor(1, "sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, "sqlite-reader")

    @classmethod
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
    def location(self) -> str:
        """The absolute path of the file."""
        return str(self.path.absolute())

    async def create(
        self, key: SessionKey, *, mark: str, state: ScopedState, now: float, ttl: int
    ) -> Stored:
        return await self._write(self._create, key, mark, state, now, ttl)

    async def load(
        self,
        key: SessionKey,
        *,
        now: float,
        after_revision: int = 0,
        limit: int | None = None,
        since: float | None = None,
    ) -> Stored | None:
        return await self._read(self._load, key, now, after_revision, limit, since)

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

    async def list(self, app_name: str, user_id: str | None, *, now: float) -> Sequence[Stored]:
        return await self._read(self._list, app_name, user_id, now)

    async def delete(self, key: SessionKey) -> None:
        await self._write(self._delete, key)

    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return await self._read(_user_state, app_name, user_id)

    async def ping(self) -> None:
        # A write transaction, because a file that can be read may be on a read-only file system.
        await self._write(lambda _: None)

    async def close(self) -> None:
        writer, readers, opened = self._writer, self._readers, self._opened
        self._reset()  # first, so that a call that comes meanwhile finds threads that take it
        await asyncio.get_running_loop().run_in_executor(None, _close, writer, readers, opened)

    # Each of the following runs in one thread and one transaction.

    def _create(
        self,
        db: sqlite3.Connection,
        key: SessionKey,
        mark: str,
        state: ScopedState,
        now: float,
        ttl: int,
    ) -> Stored:
        found = _find(db, key)
        if found and not found[1].expired(now):
            if found[1].position.mark != mark:
                raise AlreadyExists
            return _stored(db, *found)
        if found:
            db.execute("DELETE FROM sessions WHERE id = ?", (found[0],))
        row = db.execute(
            "INSERT INTO sessions (app_name, user_id, session_id, mark, revision, updated_at, ttl,"
            f" expires_at) VALUES (?, ?, ?, ?, 0, ?, ?, ?) RETURNING {HEAD}",
            (*_names(key), mark, now, ttl, next_expiry(None, ttl=ttl, now=now)),
        ).fetchone()
        rowid, head = _head(row)
        _write_state(db, rowid, key, state)
        self._purge(db, now)
        return _stored(db, rowid, head)

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
            "UPDATE sessions SET revision = revision + 1, updated_at = ?,"
            " expires_at = CASE ttl WHEN 0 THEN NULL ELSE max(expires_at, ? + ttl) END"
            " WHERE app_name = ? AND user_id = ? AND session_id = ? AND mark = ? AND revision = ?"
            f" AND {LIVE} RETURNING {HEAD}",
            (timestamp, now, *_names(key), expected.mark, expected.revision, now),
        ).fetchone()
        if row is None:
            found = _find(db, key)
            raise Stale if found and not found[1].expired(now) else NotFound
        rowid, head = _head(row)
        db.execute(
            "INSERT INTO events (session, revision, timestamp, data) VALUES (?, ?, ?, ?)",
            (rowid, head.position.revision, timestamp, event),
        )
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
    ) -> Stored | None:
        found = _find(db, key)
        if found is None or found[1].expired(now):
            return None
        rowid, head = found
        first = after_revision
        if limit is not None:
            first = max(first, head.position.revision - limit)
        if since is not None:
            older = db.execute(
                "SELECT revision FROM events WHERE session = ? AND revision > ? AND timestamp < ?"
                " ORDER BY revision DESC LIMIT 1",
                (rowid, first, since),
            ).fetchone()
            first = older[0] if older else first
        rows = db.execute(
            "SELECT revision, timestamp, data FROM events WHERE session = ? AND revision > ?"
            " ORDER BY revision",
            (rowid, first),
        )
        return _stored(db, rowid, head, [StoredEvent(*row) for row in rows])

    def _list(
        self, db: sqlite3.Connection, app_name: str, user_id: str | None, now: float
    ) -> Sequence[Stored]:
        where, names = "app_name = ?", [app_name]
        if user_id is not None:
            where, names = f"{where} AND user_id = ?", [app_name, user_id]
        states: dict[int, dict[str, bytes]] = {}
        for session, name, value in db.execute(
            "SELECT session, key, value FROM session_state JOIN sessions ON id = session"
            f" WHERE {where} AND {LIVE}",
            (*names, now),
        ):
            states.setdefault(session, {})[name] = value
        users: dict[str, dict[str, bytes]] = {}
        for user, name, value in db.execute(
            f"SELECT user_id, key, value FROM user_state WHERE {where}", names
        ):
            users.setdefault(user, {})[name] = value
        app = _app_state(db, app_name)
        rows = db.execute(f"SELECT {HEAD} FROM sessions WHERE {where} AND {LIVE}", (*names, now))
        return [
            Stored(head, ScopedState(app, users.get(head.key.user_id, {}), states.get(rowid, {})))
            for rowid, head in map(_head, rows)
        ]

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
            " (SELECT id FROM sessions WHERE expires_at <= ? LIMIT ?)",
            (now - PURGE_GRACE, PURGE_BATCH),
        ).rowcount
        if gone < PURGE_BATCH:
            self._next_purge = time.monotonic() + PURGE_EVERY

    # Connections and transactions.

    async def _write(self, operation: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, self._transact, "BEGIN IMMEDIATE", operation, arguments
        )

    async def _read(self, operation: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._transact, "BEGIN", operation, arguments
        )

    def _transact(self, begin: str, operation: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with self._translated():
            db: sqlite3.Connection | None = getattr(self._connections, "db", None)
            if db is None:
                db = self._connections.db = self._connect()
            db.execute(begin)
            try:
                result = operation(db, *arguments)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

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
            self._opened.append(db)
            if not self._checked:
                self._prepare(db)
                self._checked = True
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
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
            for statement in filter(str.strip, SCHEMA.split(";")):
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


def _close(
    writer: ThreadPoolExecutor, readers: ThreadPoolExecutor, opened: list[sqlite3.Connection]
) -> None:
    """Let the threads finish what they have begun, then close their connections."""
    writer.shutdown()
    readers.shutdown()
    for connection in opened:
        connection.close()


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


def _head(row: Sequence[Any]) -> tuple[int, Head]:
    rowid, app_name, user_id, session_id, mark, revision, updated_at, ttl, expires_at = row
    key = SessionKey(app_name, user_id, session_id)
    return rowid, Head(key, Position(mark, revision), updated_at, ttl, expires_at)


def _find(db: sqlite3.Connection, key: SessionKey) -> tuple[int, Head] | None:
    row = db.execute(FIND, _names(key)).fetchone()
    return _head(row) if row else None


def _stored(
    db: sqlite3.Connection, rowid: int, head: Head, events: Sequence[StoredEvent] = ()
) -> Stored:
    own = db.execute("SELECT key, value FROM session_state WHERE session = ?", (rowid,))
    app = _app_state(db, head.key.app_name)
    user = _user_state(db, head.key.app_name, head.key.user_id)
    return Stored(head, ScopedState(app, user, dict(own.fetchall())), events)


def _app_state(db: sqlite3.Connection, app_name: str) -> dict[str, bytes]:
    return dict(
        db.execute("SELECT key, value FROM app_state WHERE app_name = ?", (app_name,)).fetchall()
    )


def _user_state(db: sqlite3.Connection, app_name: str, user_id: str) -> dict[str, bytes]:
    return dict(
        db.execute(
            "SELECT key, value FROM user_state WHERE app_name = ? AND user_id = ?",
            (app_name, user_id),
        ).fetchall()
    )


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
