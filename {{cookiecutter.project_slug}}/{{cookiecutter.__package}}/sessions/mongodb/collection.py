"""The collection of sessions in one event loop."""

from dataclasses import dataclass, field

from pymongo import AsyncMongoClient, timeout
from pymongo.asynchronous.collection import AsyncCollection

from ..errors import ConfigurationError
from ..store import SessionKey
from .documents import INDEXES, SCHEMA, SCHEMA_VERSION, Document, size_of

Collection = AsyncCollection[Document]

MAX_HEADS = 10_000
"""Heads in the cache. Each takes about a kilobyte."""

CLOSES_WITHIN = 1.0
"""Seconds to close a connection, whose server may be gone."""


@dataclass(slots=True)
class Connection:
    """A client of one event loop, its collection, and a cache of heads."""

    client: AsyncMongoClient[Document]
    collection: Collection
    heads: dict[SessionKey, Document] = field(default_factory=dict)
    """Heads without their state, but with its `state_size`. An append needs the head before it. At one
    revision of one log, a head never changes."""
    is_open: bool = False

    async def open(self, location: str) -> None:
        """Create the indexes, unless another process has created them.

        Raises:
            ConfigurationError: the collection belongs to another program or has another format.
        """
        name = f"Collection {self.collection.name!r} of MongoDB at {location}"
        schema = await self.collection.find_one({"_id": SCHEMA})
        if schema is None:
            other = await self.collection.find_one({}, {"_id": 1})
            schema = await self.collection.find_one({"_id": SCHEMA})
            if schema is None and other is not None:
                raise ConfigurationError(
                    f"{name} has documents of another program: name another with the option collection."
                )
        if schema is None:
            await self.collection.create_indexes(INDEXES)
            schema = {"_id": SCHEMA, "version": SCHEMA_VERSION}
            await self.collection.update_one({"_id": SCHEMA}, {"$setOnInsert": schema}, upsert=True)
        if schema.get("version") != SCHEMA_VERSION:
            raise ConfigurationError(
                f"{name} has format {schema.get('version')}, and this program knows {SCHEMA_VERSION}:"
                " use the version that wrote it, or name another with the option collection."
            )
        self.is_open = True

    def remember(self, key: SessionKey, head: Document) -> Document:
        """Cache a settled head, and return it in its cached form."""
        known = {"state_size": size_of(head.get("state", {}))} | head
        known.pop("state", None)
        self.heads.pop(key, None)
        self.heads[key] = known
        if len(self.heads) > MAX_HEADS:
            del self.heads[next(iter(self.heads))]
        return known

    async def close(self) -> None:
        """Close the client."""
        with timeout(CLOSES_WITHIN):
            await self.client.close()
