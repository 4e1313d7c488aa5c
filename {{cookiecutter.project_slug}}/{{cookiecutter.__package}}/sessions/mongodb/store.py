"""Sessions in MongoDB 6 or later, on a replica set, a sharded cluster or a standalone server.

`documents.py` describes the documents, `writes.py` writes them without transactions, and `reads.py` reads them.
An append is one command. A read is two queries at the same time, for the session and for the state of its user
and app. A TTL index removes the head of a session soon after its expiry and its events later, because an append
updates only the head.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from pymongo import AsyncMongoClient, DeleteMany, DeleteOne
from pymongo import errors as driver
from typing_extensions import override

from ..errors import ConfigurationError, StoreUnavailable
from ..per_loop import PerLoop
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
    next_expiry,
)
from ..uri import SessionURI
from . import documents, options, writes
from .collection import Connection
from .documents import END, SCHEMA, SCHEMA_VERSION, Document
from .errors import hint, one_line
from .reads import ALL, ATTEMPTS, read_session, read_values

T = TypeVar("T")
P = ParamSpec("P")
Method = Callable[Concatenate["MongoDBStore", P], Coroutine[Any, Any, T]]

USERS_PAGE = 1_000


def _operation(method: Method[P, T]) -> Method[P, T]:
    """Complete a method even if its caller is cancelled, and convert errors.

    The driver closes the connection of a cancelled call, and leaks the socket of a connection that is being
    opened (PYTHON-5867). The method ends within its time-out.
    """

    @wraps(method)
    async def operation(self: "MongoDBStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(method(self, *args, **kwargs))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait([task])
            return task.result()
        except (driver.ConfigurationError, driver.InvalidURI) as error:
            raise ConfigurationError(f"MongoDB at {self.location}: {one_line(error)}.") from error
        except driver.PyMongoError as error:
            raise StoreUnavailable(f"MongoDB at {self.location}: {hint(error)}.") from error

    return operation


class MongoDBStore(SessionStore):
    """A `SessionStore` in MongoDB. `connect` returns a client for the running event loop."""

    def __init__(
        self,
        connect: Callable[[], AsyncMongoClient[Document]],
        *,
        location: str,
        database: str,
        collection: str = "adk_sessions",
    ) -> None:
        def open_() -> Connection:
            client = connect()
            return Connection(client, client[database][collection])

        self._connections = PerLoop(open_, lambda connection: connection.close())
        self._location = location

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://user:password@host1,host2/database`, MongoDB's own URI with our scheme.

        `scheme+srv://` is `mongodb+srv://`. Options: `collection`, and those of `options.DRIVER_OPTIONS`.
        """
        host, settings, database, collection = options.parse(uri)
        return cls(
            lambda: AsyncMongoClient(host, **settings),
            location=f"{uri.hosts or 'localhost'}/{database}",
            database=database,
            collection=collection,
        )

    @property
    @override
    def location(self) -> str:
        """Hosts and database."""
        return self._location

    @_operation
    @override
    async def missing(self) -> str | None:
        collection = self._connections.get().collection
        if await collection.find_one({}, {"_id": 1}):
            return None
        return f"Collection {collection.name!r} of MongoDB at {self.location} does not exist"

    @_operation
    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        connection = await self._connect()
        fields = documents.state_fields(state)
        documents.check_size("The state of a new session", *fields.values())
        expires_at = next_expiry(None, ttl=ttl, now=now)
        head = Head(key, Position(incarnation, 0), now, ttl, expires_at)
        document = documents.new_head(head, secrets.token_urlsafe(12), fields.get("state", {}))
        document = await self._create(connection, key, document, fields, now)
        connection.remember(key, document)
        values = await read_values(connection.collection, documents.shared_scopes(key))
        return documents.session_record(key, document, values)

    @_operation
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
        connection = await self._connect()
        collection, scopes = connection.collection, documents.shared_scopes(key)
        known = connection.heads.get(key, {})
        found, values = await asyncio.gather(
            read_session(collection, key, now=now, after=after_revision, limit=limit, since=since),
            read_values(collection, scopes),
        )
        if found is None:
            return None
        head, events = found
        if [known.get(name) for name in ("log", "revision")] != [head["log"], head["revision"]]:
            # A new event may have changed the values after they were read.
            values = await read_values(collection, scopes)
        connection.remember(key, head)
        return documents.session_record(key, head, values, events)

    @_operation
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
        connection = await self._connect()
        known = await self._expect(connection, key, expected, now)
        fields = documents.state_fields(state)
        documents.check_size("An event with the state that it sets", event, *fields.values())
        size = known["state_size"] + documents.size_of(fields.get("state", {}))
        documents.check_size("The state of a session", *fields.values(), size=known["state_size"])
        expires_at = next_expiry(known["expires_at"], ttl=known["ttl"], now=now)
        document = documents.new_event(known, event, timestamp, expires_at, fields)
        operations = writes.append(key, known, document, now)
        if await writes.write(connection.collection, operations) is None:
            await self._resolve(connection, key, document, now)
        moved = {
            "revision": document["order"],
            "updated_at": timestamp,
            "expires_at": expires_at,
            "events_until": document["events_until"],
            "state_size": size,
        }
        return documents.head_of(key, connection.remember(key, known | moved))

    @_operation
    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        connection = await self._connect()
        scope = documents.session_scope(old.head.key)
        query = writes.one(scope, scope) | {"incarnation": old.head.position.incarnation}
        head = await connection.collection.find_one(query, {"log": 1})
        operations = [*writes.rewrite(old, new, head["log"] if head else None)]
        for start in range(0, len(operations), writes.AT_ONCE):
            some = operations[start : start + writes.AT_ONCE]
            await connection.collection.bulk_write(some, ordered=False)

    @_operation
    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        collection = (await self._connect()).collection
        app = documents.digest(app_name)
        owner: Any = {"$gte": f"{app}/", "$lt": f"{app}0"}
        if user_id is not None:
            owner = documents.user_scope(app_name, user_id)
        live = {"owner": owner, "order": END, "expires_at": {"$not": {"$lte": now}}}
        heads = await collection.find(live, batch_size=ALL).to_list()
        values = await read_values(collection, {app, *(head["owner"] for head in heads)})
        return [
            documents.session_record(
                SessionKey(head["app_name"], head["user_id"], head["session_id"]), head, values
            )
            for head in heads
        ]

    @_operation
    @override
    async def delete(self, key: SessionKey) -> None:
        connection = await self._connect()
        connection.heads.pop(key, None)
        scope = documents.session_scope(key)
        # Only this incarnation and the rest of interrupted deletions, not a session that is created meanwhile.
        logs = await connection.collection.distinct("log", {"scope": scope})
        head = writes.one(scope, scope) | {"log": {"$in": logs}}
        rest = {"scope": scope, "log": {"$in": logs}}
        await connection.collection.bulk_write([DeleteOne(head), DeleteMany(rest)])

    @_operation
    @override
    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        collection = (await self._connect()).collection
        return await writes.write(collection, [writes.lease(key, holder, now, ttl)]) is not None

    @_operation
    @override
    async def release(self, key: SessionKey, *, holder: str) -> None:
        scope = documents.session_scope(key)
        query = writes.one(scope, scope) | {"holder": holder}
        await (await self._connect()).collection.delete_one(query)

    @_operation
    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        scope = documents.user_scope(app_name, user_id)
        values = await read_values((await self._connect()).collection, [scope])
        return values.get(scope, {})

    @_operation
    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        scope = documents.digest(app_name)
        return (await read_values((await self._connect()).collection, [scope])).get(scope, {})

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        app = documents.digest(app_name)
        last = f"{app}/"
        while page := await self._owners(last, f"{app}0"):
            last = page[-1]["owner"]
            for user in {document["owner"]: document["user_id"] for document in page}.values():
                yield user

    @_operation
    async def _owners(self, after: str, before: str) -> Sequence[Document]:
        """Return the next documents that name a user."""
        found = (await self._connect()).collection.find(
            {"owner": {"$gt": after, "$lt": before}}, {"owner": 1, "user_id": 1, "_id": 0}
        )
        return await found.sort("owner", 1).limit(USERS_PAGE).to_list()

    @_operation
    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        connection = await self._connect()
        if user_id is None:
            await connection.collection.delete_many({"scope": documents.digest(app_name)})
            return 0
        owner = documents.user_scope(app_name, user_id)
        for key in [*connection.heads]:
            if (key.app_name, key.user_id) == (app_name, user_id):
                del connection.heads[key]
        removed = await connection.collection.count_documents({"owner": owner, "order": END})
        sessions = documents.sessions_of(owner)
        await connection.collection.delete_many(
            {"scope": {"$gt": sessions, "$lt": f"{sessions.removesuffix('/')}0"}}
        )
        await connection.collection.delete_many({"scope": owner})
        return removed

    @_operation
    @override
    async def ping(self) -> None:
        collection = (await self._connect()).collection
        # A write that changes nothing, because a user or a member may be read-only.
        await collection.update_one({"_id": SCHEMA}, {"$set": {"version": SCHEMA_VERSION}})

    @override
    async def close(self) -> None:
        await self._connections.close()

    async def _connect(self) -> Connection:
        """Return the connection of the running loop."""
        connection = self._connections.get()
        if not connection.is_open:
            await connection.open(self._location)
        return connection

    async def _create(
        self, connection: Connection, key: SessionKey, head: Document, state: Document, now: float
    ) -> Document:
        """Create a session and return its head, also if the call is a repetition."""
        collection = connection.collection
        for _ in range(ATTEMPTS):
            done = await writes.write(collection, writes.create(key, head, state, now))
            if done is not None:
                if 0 not in (done.upserted_ids or {}):
                    # It replaced an expired session, whose events are obsolete.
                    gone = {"scope": head["scope"], "log": {"$ne": head["log"]}}
                    await collection.delete_many(gone)
                return head
            if found := await read_session(collection, key, now=now, limit=0):
                if found[0]["incarnation"] == head["incarnation"]:
                    return found[0]
                break
        raise AlreadyExists

    async def _expect(
        self, connection: Connection, key: SessionKey, expected: Position, now: float
    ) -> Document:
        """Return the head that a writer expects, from the cache if it is there."""
        if known := connection.heads.get(key):
            head = documents.head_of(key, known)
            if head.position == expected and not head.expired(now):
                return known
        found = await read_session(connection.collection, key, now=now, limit=1)
        if found is None:
            raise NotFound
        known = connection.remember(key, found[0])
        if documents.head_of(key, known).position != expected:
            raise Stale
        return known

    async def _resolve(
        self, connection: Connection, key: SessionKey, event: Document, now: float
    ) -> None:
        """Raise the reason of a refused append, unless a reader has completed it meanwhile."""
        connection.heads.pop(key, None)
        collection, query = connection.collection, writes.one(event["_id"], event["scope"])
        found = await read_session(collection, key, now=now, limit=1)
        if found is None or found[0]["log"] != event["log"]:
            # The session is gone, and its event must not stay.
            await collection.delete_one(query)
            raise NotFound if found is None else Stale
        stored = await collection.find_one(query, {"data": 1})
        if stored is None or stored["data"] != event["data"]:
            raise Stale
