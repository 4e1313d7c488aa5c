"""MongoDB: ADK's `MongoDbSessionService`, in a database of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from . import Rival

REQUIREMENTS = ["google-adk[mongodb]"]
DIRECT = "directConnection=true"
"""Option of a session URI for a client that stays on the way through a proxy."""


def url(uri: str) -> str:
    """Return the address that PyMongo understands."""
    return urlsplit(uri)._replace(scheme="mongodb", path="/", query=DIRECT).geturl()


def client(uri: str) -> Any:
    """Return a client of the server."""
    from pymongo import AsyncMongoClient

    return AsyncMongoClient(url(uri))


async def version(uri: str) -> str:
    """Return the name and version of the server."""
    async with client(uri) as server:
        info = await server.admin.command("buildInfo")
    return f"{info.get('modules') or 'MongoDB protocol'} {info['version']}"


async def stored_bytes(uri: str) -> int:
    """Return the size of all databases, with their indexes."""
    async with client(uri) as server:
        names = await server.list_database_names()
        stats = [await server[name].command("dbStats") for name in names]
    return int(sum(one["dataSize"] + one.get("indexSize", 0) for one in stats))


async def open_own(uri: str) -> Rival:
    """Use the database `adk-own`."""
    from google.adk.integrations import mongodb

    service = mongodb.MongoDbSessionService(database_name="adk-own", connection_string=url(uri))
    return service, None


RIVALS = {"MongoDbSessionService": open_own}
