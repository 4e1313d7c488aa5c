"""Where sessions are copied from: a store of this project, or a session service of ADK.

`adk+redis://`, `adk+mongodb://` and `adk+firestore://` are the services that ADK ships as classes without a URI.
"""

import asyncio
import pickle
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from click import ClickException
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session

from ..codec import decode_events, decode_state
from ..config import AGENT_FOLDER, SCHEMES
from ..errors import ConfigurationError, CorruptSession, StoreUnavailable
from ..factory import build_service
from ..store import SessionKey, SessionStore
from .transfer import (
    Content,
    Found,
    Record,
    Shared,
    Unreadable,
    content_from_adk,
    name_of_shared,
    shared_from_adk,
    shared_records,
)

DAMAGED = (ValueError, TypeError, LookupError, AttributeError, EOFError, pickle.UnpicklingError)
"""What ADK's services raise for a record that they cannot read."""

PACKAGES = {"sqlalchemy": "google-adk[db]", "google": "google-cloud-firestore"}
"""Packages whose name is not that of their module."""


def open_source(uri: str, app_name: str, user: str | None) -> Callable[[], AsyncIterator[Record]]:
    """Return a function that opens a source and yields its records, in a running event loop.

    Raises:
        ConfigurationError: the URI cannot work, or a package is missing.
    """
    if uri.partition(":")[0] in SCHEMES:
        service = build_service(uri)

        async def ours() -> AsyncIterator[Record]:
            async with service:
                if missing := await service.store.missing():
                    raise ConfigurationError(f"There is nothing to copy: {missing}.")
                async for record in stored(service.store, app_name, user):
                    yield record

        return ours
    return lambda: open_adk(uri).records(app_name, user)


async def stored(store: SessionStore, app_name: str, user: str | None) -> AsyncIterator[Record]:
    """Yield the live sessions and the shared state of an app, or of one of its users, from a store."""
    if user is None:
        for record in await shared_state(store, app_name, None):
            yield record
    async for user_id in store.users(app_name) if user is None else only(user):
        for record in await shared_state(store, app_name, user_id):
            yield record
        for session in await store.list(app_name, user_id, now=platform_time.get_time()):
            yield Found(session.head.key, reader(store, session.head.key))


async def only(user: str) -> AsyncIterator[str]:
    """Yield one user."""
    yield user


def reader(store: SessionStore, key: SessionKey) -> Callable[[], Awaitable[Content | None]]:
    """Return the function that reads a session of a store."""

    async def read() -> Content | None:
        record = await store.load(key, now=platform_time.get_time())
        if record is None:
            return None
        decode_state(record.state.session)
        await decode_events([event.data for event in record.events])
        head = record.head
        return Content(head.updated_at, head.ttl, record.state.session, record.events)

    return read


async def shared_state(store: SessionStore, app_name: str, user_id: str | None) -> list[Record]:
    """Return the state of a user or of the app, and what cannot be read in it or in the list of sessions."""
    if user_id is None:
        prefix, owner, state = "app:", "", await store.app_state(app_name)
    else:
        prefix, owner = "user:", f" of user {user_id!r}"
        state = await store.user_state(app_name, user_id)
    sound: dict[str, bytes] = {}
    damaged: list[Record] = []
    for name, data in state.items():
        try:
            decode_state({name: data}, prefix=prefix)
            sound[name] = data
        except CorruptSession as error:
            what = f"state{owner} in app {app_name!r}"
            damaged.append(Unreadable(what, str(error), user_id, prefix + name))
    damaged += [
        Unreadable(f"record{owner} in app {app_name!r}", problem, user_id)
        for problem in await store.unlisted(app_name, user_id)
    ]
    return [*([Shared(app_name, user_id, sound)] if sound else []), *damaged]


# ADK's services.

Users = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class AdkSource:
    """A session service of ADK."""

    service: BaseSessionService
    users: Users | None = None
    """Returns the users with sessions or state in an app, which ADK's contract cannot."""
    by_user: bool = False
    """Whether a list for one user costs less than a list for all. If not, ADK holds all sessions in memory."""

    async def records(self, app_name: str, user: str | None) -> AsyncIterator[Record]:
        """Yield the sessions and the shared state of an app, or of one of its users.

        Raises:
            StoreUnavailable: the service does not answer.
        """
        users = [user] if user is not None else []
        if user is None and self.users:
            users = [*await answered(self.users(app_name))]
        seen: set[str | None] = set()
        for batch in users if self.by_user or user is not None else [None]:
            listing = self.service.list_sessions(app_name=app_name, user_id=batch)
            try:
                found = await answered(listing)
            except CorruptSession as error:
                of = f"user {batch!r} in app" if batch is not None else "app"
                yield Unreadable(f"list of sessions of {of} {app_name!r}", str(error), batch)
                continue
            for session in found.sessions:
                for shared in shared_from_adk(session):
                    if shared.user_id not in seen:
                        yield shared
                seen |= {None, session.user_id}
                yield Found(
                    SessionKey(app_name, session.user_id, session.id), self._reader(session)
                )
        for left in users:
            if left not in seen:
                call = self.service.get_user_state(app_name=app_name, user_id=left)
                try:
                    state = await answered(call)
                except CorruptSession as error:
                    yield Unreadable(name_of_shared(app_name, left), str(error), left)
                    continue
                for shared in shared_records(app_name, left, state or {}):
                    yield shared

    def _reader(self, listed: Session) -> Callable[[], Awaitable[Content | None]]:
        async def read() -> Content | None:
            call = self.service.get_session(
                app_name=listed.app_name, user_id=listed.user_id, session_id=listed.id
            )
            session = await answered(call)
            return content_from_adk(session) if session else None

        return read


