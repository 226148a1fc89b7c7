"""Small factories: each makes something valid; a test names only what it is about."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any

from msgspec.structs import replace

from redrive.audit.record import Actor, AuditEvent, EventType
from redrive.domain.delivery import Attempt, Claim, Delivery, Evidence, Item
from redrive.domain.grouping import Cause, cause_of
from redrive.domain.ids import TIME_SHIFT, EventId, ItemId, JobId, first_id_at, instant_of, recovery_id
from redrive.domain.integration import Integration, SigningSecret
from redrive.domain.item import Finish, RetryAt, Status, Step
from redrive.domain.outcome import Answer, Failed, Outcome, Reach, Succeeded, risk_of
from redrive.domain.replay import Canary, Doer, Job, Options, ReplayState, Run, Wanted
from redrive.domain.traffic import FLOWING, Containment, Mode, Traffic
from redrive.store.port import Edit, Import, Intake, Once, Replay, Result

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SUCCESS = Succeeded(Answer(200, (("content-type", "text/plain"),), b"thank you"))
OUTAGE = Failed("HTTP_503", "the receiver answered 503", Reach.ANSWERED, Answer(503, (), b"down"))
REFUSAL = Failed("HTTP_404", "the receiver answered 404", Reach.ANSWERED, Answer(404, (), b""))
TIMEOUT = Failed("RESPONSE_TIMEOUT", "nothing came back in time", Reach.SENT)
DONE = Finish(Status.SUCCEEDED)
REFUSED = Finish(Status.FAILED)
EXHAUSTED = Finish(Status.DLQ)


def _ids() -> Iterator[int]:
    """A millisecond apart, and all of them before NOW: every item is due there."""
    return count(first_id_at(NOW - timedelta(days=1)), 1 << TIME_SHIFT)


_item_ids = _event_ids = _ids()  # one for both: an event comes after what it tells of


def an_id(at: datetime | None = None) -> ItemId:
    """A fresh id; of *at* when given (then one per instant)."""
    return ItemId(next(_item_ids) if at is None else first_id_at(at))


def an_integration(integration_id: str = "acme", **fields: Any) -> Integration:
    """Active, unsigned, not stored yet."""
    values: dict[str, Any] = {
        "number": 0,
        "name": "Acme",
        "url": "https://acme.example/hooks",
        "created_at": NOW,
        "updated_at": NOW,
        "auth_mode": "none",
    }
    return Integration(integration_id=integration_id, **values | fields)


def secrets(*sealed: str) -> tuple[SigningSecret, ...]:
    """As a store sees them, which opens none."""
    return tuple(SigningSecret(each) for each in sealed)


def a_containment(**fields: Any) -> Containment:
    """Since NOW, for an hour."""
    values: dict[str, Any] = {
        "mode": Mode.HOLD,
        "reason": "the vendor is down",
        "owner": "ada",
        "by": "ops",
        "since": NOW,
        "until": NOW + timedelta(hours=1),
        "request_id": "req-of-the-containment",
    }
    return Containment(**values | fields)


def contained(traffic: Traffic = FLOWING, **fields: Any) -> Traffic:
    """What comes after *traffic* when it is contained."""
    return replace(traffic, containment=a_containment(**fields), version=traffic.version + 1)


def a_delivery(integration: int = 1, **fields: Any) -> Delivery:
    """Accepted when its id says so."""
    number = fields.pop("id", None) or an_id()
    values: dict[str, Any] = {
        "event_type": "order.paid",
        "payload": b'{"order":1}',
        "content_type": "application/json",
        "headers": (),
        "request_id": f"req-{number}",
        "traceparent": TRACEPARENT,
        "tracestate": None,
        "idempotency_key": None,
        "created_by": "shop",
        "created_at": instant_of(number),
        "max_attempts": 5,
    }
    return Delivery(id=ItemId(number), integration=integration, **values | fields)


def an_intake(delivery: Delivery, *, owner: int | None = None, fingerprint: bytes = b"one") -> Intake:
    return Intake(delivery, fingerprint, owner)


def a_claim(delivery: Delivery | None = None, **fields: Any) -> Claim:
    """The first attempt of a delivery, held by incarnation 1."""
    delivery = delivery or a_delivery()
    claim = Claim(
        delivery,
        owner=1,
        cycle=1,
        attempt=1,
        max_attempts=delivery.max_attempts,
        request_id=delivery.request_id,
    )
    return replace(claim, **fields)


def an_attempt(claim: Claim, outcome: Outcome = SUCCESS, **fields: Any) -> Attempt:
    values: dict[str, Any] = {
        "started_at": NOW - timedelta(seconds=1),
        "duration": timedelta(milliseconds=12),
        "retryable": outcome != REFUSAL if isinstance(outcome, Failed) else None,
        "span_id": "00f067aa0ba902b7",
    }
    return Attempt(claim.cycle, claim.attempt, outcome=outcome, **values | fields)


def a_result(
    claim: Claim,
    step: Step = DONE,
    outcome: Outcome | None = None,
    *,
    events: tuple[AuditEvent, ...] = (),
    finished_at: datetime = NOW,
) -> Result:
    """What is recorded of *claim*; the outcome fits the step unless it is given."""
    attempt = an_attempt(claim, outcome or _outcome(step))
    if not isinstance(attempt.outcome, Failed):
        return Result(claim, attempt, step, events, finished_at, risk=claim.risk)
    cause, risk = cause_of(an_integration(), attempt.outcome), max(claim.risk, risk_of(attempt.outcome))
    return Result(claim, attempt, step, events, finished_at, cause, risk)


def later(seconds: float = 10) -> RetryAt:
    """Try again *seconds* after NOW."""
    return RetryAt(NOW + timedelta(seconds=seconds))


def an_event(event_type: EventType = EventType.UPDATED, **fields: Any) -> AuditEvent:
    number = EventId(fields.pop("id", None) or next(_event_ids))
    values: dict[str, Any] = {
        "occurred_at": instant_of(number),
        "request_id": "req-1",
        "source_request_id": None,
        "traceparent": TRACEPARENT,
        "actor": Actor("ops", "token", "tok_1"),
        "integration_id": "acme",
        "target_type": "integration",
        "target_id": "acme",
        "result": "success",
        "before_state": {"version": 1},
        "after_state": {"version": 2},
        "metadata": {},
    }
    return AuditEvent(id=number, event_type=event_type, **values | fields)


def an_import(delivery: Delivery, status: Status = Status.DLQ, **fields: Any) -> Import:
    values: dict[str, Any] = {
        "fingerprint": b"one",
        "attempt_count": 3,
        "last": Evidence("HTTP_503", "it was down", 503, True, NOW - timedelta(hours=1)),
        "event": an_event(EventType.IMPORTED),
    }
    return Import(delivery, status=status, **values | fields)


def a_cause(detail: str = "it is down", **fields: Any) -> Cause:
    """Of a number that follows from its detail."""
    digest = sha256(detail.encode()).digest()
    values: dict[str, Any] = {
        "number": int.from_bytes(digest[:8], "big", signed=True),
        "fingerprint": f"v1:{digest.hex()}",
        "failure_class": "http_5xx",
        "failure_code": "HTTP_503",
        "detail": detail,
    }
    return Cause(**values | fields)


def a_replay(delivery: Delivery, status: Status = Status.DLQ, **fields: Any) -> Replay:
    """Of the first cycle, which ended in *status*."""
    values: dict[str, Any] = {
        "cycle": 1,
        "max_attempts": 5,
        "request_id": "req-of-the-replay",
        "traceparent": TRACEPARENT,
        "opened_by": "ops",
        "reason": "the partner is back",
        "opened_at": NOW,
        "event": an_event(EventType.REPLAYED),
    }
    return Replay(delivery.id, delivery.integration, status, **values | fields)


def an_edit(item: Item, **fields: Any) -> Edit:
    """A corrected copy of *item*, as it stands."""
    of = item.delivery
    copy = a_delivery(of.integration, payload=b'{"order":2}')
    values: dict[str, Any] = {
        "status": item.status,
        "cycle": item.cycle,
        "copy": copy,
        "of": item.edit_of or of.id,
        "events": (
            an_event(EventType.EDITED, target_id=item.recovery_id, previous=item.head),
            an_event(EventType.EDITED, target_id=recovery_id(copy.id)),
        ),
    }
    return Edit(of.id, **values | fields)


def a_once(scope: bytes = b"scope", **fields: Any) -> Once:
    values: dict[str, Any] = {
        "fingerprint": b"body",
        "status": 202,
        "body": b'{"ok":true}',
        "created_at": NOW,
    }
    return Once(scope, **values | fields)


def _outcome(step: Step) -> Outcome:
    match step:
        case Finish(Status.SUCCEEDED):
            return SUCCESS
        case Finish(Status.FAILED):
            return REFUSAL
        case _:
            return OUTAGE


def a_job(integration: int = 1, **fields: Any) -> Job:
    """A plan of a replay that is being made."""
    values: dict[str, Any] = {
        "id": JobId(an_id()),
        "state": ReplayState.PLANNING,
        "wanted": Wanted(),
        "as_of": NOW,
        "expires_at": NOW + timedelta(minutes=15),
        "planned_by": "ops",
        "request_id": "req-of-the-plan",
        "setting": {},
        "changed_at": NOW,
        "changed_by": "ops",
    }
    return Job(integration=integration, **values | fields)


def run(job: Job) -> Job:
    """The plan, run without a canary."""
    return replace(
        job,
        state=ReplayState.RUNNING,
        version=job.version + 1,
        run=Run(Doer("ops", "token", "tok_1"), NOW, "req-of-the-run", TRACEPARENT),
        options=Options(reason="the partner is back", canary=Canary(0)),
        canary_passed=True,
        watched_from=NOW,
    )
