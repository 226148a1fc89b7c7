"""A job as it is seen: how far it is, how fast, and what it waits for."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from redrive.domain.health import Verdict
from redrive.domain.ids import JobId
from redrive.domain.integration import Defaults, Integration
from redrive.domain.replay import RELEASING, Job, Progress, ReplayState, eta_seconds
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

    async def now(self, integration: Integration, jobs: Sequence[Job]) -> list[SeenJob]:
        """Jobs of an integration as they are stored, counted now."""
        verdict = await self.verdict_of(integration)
        progresses = await self._progresses(integration, jobs)
        now = self.clock.now()
        return [
            SeenJob(
                job=job,
                integration=integration,
                progress=job.shown(progresses.get(job.id, Progress())),
                outcomes_per_second=await self._pace(job, now),
                now=now,
                verdict=verdict,
                waits_for=waits_for(job, integration, self.catalogue.defaults),
            )
            for job in jobs
        ]

    async def _progresses(self, integration: Integration, jobs: Sequence[Job]) -> Mapping[JobId, Progress]:
        """Only what has items under way is counted, all at once; of the rest it is known."""
        known = {job.id: progress for job in jobs if (progress := _known(job)) is not None}
        unknown = [job.id for job in jobs if job.id not in known]
        return known | dict(await self.jobs.progresses(integration.number, unknown) if unknown else {})

    async def _pace(self, job: Job, now: datetime) -> float:
        if job.state not in RELEASING or job.run is None:
            return 0.0
        since = max(job.run.at, now - PACE_OF)
        told = await self.jobs.told_since(job, since)
        return told / max((now - since).total_seconds(), 1.0)


def _known(job: Job) -> Progress | None:
    if job.final is not None:
        return job.final
    if job.plan is None:  # it is still being made: nothing counts yet
        return Progress()
    return job.plan.progress if job.state is ReplayState.PLANNED else None


def waits_for(job: Job, integration: Integration, defaults: Defaults) -> str | None:
    """`containment`, `lifecycle` or `breaker`: why a job that runs replays nothing, or one at a time."""
    if job.state not in RELEASING:
        return None
    if integration.traffic.containment is not None:
        return "containment"
    if not integration.sends:
        return "lifecycle"
    return None if defaults.breaker(integration).is_closed else "breaker"
