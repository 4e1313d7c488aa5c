"""Sessions in one SQLite file, for several processes on one machine.

The standard library's `sqlite3` runs in threads (`database.py`). Each operation is one function and takes one
hop to a thread and back. A driver with a hop for each statement (aiosqlite) takes five. With WAL mode, readers
and the writer work at the same time.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from ..environment import PROJECT
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
from .database import Database

PURGE_EVERY = 1.0
"""Seconds between two purges of expired sessions."""
PURGE_GRACE = 300.0
"""Seconds that an expired session stays in the file, because the clock of another process may be slow."""
PURGE_BATCH = 100
USERS_PAGE = 1_000

HEAD = "id, incarnation, revision, updated_at, ttl, expires_at"
NAMED = "app_name = ?1 AND user_id = ?2 AND session_id = ?3"
LIVE = "(expires_at IS NULL OR expires_at > ?4)"
SESSION, OWN, USER, APP = range(4)
"""The kinds of rows of `FIND`."""
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


USERS = """
SELECT user_id FROM sessions WHERE app_name = ?1 AND user_id {after} ?2
UNION SELECT user_id FROM user_state WHERE app_name = ?1 AND user_id {after} ?2 ORDER BY user_id LIMIT ?3
"""


class SQLiteStore(SessionStore):
    """A `SessionStore` in a file. See `from_uri` for its options."""

    def __init__(
        self, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 10.0
    ) -> None:
        self.path = path
        self._database = Database(path, synchronous=synchronous, busy_timeout=busy_timeout)
        self._next_purge = 0.0

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme:///relative.db`, relative to the project, or `scheme:////absolute.db`.

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
        if uri.path == "/:memory:":
            raise ConfigurationError(
                "SQLite's :memory: would be lost with the process: name a file, or use memory:// of ADK."
            )
        return cls(
            PROJECT / uri.path[1:],
            synchronous=uri.options.take("synchronous", _synchronous, "FULL"),
            busy_timeout=uri.options.take("busy_timeout", positive, 10.0),
        )

    @property
    @override
    def location(self) -> str:
        """The absolute path of the file."""
        return str(self.path)

    @override
    async def missing(self) -> str | None:
        # Unlike `Path.exists`, this takes a name that is too long for one that does not exist.
        exists = await asyncio.to_thread(os.path.exists, self.path)
        return None if exists else f"SQLite file {self.path} does not exist"

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        return await self._database.write(self._create, key, incarnation, state, now, ttl)

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
        return await self._database.read(self._load, key, now, after_revision, limit, since)

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
        return await self._database.write(self._append, key, expected, event, timestamp, state, now)

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        await self._database.write(self._rewrite, old, new)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        return await self._database.read(self._list, app_name, user_id, now)

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._database.write(self._delete, key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return await self._database.read(
            lambda db: dict(
                db.execute(
                    "SELECT key, value FROM user_state WHERE app_name = ? AND user_id = ?",
                    (app_name, user_id),
                ).fetchall()
            )
        )

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        return await self._database.read(
            lambda db: dict(
                db.execute(
                    "SELECT key, value FROM app_state WHERE app_name = ?", (app_name,)
                ).fetchall()
            )
        )

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        last, after = "", ">="
        while True:
            arguments = USERS.format(after=after), (app_name, last, USERS_PAGE)
            rows = await self._database.read(
                lambda db, *args: db.execute(*args).fetchall(), *arguments
            )
            for (user,) in rows:
                yield user
            if len(rows) < USERS_PAGE:
                return
            last, after = rows[-1][0], ">"

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        removed = await self._database.write(self._erase, app_name, user_id)
        await self._database.truncate_log()
        return removed

    @override
    async def ping(self) -> None:
        # A write transaction, because the file system may be read-only.
        await self._database.write(lambda _: None)

    @override
    async def close(self) -> None:
        await self._database.close()

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
            "INSERT INTO events (id, timestamp, data) VALUES (?, ?, ?)",
            ((rowid << 32) + head.position.revision, timestamp, event),
        )
        if head.expires_at is not None and head.expires_at > purge_at:
            later = _purge_at(head.expires_at, head.ttl)
            db.execute("UPDATE sessions SET purge_at = ? WHERE id = ?", (later, rowid))
        _write_state(db, rowid, key, state)
        self._purge(db, now)
        return head

    def _rewrite(self, db: sqlite3.Connection, old: SessionRecord, new: SessionRecord) -> None:
        names, incarnation = _names(old.head.key), old.head.position.incarnation
        found = db.execute(
            f"SELECT id FROM sessions WHERE {NAMED} AND incarnation = ?4", (*names, incarnation)
        ).fetchone()
        rowid = found[0] if found else -1
        pairs = zip(old.events, new.events, strict=True)
        db.executemany(
            "UPDATE events SET data = ? WHERE id = ? AND data = ?",
            [(after.data, (rowid << 32) + before.revision, before.data) for before, after in pairs],
        )
        scopes = [
            ("app_state", "app_name = ?", names[:1], old.state.app, new.state.app),
            (
                "user_state",
                "app_name = ? AND user_id = ?",
                names[:2],
                old.state.user,
                new.state.user,
            ),
            ("session_state", "session = ?", (rowid,), old.state.session, new.state.session),
        ]
        for table, where, scope, before, after in scopes:
            db.executemany(
                f"UPDATE {table} SET value = ? WHERE {where} AND key = ? AND value = ?",
                [(after[name], *scope, name, before[name]) for name in before],
            )

    def _load(
        self,
        db: sqlite3.Connection,
        key: SessionKey,
        now: float,
        after_revision: int,
        limit: int | None,
        since: float | None,
    ) -> SessionRecord | None:
        """Read head and state in one statement and the events in another, of the same moment.

        In two transactions, another session could get the row id of one that is deleted in between.
        """
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
                "SELECT id FROM events WHERE id BETWEEN ? AND ? AND timestamp < ?"
                " ORDER BY id DESC LIMIT 1",
                (base + first + 1, base + last, since),
            ).fetchone()
            first = older[0] - base if older else first
        if first >= last:
            return found
        rows = db.execute(
            "SELECT id - ?, timestamp, data FROM events WHERE id BETWEEN ? AND ? ORDER BY id",
            (base, base + first + 1, base + last),
        )
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

    def _erase(self, db: sqlite3.Connection, app_name: str, user_id: str | None) -> int:
        if user_id is None:
            db.execute("DELETE FROM app_state WHERE app_name = ?", (app_name,))
            return 0
        named = "app_name = ? AND user_id = ?", (app_name, user_id)
        db.execute(f"DELETE FROM user_state WHERE {named[0]}", named[1])
        return db.execute(f"DELETE FROM sessions WHERE {named[0]}", named[1]).rowcount

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        """Remove some sessions that expired a while ago, as a part of another write."""
        if time.monotonic() < self._next_purge:
            return
        gone = db.execute(
            "DELETE FROM sessions WHERE id IN"
            " (SELECT id FROM sessions WHERE purge_at <= ? LIMIT ?)",
            (min(now, time.time()) - PURGE_GRACE, PURGE_BATCH),
        ).rowcount
        if gone < PURGE_BATCH:
            self._next_purge = time.monotonic() + PURGE_EVERY


def _synchronous(text: str) -> str:
    if text.upper() not in {"FULL", "NORMAL"}:
        raise ValueError("write FULL or NORMAL")
    return text.upper()


def _names(key: SessionKey) -> tuple[str, str, str]:
    return key.app_name, key.user_id, key.session_id


def _purge_at(expires_at: float | None, ttl: int) -> float | None:
    return None if expires_at is None else expires_at + min(ttl, 3600)


def _head(key: SessionKey, row: Sequence[Any]) -> tuple[int, Head]:
    rowid, incarnation, revision, updated_at, ttl, expires_at = row
    return rowid, Head(key, Position(incarnation, revision), updated_at, ttl, expires_at)


def _find(db: sqlite3.Connection, key: SessionKey) -> tuple[int, SessionRecord]:
    """Return the row of a session, expired or not, and its state, in one statement."""
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
            names = "?, " * len(scope)
            db.executemany(
                f"INSERT OR REPLACE INTO {table} VALUES ({names}?, ?)",
                [(*scope, *item) for item in values.items()],
            )
