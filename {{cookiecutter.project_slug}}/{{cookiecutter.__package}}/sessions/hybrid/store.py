"""Sessions in PostgreSQL, with copies in Redis for fast reads.

PostgreSQL has the sessions: it accepts or refuses every write. Redis has copies of recently used ones. Consistency:

- While Redis answers, a read sees every write that was acknowledged before it began, in every process, because the
  copy is updated before the acknowledgment.
- A process never reads older data than its own acknowledged writes, whatever happens to Redis. It remembers its
  writes and refuses older copies (`copies.py`).
- If the writer could not reach Redis, or was killed between its two steps, another process may read an outdated copy
  for `cache_ttl` (5 minutes) at most. PostgreSQL refuses an append to it, and the copy is dropped.
- Without Redis, PostgreSQL does everything, after one warning, until Redis is back.

A copy has three parts, which change independently: the session with its events and its own state, the state of its
user, and the state of its app. An append updates the part of the session. Changed state of user or app is dropped
from the copies, and stored again by the next read.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

from typing_extensions import override

from ..errors import ConfigurationError
from ..flags import boolean
from ..postgres.store import PostgresStore
from ..redis.store import RedisStore
from ..store import (
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
    Stale,
    StoredEvent,
)
from ..uri import SessionURI, parse_uri, positive
from .copies import Copies

CACHE_SCHEMES = ("redis", "rediss", "redis+unix")


class HybridStore(SessionStore):
    """A `SessionStore` in PostgreSQL with copies in Redis. See `from_uri` for its options."""

    def __init__(self, record: SessionStore, copies: Copies) -> None:
        self._record = record
        self._copies = copies

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open a URI of `PostgresStore.from_uri` with the option `cache=redis://host:port/0`.

        The URI of the cache may have options of `RedisStore.from_uri` except `cluster`, with `%26` for `&`. More
        options: `cache_ttl`, the seconds that a copy lives, and `cache_timeout`, the seconds that Redis may take.
        """
        take = uri.options.take
        place = take("cache", str, "")
        ttl = take("cache_ttl", positive, 300.0)
        timeout = take("cache_timeout", positive, 0.5)
        if not place:
            raise ConfigurationError(
                "The session URI names no cache: add the option cache=redis://host:6379/0."
            )
        options = {"socket_timeout": timeout}
        cache = parse_uri(place, scheme="redis", schemes=CACHE_SCHEMES, options=options)
        if cache.options.take("cluster", boolean, False):
            raise ConfigurationError(
                "The cache of the session URI cannot be a cluster: name a single server, or Sentinel."
            )
        redis = RedisStore.from_uri(cache)
        cache.options.finish()
        return cls(PostgresStore.from_uri(uri), Copies(redis, ttl=ttl))

    @property
    @override
    def location(self) -> str:
        """The locations of both servers."""
        return f"{self._record.location}, with copies in Redis at {self._copies.location}"

    @override
    async def missing(self) -> str | None:
        return await self._record.missing()

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        with self._copies.doubted(key, state):
            stored = await self._record.create(
                key, incarnation=incarnation, state=state, now=now, ttl=ttl
            )
        await self._copies.drop(key, state)
        return stored

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
        copy = await self._copies.read(key, after_revision, limit)
        if copy.stored is not None and not copy.stored.head.expired(now):
            return _since(copy.stored, since)
        stored = await self._record.load(
            key, now=now, after_revision=after_revision, limit=limit, since=since
        )
        if copy.position and (stored is None or stored.head.position != copy.position):
            # The copy missed a write. Filling in the rest would mix two states.
            await self._copies.drop(key, ScopedState())
        elif stored is not None:
            await self._copies.fill(key, stored, copy)
        return stored

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
        try:
            with self._copies.doubted(key, state):
                head = await self._record.append(
                    key,
                    expected=expected,
                    event=event,
                    timestamp=timestamp,
                    state=state,
                    now=now,
                )
        except (NotFound, Stale):
            await self._copies.drop(key, ScopedState())
            raise
        await self._copies.extend(key, expected, head, event, state)
        return head

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        with self._copies.doubted(old.head.key, old.state):
            await self._record.rewrite(old, new)
        await self._copies.drop(old.head.key, old.state)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        return await self._record.list(app_name, user_id, now=now)

    @override
    async def delete(self, key: SessionKey) -> None:
        with self._copies.doubted(key, ScopedState()):
            await self._record.delete(key)
        await self._copies.drop(key, ScopedState())

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return await self._record.user_state(app_name, user_id)

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        return await self._record.app_state(app_name)

    @override
    def users(self, app_name: str) -> AsyncIterator[str]:
        return self._record.users(app_name)

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        removed = await self._record.erase(app_name, user_id)
        await self._copies.erase(app_name, user_id)
        return removed

    @override
    async def ping(self) -> None:
        await self._record.ping()
        await self._copies.ping()

    @override
    async def close(self) -> None:
        await self._copies.close()
        await self._record.close()


def _since(stored: SessionRecord, since: float | None) -> SessionRecord:
    """Return a session without the events up to the last one that is older than the timestamp."""
    events: list[StoredEvent] = list(stored.events)
    if since is not None:
        for place in range(len(events) - 1, -1, -1):
            if events[place].timestamp < since:
                return SessionRecord(stored.head, stored.state, events[place + 1 :])
    return stored
