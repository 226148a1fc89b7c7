"""Log lines: one row per event, with its level and the only fields that may be shown."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from logging import DEBUG, ERROR, INFO, WARNING
from traceback import extract_tb
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from redrive.domain.delivery import rfc3339
from redrive.domain.item import RetryAt
from redrive.domain.outcome import Failed, Succeeded
from redrive.telemetry import events
from redrive.telemetry.bus import Bus

Fields = dict[str, object]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]
_NUMBERS: Final = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_MAX_FRAMES: Final = 20
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_in_ascii: Final = json.JSONEncoder(default=str, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Line:
    """How an event is logged. `fields` is asked only when the line is written."""

    level: int | Callable[[Any], int]
    fields: Callable[[Any], Fields]


def log_to(bus: Bus, stream: TextIO | None = None, *, level: Level = "info", form: Format = "auto") -> None:
    """Write a line to *stream* (standard error) for what happens on *bus*, from *level* up."""
    stream = stream or sys.stderr
    logger = _logger(stream, is_console=stream.isatty() if form == "auto" else form == "console")
    least = _NUMBERS[level]
    for kind, line in LINES.items():
        if not isinstance(line.level, int):
            bus.subscribe(kind, _where_it_depends(logger, _name(kind), line.level, line.fields, least))
        elif line.level >= least:  # what is not shown is not even listened to
            bus.subscribe(kind, _always(logger, _name(kind), line.level, line.fields))


def _started(event: events.Started) -> Fields:
    return {
        "role": event.role,
        "address": event.address,
        "store": event.store,
        "made_schema": event.made_schema,
        "incarnation": event.incarnation,
    }


def _drain_started(event: events.DrainStarted) -> Fields:
    return {"in_flight": event.in_flight}


def _stopped(event: events.Stopped) -> Fields:
    return {"reason": event.reason, "aborted": event.aborted}


def _deliveries_accepted(event: events.DeliveriesAccepted) -> Fields:
    return {"count": event.count, "duplicates": event.duplicates}


def _attempt_level(event: events.AttemptFinished) -> int:
    if not event.recorded:
        return WARNING
    if isinstance(event.outcome, Succeeded):
        return DEBUG
    return INFO if isinstance(event.step, RetryAt) else WARNING


def _attempt_finished(event: events.AttemptFinished) -> Fields:
    claim, outcome, step = event.claim, event.outcome, event.step
    return {
        "recovery_id": claim.recovery_id,
        "integration_id": event.integration_id,
        "request_id": claim.request_id,
        "trace_id": claim.delivery.traceparent[3:35],
        "cycle": claim.cycle,
        "attempt": claim.attempt,
        "max_attempts": claim.max_attempts,
        "result": event.result,
        "code": outcome.code if isinstance(outcome, Failed) else None,
        "http_status": None if outcome.answer is None else outcome.answer.status,
        "duration_ms": round(event.duration / timedelta(milliseconds=1)),
        "next_retry_at": rfc3339(step.due_at) if isinstance(step, RetryAt) else None,
    }


def _leases_lost(event: events.LeasesLost) -> Fields:
    return {"count": event.count}


def _sending_suspended(event: events.SendingSuspended) -> Fields:
    return {
        "integration_id": event.integration_id,
        "reason": event.reason,
        "seconds": event.seconds,
    }


def _blocked_level(event: events.TargetBlocked) -> int:
    return DEBUG if event.again else WARNING


def _target_blocked(event: events.TargetBlocked) -> Fields:
    return {"integration_id": event.integration_id, "reason": event.reason}


def _containment_expiring(event: events.ContainmentExpiring) -> Fields:
    return {
        "integration_id": event.integration_id,
        "owner": event.owner,
        "until": rfc3339(event.until),
    }


def _containment_expired(event: events.ContainmentExpired) -> Fields:
    return {
        "integration_id": event.integration_id,
        "owner": event.owner,
        "probes": event.probes,
        "detail": event.detail,
        "probe_at": rfc3339(event.probe_at),
    }


def _containment_ended(event: events.ContainmentEnded) -> Fields:
    return {
        "integration_id": event.integration_id,
        "owner": event.owner,
        "rate_per_second": event.rate_per_second,
    }


def _release_drained(event: events.ReleaseDrained) -> Fields:
    return {"integration_id": event.integration_id}


def _job_halted(event: events.JobHalted) -> Fields:
    return {
        "integration_id": event.integration_id,
        "replay_id": event.replay_id,
        "because": event.because,
    }


def _chain_broken(event: events.ChainBroken) -> Fields:
    return {
        "integration_id": event.integration_id,
        "target_id": event.target_id,
        "finding": event.finding,
        "detail": event.detail,
    }


def _chains_skipped(event: events.ChainsSkipped) -> Fields:
    return {"since": rfc3339(event.since), "minutes": event.minutes}


def _breaker_opened(event: events.BreakerOpened) -> Fields:
    return {
        "integration_id": event.integration_id,
        "seconds": round(event.seconds, 3),
        "trips": event.trips,
    }


def _breaker_closed(event: events.BreakerClosed) -> Fields:
    return {"integration_id": event.integration_id, "seconds": round(event.seconds, 3)}


def _sending_throttled(event: events.SendingThrottled) -> Fields:
    return {"integration_id": event.integration_id, "seconds": round(event.seconds, 3)}


def _receiver_gone(event: events.ReceiverGone) -> Fields:
    return {
        "integration_id": event.integration_id,
        "advice": "contain or retire the integration if its receiver is gone for good",
    }


def _audit_written(event: events.AuditWritten) -> Fields:
    return {"event_type": str(event.event_type)}


def _operated(event: events.Operated) -> Fields:
    return {
        "event_type": str(event.event_type),
        "actor": event.actor,
        "integration_id": event.integration_id,
        "target_id": event.target_id,
        "request_id": event.request_id,
    }


def _request_level(event: events.RequestHandled) -> int:
    if event.status < 400:
        return DEBUG
    return INFO if event.status < 500 else WARNING


def _request_handled(event: events.RequestHandled) -> Fields:
    return {
        "method": event.method,
        "route": event.route,
        "status": event.status,
        "duration_ms": round(event.duration_seconds * 1000, 1),
        "request_id": event.request_id,
    }


def _authentication_failed(event: events.AuthenticationFailed) -> Fields:
    return {"reason": event.reason}


def _key_file_made(event: events.KeyFileMade) -> Fields:
    return {"path": event.path, "advice": "keep a copy: nothing else opens the secrets of this database"}


def _identity_provider_failed(event: events.IdentityProviderFailed) -> Fields:
    return {"reason": event.reason}


def _store_failed(event: events.StoreFailed) -> Fields:
    return {"verb": event.verb, "reason": event.reason}


def _store_recovered(event: events.StoreRecovered) -> Fields:
    return {"seconds": round(event.seconds, 3)}


def _process_died(event: events.ProcessDied) -> Fields:
    return {"pid": event.pid, "reason": event.reason}


def _lease_ended(event: events.LeaseEnded) -> Fields:
    return {"incarnation": event.incarnation}


def _alert_told(event: events.AlertTold) -> Fields:
    return {"kind": event.kind, "integration_id": event.integration_id, "is_over": event.is_over}


def _alert_failed(event: events.AlertFailed) -> Fields:
    return {"to": event.to, "reason": event.reason}


def _loop_failed(event: events.LoopFailed) -> Fields:
    # An exception's message may quote what it choked on (a payload, a URL): only where, never what.
    chain = list(_chain(event.error))
    frames = extract_tb(chain[-1].__traceback__)[-_MAX_FRAMES:]
    return {
        "loop": event.loop,
        "error": " from ".join(type(error).__name__ for error in chain),
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


LINES: Final[dict[type, Line]] = {
    events.Started: Line(INFO, _started),
    events.DrainStarted: Line(INFO, _drain_started),
    events.Stopped: Line(INFO, _stopped),
    events.DeliveriesAccepted: Line(DEBUG, _deliveries_accepted),
    events.AttemptFinished: Line(_attempt_level, _attempt_finished),
    events.LeasesLost: Line(WARNING, _leases_lost),
    events.SendingSuspended: Line(WARNING, _sending_suspended),
    events.TargetBlocked: Line(_blocked_level, _target_blocked),
    events.ContainmentExpiring: Line(WARNING, _containment_expiring),
    events.ContainmentExpired: Line(ERROR, _containment_expired),
    events.ContainmentEnded: Line(WARNING, _containment_ended),
    events.ReleaseDrained: Line(INFO, _release_drained),
    events.JobHalted: Line(WARNING, _job_halted),
    events.ChainBroken: Line(ERROR, _chain_broken),
    events.ChainsSkipped: Line(WARNING, _chains_skipped),
    events.BreakerOpened: Line(WARNING, _breaker_opened),
    events.BreakerClosed: Line(INFO, _breaker_closed),
    events.SendingThrottled: Line(INFO, _sending_throttled),
    events.ReceiverGone: Line(WARNING, _receiver_gone),
    events.AuditWritten: Line(DEBUG, _audit_written),
    events.Operated: Line(INFO, _operated),
    events.RequestHandled: Line(_request_level, _request_handled),
    events.AuthenticationFailed: Line(INFO, _authentication_failed),
    events.KeyFileMade: Line(WARNING, _key_file_made),
    events.IdentityProviderFailed: Line(ERROR, _identity_provider_failed),
    events.StoreFailed: Line(ERROR, _store_failed),
    events.StoreRecovered: Line(INFO, _store_recovered),
    events.LeaseEnded: Line(ERROR, _lease_ended),
    events.ProcessDied: Line(ERROR, _process_died),
    events.AlertTold: Line(lambda event: INFO if event.is_over else WARNING, _alert_told),
    events.AlertFailed: Line(ERROR, _alert_failed),
    events.LoopFailed: Line(ERROR, _loop_failed),
}


def _name(kind: type) -> str:
    """AttemptFinished is logged as attempt_finished."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _always(
    logger: FilteringBoundLogger, name: str, level: int, fields: Callable[[Any], Fields]
) -> Callable[[events.Event], None]:
    def listener(event: events.Event) -> None:
        logger.log(level, name, **fields(event))

    return listener


def _where_it_depends(
    logger: FilteringBoundLogger,
    name: str,
    level_of: Callable[[Any], int],
    fields: Callable[[Any], Fields],
    least: int,
) -> Callable[[events.Event], None]:
    def listener(event: events.Event) -> None:
        level = level_of(event)
        if level >= least:
            logger.log(level, name, **fields(event))

    return listener


def _logger(stream: TextIO, *, is_console: bool) -> FilteringBoundLogger:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        sort_keys=False,
        repr_native_str=True,  # a control character must not reach the terminal
    )
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        console if is_console else structlog.processors.JSONRenderer(lambda line, **_: _json(line)),
    ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(DEBUG),  # listeners filter
        context_class=dict,
    ).bind()  # once, or every line would build a logger anew
    return logger


def _json(line: EventDict) -> str:
    """A line in ASCII: what is not is escaped, for it must not reach the terminal either."""
    try:
        text = _encode(line)
    except UnicodeEncodeError:  # half of a pair, as in a path that is not UTF-8
        return _in_ascii(line)
    return text.decode() if text.isascii() else _in_ascii(line)
