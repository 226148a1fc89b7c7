"""What the engine asks of a store about plans and jobs: verbs, each one transaction, with its guarantee."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from redrive.audit.record import AuditEvent
from redrive.domain.ids import EventId, ItemId, JobId
from redrive.domain.item import Status
from redrive.domain.replay import ItemState, Job, Order, Progress, Wanted
from redrive.domain.replay_judging import Candidate, Waiting
from redrive.domain.replay_pace import Figures
from redrive.domain.replay_plan import Frozen
from redrive.store.port import Once


class Next(Struct, frozen=True):
    """One item to release, as it was judged, and its event."""

    item: ItemId
    status: Status
    cycle: int
    head: EventId | None
    event: AuditEvent


class Batch(Struct, frozen=True):
    """Items of a job that are replayed together, and those that are skipped, each with a reason.

    It happens while the job is at this version, the incarnation alive and the integration sending; the items
    that meanwhile moved on are left as they are.
    """

    job: Job
    max_attempts: int
    opened_at: datetime
    items: Sequence[Next]
    skipped: Sequence[tuple[ItemId, str]]


class Left(Struct, frozen=True):
    """Whether any item of a job waits, or is in flight."""

    is_waiting: bool
    is_in_flight: bool


class ItemRow(Struct, frozen=True):
    """What became of one item of a job. `told_at`: when its first attempt ended."""

    item: ItemId
    cycle: int
    risk: int
    state: ItemState
    reason: str | None
    told_at: datetime | None
    stumbled: bool


class Replays(Protocol):
    """Plans, jobs, and what became of each of their items."""

    # planning

    async def candidates(
        self, integration: int, wanted: Wanted, *, as_of: datetime, after: int, limit: int
    ) -> Sequence[Candidate]:
        """Dead items of one *wanted* status that were dead at *as_of*, by id, from above *after* on."""
        ...

    async def named(self, integration: int, items: Sequence[ItemId]) -> Sequence[Candidate]:
        """Those very items, in this order, wherever they are."""
        ...

    async def failures_of(self, integration: int, job: JobId, *, after: int, limit: int) -> Sequence[ItemId]:
        """What failed again in a job, by id, from above *after* on."""
        ...

    async def mean_seconds(self, integration: int, since: datetime) -> float | None:
        """How long an attempt took since then, on average; None: there was none."""
        ...

    async def freeze(self, job: Job, rows: Sequence[Frozen]) -> bool:
        """Write down a part of a plan; False unless that is still being made."""
        ...

    # a job

    async def add_job(self, job: Job) -> None:
        """Write a new plan down, empty."""
        ...

    async def change_job(self, job: Job, events: Sequence[AuditEvent], once: Once | None = None) -> bool:
        """Replace it, provided its stored version is still the one before *job.version*."""
        ...

    async def job(self, integration: int, job: JobId) -> Job | None:
        """One job of an integration."""
        ...

    async def job_of_digest(self, integration: int, digest: str) -> Job | None:
        """The job whose plan has this digest."""
        ...

    async def jobs(self, integration: int, *, limit: int, below: int | None) -> Sequence[Job]:
        """The plans and jobs of an integration, newest first."""
        ...

    async def unsettled(self) -> Sequence[Job]:
        """Every job, of all integrations, of which something may still come."""
        ...

    async def progress(self, job: Job) -> Progress:
        """How many of its items are where, all counted at one moment."""
        ...

    async def progresses(self, integration: int, jobs: Sequence[JobId]) -> Mapping[JobId, Progress]:
        """The same of several jobs of an integration; only of those that have items."""
        ...

    async def told_since(self, job: Job, since: datetime) -> int:
        """How many first attempts ended since then."""
        ...

    async def items(self, job: Job, state: ItemState | None, *, limit: int, after: int) -> Sequence[ItemRow]:
        """Its items by id, from above *after* on."""
        ...

    async def moved_on(self, job: Job) -> Mapping[str, int]:
        """How many of the items that wait are no longer as they were planned, by reason."""
        ...

    async def waits_in(self, integration: int, item: ItemId) -> JobId | None:
        """The running job that an item waits in."""
        ...

    # stepping

    async def elect(self, owner: int, job: Job) -> bool:
        """Whether *owner* is the one process that steps this job, for the next seconds."""
        ...

    async def figures(self, job: Job, now: datetime) -> Figures | None:
        """Where it stands; None when it is no longer at this version."""
        ...

    async def next_waiting(
        self, job: Job, order: Order, items: Sequence[ItemId] | None, limit: int
    ) -> Sequence[Waiting]:
        """The next items of a job that wait, or those of *items*."""
        ...

    async def release(self, owner: int, batch: Batch) -> frozenset[ItemId] | None:
        """Open the next cycle of each, due now; which it was. None: the guard failed, nothing happened."""
        ...

    async def left(self, job: Job) -> Left:
        """What keeps a job that is over from being settled; at no more cost when it has many items."""
        ...

    async def sweep(self, job: Job, limit: int) -> int:
        """Of what waits in a job that is over cancel some; how many there were."""
        ...

    async def discard(self, job: Job, limit: int) -> int:
        """Delete some rows of a plan that expired; how many went."""
        ...

    async def forget(self, before: datetime) -> int:
        """Forget settled jobs from before then, items and all; how many rows went."""
        ...
