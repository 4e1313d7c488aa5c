"""Sessions in Redis 6.2 or later, or in Valkey: one Lua script, and so one round trip, per operation.

Keys, with ids percent-encoded so that no id can spell another's key:

    <prefix>:{<app>/<user>}:s:<session>   hash: the head, and the session's state as fields `s:<key>`
    <prefix>:{<app>/<user>}:e:<session>   list: its events, each behind its timestamp (8 bytes)
    <prefix>:{<app>/<user>}:sessions      sorted set: the user's sessions by when the server drops them
    <prefix>:{<app>/<user>}:state         hash: the user's state
    <prefix>:{<app>/<user>}:outbox        hash: on a cluster, app state on its way to the app's slot
    <prefix>:{<app>}:users                sorted set: the app's users, likewise
    <prefix>:{<app>}:state                hash: the app's state

The braces put all keys of a user into one slot of a cluster. Everything that belongs to a session has a
time to live on the server, so that nothing is left over when sessions expire.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Self
from urllib.parse import quote, unquote

from redis import exceptions
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
from .connections import Client, connector
from .scripts import (
    APPEND,
    APPEND_OWN,
    CREATE,
    DELETE,
    DELIVER,
    LIST,
    LOAD,
    REGISTER,
    SETTLE,
    Script,
)


@lru_cache(maxsize=4096)
def encoded(text: str) -> str:
    """Return an id as it stands in a key: letters, digits and `_.-~` as they are, the rest as %XX."""
    return quote(text, safe="")


@lru_cache(maxsize=4096)
def decoded(text: bytes) -> str:
    """Return the id that was encoded so."""
    return unquote(text.decode())


EXISTS, MISSING, STALE, RELIST = b"exists", b"missing", b"stale", b"relist"
"""What the scripts answer instead of a result."""

STATE = b"s:"
"""What the fields of a session's hash begin with that hold its state."""

TIMESTAMP = struct.Struct(">d")

REPLIES = {
    "maxmemory": "its memory is full; raise maxmemory, or shorten the ttl of sessions",
    "read only replica": "it is a replica; name the master, or use sentinel=<service>",
    "MISCONF": "it refuses writes because it cannot save to disk; see its log",
    "no permissions": "the user lacks permission for what sessions need; see the README",
    "loading the dataset": "it is still loading its data; try again in a moment",
    "CLUSTERDOWN": "the cluster is down; see CLUSTER INFO",
    "DB index is out of range": "it has no database of that number; see the end of the session URI",
    "MOVED": "it is part of a cluster; add cluster=true to the session URI",
}
"""What the server answers, and what to do."""

FAILURES = (exceptions.RedisError, OSError)
"""What comes out of redis-py."""

FEW = 1_000
"""Keys of state that a script can write at once."""
LIST_BATCH = 100
"""Users whose sessions are asked for in one round trip when all of an app are listed."""


