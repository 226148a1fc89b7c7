"""Replaying many: what is wanted, the job that does it, its states, and how far it is."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

from redrive.domain.errors import Conflict
from redrive.domain.ids import ItemId, JobId, replay_id
from redrive.domain.item import Status

PLAN_LASTS: Final = timedelta(minutes=15)
MOVED_ON_SHARE: Final = 0.05  # of a plan: when more of it has moved on, it is no longer what was looked at
MOST_CANARY: Final = 100
TOLD_FOR_ETA: Final = 10  # outcomes; with fewer nobody can tell how long the rest will take
Order = Literal["oldest", "newest"]


class ReplayState(StrEnum):
    """Where a job stands."""

    PLANNING = "planning"  # its set is being written down
    PLANNED = "planned"  # frozen; nothing is replayed yet
    CANARY = "canary"  # a few are replayed, and nothing else before their outcome
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"  # by itself: too much failed
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    EXPIRED = "expired"  # the plan was never run


RELEASING: Final = frozenset({ReplayState.CANARY, ReplayState.RUNNING})
ACTIVE: Final = RELEASING | {ReplayState.PAUSED}  # what waits in it is spoken for
_ENDS: Final = frozenset(
    {
        ReplayState.HALTED,
        ReplayState.CANCELLED,
        ReplayState.COMPLETED,
        ReplayState.COMPLETED_WITH_FAILURES,
    }
)
OVER: Final = _ENDS | {ReplayState.EXPIRED}
TRANSITIONS: Final[Mapping[ReplayState, frozenset[ReplayState]]] = {
    ReplayState.PLANNING: frozenset({ReplayState.PLANNED, ReplayState.EXPIRED}),
    ReplayState.PLANNED: frozenset({ReplayState.CANARY, ReplayState.RUNNING, ReplayState.EXPIRED}),
    ReplayState.CANARY: frozenset(
        {ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.HALTED, ReplayState.CANCELLED}
    ),
    ReplayState.RUNNING: frozenset({ReplayState.PAUSED}) | _ENDS,
    ReplayState.PAUSED: frozenset({ReplayState.CANARY, ReplayState.RUNNING, ReplayState.CANCELLED}),
    **{state: frozenset[ReplayState]() for state in OVER},
}


class ItemState(StrEnum):
    """What became of one item of a job: by outcome, not by what was sent."""

    WAITING = "waiting"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Wanted(Struct, frozen=True, omit_defaults=True):
    """Which dead items a plan takes in; None everywhere: all. Instants bound when an item was accepted.

    `recovery_ids` and `failures_of` (what failed again in an earlier job) name items, and stand alone.
    """

    status: Status | None = None
    group: int | None = None
    failure_code: str | None = None
    duplicate_risk: int | None = None
    event_type: str | None = None
    cycle: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    recovery_ids: tuple[ItemId, ...] | None = None
    failures_of: JobId | None = None


class Canary(Struct, frozen=True):
    """The few that go first, and the share of them that must succeed. A `size` of 0: there is none."""

    size: int = 5
    share: float = 1.0


class HaltIf(Struct, frozen=True):
    """Halt when more than `share` of the `last` outcomes are failures."""

    share: float = 0.5
    last: int = 20


class Options(Struct, frozen=True, kw_only=True):
    """How a plan is run. `rate`: items a second; `concurrency`: of its items in flight; None: none."""

    reason: str
    incident: str | None = None
    rate: float | None = None
    concurrency: int | None = None
    canary: Canary = Canary()
    halt_if: HaltIf = HaltIf()
    order: Order = "oldest"
    require_healthy: bool = False  # of the receiver, when it is run


class Plan(Struct, frozen=True):
    """What was frozen: counts by what is to become of it, and its SHA-256. `risks`: of what is eligible."""

    digest: str
    skipped: dict[str, int]
    risks: dict[int, int]
    oldest: ItemId | None
    estimated_seconds: float | None
    canary: tuple[ItemId, ...]  # the best first

    @property
    def eligible(self) -> int:
        """How many are to be replayed."""
        return sum(self.risks.values())

    @property
    def total(self) -> int:
        """All that was looked at."""
        return self.eligible + sum(self.skipped.values())

    @property
    def progress(self) -> "Progress":
        """How far it is before it is run."""
        return Progress(waiting=self.eligible, skipped=self.total - self.eligible)


class Doer(Struct, frozen=True, omit_defaults=True):
    """Who did it, as audit events name them."""

    id: str
    type: str
    session_id: str | None = None
    tenant: str | None = None


class Run(Struct, frozen=True, omit_defaults=True):
    """The call that ran a plan: every cycle that the job opens is opened by it."""

    by: Doer
    at: datetime
    request_id: str
    traceparent: str


class Progress(Struct, frozen=True):
    """How many items of a job are where; they always sum to the total."""

    waiting: int = 0
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All of the plan."""
        return self.waiting + self.in_flight + self.succeeded + self.failed + self.skipped + self.cancelled

    @property
    def done(self) -> int:
        """How many outcomes there are."""
        return self.succeeded + self.failed


