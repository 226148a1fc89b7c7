"""One OpenTelemetry span per attempt. Needs the extra `otel`: import this module only when it is on.

A span is exported when the delivery's traceparent is sampled (OTEL_TRACES_SAMPLER can change that). The
exporter (OTLP over HTTP), the batches and the resource follow the standard OTEL_* variables.
"""

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Final

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
        TraceState,
        set_span_in_context,
    )
except ImportError as missing:
    raise ImportError(
        "otel is on, but OpenTelemetry is not installed; pip install 'redrive[otel]', or set otel to false"
    ) from missing

from redrive import __version__
from redrive.domain.outcome import Failed
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import AttemptFinished

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_sent_span_id: Final[ContextVar[int]] = ContextVar("sent_span_id")


class AttemptSpans:
    """Makes a span of every attempt on a bus. Close it at the end: that sends what still waits."""

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        resource = Resource.create({"service.name": "redrive", "service.version": __version__})
        resource = resource.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME wins
        self._provider = TracerProvider(resource=resource, id_generator=_SentIds(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("redrive", __version__)

    def listen(self, bus: Bus) -> None:
        """Make spans of the attempts on *bus*."""
        bus.subscribe(AttemptFinished, self._on_attempt)

    def close(self) -> None:
        """Send what still waits. Blocks for as long as the exporter may take: call it in a thread."""
        self._provider.shutdown()

    def _on_attempt(self, event: AttemptFinished) -> None:
        token = _sent_span_id.set(int(event.span_id, 16))
        try:
            span = self._tracer.start_span(
                event.method,
                context=_parent(event.claim.delivery.traceparent, event.claim.delivery.tracestate),
                kind=SpanKind.CLIENT,
                attributes=_attributes(event),
                start_time=_nanoseconds(event.started_at),
            )
        finally:
            _sent_span_id.reset(token)
        if isinstance(event.outcome, Failed):
            span.set_status(Status(StatusCode.ERROR, event.outcome.code))
        span.end(_nanoseconds(event.started_at + event.duration))


class _SentIds(RandomIdGenerator):
    """Gives a span the id that went out in the attempt's traceparent: what the receiver hangs its own on."""

    def generate_span_id(self) -> int:
        return _sent_span_id.get()


def _parent(traceparent: str, tracestate: str | None) -> Context:
    _, trace_id, span_id, flags = traceparent.split("-")
    parent = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _attributes(event: AttemptFinished) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
        "http.request.method": event.method,
        "redrive.recovery_id": event.claim.recovery_id,
        "redrive.integration_id": event.integration_id,
        "redrive.cycle": event.claim.cycle,
        "redrive.recorded": event.recorded,
    }
    if event.claim.attempt > 1:
        attributes["http.request.resend_count"] = event.claim.attempt - 1
    if event.outcome.answer is not None:
        attributes["http.response.status_code"] = event.outcome.answer.status
    if isinstance(event.outcome, Failed):
        attributes["error.type"] = event.outcome.code
    return attributes


def _nanoseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND * 1000
