"""A job as it is seen: how far it is, how fast, and what it waits for."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from redrive.domain.health import Verdict
from redrive.domain.integration import Defaults, Integration
from redrive.domain.replay import RELEASING, Job, Progress, eta_seconds
from redrive.engine.catalogue import Catalogue
from redrive.engine.tools import Tools

PACE_OF: Final = timedelta(seconds=10)
VerdictOf = Callable[[Integration], Awaitable[Verdict]]


class SeenJob(Struct, frozen=True):
    """A job, and how far it is."""

    job: Job
    integration: Integration
    progress: Progress
    outcomes_per_second: float
    now: datetime
    verdict: Verdict  # on the receiver
    waits_for: str | None = None  # what keeps it from replaying the next

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest will take; None: nobody knows."""
        return eta_seconds(self.job, self.progress, self.outcomes_per_second)


class Seeing:
    """Looks at jobs."""

    def __init__(self, tools: Tools, catalogue: Catalogue, verdict_of: VerdictOf) -> None:
        self.jobs = tools.store.replays
        self.clock = tools.clock
        self.catalogue = catalogue
        self.verdict_of = verdict_of

    async def at(
        self, integration: Integration, job: Job, progress: Progress, verdict: Verdict | None = None
    ) -> SeenJob:
        """A job that has just become so, with that *progress*."""
        return SeenJob(
            job=job,
            integration=integration,
            progress=progress,
            outcomes_per_second=0.0,
            now=self.clock.now(),
            verdict=verdict or await self.verdict_of(integration),
            waits_for=waits_for(job, integration, self.catalogue.defaults),
        )

    async def now(self, integration: Integration, job: Job, verdict: Verdict) -> SeenJob:
        """A job as it is stored, counted now."""
        now = self.clock.now()
        counted = job.final
        if counted is None:  # of a plan that is still being made nothing counts yet
            counted = Progress() if job.plan is None else await self.jobs.progress(job)
            if job.plan is not None and counted.total != job.plan.total:  # it expired: its rows are going
                job = await self.jobs.job(job.integration, job.id) or job
                counted = job.final or counted
        pace = 0.0
        if job.state in RELEASING and job.run is not None:
            since = max(job.run.at, now - PACE_OF)
            told = await self.jobs.told_since(job, since)
            pace = told / max((now - since).total_seconds(), 1.0)
        return SeenJob(
            job=job,
            integration=integration,
            progress=job.shown(counted),
            outcomes_per_second=pace,
            now=now,
            verdict=verdict,
            waits_for=waits_for(job, integration, self.catalogue.defaults),
        )


def waits_for(job: Job, integration: Integration, defaults: Defaults) -> str | None:
    """`containment`, `lifecycle` or `breaker`: why a job that runs replays nothing, or one at a time."""
    if job.state not in RELEASING:
        return None
    if integration.traffic.containment is not None:
        return "containment"
    if not integration.sends:
        return "lifecycle"
    return None if defaults.breaker(integration).is_closed else "breaker"
