"""Sessions in MongoDB 6 or later: replica set, sharded cluster or standalone, and no transactions.

The insert of event n+1 commits an append: its slot is unique. The event carries all that follows from
it, so that whoever finds one behind the head, because its writer was killed or is not done yet, brings
head and state up to it; that can be done by any number, in any order, any number of times. The session's
own state is in the head, a fold of the events up to it; `user:` and `app:` state has a document a key.

The insert and all that follows travel as one command, whose operations the server executes in order
until one fails: one round trip for an append. For that a writer must know the head that it appends to.
It has read it, so this store remembers the heads that it has seen; a head of a given revision never
changes, and where it has forgotten one, it reads it again.

What expires is removed by TTL indexes, without our help. The session's head slides with every append.
Its events, which may be many, are kept until some time after that (`keep`), and moved there together
when the end of the session comes close to it. (See `documents.py` for the documents.)
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import wraps
from operator import itemgetter
from threading import Lock
from typing import Any, ParamSpec, Self, TypeVar
from urllib.parse import quote

from pymongo import AsyncMongoClient, MongoClient, ReadPreference, UpdateMany, UpdateOne, timeout
from pymongo import errors as driver
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

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
    StoredEvent,
    next_expiry,
)
from ..uri import SessionURI, boolean
from . import documents
from .documents import CLOSED, DUPLICATE, GUARDED, HEAD, INDEXES, NOW, Document
from .errors import explain, one_line, refusal

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")
Collection = AsyncCollection[Document]
Operation = UpdateOne | UpdateMany

SCHEMA = "schema"
SCHEMA_VERSION = 1

MAX_DOCUMENT = (16 << 20) - (64 << 10)
"""Bytes that we put into one document; MongoDB takes 16 MiB, and some of them are for our own fields."""
ALL = (1 << 31) - 1
"""Documents in one reply: as many as fit, 16 MB of them."""

GRACE = 300.0
"""Seconds that the server leaves what has expired alone, in case a process has a slower clock."""
SPARE = 7 * 86_400.0
"""Seconds that events are kept longer than their session at most, or its ttl if that is more."""
REMEMBERED = 10_000
"""Heads that are remembered."""
REMEMBERED_FOR = 600.0
"""Seconds that they are, which is less than the slots of a deleted session stay taken."""
TAKEN_FOR = 3_600.0
ATTEMPTS = 10
"""How often something is tried that others may come in between."""
SCOPES_AT_ONCE = 10_000
CLOSES_WITHIN = 1.0

# fmt: off
DRIVER_OPTIONS = (
    "appName", "authMechanism", "authMechanismProperties", "authSource", "compressors",
    "connectTimeoutMS", "directConnection", "heartbeatFrequencyMS", "loadBalanced",
    "localThresholdMS", "maxConnecting", "maxIdleTimeMS", "maxPoolSize", "minPoolSize",
    "replicaSet", "retryReads", "retryWrites", "serverMonitoringMode", "serverSelectionTimeoutMS",
    "socketTimeoutMS", "srvMaxHosts", "srvServiceName", "ssl", "timeoutMS", "tls",
    "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames", "tlsCAFile", "tlsCRLFile",
    "tlsCertificateKeyFile", "tlsCertificateKeyFilePassword", "tlsDisableOCSPEndpointCheck",
    "tlsInsecure", "waitQueueTimeoutMS", "wTimeoutMS", "zlibCompressionLevel",
)
# fmt: on
"""What MongoDB's own URIs may say and we leave to the driver."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of one event loop, and whether its collection has been looked at."""

    client: AsyncMongoClient[Document]
    collection: Collection
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Known:
    """A head that was seen, and what of it `Head` does not tell."""

    head: Head
    log: str
    created_at: float
    keep: float | None
    """Until when the events stay, at least."""
    size: int
    """Bytes of its state, or a little more."""
    told: int | None
    """The last revision that has changed `user:` or `app:` state."""
    seen: float


