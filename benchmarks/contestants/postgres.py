"""PostgreSQL: one statement, and ADK's `DatabaseSessionService`, each in a database of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import Rival
from .database import filling

REQUIREMENTS = ["sqlalchemy[asyncio]>=2,<3"]
SERVER = {"fsync": "on"}
"""The server of the tests does not wait for the disk; this one does."""

APPEND = """
WITH head AS (
    UPDATE heads SET revision = revision + 1, updated = now() WHERE session = $1 RETURNING revision
)
INSERT INTO events SELECT $1, revision, $2 FROM head
"""


class PostgresFloor:
    """Two tables, and a statement that writes to both."""

    append_is = "one statement: UPDATE of the head and INSERT of the event, synchronous_commit=on"
    round_trip_is = "one SELECT by primary key"

    def __init__(self, pool: Any) -> None:
        """Use a pool of the size that the project uses."""
        self.pool = pool

    async def version(self) -> str:
        return f"PostgreSQL {await self.pool.fetchval('SHOW server_version')}"

    async def put(self, session: str, records: Sequence[bytes]) -> None:
        await self.pool.execute("INSERT INTO heads VALUES ($1, $2)", session, len(records))
        rows = [(session, number, record) for number, record in enumerate(records, 1)]
        await self.pool.executemany("INSERT INTO events VALUES ($1, $2, $3)", rows)

    async def append(self, session: str, record: bytes) -> None:
        await self.pool.execute(APPEND, session, record)

    async def round_trip(self, session: str) -> None:
        await self.pool.fetch("SELECT revision, updated FROM heads WHERE session = $1", session)

    async def read(self, session: str, last: int) -> Sequence[bytes]:
        rows = await self.pool.fetch(
            "SELECT data FROM (SELECT revision, data FROM events WHERE session = $1"
            " ORDER BY revision DESC LIMIT $2) AS newest ORDER BY revision",
            session,
            last,
        )
        return [row[0] for row in rows]

    async def stored_bytes(self) -> int:
        # All databases of the server: the project's among them is the only one that is filled meanwhile.
        return int(
            await self.pool.fetchval("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")
        )

    async def close(self) -> None:
        await self.pool.close()


async def open_floor(uri: str, folder: Path) -> PostgresFloor:
    """Create a database with two tables."""
    import asyncpg

    pool = await asyncpg.create_pool(await own_database(uri, "floor"), min_size=10, max_size=10)
    await pool.execute(
        "CREATE TABLE heads (session text PRIMARY KEY, revision bigint, updated timestamptz);"
        " CREATE TABLE events (session text, revision bigint, data bytea,"
        " PRIMARY KEY (session, revision))"
    )
    return PostgresFloor(pool)


async def open_rivals(uri: str, folder: Path) -> list[Rival]:
    """Open ADK's service as its documentation does."""
    from google.adk.sessions.database_session_service import DatabaseSessionService

    address = (await own_database(uri, "adk")).replace("postgresql:", "postgresql+asyncpg:")
    service = DatabaseSessionService(address)
    return [Rival("DatabaseSessionService", service, filling(service))]


async def own_database(uri: str, name: str) -> str:
    """Create a database on the server and return its address."""
    import asyncpg

    parts = urlsplit(uri)._replace(scheme="postgresql", query="")
    connection = await asyncpg.connect(parts.geturl())
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return parts._replace(path=f"/{name}").geturl()
