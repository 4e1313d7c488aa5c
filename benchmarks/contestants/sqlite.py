"""SQLite: the two services of ADK's that keep sessions in it, each with a file beside the project's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import Rival
from .database import filling

REQUIREMENTS = ["aiosqlite>=0.21", "sqlalchemy[asyncio]>=2,<3"]


def path(uri: str, name: str = "sessions.db") -> Path:
    """Return a file in the folder of the project's own."""
    return Path(urlsplit(uri).path).with_name(name)


async def version(uri: str) -> str:
    """Return the version of the library."""
    return f"SQLite {sqlite3.sqlite_version}"


async def stored_bytes(uri: str) -> int:
    """Return the size of the project's file."""
    with sqlite3.connect(path(uri)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path(uri).stat().st_size


async def open_sqlite(uri: str) -> Rival:
    """Open the service that ADK's command line uses by default."""
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    file = path(uri, "adk.db")

    async def fill(session: Any, events: Sequence[Any]) -> None:
        name = session.app_name, session.user_id, session.id
        rows = [
            (
                *(one.id, *name, one.invocation_id, one.timestamp),
                one.model_dump_json(exclude_none=True),
            )
            for one in events
        ]
        with sqlite3.connect(file) as db:
            db.executemany(
                "INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp,"
                " event_data) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    return SqliteSessionService(str(file)), fill


async def open_database(uri: str) -> Rival:
    """Open the service that keeps sessions in any database."""
    from google.adk.sessions.database_session_service import DatabaseSessionService

    service = DatabaseSessionService(f"sqlite+aiosqlite:///{path(uri, 'adk-sqlalchemy.db')}")
    return service, filling(service)


RIVALS = {"SqliteSessionService": open_sqlite, "DatabaseSessionService": open_database}
