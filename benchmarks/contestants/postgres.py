"""PostgreSQL: ADK's `DatabaseSessionService`, in a database of its own."""

from __future__ import annotations

from urllib.parse import urlsplit

from . import Rival
from .database import filling

REQUIREMENTS = ["sqlalchemy[asyncio]>=2,<3"]
SERVER = {"fsync": "on"}
"""The server of the tests does not wait for the disk; this one does."""


def url(uri: str, database: str) -> str:
    """Return the address that PostgreSQL's drivers understand."""
    return urlsplit(uri)._replace(scheme="postgresql", path=f"/{database}", query="").geturl()


async def fetch(uri: str, *statements: str) -> str:
    """Run statements and return the value of the last."""
    import asyncpg

    connection = await asyncpg.connect(url(uri, "postgres"))
    try:
        values = [await connection.fetchval(statement) for statement in statements]
    finally:
        await connection.close()
    return str(values[-1])


async def version(uri: str) -> str:
    """Return the name and version of the server."""
    return f"PostgreSQL {await fetch(uri, 'SHOW server_version')}"


async def stored_bytes(uri: str) -> int:
    """Return the size of all databases: only the project's is filled meanwhile."""
    return int(await fetch(uri, "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"))


async def open_own(uri: str) -> Rival:
    """Open ADK's service as its documentation does, on an empty database."""
    from google.adk.sessions.database_session_service import DatabaseSessionService

    await fetch(uri, "DROP DATABASE IF EXISTS adk", "CREATE DATABASE adk")
    service = DatabaseSessionService(url(uri, "adk").replace("postgresql:", "postgresql+asyncpg:"))
    return service, filling(service)


RIVALS = {"DatabaseSessionService": open_own}
