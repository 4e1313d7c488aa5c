"""Copies of sessions in Redis, which may be unreachable, slow, flushed, full, or restored to an earlier state.

None of this raises an error or delays a caller: PostgreSQL does what Redis cannot. `Floors` keeps a number for each
part that this process has written lately, so that it never reads older data than its own writes.
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ..errors import StoreUnavailable
from ..per_loop import PerLoop
from ..redis.errors import FAILURES, explain
from ..redis.store import STATE, TIMESTAMP, RedisStore, encoded, escape_glob, flat, pairs, record
from ..store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    Stale,
)
from .scripts import DROP, EXTEND, FILL, READ

logger = logging.getLogger(__name__)

LEASE_SECONDS = 10
"""Seconds that a reader of a missing part may take to read PostgreSQL."""
EVENTS = 1_000
"""The number of last events in a copy."""
BYTES = 4 << 20
"""Bytes of the events of a copy, and of its state."""
PAUSES = (0.2, 10.0)
"""The first and the longest pause in seconds between two checks of whether Redis is back."""

Part = tuple[str, ...]
"""The keys of a part of a copy. The last one is the lease."""

IN_DOUBT = 10**18
"""A floor above every time: it is unknown whether Redis has a write. The scripts use it too."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A part from before this time must not be read."""

    at: int
    """Microseconds of Redis's clock."""
    since: float
    """The time at which it was set, by our monotonic clock."""


