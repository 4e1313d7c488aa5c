"""Traces and metrics of the session store, through the OpenTelemetry API.

Nothing has to be configured: without an SDK, all of this does nothing. ADK sets one up for `--otel_to_cloud` and
for the environment variables `OTEL_EXPORTER_OTLP_…`. Names follow the semantic conventions for databases,
https://opentelemetry.io/docs/specs/semconv/database/. No attribute holds an id, a key or a text.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace
from typing_extensions import override

from .store import AlreadyExists, NotFound, SessionStore, Stale
from .wrapper import StoreWrapper

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


class TracedStore(StoreWrapper):
    """A store whose calls are spans, measured and counted.

    Args:
        inner: the store that does the work.
        system: its `db.system.name`.
    """

    def __init__(self, inner: SessionStore, system: str) -> None:
        super().__init__(inner)
        self.system = system

    @override
    @contextmanager
    def _around(self, operation: str) -> Iterator[None]:
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
