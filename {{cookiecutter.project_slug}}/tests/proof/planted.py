"""Stores with one bug each, to show that the tests find it."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nextafter
from typing import Any

from {{ cookiecutter.__package }}.sessions.store import (
    Head,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
)


class Planted:
    """Forwards every call to a store. Each subclass adds a bug."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class LosesKey(Planted):
    """Loses a `user:` key of an append that changes both `user:` and `app:` state."""

    async def append(self, key: SessionKey, *, state: Any, **more: Any) -> Head:
        if state.app and state.user:
            state = replace(state, user=dict(list(state.user.items())[:-1]))
        return await self._store.append(key, state=state, **more)


class ExcludesEdge(Planted):
    """Treats `after_timestamp` as exclusive."""

    async def load(
        self, key: SessionKey, *, since: float | None = None, **more: Any
    ) -> SessionRecord | None:
        since = since if since is None else nextafter(since, inf)
        return await self._store.load(key, since=since, **more)


class CollidingIds(Planted):
    """Joins user and session with a colon, so that `a` + `b:c` equals `a:b` + `c`."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self._first: dict[tuple[str, str], SessionKey] = {}

    def _joined(self, key: SessionKey) -> SessionKey:
        return self._first.setdefault((key.app_name, f"{key.user_id}:{key.session_id}"), key)

    async def create(self, key: SessionKey, **more: Any) -> SessionRecord:
        return await self._store.create(self._joined(key), **more)

    async def load(self, key: SessionKey, **more: Any) -> SessionRecord | None:
        return await self._store.load(self._joined(key), **more)

    async def append(self, key: SessionKey, **more: Any) -> Head:
        return await self._store.append(self._joined(key), **more)

    async def delete(self, key: SessionKey) -> None:
        await self._store.delete(self._joined(key))


class RewritesLog(Planted):
    """Writes the whole log again with each event."""

    async def append(self, key: SessionKey, *, now: float, **more: Any) -> Head:
        head = await self._store.append(key, now=now, **more)
        record = await self._store.load(key, now=now)
        assert record
        log = b"".join(event.data for event in record.events)
        copy, none = SessionKey(key.app_name, "copies", f"{len(record.events)}"), ScopedState()
        new = await self._store.create(copy, incarnation="1", state=none, now=now, ttl=0)
        more |= {"expected": new.head.position, "event": log, "state": none}
        await self._store.append(copy, now=now, **more)
        return head


class NeverRemoves(Planted):
    """Keeps expired sessions."""

    async def create(self, key: SessionKey, *, ttl: int, **more: Any) -> SessionRecord:
        return await self._store.create(key, ttl=0, **more)


PLANTED: Sequence[type[Planted]] = (LosesKey, ExcludesEdge, CollidingIds)