def _carried_through(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let a method come to its end, within its time-out, when the caller is cancelled.

    The driver closes a connection that is in use then, and forgets one that is being made (PYTHON-5867).
    """

    @wraps(method)
    async def carried_through(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(asyncio.create_task(method(*args, **kwargs)))

    return carried_through


class MongoDBStore(SessionStore):
    """A `SessionStore` in MongoDB. See `from_uri` for its options."""

    def __init__(
        self,
        connect: Callable[[], AsyncMongoClient[Document]],
        *,
        location: str,
        database: str,
        collection: str = "adk_sessions",
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
    ) -> None:
        def open_() -> Connection:
            client = connect()
            found = client[database].get_collection(
                collection,
                read_preference=ReadPreference.PRIMARY,
                read_concern=read_concern or ReadConcern("majority"),
                write_concern=write_concern or WriteConcern("majority", j=True),
            )
            return Connection(client, found)

        self._connections = PerLoop(open_, _close)
        self._location = location
        self._collection = collection
        self._known: dict[SessionKey, Known] = {}
        self._lock = Lock()

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open a URI of MongoDB's own under our scheme: `scheme://user:password@host1,host2/database`.

        `scheme+srv://` is `mongodb+srv://`. Options: `collection` that has all sessions, and MongoDB's
        own of `DRIVER_OPTIONS`. Reads are from the primary, reads and writes of and to a majority.
        """
        take = uri.options.take
        database = uri.path.strip("/") or "adk"
        if any(char in database for char in '/\\. "$*<>:|?\0'):
            raise ConfigurationError(
                f"Database {database!r} in the session URI is not a valid name."
            )
        collection = take("collection", _collection, "adk_sessions")
        take("readPreference", _primary, None)
        read_concern = ReadConcern(take("readConcernLevel", str, "majority"))
        default: int | str = "majority"
        write_concern = WriteConcern(
            take("w", _acknowledged, default), j=take("journal", boolean, True)
        )
        settings: dict[str, Any] = {"timeoutMS": 5_000, "appName": "adk-sessions"}
        settings |= uri.options.take_for_driver(DRIVER_OPTIONS)
        settings |= {"username": uri.username, "password": uri.password}
        # The path stays, because it says where the user is kept unless authSource does.
        host = f"mongodb{uri.variant}://{uri.hosts or 'localhost'}{quote(uri.path)}"
        try:
            MongoClient(host, connect=False, **settings)
        except (driver.PyMongoError, ValueError, TypeError, OSError) as error:
            raise ConfigurationError(
                f"The session URI is not valid for MongoDB: {one_line(error)}."
            ) from None
        return cls(
            lambda: AsyncMongoClient(host, **settings),
            location=f"{uri.hosts or 'localhost'}/{database}",
            database=database,
            collection=collection,
            read_concern=read_concern,
            write_concern=write_concern,
        )

    @property
    @override
    def location(self) -> str:
        """Hosts and database."""
        return self._location

    @_carried_through
    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        with self._translated():
            said = documents.said(state)
            _check_size("The state of a new session", *said.values())
            head = _new_head(key, incarnation=incarnation, said=said, now=now, ttl=ttl)
            collection = await self._open()
            if not await self._insert(collection, key, head, said):
                head = await self._replace(collection, key, head, said, now)
            self._remember(key, head)
            scopes = documents.user_of(key.app_name, key.user_id), documents.app_of(key.app_name)
            return _stored(key, head, await self._values(collection, scopes))

    @_carried_through
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
        with self._translated():
            collection = await self._open()
            older = None
            if since is not None:
                older = await self._last_older(collection, key, after_revision, since)
            first = older["place"] if older else after_revision
            scopes = documents.user_of(key.app_name, key.user_id), documents.app_of(key.app_name)
            known = self._known.get(key)
            found, values = await _together(
                self._read(collection, key, now=now, after=first, limit=limit),
                self._values(collection, scopes),
            )
            if found and older and not _is_in(older, found[0]):
                found = await self._read(
                    collection, key, now=now, after=after_revision, limit=limit
                )
            if found is None or _expired(found[0], now):
                return None
            head, events = found
            if "told" in head and not (known and (known.log, known.told) == _told(head)):
                # One of these events may have told its user or app something after we had asked.
                values = await self._values(collection, scopes)
            self._remember(key, head)
            return _stored(key, head, values, _wanted(events, since))

    @_carried_through
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
        with self._translated():
            collection = await self._open()
            known = await self._expect(collection, key, expected, now)
            expires_at = next_expiry(known.head.expires_at, ttl=known.head.ttl, now=now)
            said = documents.said(state)
            _check_size("An event with the state that it sets", event, *said.values())
            size = known.size + documents.size_of(said.get("state", {}))
            _check_size("The state of a session", *said.values(), size=known.size)
            if known.keep is not None and expires_at is not None:
                keep = _keep(expires_at, known.head.ttl, known.created_at)
                if expires_at + GRACE > known.keep:
                    known = await self._prolong(collection, key, known, keep, now)
            document = _new_event(key, known, event, timestamp, said, expires_at, now)
            operations = [documents.insert_event(document), documents.advance(document, NOW)]
            if pending := documents.shared(known.log, document["place"], said):
                operations += documents.share(key, pending, NOW)
            refused = await self._write(collection, operations)
            if refused == DUPLICATE:
                await self._refuse(collection, key, expected, now)
            elif refused == GUARDED:
                await self._confirm(collection, key, document, now)
            position = Position(expected.incarnation, expected.revision + 1)
            head = Head(key, position, timestamp, known.head.ttl, expires_at)
            told = position.revision if pending else known.told
            self._put(key, replace(known, head=head, size=size, told=told))
            return head

    @_carried_through
    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        with self._translated():
            collection = await self._open()
            app = documents.app_of(app_name)
            live: Document = {"expires_at": {"$not": {"$lte": now}}}
            if user_id is not None:
                user = documents.user_of(app_name, user_id)
                owners: Document = {"$in": [user, *map(documents.values_of, (user, app))]}
            else:
                owners = {"$gte": f"{app}/", "$lt": f"{app}0"}
            found = await collection.find({"owner": owners} | live, batch_size=ALL).to_list()
            heads = [document for document in found if "value" not in document]
            values = _by_scope(document for document in found if "value" in document)
            if user_id is None:
                users = sorted({head["owner"] for head in heads})
                values = await self._values(collection, [app, *users])
            return [
                _stored(SessionKey(head["app"], head["user"], head["session"]), head, values)
                for head in heads
            ]

    @_carried_through
    @override
    async def delete(self, key: SessionKey) -> None:
        with self._translated():
            self._forget(key)
            await self._delete(await self._open(), key)

    @_carried_through
    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        with self._translated():
            user = documents.user_of(app_name, user_id)
            return (await self._values(await self._open(), [user])).get(user, {})

    @_carried_through
    @override
    async def ping(self) -> None:
        with self._translated():
            collection = await self._open()
            # A write that changes nothing, because a user or a member may be allowed to read only.
            await collection.update_one({"_id": SCHEMA}, {"$set": {"version": SCHEMA_VERSION}})

    @override
    async def close(self) -> None:
        await self._connections.close()

    # The collection.

    async def _open(self) -> Collection:
        """Return the collection of the running loop, looked at before its first use."""
        connection = self._connections.get()
        if not connection.ready.is_set():
            async with connection.lock:
                if not connection.ready.is_set():
                    await self._prepare(connection.collection)
                    connection.ready.set()
        return connection.collection

    async def _prepare(self, collection: Collection) -> None:
        """Make the collection ours, in whichever of several processes comes first."""
        schema = await collection.find_one({"_id": SCHEMA})
        if schema is None:
            other = await collection.find_one({}, {"_id": 1})
            schema = await collection.find_one({"_id": SCHEMA})
            if schema is None and other is not None:
                raise ConfigurationError(
                    f"Collection {self._collection!r} of MongoDB at {self._location} has documents of"
                    " another program: name another one with the option collection."
                )
        if schema is None:
            await collection.create_indexes(INDEXES)
            schema = {"_id": SCHEMA, "version": SCHEMA_VERSION}
            await collection.update_one({"_id": SCHEMA}, {"$setOnInsert": schema}, upsert=True)
        elif schema.get("version") != SCHEMA_VERSION:
            raise ConfigurationError(
                f"Collection {self._collection!r} of MongoDB at {self._location} was written by"
                f" another version of this program (schema {schema.get('version')}, this one knows"
                f" {SCHEMA_VERSION}): take that version, or name another collection."
            )

    async def _write(self, collection: Collection, operations: Sequence[Operation]) -> int | None:
        """Send operations as one command; return the code of the refusal that ended it, if one did."""
        try:
            await collection.bulk_write(operations)
        except driver.OperationFailure as error:
            if (code := refusal(error)) is None:
                raise
            return code
        return None

    # Reading.

    async def _read(
        self,
        collection: Collection,
        key: SessionKey,
        *,
        now: float,
        after: int = 0,
        limit: int | None = None,
    ) -> tuple[Document, Sequence[Document]] | None:
        """Return a head and the last of its events, or an expired head alone.

        What an append, a creation or a deletion has left undone is done first.
        """
        of = documents.session_of(key)
        only: Document = {}
        for attempt in range(ATTEMPTS):
            query = {"of": of, **only, "place": {"$gt": after}}
            cursor = collection.find(query, batch_size=ALL)
            if limit is not None:
                cursor = cursor.sort("place", -1).limit(limit + 1)
            found = sorted(await cursor.to_list(), key=itemgetter("place"))
            if not found or found[-1]["place"] != HEAD:
                if not only:
                    return None
                only = {}
                continue
            head = found.pop()
            if limit and any(event["log"] != head["log"] for event in found):
                # Remains of an earlier incarnation have taken places from the wanted ones.
                only = {"log": head["log"]}
                continue
            log = [event for event in found if event["log"] == head["log"]]
            events = [event for event in log if event["place"] <= head["revision"]]
            newer = log[len(events) :]
            if ("pending" in head or newer) and attempt < ATTEMPTS - 1:
                await self._finish(collection, key, head, newer)
                continue
            if _expired(head, now):
                return head, []
            wanted = head["revision"] - after
            if limit is not None:
                wanted = min(wanted, limit - len(newer))
            if len(events) == max(wanted, 0):
                return head, events
        raise StoreUnavailable(
            f"MongoDB at {self._location}: a session changes faster than it can be read; try again."
        )

    async def _finish(
        self, collection: Collection, key: SessionKey, head: Document, newer: Sequence[Document]
    ) -> None:
        """Do what a writer has not done, because it was killed or is doing it at this moment."""
        if pending := head.get("pending"):
            await self._write(collection, [*documents.share(key, pending, pending["stamp"])])
            return
        event = newer[0]
        if (keep := head.get("keep")) != event.get("keep"):
            later = event["gone_at"] + timedelta(seconds=keep - event["keep"])
            moved = {"$set": {"keep": keep}, "$max": {"gone_at": later}}
            await collection.update_one({"_id": event["_id"], "of": {"$eq": event["of"]}}, moved)
            event = event | {"keep": keep}
        await self._write(collection, [documents.advance(event, event.get("stamp"))])

    async def _last_older(
        self, collection: Collection, key: SessionKey, after: int, since: float
    ) -> Document | None:
        """Return where the last event is that is older than the timestamp."""
        query = {
            "of": documents.session_of(key),
            "place": {"$gt": after, "$lt": HEAD},
            "timestamp": {"$lt": since},
        }
        return await collection.find_one(query, {"place": 1, "log": 1}, sort=[("place", -1)])

    async def _values(
        self, collection: Collection, scopes: Sequence[str]
    ) -> dict[str, dict[str, bytes]]:
        """Return the state of users and apps."""
        found: list[Document] = []
        for start in range(0, len(scopes), SCOPES_AT_ONCE):
            owners = [*map(documents.values_of, scopes[start : start + SCOPES_AT_ONCE])]
            found += await collection.find({"owner": {"$in": owners}}, batch_size=ALL).to_list()
        return _by_scope(found)

    # Creating and deleting.

    async def _insert(
        self, collection: Collection, key: SessionKey, head: Document, said: Document
    ) -> bool:
        operations = [documents.insert_head(head, said)]
        if pending := documents.shared(head["log"], 0, said):
            operations += documents.share(key, pending, NOW)
        return await self._write(collection, operations) is None

    async def _replace(
        self,
        collection: Collection,
        key: SessionKey,
        head: Document,
        said: Document,
        now: float,
    ) -> Document:
        """Create a session where there is a head already; return the one that is there then."""
        for _ in range(ATTEMPTS):
            found = await self._read(collection, key, now=now, limit=1)
            if found is None:
                if await self._insert(collection, key, head, said):
                    return head
                continue
            old = found[0]
            if not _expired(old, now):
                if old["incarnation"] != head["incarnation"]:
                    raise AlreadyExists
                return old
            replaced = await collection.bulk_write([documents.replace_head(old, head, said)])
            if replaced.matched_count:
                operations: list[Operation] = [
                    documents.empty(old, documents.server_time(TAKEN_FOR))
                ]
                if pending := documents.shared(head["log"], 0, said):
                    operations += documents.share(key, pending, NOW)
                await self._write(collection, operations)
                return head
        raise AlreadyExists

    async def _delete(self, collection: Collection, key: SessionKey) -> None:
        """Close the log, end the head, empty the events: after each of them, one can go on from there."""
        for _ in range(ATTEMPTS):
            found = await self._read(collection, key, now=math.inf, limit=1)
            if found is None or "app" not in found[0]:
                return
            head = found[0]
            gone_at = documents.server_time(TAKEN_FOR)
            rest: list[Operation] = [documents.end(head, gone_at), documents.empty(head, gone_at)]
            if await self._write(collection, [documents.close(head, gone_at), *rest]) is None:
                return
            # An append got there first, or a deletion that did not come to its end.
            taken = {"_id": documents.slot(head["log"], head["revision"] + 1)}
            if await collection.find_one(taken | {"place": CLOSED}, {"place": 1}):
                await self._write(collection, rest)

    # Appending.

    async def _expect(
        self, collection: Collection, key: SessionKey, expected: Position, now: float
    ) -> Known:
        """Return the head that a writer expects, from memory if it is there."""
        known = self._known.get(key)
        if (
            known is None
            or known.head.position != expected
            or known.head.expired(now)
            or time.monotonic() - known.seen > REMEMBERED_FOR
        ):
            found = await self._read(collection, key, now=now, limit=1)
            if found is None or _expired(found[0], now):
                raise NotFound
            known = self._remember(key, found[0])
        if known.head.position != expected:
            raise Stale
        return known

    async def _prolong(
        self, collection: Collection, key: SessionKey, known: Known, keep: float, now: float
    ) -> Known:
        """Have the server keep the events of a session longer, before the session lives longer."""
        position = known.head.position
        head = {"of": documents.session_of(key), "log": known.log}
        gone_at = documents.server_time(keep - now)
        await collection.update_many(documents.events_of(head), {"$max": {"gone_at": gone_at}})
        there = {"_id": head["of"], **head, "revision": position.revision}
        found = await collection.update_one(there, {"$set": {"keep": keep}})
        if found.matched_count:
            return replace(known, keep=keep)
        self._forget(key)
        return await self._expect(collection, key, position, now)

    async def _refuse(
        self, collection: Collection, key: SessionKey, expected: Position, now: float
    ) -> None:
        """Say why the slot behind the expected position is taken."""
        self._forget(key)
        found = await self._read(collection, key, now=now, limit=1)
        if found is None or _expired(found[0], now):
            raise NotFound
        if _head(key, found[0]).position != expected:
            raise Stale
        # A deletion has closed the log and got no further.
        await self._delete(collection, key)
        raise NotFound

    async def _confirm(
        self, collection: Collection, key: SessionKey, event: Document, now: float
    ) -> None:
        """Return if somebody else has brought the head up to an event that is stored."""
        self._forget(key)
        found = await self._read(collection, key, now=now, after=event["place"] - 1)
        if found is None or _expired(found[0], now):
            raise NotFound
        head, events = found
        if head["log"] != event["log"] or events[0]["data"] != event["data"]:
            raise Stale

    # What is remembered.

    def _remember(self, key: SessionKey, head: Document) -> Known:
        """Remember a head that nothing is left to be done for."""
        known = Known(
            head=_head(key, head),
            log=head["log"],
            created_at=head["created_at"],
            keep=head.get("keep"),
            size=documents.size_of(head["state"]),
            told=head.get("told"),
            seen=time.monotonic(),
        )
        if "pending" not in head:
            self._put(key, known)
        return known

    def _put(self, key: SessionKey, known: Known) -> None:
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = known
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]

    def _forget(self, key: SessionKey) -> None:
        with self._lock:
            self._known.pop(key, None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what went wrong."""
        try:
            yield
        except (driver.ConfigurationError, driver.InvalidURI) as error:
            raise ConfigurationError(f"MongoDB at {self._location}: {one_line(error)}.") from error
        except driver.PyMongoError as error:
            raise StoreUnavailable(f"MongoDB at {self._location}: {explain(error)}.") from error


async def _close(connection: Connection) -> None:
    # The driver says good-bye to the server, and would wait long for one that is not there.
    with timeout(CLOSES_WITHIN):
        await connection.client.close()


async def _together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run two reads at the same time, and both to their ends even if one fails."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other


# Documents of ours from what crosses the seam, and back.


def _new_head(
    key: SessionKey, *, incarnation: str, said: Document, now: float, ttl: int
) -> Document:
    expires_at = next_expiry(None, ttl=ttl, now=now)
    of = documents.session_of(key)
    head: Document = {
        "_id": of,
        "of": of,
        "place": HEAD,
        "owner": documents.user_of(key.app_name, key.user_id),
        "app": key.app_name,
        "user": key.user_id,
        "session": key.session_id,
        "log": secrets.token_urlsafe(12),
        "incarnation": incarnation,
        "revision": 0,
        "created_at": now,
        "updated_at": now,
        "ttl": ttl,
        "expires_at": expires_at,
        "state": said.get("state", {}),
    }
    if expires_at is not None:
        head["keep"] = _keep(expires_at, ttl, now)
        head["gone_at"] = documents.server_time(expires_at + GRACE - now)
    return head


def _new_event(
    key: SessionKey,
    known: Known,
    event: bytes,
    timestamp: float,
    said: Document,
    expires_at: float | None,
    now: float,
) -> Document:
    revision = known.head.position.revision + 1
    document: Document = {
        "_id": documents.slot(known.log, revision),
        "of": documents.session_of(key),
        "place": revision,
        "log": known.log,
        "timestamp": timestamp,
        "data": event,
        **said,
    }
    if expires_at is not None and known.keep is not None:
        document |= {
            "expires_at": expires_at,
            "until": documents.server_time(expires_at + GRACE - now),
            "keep": known.keep,
            "gone_at": documents.server_time(known.keep - now),
        }
    return document


def _keep(expires_at: float, ttl: int, created_at: float) -> float:
    """Return until when to keep events: moved each time that a session is twice as old, then weekly."""
    return expires_at + GRACE + max(ttl, min(expires_at - created_at, SPARE))


def _head(key: SessionKey, head: Document) -> Head:
    position = Position(head["incarnation"], head["revision"])
    return Head(key, position, head["updated_at"], head["ttl"], head["expires_at"])


def _told(head: Document) -> tuple[str, int | None]:
    return head["log"], head.get("told")


def _expired(head: Document, now: float) -> bool:
    return head["expires_at"] is not None and head["expires_at"] <= now


def _stored(
    key: SessionKey,
    head: Document,
    values: Mapping[str, Mapping[str, bytes]],
    events: Sequence[Document] = (),
) -> SessionRecord:
    return SessionRecord(
        _head(key, head),
        ScopedState(
            values.get(documents.app_of(key.app_name), {}),
            values.get(documents.user_of(key.app_name, key.user_id), {}),
            documents.unescaped(head["state"]),
        ),
        [_event(event) for event in events],
    )


def _event(event: Document) -> StoredEvent:
    return StoredEvent(event["place"], event["timestamp"], event["data"])


def _by_scope(values: Iterable[Document]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for value in values:
        found.setdefault(value["of"], {})[value["name"]] = value["value"]
    return found


def _is_in(event: Document, head: Document) -> bool:
    return bool(event["log"] == head["log"] and event["place"] <= head["revision"])


def _wanted(events: Sequence[Document], since: float | None) -> Sequence[Document]:
    """Leave out what is older than the timestamp, and what stands before it."""
    if since is not None:
        for place in range(len(events) - 1, -1, -1):
            if events[place]["timestamp"] < since:
                return events[place + 1 :]
    return events


def _check_size(what: str, *parts: Mapping[str, bytes] | bytes, size: int = 0) -> None:
    """Refuse, before anything is written, what does not fit into a document."""
    size += sum(len(part) if isinstance(part, bytes) else documents.size_of(part) for part in parts)
    if size > MAX_DOCUMENT:
        raise ValueError(
            f"{what} would take {size / (1 << 20):.1f} MB; a document of MongoDB holds"
            f" {MAX_DOCUMENT / (1 << 20):.1f}: keep large contents elsewhere, as artifacts."
        )


# Options.


def _collection(text: str) -> str:
    if not 0 < len(text.encode()) <= 100 or text.startswith((".", "system.")) or text.endswith("."):
        raise ValueError("write a name of 1 to 100 bytes")
    if set(text) & set("$\0"):
        raise ValueError("leave out $ and NUL")
    return text


def _primary(text: str) -> None:
    if text != "primary":
        raise ValueError("a writer must read what was written, so it has to be primary")


def _acknowledged(text: str) -> int | str:
    if text == "0":
        raise ValueError("an event is stored when the server says so")
    return int(text) if text.isdecimal() else text