class Job(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A plan, and what came of it. `version` grows with every change of it; whoever changes it repeats it.

    `setting`: what of the integration was looked at when it was planned. `watched_from`: outcomes from before
    are no reason to halt. `settled`: nothing more comes of it, and `final` is how it ended.
    """

    id: JobId
    integration: int
    state: ReplayState
    version: int = 1
    settled: bool = False
    wanted: Wanted
    named: int | None = None  # how many items the caller named, which are not kept in `wanted`
    as_of: datetime
    expires_at: datetime
    planned_by: str
    request_id: str
    setting: dict[str, Any]
    plan: Plan | None = None
    options: Options | None = None
    run: Run | None = None
    canary_passed: bool = False
    watched_from: datetime | None = None
    changed_at: datetime
    changed_by: str
    because: str | None = None  # of its state, in a sentence
    final: Progress | None = None

    @property
    def replay_id(self) -> str:
        """Its public name."""
        return replay_id(self.id)

    @property
    def chosen(self) -> Options:
        """How it is run; ValueError for a plan that was not."""
        if self.options is None:
            raise ValueError(f"{self.replay_id} was not run")
        return self.options

    @property
    def started(self) -> Run:
        """The call that ran it; ValueError for a plan that was not."""
        if self.run is None:
            raise ValueError(f"{self.replay_id} was not run")
        return self.run

    def shown_state(self, now: datetime) -> ReplayState:
        """A plan that nobody ran in time has expired, also before anyone wrote that down."""
        is_stale = self.state in (ReplayState.PLANNING, ReplayState.PLANNED) and now >= self.expires_at
        return ReplayState.EXPIRED if is_stale else self.state

    def shown(self, counted: Progress) -> Progress:
        """What waits in a job that is over has been cancelled, also before that is written to each item."""
        if self.state not in OVER:
            return counted
        return Progress(
            in_flight=counted.in_flight,
            succeeded=counted.succeeded,
            failed=counted.failed,
            skipped=counted.skipped,
            cancelled=counted.cancelled + counted.waiting,
        )


def check_transition(job: Job, to: ReplayState) -> None:
    """Raise Conflict unless *job* may go from where it is *to* there."""
    if to not in TRANSITIONS[job.state]:
        raise Conflict(f"{job.replay_id} is {job.state}: it cannot become {to}")


def resumed(job: Job) -> ReplayState:
    """What a paused job goes on as."""
    has_canary = job.chosen.canary.size > 0
    return ReplayState.CANARY if has_canary and not job.canary_passed else ReplayState.RUNNING


def eta_seconds(job: Job, progress: Progress, outcomes_per_second: float) -> float | None:
    """How long the rest will take at the pace of its latest outcomes; None: nobody knows."""
    if job.state not in RELEASING or progress.done < TOLD_FOR_ETA or outcomes_per_second <= 0:
        return None
    return (progress.waiting + progress.in_flight) / outcomes_per_second


def check_options(options: Options) -> list[tuple[str, str]]:
    """What is wrong with them: where, and why."""
    faults = []
    if options.rate is not None and not 0.001 <= options.rate <= 100_000:
        faults.append(("/rate", "must be between 0.001 and 100000 items a second"))
    if options.concurrency is not None and not 1 <= options.concurrency <= 100_000:
        faults.append(("/concurrency", "must be between 1 and 100000 items in flight"))
    if not 0 <= options.canary.size <= MOST_CANARY:
        faults.append(("/canary/size", f"must be between 0 (none) and {MOST_CANARY}"))
    if not 0 < options.canary.share <= 1:
        faults.append(("/canary/share", "must be more than 0 and at most 1: the share that must succeed"))
    if not 0 <= options.halt_if.share <= 1:
        faults.append(("/halt_if/share", "must be between 0 and 1 (1: never halt)"))
    if not 1 <= options.halt_if.last <= 10_000:
        faults.append(("/halt_if/last", "must be between 1 and 10000 outcomes"))
    return faults