class RedisStore(SessionStore):
    """A `SessionStore` in Redis. See `from_uri` for its options."""

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        location: str,
        prefix: str = "sessions",
        cluster: bool = False,
    ) -> None:
        self._clients = PerLoop(connect, lambda client: client.aclose())
        self._location = location
        self.prefix = prefix
        self._cluster = cluster

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://[user:password@]host[:port][/db]`, `schemes://` for TLS, or a Unix socket.

        `scheme+unix:///path/to.sock?db=0` is a Unix socket. Options: `prefix` of all keys,
        `cluster=true`, `sentinel=<service>` (with several `host:port,host:port`), `socket_timeout` of
        a whole call, and redis-py's own that `connections.py` lists.
        """
        prefix = uri.options.take("prefix", str, "sessions")
        cluster = uri.options.take("cluster", boolean, False)
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                "Option prefix must not have braces: they name a cluster slot."
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
        expiry = "" if expires_at is None else repr(expires_at)
        with self._translated():
            if self._cluster:
                await self._register(key, ttl)
            reply = await self.run(
                CREATE,
                self._keys(key),
                *(incarnation, repr(now), ttl, expiry),
                *_flat(state),
            )
            if reply == EXISTS:
                raise AlreadyExists
            return await self._stored(key, reply)

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
            reply = await self.run(
                LOAD,
                self._keys(key),
                *(repr(now), after_revision),
                *(-1 if limit is None else limit, "" if since is None else repr(since)),
                brief=after_revision > 0,
            )
            return None if reply == MISSING else await self._stored(key, reply)

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
            what = (
                expected.incarnation,
                expected.revision,
                repr(now),
                TIMESTAMP.pack(timestamp) + event,
            )
            reply = RELIST
            if not (state.user or state.app) and len(state.session) <= FEW:
                own = [
                    part
                    for name in state.session.items()
                    for part in (STATE + name[0].encode(), name[1])
                ]
                reply = await self.run(APPEND_OWN, self._keys(key)[:2], *what, *own)
            if reply == RELIST:
                reply = await self.run(APPEND, self._keys(key), *what, *_flat(state))
            if reply == MISSING:
                raise NotFound
            if reply == STALE:
                raise Stale
            ttl, expiry, relisted = int(reply[0]), reply[1], reply[2]
            if self._cluster:
                if relisted:
                    await self._register(key, ttl)
                if state.app:
                    stamp = TIMESTAMP.pack(now)
                    pending = [
                        part for item in state.app.items() for part in (item[0], stamp + item[1])
                    ]
                    await self._deliver(key, pending)
        position = Position(expected.incarnation, expected.revision + 1)
        return Head(key, position, timestamp, ttl, float(expiry) if expiry else None)

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
            app = await self._app_state(app_name) if self._cluster or len(users) > 1 else None
            found = []
            for start in range(0, len(users), LIST_BATCH):
                batch = users[start : start + LIST_BATCH]
                replies = await asyncio.gather(*(self._list_user(app_name, user) for user in batch))
                for user, reply in zip(batch, replies, strict=True):
                    members, sessions, user_state, app_state = reply
                    shared = pairs(app_state) if app is None else app
                    own = pairs(user_state)
                    for member, fields in zip(members, sessions, strict=True):
                        if fields:  # a session is listed for a while after it is gone
                            key = SessionKey(app_name, user, decoded(member))
                            found.append(record(key, fields, shared, own, ()))
            return [stored for stored in found if not stored.head.expired(now)]

    @override
    async def delete(self, key: SessionKey) -> None:
        with self._translated():
            await self.run(DELETE, self._keys(key))
            if self._cluster:
                await self._unregister(key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        with self._translated():
            key = f"{self._user_key(app_name, user_id)}:state"
            return _decoded(await self.call("HGETALL", key))

    @override
    async def ping(self) -> None:
        with self._translated():
            # A script that writes nothing, because a user of an ACL may PING but not run scripts.
            await self.run(LIST, [f"{self.prefix}:{{}}:ping", f"{self.prefix}:{{}}:ping"], "")

    @override
    async def close(self) -> None:
        await self._clients.close()

    # Keys.

    def _app_key(self, app_name: str, what: str) -> str:
        # Braces around nothing would name no slot; a lone % is what no other id is encoded to.
        return f"{self.prefix}:{{{encoded(app_name) or '%'}}}:{what}"

    def _user_key(self, app_name: str, user_id: str) -> str:
        return f"{self.prefix}:{{{encoded(app_name)}/{encoded(user_id)}}}"

    def _keys(self, key: SessionKey) -> Sequence[str]:
        user = self._user_key(key.app_name, key.user_id)
        session = encoded(key.session_id)
        keys = [
            f"{user}:s:{session}",
            f"{user}:e:{session}",
            f"{user}:sessions",
            f"{user}:state",
        ]
        if self._cluster:
            return [*keys, f"{user}:outbox"]
        return [*keys, self._app_key(key.app_name, "state"), self._app_key(key.app_name, "users")]

    # Calls.

    async def call(self, command: str, *arguments: Any, brief: bool = False) -> Any:
        """Return what Redis answers to a command, or raise one of `FAILURES`.

        A `brief` one is quickly done and says little, so that others may wait behind it.
        """
        return await self._clients.get().call((command, *arguments), brief=brief)

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: Any, brief: bool = False
    ) -> Any:
        """Return what a script answers, or raise one of `FAILURES`."""
        brief = brief or script.brief
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments, brief=brief)
        except exceptions.NoScriptError:
            # A server that was restarted, or a replica that has taken over, does not know it yet.
            return await self.call("EVAL", script.text, len(keys), *keys, *arguments, brief=brief)

    async def _list_user(self, app_name: str, user_id: str) -> Any:
        user = self._user_key(app_name, user_id)
        keys = [f"{user}:sessions", f"{user}:state"]
        if not self._cluster:
            keys.append(self._app_key(app_name, "state"))
        return await self.run(LIST, keys, f"{user}:s:")

    async def _stored(self, key: SessionKey, reply: Any) -> SessionRecord:
        fields, user, app, pending, log = reply
        app_state = pairs(app)
        if self._cluster:
            if pending:
                await self._deliver(key, pending)
            app_state = await self._app_state(key.app_name)
        return record(key, fields, app_state, pairs(user), log)

    async def _app_state(self, app_name: str) -> dict[str, bytes]:
        return _decoded(await self.call("HGETALL", self._app_key(app_name, "state")))

    # A cluster keeps an app's state in another slot than its users, and a script stays in one slot.

    async def _deliver(self, key: SessionKey, pending: Sequence[bytes | str]) -> None:
        """Bring app state from the outbox of a user to the app; whoever finds some there does it."""
        stamps = self._app_key(key.app_name, "stamps")
        await self.run(DELIVER, [self._app_key(key.app_name, "state"), stamps], *pending)
        outbox = f"{self._user_key(key.app_name, key.user_id)}:outbox"
        await self.run(SETTLE, [outbox], *pending)

    async def _register(self, key: SessionKey, ttl: int) -> None:
        users = self._app_key(key.app_name, "users")
        await self.run(REGISTER, [users], encoded(key.user_id), ttl)

    async def _unregister(self, key: SessionKey) -> None:
        """Take a user without sessions off the list, and back onto it if one came in between."""
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


def explain(error: Exception) -> str:
    """Say in a sentence what went wrong; redis-py's texts hold no password, but some a traceback."""
    text = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, exceptions.AuthenticationError) or "NOAUTH" in text:
        return "it refuses the credentials; check user and password in the session URI"
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return (
            "it did not answer in time; check that it runs, is not overloaded, and speaks TLS"
            " if and only if the scheme of the session URI asks for it"
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return "it does not speak TLS; use the scheme without 's', or the port for TLS"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted; name its authority with ssl_ca_certs"
    for code, mend in REPLIES.items():
        if code in text:
            return mend
    if isinstance(error, exceptions.ConnectionError | OSError):
        return f"it cannot be reached ({text}); check that it runs, and host and port in the session URI"
    return text


def _flat(state: ScopedState) -> Iterator[Any]:
    """Yield the pairs of each scope behind their number, or nothing where there are none at all."""
    if not (state.session or state.user or state.app):
        return
    own = {STATE + name.encode(): value for name, value in state.session.items()}
    for scope in (own, state.user, state.app):
        yield len(scope)
        for item in scope.items():
            yield from item


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Return as a dictionary what a script has from HGETALL."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _decoded(reply: Sequence[bytes] | Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Return what HGETALL says, which a cluster's client has made a dictionary of."""
    if isinstance(reply, Mapping):
        return {name.decode(): value for name, value in reply.items()}
    return pairs(reply)


def record(
    key: SessionKey,
    flat: Sequence[bytes],
    app: Mapping[str, bytes],
    user: Mapping[str, bytes],
    log: Sequence[bytes],
) -> SessionRecord:
    """Return a session from the fields of its hash and from the end of its log."""
    fields, own = {}, {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if name.startswith(STATE):
            own[name[len(STATE) :].decode()] = value
        else:
            fields[name] = value
    revision, expiry = int(fields[b"revision"]), fields[b"expires"]
    head = Head(
        key,
        Position(fields[b"incarnation"].decode(), revision),
        float(fields[b"updated"]),
        int(fields[b"ttl"]),
        float(expiry) if expiry else None,
    )
    first = revision - len(log) + 1

    events = [
        StoredEvent(revision, *TIMESTAMP.unpack_from(entry), entry[TIMESTAMP.size :])
        for revision, entry in enumerate(log, first)
    ]
    return SessionRecord(head, ScopedState(app, user, own), events)
