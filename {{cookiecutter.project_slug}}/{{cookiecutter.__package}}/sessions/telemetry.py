"""Traces and metrics of the session store, through the OpenTelemetry API.

Nothing has to be configured: without an SDK, all of this does nothing. ADK sets one up for `--otel_to_cloud` and
for the environment variables `OTEL_EXPORTER_OTLP_…`. Names follow the semantic conventions for databases,
https://opentelemetry.io/docs/specs/semconv/database/. No attribute holds an id, a key or a text.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from opentelemetry import metrics, trace
from typing_extensions import override

from .store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
    Stale,
)
from .uri import SessionURI

_tracer = trace.get_tracer(__name__)
_meter = metrics.get_meter(__name__)
_durations = _meter.create_histogram(
    "db.client.operation.duration", unit="s", description="Duration of calls of the session store."
)
_errors = _meter.create_counter(
    "session_store.errors", unit="{error}", description="Calls of the session store that failed."
)
turn_waits = _meter.create_histogram(
    "session_store.turn.wait", unit="s", description="How long messages waited for their turn."
)


class TracedStore(SessionStore):
    """A store whose calls are spans, measured and counted.

    Args:
        inner: the store that does the work.
        system: its `db.system.name`.
    """

    def __init__(self, inner: SessionStore, system: str) -> None:
        self.inner = inner
        self.system = system

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
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        with self._observed("create"):
            return await self.inner.create(
                key, incarnation=incarnation, state=state, now=now, ttl=ttl
            )

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
        with self._observed("load"):
            return await self.inner.load(
                key, now=now, after_revision=after_revision, limit=limit, since=since
            )

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
        with self._observed("append"):
            return await self.inner.append(
                key, expected=expected, event=event, timestamp=timestamp, state=state, now=now
            )

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        with self._observed("list"):
            return await self.inner.list(app_name, user_id, now=now)

    @override
    async def delete(self, key: SessionKey) -> None:
        with self._observed("delete"):
            await self.inner.delete(key)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        with self._observed("user_state"):
            return await self.inner.user_state(app_name, user_id)

    @override
    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        with self._observed("lease"):
            return await self.inner.lease(key, holder=holder, now=now, ttl=ttl)

    @override
    async def release(self, key: SessionKey, *, holder: str) -> None:
        with self._observed("release"):
            await self.inner.release(key, holder=holder)

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        with self._observed("app_state"):
            return await self.inner.app_state(app_name)

    @override
    async def unlisted(self, app_name: str, user_id: str | None) -> Sequence[str]:
        return await self.inner.unlisted(app_name, user_id)

    @override
    def users(self, app_name: str) -> AsyncIterator[str]:
        return self.inner.users(app_name)

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        with self._observed("erase"):
            return await self.inner.erase(app_name, user_id)

    @override
    async def ping(self) -> None:
        with self._observed("ping"):
            await self.inner.ping()

    @override
    async def close(self) -> None:
        await self.inner.close()

    @override
    async def missing(self) -> str | None:
        return await self.inner.missing()

    @override
    async def prepare(self) -> None:
        with self._observed("prepare"):
            await self.inner.prepare()

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        attributes = {"db.system.name": self.system, "db.operation.name": operation}
        started = time.perf_counter()
        # The text of an exception may name ids, so it is not recorded.
        with _tracer.start_as_current_span(
            f"{operation} session",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except (AlreadyExists, NotFound, Stale):
                raise  # answers, and not failures
            except BaseException as error:
                attributes["error.type"] = type(error).__qualname__
                span.set_attribute("error.type", attributes["error.type"])
                span.set_status(trace.StatusCode.ERROR)
                _errors.add(1, attributes)
                raise
            finally:
                _durations.record(time.perf_counter() - started, attributes)