class Floors:
    """The floors of this process, kept for as long as older copies may exist."""

    def __init__(self, keep: float, most: int = 100_000) -> None:
        self._keep = keep
        self._most = most
        self._floors: OrderedDict[Part, Floor] = OrderedDict()
        self._lock = Lock()
        self._blind_until = 0.0

    @property
    def blind(self) -> bool:
        """Whether there were more writes than can be remembered, so no copy may be read."""
        return time.monotonic() < self._blind_until

    def get(self, part: Part) -> Floor | None:
        """Return the floor of a part."""
        return self._floors.get(part)

    def doubt(self, parts: Sequence[Part]) -> None:
        """Note that copies of these parts may lack our last write."""
        for part in parts:
            self._set(part, IN_DOUBT)

    def settle(self, before: Sequence[tuple[Part, Floor | None]], at: int) -> None:
        """Note that Redis had no older copies at this time, unless a doubt arose since `before`."""
        for part, floor in before:
            now = self._floors.get(part)
            if now is floor or now is None or now.at != IN_DOUBT:
                self._set(part, at)

    def doubtful(self, most: int) -> list[Part]:
        """Return some of the parts that are in doubt."""
        with self._lock:
            found = [part for part, floor in self._floors.items() if floor.at == IN_DOUBT]
        return found[:most]

    def _set(self, part: Part, at: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._floors[part] = Floor(at, now)
            self._floors.move_to_end(part)
            while next(iter(self._floors.values())).since < now - self._keep:
                self._floors.popitem(last=False)
            if len(self._floors) > self._most:
                self._floors.clear()
                self._blind_until = now + self._keep


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of a session: all parts, or leases to fill in missing ones."""

    stored: SessionRecord | None = None
    leases: tuple[bytes, bytes, bytes] = (b"", b"", b"")
    """The leases of session, user and app. Empty if a part exists or cannot be filled."""
    position: Position | None = None
    """The position of the session in Redis, if only other parts were missing."""


class Recovery:
    """The task of an event loop while Redis is unreachable."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop waiting for Redis."""
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task


class Copies:
    """Copies of sessions in Redis.

    Args:
        redis: the store whose client is used. Its time-out limits the wait for copies.
        ttl: seconds that a copy lives after its last update.
    """

    def __init__(self, redis: RedisStore, *, ttl: float) -> None:
        self._redis = redis
        self._ttl = int(ttl * 1000)
        self._floors = Floors(keep=ttl + LEASE_SECONDS + 60)
        self._down = False
        self._recoveries = PerLoop(Recovery, Recovery.close)

    @property
    def location(self) -> str:
        """Host, port and database."""
        return self._redis.location

    async def read(self, key: SessionKey, after_revision: int, limit: int | None) -> Copy:
        """Return the session with its events after the revision, at most the last `limit`."""
        parts = self._parts(key)
        before = [(part, self._floors.get(part)) for part in parts]
        if self._floors.blind:
            return Copy()
        reply = await self._run(
            READ,
            [name for part in parts for name in part],
            *(secrets.token_hex(8), LEASE_SECONDS),
            *(after_revision, -1 if limit is None else limit),
            *(floor.at if floor else 0 for _, floor in before),
        )
        if reply is None:
            return Copy()
        at, head, events, *rest = reply
        in_doubt = [(part, floor) for part, floor in before if floor and floor.at == IN_DOUBT]
        self._floors.settle(in_doubt, int(at))
        lease, user, user_lease, app, app_lease = rest
        if head and user is not None and app is not None:
            return Copy(record(key, head, app=_state(app), user=_state(user), log=events))
        found = record(key, head, app={}, user={}).head.position if head else None
        return Copy(None, (lease or b"", user_lease or b"", app_lease or b""), found)

    async def fill(self, key: SessionKey, stored: SessionRecord, copy: Copy) -> None:
        """Store the parts that `copy` lacked and that were read from PostgreSQL since."""
        if not any(copy.leases):
            return
        log = [TIMESTAMP.pack(event.timestamp) + event.data for event in stored.events[-EVENTS:]]
        size = sum(map(len, log))
        while size > BYTES:
            size -= len(log.pop(0))
        head = stored.head
        own: dict[str, object] = {
            "incarnation": head.position.incarnation,
            "revision": head.position.revision,
            "updated_at": repr(head.updated_at),
            "ttl": head.ttl,
            "expires_at": "" if head.expires_at is None else repr(head.expires_at),
            "first": head.position.revision - len(log),
            "size": size,
            "cut": int(len(log) < len(stored.events)),
        }
        leases = list(copy.leases)
        arguments: list[object] = []
        state = stored.state
        scopes: list[tuple[dict[str, object], Mapping[str, bytes]]]
        scopes = [(own, state.session), ({}, state.user), ({}, state.app)]
        for index, (fields, values) in enumerate(scopes):
            if sum(map(len, values.values())) > BYTES:
                leases[index] = b""
            if leases[index]:
                fields = fields | {STATE + name: value for name, value in values.items()}
                arguments += [2 * len(fields), *(half for item in fields.items() for half in item)]
            else:
                arguments.append(0)
        if not leases[0]:
            log = []
        names = [name for part in self._parts(key) for name in part]
        await self._run(FILL, names, *leases, self._ttl, *arguments, len(log), *log)

    async def extend(
        self, key: SessionKey, expected: Position, head: Head, event: bytes, state: ScopedState
    ) -> None:
        """Update the copy after an append, or drop it if it was at another position."""
        await self._write(
            EXTEND,
            self._touched(key, state),
            *(expected.incarnation, expected.revision, repr(head.updated_at)),
            "" if head.expires_at is None else repr(head.expires_at),
            *(TIMESTAMP.pack(head.updated_at) + event, self._ttl, EVENTS, BYTES),
            *flat(state.session, STATE),
        )

    async def drop(self, key: SessionKey, state: ScopedState) -> None:
        """Drop the copy of a session, and of the scopes in `state`."""
        await self._write(DROP, self._touched(key, state))

    async def erase(self, app_name: str, user_id: str | None) -> None:
        """Drop all copies of a user, or the copy of the state of the app.

        Raises:
            StoreUnavailable: Redis does not answer. Its copies expire after `ttl`.
        """
        app = self._key(encoded(app_name))
        start = f"{app}:" if user_id is None else f"{app}/{encoded(user_id)}"
        try:
            async for name in self._redis.scan(f"{escape_glob(start)}*"):
                if name.decode()[len(start)] in "/:":  # not of a longer id
                    await self._redis.call("UNLINK", name)
        except FAILURES as error:
            raise StoreUnavailable(
                f"Redis at {self.location}: {explain(error)}. Its copies are left for"
                f" {self._ttl / 1000:g} seconds; erase again."
            ) from error

    @contextmanager
    def doubted(self, key: SessionKey, state: ScopedState) -> Iterator[None]:
        """After a write with an unknown outcome, distrust the affected copies."""
        try:
            yield
        except (AlreadyExists, NotFound, Stale):
            raise
        except BaseException:
            self._floors.doubt(self._touched(key, state))
            raise

    async def ping(self) -> None:
        """Log a warning if Redis is unreachable. It is no error, because PostgreSQL is enough."""
        await self._run(DROP, [self._key("ping")])

    async def close(self) -> None:
        """Disconnect."""
        await self._recoveries.close()
        with suppress(*FAILURES):
            await self._redis.close()

    def _key(self, name: str) -> str:
        return f"{self._redis.prefix}:copy:{name}"

    def _parts(self, key: SessionKey) -> tuple[Part, Part, Part]:
        app = self._key(encoded(key.app_name))
        user = f"{app}/{encoded(key.user_id)}"
        session = f"{user}/{encoded(key.session_id)}"
        return (
            (f"{session}:head", f"{session}:events", f"{session}:lease"),
            (f"{user}:state", f"{user}:lease"),
            (f"{app}:state", f"{app}:lease"),
        )

    def _touched(self, key: SessionKey, state: ScopedState) -> list[Part]:
        session, user, app = self._parts(key)
        return [session, *[user] * bool(state.user), *[app] * bool(state.app)]

    async def _write(self, script: str, parts: Sequence[Part], *arguments: Any) -> None:
        before = [(part, self._floors.get(part)) for part in parts]
        at = None
        try:
            at = await self._run(script, [name for part in parts for name in part], *arguments)
        finally:
            if at is None:
                self._floors.doubt(parts)
            else:
                self._floors.settle(before, int(at))

    async def _run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Return the reply of the script, or None if Redis is unavailable."""
        if not self._down:
            try:
                return await self._redis.run(script, keys, *arguments)
            except FAILURES as error:
                if not self._down:
                    self._down = True
                    logger.warning(
                        "Redis at %s: %s. Sessions are read from PostgreSQL until it is back.",
                        self.location,
                        explain(error),
                    )
        recovery = self._recoveries.get()
        if recovery.task is None or recovery.task.done():
            recovery.task = asyncio.get_running_loop().create_task(self._recover())
        return None

    async def _recover(self) -> None:
        """Wait until Redis is back and accepts writes, and drop the copies in doubt."""
        pause, longest = PAUSES
        while self._down:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                while parts := self._floors.doubtful(500):
                    before = [(part, self._floors.get(part)) for part in parts]
                    at = await self._redis.run(DROP, [name for part in parts for name in part])
                    self._floors.settle(before, int(at))
                await self._redis.call("SET", self._key("ping"), 1, "PX", 1)
            except FAILURES as error:
                logger.debug("Redis at %s is not back: %s", self.location, explain(error))
            else:
                self._down = False
                logger.info("Redis at %s is back.", self.location)


def _state(reply: Sequence[bytes]) -> dict[str, bytes]:
    return {
        name.removeprefix(STATE): value
        for name, value in pairs(reply).items()
        if name.startswith(STATE)
    }
