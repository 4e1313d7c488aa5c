"""Sessions in Redis 6.2 or later, or in Valkey. Each operation is one Lua script and one round trip.

`scripts.py` lists keys and fields.
"""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any, Self
from urllib.parse import quote, unquote

from typing_extensions import override

from ..errors import ConfigurationError, StoreUnavailable
from ..flags import boolean
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
from ..uri import SessionURI
from .connections import Client, connector
from .errors import FAILURES, explain
from .scripts import (
    APPEND,
    CREATE,
    DELETE,
    DELIVER,
    DELIVERED,
    ERASE,
    LIST,
    LOAD,
    REGISTER,
    REWRITE,
)

EXISTS, MISSING, STALE = b"exists", b"missing", b"stale"
"""Replies of scripts instead of a result."""

STATE = "state:"
"""The prefix of the fields of a session's hash that hold its state."""

TIMESTAMP = struct.Struct(">d")
"""The time before each event, and before app state in an outbox."""

REWRITE_BATCH = 500
"""Events that are replaced by one script."""

LIST_BATCH = 100
"""Users whose sessions are listed at the same time."""


class RedisStore(SessionStore):
    """A `SessionStore` in Redis. See `from_uri` for its options."""

    def __init__(
        self, connect: Callable[[], Client], *, location: str, prefix: str, cluster: bool
    ) -> None:
        self._clients = PerLoop(connect, Client.close)
        self._location = location
        self.prefix = prefix
        self._cluster = cluster

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://[user:password@]host[:port][/db]`, `schemes://` for TLS, or a Unix socket.

        `scheme+unix:///path/to.sock?db=0` is a Unix socket. Options: `prefix` of all keys, `cluster=true`,
        `sentinel=<service>` (with several `host:port,host:port`), `socket_timeout` in seconds,
        `max_connections`, and redis-py's `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`
        and `ssl_check_hostname`.
        """
        prefix = uri.options.take("prefix", str, "sessions")
        cluster = uri.options.take("cluster", boolean, False)
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                "Option prefix must not have braces: they name a slot of a cluster."
            )
        connect = connector(uri, cluster=cluster)
        return cls(connect, location=uri.location, prefix=prefix, cluster=cluster)

    @property
    @override
    def location(self) -> str:
        """Host, port and database."""
        return self._location

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        expires_at = next_expiry(None, ttl=ttl, now=now)
        head = (incarnation, repr(now), ttl, "" if expires_at is None else repr(expires_at))
        with self._translated():
            if self._cluster:
                await self._register(key, ttl)
            reply = await self.run(CREATE, self._keys(key), *head, *_by_scope(state))
            if reply == EXISTS:
                raise AlreadyExists
            return await self._record(key, reply)

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
        wanted = (-1 if limit is None else limit, "" if since is None else repr(since))
        with self._translated():
            reply = await self.run(LOAD, self._keys(key), repr(now), after_revision, *wanted)
            return None if reply == MISSING else await self._record(key, reply)

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
        entry = _entry(StoredEvent(expected.revision + 1, timestamp, event))
        head = (expected.incarnation, expected.revision, repr(now), entry)
        with self._translated():
            reply = await self.run(APPEND, self._keys(key), *head, *_by_scope(state))
            if reply == MISSING:
                raise NotFound
            if reply == STALE:
                raise Stale
            ttl, expires_at, indexed = int(reply[0]), reply[1], reply[2]
            if self._cluster and indexed:
                await self._register(key, ttl)
            if self._cluster and state.app:
                written = TIMESTAMP.pack(now)
                await self._deliver(
                    key, flat({name: written + value for name, value in state.app.items()})
                )
        position = Position(expected.incarnation, expected.revision + 1)
        return Head(key, position, timestamp, ttl, float(expires_at) if expires_at else None)

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        key, incarnation = old.head.key, old.head.position.incarnation
        session, events, _, user = self._keys(key)[:4]
        app = self._app_key(key.app_name, "state")
        log = [
            (before.revision - 1, _entry(before), _entry(after))
            for before, after in zip(old.events, new.events, strict=True)
        ]
        with self._translated():
            for start in range(0, len(log), REWRITE_BATCH):
                some = chain(*log[start : start + REWRITE_BATCH])
                await self.run(REWRITE, [events, session], incarnation, "LINDEX", "LSET", *some)
            for keys, owner, prefix, values, others in (
                ([session, session], incarnation, STATE, old.state.session, new.state.session),
                ([user], "", "", old.state.user, new.state.user),
                ([app], "", "", old.state.app, new.state.app),
            ):
                fields = [(prefix + name, values[name], others[name]) for name in values]
                if fields:
                    await self.run(REWRITE, keys, owner, "HGET", "HSET", *chain(*fields))

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        with self._translated():
            if user_id is None:
                members = await self.call("ZRANGE", self._app_key(app_name, "users"), 0, -1)
                users = [decoded(member) for member in members]
            else:
                users = [user_id]
            app = await self._app_state(app_name) if self._cluster else None
            found: list[SessionRecord] = []
            for start in range(0, len(users), LIST_BATCH):
                batch = users[start : start + LIST_BATCH]
                listed = (self._list_user(app_name, user, app) for user in batch)
                for records in await asyncio.gather(*listed):
                    found += records
            return [record for record in found if not record.head.expired(now)]

    @override
    async def delete(self, key: SessionKey) -> None:
        with self._translated():
            await self.run(DELETE, self._keys(key))
            if self._cluster:
                await self._unregister(key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        with self._translated():
            return await self._hash(f"{self._user_key(app_name, user_id)}:state")

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        with self._translated():
            return await self._app_state(app_name)

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        """Scan all keys, so that no append has to write an index."""
        start = f"{self.prefix}:{{{encoded(app_name)}/"
        seen: set[str] = set()
        with self._translated():
            async for key in self.scan(f"{escape_glob(start)}*"):
                user, _, kind = key.decode().removeprefix(start).partition("}:")
                if user not in seen and kind.startswith(("session:", "state")):
                    seen.add(user)
                    yield unquote(user)

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        with self._translated():
            if user_id is None:
                for what in ("state", "state_times"):
                    await self.call("UNLINK", self._app_key(app_name, what))
                return 0
            key = SessionKey(app_name, user_id, "")
            user = self._user_key(app_name, user_id)
            keys = [f"{user}:sessions", f"{user}:state", f"{user}:outbox"]
            if not self._cluster:
                keys.append(self._app_key(app_name, "users"))
            removed: int = await self.run(ERASE, keys, f"{user}:", encoded(user_id))
            if self._cluster:
                await self._unregister(key)
            return removed

    @override
    async def ping(self) -> None:
        with self._translated():
            # A script that writes nothing, because an ACL may allow PING but no scripts.
            await self.run(LIST, [f"{self.prefix}:{{}}:ping", f"{self.prefix}:{{}}:ping"], "")

    @override
    async def close(self) -> None:
        await self._clients.close()

    async def call(self, command: str, *arguments: Any) -> Any:
        """Return the reply to a command, or raise one of `FAILURES`."""
        return await self._clients.get().call(command, *arguments)

    async def run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Return the reply of a script, or raise one of `FAILURES`."""
        return await self._clients.get().run(script, keys, arguments)

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield the keys that match a glob-style pattern, or raise one of `FAILURES`."""
        async for key in self._clients.get().scan(pattern):
            yield key

    # Keys.

    def _app_key(self, app_name: str, what: str) -> str:
        # Empty braces would name no slot. No id is encoded as a lone %.
        return f"{self.prefix}:{{{encoded(app_name) or '%'}}}:{what}"

    def _user_key(self, app_name: str, user_id: str) -> str:
        return f"{self.prefix}:{{{encoded(app_name)}/{encoded(user_id)}}}"

    def _keys(self, key: SessionKey) -> Sequence[str]:
        user = self._user_key(key.app_name, key.user_id)
        session = encoded(key.session_id)
        keys = [f"{user}:session:{session}", f"{user}:events:{session}"]
        keys += [f"{user}:sessions", f"{user}:state"]
        if self._cluster:
            return [*keys, f"{user}:outbox"]
        return [*keys, self._app_key(key.app_name, "state"), self._app_key(key.app_name, "users")]

    # Records.

    async def _record(self, key: SessionKey, reply: Any) -> SessionRecord:
        session, user, app, outbox, log = reply
        if outbox:
            await self._deliver(key, outbox)
        app_state = await self._app_state(key.app_name) if self._cluster else pairs(app)
        return record(key, session, app=app_state, user=pairs(user), log=log)

    async def _list_user(
        self, app_name: str, user_id: str, app: Mapping[str, bytes] | None
    ) -> Sequence[SessionRecord]:
        user = self._user_key(app_name, user_id)
        keys = [f"{user}:sessions", f"{user}:state"]
        if app is None:
            keys.append(self._app_key(app_name, "state"))
        ids, sessions, user_state, app_state = await self.run(LIST, keys, f"{user}:session:")
        app = pairs(app_state) if app is None else app
        own = pairs(user_state)
        return [
            record(SessionKey(app_name, user_id, decoded(session_id)), session, app=app, user=own)
            for session_id, session in zip(ids, sessions, strict=True)
            if session  # the indexes list an expired session for a while
        ]

    async def _app_state(self, app_name: str) -> Mapping[str, bytes]:
        return await self._hash(self._app_key(app_name, "state"))

    async def _hash(self, key: str) -> Mapping[str, bytes]:
        fields = await self.call("HGETALL", key)
        return {name.decode(): value for name, value in fields.items()}

    # On a cluster, keys of the app are in another slot than those of its users.

    async def _deliver(self, key: SessionKey, outbox: Sequence[bytes | str]) -> None:
        """Deliver app state from the outbox of a user."""
        app = [self._app_key(key.app_name, what) for what in ("state", "state_times")]
        await self.run(DELIVER, app, *outbox)
        await self.run(DELIVERED, self._keys(key)[-1:], *outbox)

    async def _register(self, key: SessionKey, ttl: int) -> None:
        users = self._app_key(key.app_name, "users")
        await self.run(REGISTER, [users], encoded(key.user_id), ttl)

    async def _unregister(self, key: SessionKey) -> None:
        """Remove a user without sessions from the list, and add it again if a session was created."""
        sessions = f"{self._user_key(key.app_name, key.user_id)}:sessions"
        if not await self.call("EXISTS", sessions):
            users = self._app_key(key.app_name, "users")
            await self.call("ZREM", users, encoded(key.user_id))
            if await self.call("EXISTS", sessions):
                await self._register(key, 0)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise StoreUnavailable(f"Redis at {self._location}: {explain(error)}.") from error


@lru_cache(maxsize=4096)
def encoded(text: str) -> str:
    """Return an id percent-encoded. Letters, digits and `_.-~` stay."""
    return quote(text, safe="")


@lru_cache(maxsize=4096)
def decoded(text: bytes) -> str:
    """Return the id of an encoded one."""
    return unquote(text.decode())


def escape_glob(text: str) -> str:
    """Escape the characters that have a meaning in patterns of keys."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", text)


