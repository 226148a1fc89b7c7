import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from redrive.domain.item import Finish, Status
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import AttemptFinished
from redrive.telemetry.otel import AttemptSpans
from tests.telemetry.examples import (
    CALLER_SPAN,
    LATER,
    NOON,
    OUR_SPAN,
    OUTAGE,
    TIMEOUT,
    TRACE_ID,
    a_claim,
    an_attempt,
)


def spans_of(*attempts: AttemptFinished) -> tuple[ReadableSpan, ...]:
    exporter, bus = InMemorySpanExporter(), Bus()
    spans = AttemptSpans(SimpleSpanProcessor(exporter))
    spans.listen(bus)
    for attempt in attempts:
        bus(attempt)
    spans.close()
    return exporter.get_finished_spans()


def test_a_span_has_the_id_that_was_sent_and_belongs_to_the_deliverys_trace() -> None:
    [span] = spans_of(an_attempt(claim=a_claim(tracestate="vendor=1")))

    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.context.span_id:016x}" == OUR_SPAN
    assert f"{span.parent.span_id:016x}" == CALLER_SPAN
    assert span.parent.is_remote
    assert span.context.trace_state.to_header() == "vendor=1"
    assert span.kind is SpanKind.CLIENT


def test_a_span_lasts_as_long_as_its_attempt_did() -> None:
    [span] = spans_of(an_attempt(duration=timedelta(milliseconds=125)))

    assert span.start_time == int(NOON.timestamp()) * 1_000_000_000
    assert span.end_time == span.start_time + 125_000_000


def test_a_success_says_what_was_delivered_and_leaves_the_status_open() -> None:
    [span] = spans_of(an_attempt())

    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "redrive.recovery_id": a_claim().recovery_id,
        "redrive.integration_id": "acme",
        "redrive.cycle": 2,
        "redrive.recorded": True,
        "http.response.status_code": 200,
    }


def test_a_failure_is_an_error_under_its_code() -> None:
    [span] = spans_of(an_attempt(claim=a_claim(attempt=3), outcome=OUTAGE, step=LATER))

    attributes = dict(span.attributes or {})
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "HTTP_503")
    assert attributes["error.type"] == "HTTP_503"
    assert attributes["http.response.status_code"] == 503
    assert attributes["http.request.resend_count"] == 2


def test_an_attempt_without_an_answer_has_no_status_code() -> None:
    [span] = spans_of(an_attempt(outcome=TIMEOUT, step=Finish(Status.DLQ)))

    assert "http.response.status_code" not in dict(span.attributes or {})


@pytest.mark.parametrize("flags", ["00", "02"])
def test_a_trace_that_is_not_sampled_makes_no_span(flags: str) -> None:
    assert spans_of(an_attempt(claim=a_claim(flags=flags))) == ()


def test_spans_go_where_the_standard_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "deliveries")
        spans, bus = AttemptSpans(), Bus()
        spans.listen(bus)

        bus(an_attempt())
        spans.close()

    [resource_spans] = ExportTraceServiceRequest.FromString(received[0]).resource_spans
    [scope_spans] = resource_spans.scope_spans
    assert [span.span_id.hex() for span in scope_spans.spans] == [OUR_SPAN]
    assert "deliveries" in [pair.value.string_value for pair in resource_spans.resource.attributes]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "redrive.telemetry.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ImportError, match=r"pip install 'redrive\[otel\]', or set otel to false"):
        importlib.import_module("redrive.telemetry.otel")


@contextmanager
def a_collector() -> Iterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()
