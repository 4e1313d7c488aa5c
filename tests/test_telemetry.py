"""The spans and metrics of a served turn reach an OpenTelemetry collector, as the README of a project says."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .installed import Project

pytestmark = pytest.mark.installed

WITHIN = 60.0
"""Seconds."""


@pytest.mark.two_backends(backends=["redis"])
def test_served_turn_is_traced_and_measured(project: Project, tmp_path: Path) -> None:
    """Each call of the store has a span below ADK's, and the wait for the turn is measured."""
    readme = (project.folder / "README.md").read_text("utf-8")
    added = re.search(r"`uv add '(google-adk\[otel\])'`", readme)
    assert added
    with project.server(tmp_path / "data") as uri, collector() as (port, spans, counts):
        serve = (
            "/usr/bin/env",
            f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY=100",
            "OTEL_METRIC_EXPORT_INTERVAL=100",
            "no_proxy=127.0.0.1",
            *("uv", "run", "--with", added[1], "python", "-m", project.package, "serve"),
        )
        with project.web(*serve, uri=uri, log=tmp_path / "log") as web:
            web.create("one")
            web.say("one", "My name is Ada.")
            until(lambda: "POST /run" in {span.name for span in [*spans.values()]})
            until(lambda: counts.get("session_store.turn.wait"))
            until(lambda: counts.get("db.client.operation.duration"))
    appends = [span for span in spans.values() if span.name == "append session"]
    assert appends
    for span in appends:
        above = ancestors(spans, span)
        assert any(name.endswith(f" {project.package}") for name in above), "ADK's span of the turn"
        assert {each.key for each in span.attributes} == {"db.system.name", "db.operation.name"}


@contextmanager
def collector() -> Iterator[tuple[int, dict[bytes, Span], dict[str, int]]]:
    """Collect spans by their ids, and the number of measurements by the names of histograms."""
    spans: dict[bytes, Span] = {}
    counts: dict[str, int] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for spanned in traced.scope_spans:
                        spans.update({span.span_id: span for span in spanned.spans})
            elif self.path == "/v1/metrics":
                for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in measured.scope_metrics:
                        for metric in scope.metrics:
                            points = metric.histogram.data_points
                            counts[metric.name] = sum(point.count for point in points)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, spans, counts
        server.shutdown()


def until(done: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + WITHIN
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ancestors(spans: dict[bytes, Span], span: Span) -> set[str]:
    """Return the names of the spans above one."""
    names, above = set(), spans.get(span.parent_span_id)
    while above:
        names.add(above.name)
        above = spans.get(above.parent_span_id)
    return names