def flat(state: Mapping[str, bytes], prefix: str = "") -> list[bytes | str]:
    """Return keys and values alternately, as scripts expect them."""
    return [part for name, value in state.items() for part in (prefix + name, value)]


def pairs(reply: Sequence[bytes]) -> dict[str, bytes]:
    """Return the fields of a hash from a reply of HGETALL."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def record(
    key: SessionKey,
    reply: Sequence[bytes],
    *,
    app: Mapping[str, bytes],
    user: Mapping[str, bytes],
    log: Sequence[bytes] = (),
) -> SessionRecord:
    """Return a session from the fields of its hash and the end of its log."""
    fields = pairs(reply)
    own = {name[len(STATE) :]: value for name, value in fields.items() if name.startswith(STATE)}
    revision = int(fields["revision"])
    head = Head(
        key,
        Position(fields["incarnation"].decode(), revision),
        float(fields["updated_at"]),
        int(fields["ttl"]),
        float(fields["expires_at"]) if fields["expires_at"] else None,
    )
    events = [
        StoredEvent(number, TIMESTAMP.unpack_from(entry)[0], entry[TIMESTAMP.size :])
        for number, entry in enumerate(log, revision - len(log) + 1)
    ]
    return SessionRecord(head, ScopedState(app, user, own), events)


def _entry(event: StoredEvent) -> bytes:
    return TIMESTAMP.pack(event.timestamp) + event.data


def _by_scope(state: ScopedState) -> Iterator[bytes | str | int]:
    """Yield the number of pairs and the pairs of session, user and app."""
    for scope, prefix in ((state.session, STATE), (state.user, ""), (state.app, "")):
        yield len(scope)
        yield from flat(scope, prefix)
