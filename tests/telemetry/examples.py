"""One example of every event; a test changes what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from redrive.domain.delivery import Claim, Delivery
from redrive.domain.ids import ItemId
from redrive.domain.item import Finish, RetryAt, Status
from redrive.domain.outcome import Answer, Failed, Reach, Succeeded
from redrive.telemetry import events

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
OUR_SPAN = "00f067aa0ba902b7"
SECRET = "the payload, the headers and the answer never show"

SUCCESS = Succeeded(Answer(200, (), SECRET.encode()))
OUTAGE = Failed("HTTP_503", SECRET, Reach.ANSWERED, Answer(503, (("x-echo", SECRET),), SECRET.encode()))
TIMEOUT = Failed("RESPONSE_TIMEOUT", SECRET, Reach.SENT)
DONE = Finish(Status.SUCCEEDED)
LATER = RetryAt(NOON + timedelta(seconds=2))


def a_claim(*, attempt: int = 1, flags: str = "01", tracestate: str | None = None) -> Claim:
    delivery = Delivery(
        id=ItemId(1 << 40),
        integration=7,
        event_type="order.paid",
        payload=SECRET.encode(),
        content_type="application/json",
        headers=(("x-token", SECRET),),
        request_id="req-of-the-delivery",
        traceparent=f"00-{TRACE_ID}-{CALLER_SPAN}-{flags}",
        tracestate=tracestate,
        idempotency_key=SECRET,
        created_by="shop",
        created_at=NOON,
        max_attempts=5,
    )
    return Claim(delivery, owner=1, cycle=2, attempt=attempt, max_attempts=5, request_id="req-1")


AN_ATTEMPT = events.AttemptFinished(
    claim=a_claim(),
    integration_id="acme",
    method="POST",
    span_id=OUR_SPAN,
    started_at=NOON,
    duration=timedelta(milliseconds=125),
    outcome=SUCCESS,
    step=DONE,
    recorded=True,
)
A_REQUEST = events.RequestHandled("GET", "/platform/audit/events", 200, 0.02, "req-1")
ONE_OF_EACH: tuple[events.Event, ...] = (
    events.Started("all", "127.0.0.1:8080", "sqlite", made_schema=False, incarnation=1),
    events.DrainStarted(3),
    events.Stopped("SIGTERM", 0),
    events.DeliveriesAccepted(5, 2),
    AN_ATTEMPT,
    events.LeasesLost(3),
    events.SendingSuspended("acme", "no file handles", 5.0),
    events.TargetBlocked("acme", "10.0.0.1 is a private address", again=False),
    events.ContainmentExpiring("acme", "ada", NOON),
    events.ContainmentExpired("acme", "ada", 1, "it answered 503", NOON),
    events.ContainmentEnded("acme", "ada", 5.0),
    events.ReleaseDrained("acme"),
    events.JobHalted("acme", "rpl_1", "15 of the last 20 outcomes were failures"),
    events.ChainBroken("acme", "rec_1", "altered", "evt_1 was altered"),
    events.ChainsSkipped(NOON, 60),
    events.BreakerOpened("acme", 10.5, 1),
    events.BreakerClosed("acme", 41.25),
    events.SendingThrottled("acme", 30.0),
    events.ReceiverGone("acme"),
    events.AuditWritten("platform.integration.created"),
    events.Operated("platform.integration.created", "ada", "acme", "acme", "req-1"),
    A_REQUEST,
    events.AuthenticationFailed("unknown token"),
    events.KeyFileMade("/var/lib/redrive/redrive.keys"),
    events.IdentityProviderFailed("id.example:443 refused the connection"),
    events.StoreFailed("accept", "disk full"),
    events.StoreRecovered(1.5),
    events.LeaseEnded(1),
    events.ProcessDied(4711, "it was ended by SIGKILL"),
    events.AlertTold("dlq_growth", "acme", is_over=False),
    events.AlertFailed("ops", "the integration is retired"),
    events.LoopFailed("worker", ValueError(SECRET)),
)


def an_attempt(**changes: Any) -> events.AttemptFinished:
    return replace(AN_ATTEMPT, **changes)


def a_request(**changes: Any) -> events.RequestHandled:
    return replace(A_REQUEST, **changes)
