"""SQLite: one transaction in WAL mode, and two services of ADK's. Each has a file of its own in one folder."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import Rival
from .database import filling

REQUIREMENTS = ["aiosqlite>=0.21", "sqlalchemy[asyncio]>=2,<3"]


class SQLiteFloor:
    """A table in a file. Appends are made in this thread, since that is the least one can do."""

    append_is = "one INSERT, committed in WAL mode with synchronous=FULL, without a thread"
    round_trip_is = "one SELECT in a thread and back, since it must not block the event loop"

    def __init__(self, path: Path) -> None:
        """Open the file as the project does."""
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE heads (session TEXT PRIMARY KEY, revision) WITHOUT ROWID")
        self.db.execute(
            "CREATE TABLE events (session TEXT, revision INTEGER, data BLOB,"
            " PRIMARY KEY (session, revision)) WITHOUT ROWID"
        )
        self.revisions: dict[str, int] = {}
        self.thread = ThreadPoolExecutor(1)

    async def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    async def put(self, session: str, records: Sequence[bytes]) -> None:
        self.db.execute("BEGIN")
        self.db.execute("INSERT INTO heads VALUES (?, ?)", (session, len(records)))
        self.db.executemany(
            "INSERT INTO events VALUES (?, ?, ?)",
            [(session, number, record) for number, record in enumerate(records, 1)],
        )
        self.db.execute("COMMIT")
        self.revisions[session] = len(records)

    async def append(self, session: str, record: bytes) -> None:
        self.revisions[session] += 1
        row = (session, self.revisions[session], record)
        self.db.execute("INSERT INTO events VALUES (?, ?, ?)", row)

    async def round_trip(self, session: str) -> None:
        await self._in_thread("SELECT * FROM heads WHERE session = ?", session)

    async def read(self, session: str, last: int) -> Sequence[bytes]:
        rows = await self._in_thread(
            "SELECT data FROM events WHERE session = ? AND revision > ? ORDER BY revision",
            *(session, self.revisions[session] - last),
        )
        return [row[0] for row in rows]

    async def _in_thread(self, statement: str, *values: object) -> list[Any]:
        def run() -> list[Any]:
            return self.db.execute(statement, values).fetchall()

        return await asyncio.get_running_loop().run_in_executor(self.thread, run)

    async def stored_bytes(self) -> int:
        # The project's own file, which is beside this one.
        with sqlite3.connect(self.path.with_name("sessions.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.path.with_name("sessions.db").stat().st_size

    async def close(self) -> None:
        self.thread.shutdown()
        self.db.close()


async def open_floor(uri: str, folder: Path) -> SQLiteFloor:
    """Open a new file."""
    return SQLiteFloor(folder / "floor.db")


async def open_rivals(uri: str, folder: Path) -> list[Rival]:
    """Open both services of ADK's that keep sessions in SQLite."""
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    path = folder / "adk.db"
    database = DatabaseSessionService(f"sqlite+aiosqlite:///{folder / 'adk-sqlalchemy.db'}")

    async def fill(session: Any, events: Sequence[Any]) -> None:
        name = session.app_name, session.user_id, session.id
        with sqlite3.connect(path) as db:
            db.executemany(
                "INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp,"
                " event_data) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(one.id, *name, one.invocation_id, one.timestamp),
                        one.model_dump_json(exclude_none=True),
                    )
                    for one in events
                ],
            )

    return [
        Rival("SqliteSessionService", SqliteSessionService(str(path)), fill),
        Rival("DatabaseSessionService", database, filling(database)),
    ]
