"""The catalogue: every event that can be announced, past tense. Never a secret, a payload or a whole URL."""

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec import Struct

from redrive.domain.delivery import Claim
from redrive.domain.item import Step
from redrive.domain.outcome import Outcome


class Started(Struct, frozen=True):
    """The process is ready: it accepts, and it sends. `made_schema`: it found the database empty."""

    role: str
    address: str
    store: str
    made_schema: bool
    incarnation: int


class DrainStarted(Struct, frozen=True):
    """The process was asked to stop: it claims nothing more and finishes what is in flight."""

    in_flight: int


class Stopped(Struct, frozen=True):
    """The process let go of everything. `reason` says why; `aborted` attempts may have been received."""

    reason: str
    aborted: int


class DeliveriesAccepted(Struct, frozen=True):
    """`count` deliveries became durable in one commit; `duplicates` more were known already."""

    count: int
    duplicates: int


class AttemptFinished(Struct, frozen=True):
    """An attempt ended and was recorded; not `recorded`: its claim was lost and nothing was changed."""

    claim: Claim
    integration_id: str
    method: str
    span_id: str
    started_at: datetime
    duration: timedelta
    outcome: Outcome
    step: Step
    recorded: bool

    @property
    def result(self) -> str:
        """What it led to: the item's new status, or `lost`."""
        return self.step.status if self.recorded else "lost"


class LeasesLost(Struct, frozen=True):
    """Claims of dead processes were taken over; each is recorded as LEASE_EXPIRED."""

    count: int


class SendingSuspended(Struct, frozen=True):
    """A fault of our own kept an attempt from being made: this integration waits, no attempt was spent."""

    integration_id: str
    reason: str
    seconds: float


class TargetBlocked(Struct, frozen=True):
    """The address guard refused what an integration's URL, or a name in it, leads to: nothing was sent.

    `again`: the same integration was announced less than a minute before.
    """

    integration_id: str
    reason: str
    again: bool


class ContainmentExpiring(Struct, frozen=True):
    """A containment ends soon: extend it, or release the integration; else it is probed then."""

    integration_id: str
    owner: str
    until: datetime


class ContainmentExpired(Struct, frozen=True):
    """A containment ran out and the receiver was not well: it stays contained, and is probed again."""

    integration_id: str
    owner: str
    probes: int
    detail: str
    probe_at: datetime


class ContainmentEnded(Struct, frozen=True):
    """A containment ran out and the receiver was well: what waits is sent, at a cautious rate."""

    integration_id: str
    owner: str
    rate_per_second: float


class ReleaseDrained(Struct, frozen=True):
    """What waited when an integration was released is sent: the rate of that release holds no more."""

    integration_id: str


class JobHalted(Struct, frozen=True):
    """A replay job stopped by itself, for too much of it failed: nothing more of it is replayed."""

    integration_id: str
    replay_id: str
    because: str


class ChainBroken(Struct, frozen=True):
    """The audit records of an item were altered, are missing or out of order; the first of what was found.

    No `integration_id`: none of its records can be read.
    """

    integration_id: str | None
    target_id: str
    finding: str
    detail: str


class ChainsSkipped(Struct, frozen=True):
    """More audit records were written than could be looked at: those of `minutes`, from `since`, were not.

    Only `redrive audit verify --live` looks at them.
    """

    since: datetime
    minutes: int


class BreakerOpened(Struct, frozen=True):
    """The receiver of an integration fails: for `seconds` nothing is sent, then one attempt tries it.

    `trips`: how often it opened in a row.
    """

    integration_id: str
    seconds: float
    trips: int


class BreakerClosed(Struct, frozen=True):
    """The receiver is back, after `seconds`; sending begins with one attempt at a time."""

    integration_id: str
    seconds: float


class SendingThrottled(Struct, frozen=True):
    """A receiver answered 429 or 503 with a Retry-After: nothing is sent to it for `seconds`."""

    integration_id: str
    seconds: float


class ReceiverGone(Struct, frozen=True):
    """A receiver answered 410: consider to contain or to retire the integration. Once an hour."""

    integration_id: str


class AuditWritten(Struct, frozen=True):
    """An audit event became durable."""

    event_type: str


class Operated(Struct, frozen=True):
    """A person's verb took effect."""

    event_type: str
    actor: str
    integration_id: str
    target_id: str
    request_id: str


class RequestHandled(Struct, frozen=True):
    """An HTTP request was answered. `route` is its template, never its path."""

    method: str
    route: str
    status: int
    duration_seconds: float
    request_id: str


class AuthenticationFailed(Struct, frozen=True):
    """A call came without a valid token: counted, not stored."""

    reason: str


class KeyFileMade(Struct, frozen=True):
    """A key file was made: keep a copy, for nothing else opens the secrets of this database."""

    path: str


class IdentityProviderFailed(Struct, frozen=True):
    """The identity provider did not tell its keys: those that are known go on for a day, others are a 503."""

    reason: str


class StoreFailed(Struct, frozen=True):
    """The store could not do something; answers are 503 until it can."""

    verb: str
    reason: str


class StoreRecovered(Struct, frozen=True):
    """The store works again."""

    seconds: float


class LeaseEnded(Struct, frozen=True):
    """Our own lease is gone: what we had claimed is another's now; we begin again, or stop if we cannot."""

    incarnation: int


class ProcessDied(Struct, frozen=True):
    """One of the processes of `--workers` is dead: what it had in hand is another's, and a new one starts."""

    pid: int
    reason: str


class AlertTold(Struct, frozen=True):
    """Operators are told that something is amiss with an integration, or that it is over."""

    kind: str
    integration_id: str
    is_over: bool


class AlertFailed(Struct, frozen=True):
    """An alert could not be handed to the integration it should go to; it waits, and so do those after it.

    Announced once a minute.
    """

    to: str
    reason: str


class LoopFailed(Struct, frozen=True):
    """A turn of one of our loops raised something nobody expected: a bug. The loop goes on."""

    loop: str
    error: BaseException


Event = (
    Started
    | DrainStarted
    | Stopped
    | DeliveriesAccepted
    | AttemptFinished
    | LeasesLost
    | SendingSuspended
    | TargetBlocked
    | ContainmentExpiring
    | ContainmentExpired
    | ContainmentEnded
    | ReleaseDrained
    | JobHalted
    | ChainBroken
    | ChainsSkipped
    | BreakerOpened
    | BreakerClosed
    | SendingThrottled
    | ReceiverGone
    | AuditWritten
    | Operated
    | RequestHandled
    | AuthenticationFailed
    | KeyFileMade
    | IdentityProviderFailed
    | StoreFailed
    | StoreRecovered
    | LeaseEnded
    | ProcessDied
    | AlertTold
    | AlertFailed
    | LoopFailed
)
Announce = Callable[[Event], None]
