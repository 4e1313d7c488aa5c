"""The base class of what is wrapped around a store."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from typing_extensions import override

from .store import Head, Position, ScopedState, SessionKey, SessionRecord, SessionStore
from .uri import SessionURI


class StoreWrapper(SessionStore):
    """A store that forwards each call to another one, the inner store."""

    def __init__(self, inner: SessionStore) -> None:
        self.inner = inner

    def _around(self, operation: str) -> AbstractContextManager[None]:
        """Return the context in which an operation of the inner store runs."""
        return nullcontext()

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        raise NotImplementedError("A wrapper is built around a store.")

    @property
    @override
    def location(self) -> str:
        return self.inner.location

    @property
    @override
    def innermost(self) -> SessionStore:
        return self.inner.innermost

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, **more: Any
    ) -> SessionRecord:
        with self._around("create"):
            return await self.inner.create(
                key, incarnation=incarnation, state=state, now=now, **more
            )

    @override
    async def load(self, key: SessionKey, **more: Any) -> SessionRecord | None:
        with self._around("load"):
            return await self.inner.load(key, **more)

    @override
    async def append(
        self,
        key: SessionKey,
        *,
        expected: Position,
        event: bytes,
        state: ScopedState,
        now: float,
        **more: Any,
    ) -> Head:
        with self._around("append"):
            return await self.inner.append(
                key, expected=expected, event=event, state=state, now=now, **more
            )

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        with self._around("rewrite"):
            await self.inner.rewrite(old, new)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        with self._around("list"):
            return await self.inner.list(app_name, user_id, now=now)

    @override
    async def delete(self, key: SessionKey) -> None:
        with self._around("delete"):
            await self.inner.delete(key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        with self._around("user_state"):
            return await self.inner.user_state(app_name, user_id)

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        with self._around("app_state"):
            return await self.inner.app_state(app_name)

    @override
    async def unlisted(self, app_name: str, user_id: str | None) -> Sequence[str]:
        return await self.inner.unlisted(app_name, user_id)

    @override
    def users(self, app_name: str) -> AsyncIterator[str]:
        return self.inner.users(app_name)

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        with self._around("erase"):
            return await self.inner.erase(app_name, user_id)

    @override
    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        with self._around("lease"):
            return await self.inner.lease(key, holder=holder, now=now, ttl=ttl)

    @override
    async def release(self, key: SessionKey, *, holder: str) -> None:
        with self._around("release"):
            await self.inner.release(key, holder=holder)

    @override
    async def ping(self) -> None:
        with self._around("ping"):
            await self.inner.ping()

    @override
    async def close(self) -> None:
        await self.inner.close()

    @override
    async def missing(self) -> str | None:
        return await self.inner.missing()

    @override
    async def prepare(self) -> None:
        with self._around("prepare"):
            await self.inner.prepare()