async def answered(call: Awaitable[Any]) -> Any:
    """Return the answer of a service of ADK, or None if it does not support the call.

    Raises:
        CorruptSession: a record cannot be read.
        StoreUnavailable: the service does not answer.
    """
    try:
        return await call
    except NotImplementedError:
        return None
    except DAMAGED as error:
        raise CorruptSession(f"ADK cannot read it ({_reason(error)})") from error
    except Exception as error:  # of any driver
        raise StoreUnavailable(f"The source does not answer: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def open_adk(uri: str) -> AdkSource:
    """Return the service of ADK that a URI names. It connects on first use.

    Raises:
        ConfigurationError: the URI cannot work, or a package is missing.
    """
    scheme = uri.partition(":")[0].lower()
    try:
        if scheme.startswith("adk+"):
            return OWN_SCHEMES[scheme.partition("+")[2].partition("+")[0]](uri[4:])
        return _open_registered(uri, scheme)
    except (ConfigurationError, ClickException):
        raise
    except KeyError:
        known = ", ".join(f"adk+{name}://" for name in OWN_SCHEMES)
        raise ConfigurationError(
            f"Unknown scheme {scheme!r}: ADK's services are {known}."
        ) from None
    except Exception as error:  # of any driver
        cause: BaseException | None = error
        while cause and not (isinstance(cause, ImportError) and cause.name):
            cause = cause.__cause__
        if cause is None:
            raise ConfigurationError(f"The source cannot be opened: {_reason(error)}.") from error
        module = str(getattr(cause, "name", "")).partition(".")[0]
        raise ConfigurationError(
            f"{scheme}:// needs the Python package {module!r}, which is not installed: run"
            f" `uv add '{PACKAGES.get(module, module)}'`."
        ) from error


def _open_registered(uri: str, scheme: str) -> AdkSource:
    from google.adk.cli.service_registry import get_service_registry

    from ..command_line import check_scheme

    check_scheme(uri)
    path = urlsplit(uri).path[1:]
    if scheme.startswith("sqlite") and not Path(path).is_file():
        raise ConfigurationError(f"There is no file {path!r}.")  # ADK would create it
    service: Any
    service = get_service_registry().create_session_service(uri, agents_dir=str(AGENT_FOLDER))
    if scheme == "sqlite":
        return AdkSource(service, lambda app: asyncio.to_thread(_users_of_file, path, app), True)
    if scheme in ("memory", "agentengine"):
        return AdkSource(service)
    if service is None:
        from google.adk.sessions.database_session_service import DatabaseSessionService

        service = DatabaseSessionService(db_url=uri)
    engine = service.db_engine

    async def users(app_name: str) -> Sequence[str]:
        query = import_module("sqlalchemy").text(USERS)
        async with engine.connect() as connection:
            return [user for (user,) in await connection.execute(query, {"app": app_name})]

    return AdkSource(service, users, True)


USERS = """
SELECT user_id FROM sessions WHERE app_name = :app UNION SELECT user_id FROM user_states WHERE app_name = :app
"""


def _users_of_file(path: str, app_name: str) -> Sequence[str]:
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        return [user for (user,) in db.execute(USERS, {"app": app_name})]


def _option(uri: str, name: str, default: str) -> tuple[str, str]:
    """Return a URI without one of its options, and the option."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    value = options.pop(name, default)
    return parts._replace(query=urlencode(options, safe="/:,")).geturl(), value


def _open_redis(uri: str) -> AdkSource:
    from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig

    uri, prefix = _option(uri, "key_prefix", "adk:session:")
    client = import_module("redis.asyncio").from_url(uri, decode_responses=True)
    config = RedisSessionServiceConfig(uri=uri, key_prefix=prefix)

    async def users(app_name: str) -> Sequence[str]:
        start = f"{prefix}user_state:{app_name}:"
        pattern = "".join(f"[{char}]" if char in "*?[" else char for char in start) + "*"
        return [key.removeprefix(start) async for key in client.scan_iter(match=pattern)]

    return AdkSource(RedisSessionService(config, redis_client=client), users)


def _open_mongodb(uri: str) -> AdkSource:
    from google.adk.integrations.mongodb import MongoDbSessionService

    uri, collection = _option(uri, "user_state_collection", "user_states")
    client = import_module("pymongo").MongoClient(uri)
    database = client.get_default_database("adk").name
    states = client[database][collection]
    service = MongoDbSessionService(
        database_name=database,
        mongo_client=client,
        user_state_collection=collection,
        ensure_indexes=False,
    )

    def users(app_name: str) -> Sequence[str]:
        return [
            each["_id"]["user_id"] for each in states.find({"_id.app_name": app_name}, {"_id": 1})
        ]

    return AdkSource(service, lambda app_name: asyncio.to_thread(users, app_name))


def _open_firestore(uri: str) -> AdkSource:
    from google.adk.integrations.firestore.firestore_session_service import FirestoreSessionService

    uri, root = _option(uri, "root_collection", "")
    parts = urlsplit(uri)
    client = import_module("google.cloud.firestore").AsyncClient(
        project=parts.netloc or None, database=parts.path.strip("/") or None
    )
    service = FirestoreSessionService(client, root_collection=root or None)

    async def users(app_name: str) -> Sequence[str]:
        states = client.collection(service.user_state_collection).document(app_name)
        return [each.id async for each in states.collection("users").list_documents()]

    return AdkSource(service, users)


OWN_SCHEMES: Mapping[str, Callable[[str], AdkSource]] = {
    "redis": _open_redis,
    "rediss": _open_redis,
    "mongodb": _open_mongodb,
    "firestore": _open_firestore,
}
