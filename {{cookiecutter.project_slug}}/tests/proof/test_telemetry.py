"""Every call of the store is a span and a measurement. Neither contains ids."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from {{ cookiecutter.__package }}.sessions import telemetry
from {{ cookiecutter.__package }}.sessions.config import DB_SYSTEM
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.support import create, event, get


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """An exporter that keeps spans in memory."""
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


@pytest.fixture
def tracer(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """The tracer of the spans, set up as by an SDK."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(telemetry, "_tracer", tracer)
    return tracer


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """A reader of the metrics."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    monkeypatch.setattr(telemetry, "_durations", meter.create_histogram("durations"))
    monkeypatch.setattr(telemetry, "_errors", meter.create_counter("errors"))
    return reader


def measured(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Return the data points by the name of their metric."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.mark.usefixtures("clear_text")
async def test_store_calls_are_child_spans(
    service: PersistentSessionService, spans: InMemorySpanExporter, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("turn") as outer:
        session = await create(service)
        await service.append_event(session, event(secret=1))
        await get(service)
    *calls, _ = spans.get_finished_spans()
    assert [span.name for span in calls] == ["create session", "append session", "load session"]
    for span, operation in zip(calls, ("create", "append", "load"), strict=True):
        assert span.parent
        assert span.parent.span_id == outer.get_span_context().span_id
        assert dict(span.attributes or {}) == {
            "db.system.name": DB_SYSTEM,
            "db.operation.name": operation,
        }


async def test_failure_is_counted_without_its_message(
    service: PersistentSessionService,
    spans: InMemorySpanExporter,
    tracer: Tracer,
    reader: InMemoryMetricReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail() -> None:
        raise StoreUnavailable("the text")

    await service.check()
    monkeypatch.setattr(service.store.innermost, "ping", fail)
    with pytest.raises(StoreUnavailable):
        await service.check()
    *good, bad = spans.get_finished_spans()
    assert {span.status.status_code for span in good} == {StatusCode.UNSET}
    assert bad.status.status_code == StatusCode.ERROR
    assert (bad.attributes or {})["error.type"] == "StoreUnavailable"
    assert bad.events == ()
    points = measured(reader)
    assert sum(point.count for point in points["durations"]) == len(good) + 1
    assert [point.value for point in points["errors"]] == [1]
