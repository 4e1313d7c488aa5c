"""MongoDB: one bulk write, and ADK's `MongoDbSessionService`, in databases of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import Rival

REQUIREMENTS = ["google-adk[mongodb]"]


class MongoDBFloor:
    """A document for each event: its `_id` is the session and the number."""

    append_is = "one insert_one of the event"
    round_trip_is = "one find_one by _id"

    def __init__(self, url: str) -> None:
        """Connect with PyMongo's asynchronous client."""
        from pymongo import AsyncMongoClient

        self.client: Any = AsyncMongoClient(url)
        self.events = self.client["floor"]["events"]
        self.revisions: dict[str, int] = {}

    async def version(self) -> str:
        info = await self.client.admin.command("buildInfo")
        return f"{info.get('modules') or 'MongoDB protocol'} {info['version']}"

    async def put(self, session: str, records: Sequence[bytes]) -> None:
        self.revisions[session] = 0
        rows = [self._row(session, record) for record in records]
        for start in range(0, len(rows), 1000):
            await self.events.insert_many(rows[start : start + 1000])

    def _row(self, session: str, record: bytes) -> dict[str, Any]:
        self.revisions[session] += 1
        return {"_id": {"s": session, "n": self.revisions[session]}, "data": record}

    async def append(self, session: str, record: bytes) -> None:
        await self.events.insert_one(self._row(session, record))

    async def round_trip(self, session: str) -> None:
        await self.events.find_one({"_id": {"s": session, "n": 1}}, {"data": 0})

    async def read(self, session: str, last: int) -> Sequence[bytes]:
        end = self.revisions[session]
        span = {"$gt": {"s": session, "n": end - last}, "$lte": {"s": session, "n": end}}
        return [row["data"] async for row in self.events.find({"_id": span}).sort("_id", 1)]

    async def stored_bytes(self) -> int:
        names = await self.client.list_database_names()
        stats = [await self.client[name].command("dbStats") for name in names]
        return int(sum(one["dataSize"] + one.get("indexSize", 0) for one in stats))

    async def close(self) -> None:
        await self.client.close()


def url(uri: str) -> str:
    """Return the address that PyMongo understands."""
    return urlsplit(uri)._replace(scheme="mongodb", path="/", query="").geturl()


async def open_floor(uri: str, folder: Path) -> MongoDBFloor:
    """Use the database `floor`."""
    return MongoDBFloor(url(uri))


async def open_rivals(uri: str, folder: Path) -> list[Rival]:
    """Use the database `adk`."""
    from google.adk.integrations import mongodb

    service = mongodb.MongoDbSessionService(database_name="adk-own", connection_string=url(uri))
    return [Rival("MongoDbSessionService", service)]
