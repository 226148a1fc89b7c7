"""Stepping jobs: a duty of every process; each running job is stepped by one of them at a time.

What was decided is written under the job's very version, so a step that comes too late changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.ids import JobId
from redrive.domain.integration import Integration
from redrive.domain.replay import OVER, RELEASING, Job, Progress, ReplayState
from redrive.domain.replay_judging import Waiting, judge_again
from redrive.domain.replay_pace import (
    IDLE_SECONDS,
    RUNNING_SECONDS,
    STEADY_SECONDS,
    Become,
    Release,
    Wait,
    decide,
    refill,
)
from redrive.engine.catalogue import Catalogue
from redrive.engine.health import Health
from redrive.engine.replay_events import of_change, of_item
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import StoreUnavailable
from redrive.store.replays import Batch, Next
from redrive.telemetry.events import AuditWritten, JobHalted, LoopFailed

SWEPT_AT_ONCE = 10_000
_NOW = Wait(0.0)
_SOON = Wait(STEADY_SECONDS)
_RUNNING = Wait(RUNNING_SECONDS)  # somebody steps it, or may in a moment
_IDLE = Wait(IDLE_SECONDS)  # it is not stepped; what another process was told it steps itself
_AFTER_A_BUG = Wait(1.0)
_SLACK_SECONDS = 0.001  # a clock that wakes us is not exact
_KINDS = {
    ReplayState.RUNNING: EventType.REPLAY_CANARY_PASSED,
    ReplayState.HALTED: EventType.REPLAY_HALTED,
    ReplayState.COMPLETED: EventType.REPLAY_COMPLETED,
    ReplayState.COMPLETED_WITH_FAILURES: EventType.REPLAY_COMPLETED,
}


class _Purse(Struct):
    """What a job may still release at its rate. Empty after a take-over: nobody knows what was released."""

    began_at: float
    filled_at: float
    saved: float = 0.0


class _Rest(Struct, frozen=True):
    """Until when a job is left alone, unless it changes."""

    version: int
    until: float
    wait: Wait
    seconds: float


class Stepper:
    """Takes one step after another of every job that is this process's to step."""

    def __init__(self, tools: Tools, catalogue: Catalogue, worker: Worker, health: Health) -> None:
        self.jobs = tools.store.replays
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.worker = worker
        self.health = health
        self.under_way: Mapping[str, int] = {}  # all there are, by state, when last looked
        self.is_stopping = False  # then another process goes on with what we stepped
        self._stepping = asyncio.Lock()
        self._wake = asyncio.Event()
        self._purses: dict[JobId, _Purse] = {}
        self._rests: dict[JobId, _Rest] = {}

    def wake(self) -> None:
        """Something changed: take a step now."""
        self._wake.set()

    async def between_steps(self) -> None:
        """Wait until no step is under way."""
        async with self._stepping:
            pass

    async def run(self) -> None:
        """Step, until cancelled."""
        while True:
            self._wake.clear()
            try:
                async with self._stepping:
                    wait = await self.turn()
            except StoreUnavailable as error:
                self.health.failed("replay", error)
                wait = self.health.pause_seconds
            except Exception as error:  # noqa: BLE001 - our bug: told, and the loop goes on
                self.announce(LoopFailed("replay", error))
                wait = 1.0
            await self._rest(wait)

    async def turn(self) -> float:
        """One step of every job that has one to take; how long to wait for the next turn."""
        if self.is_stopping or self.worker.owned.has_lapsed:
            return RUNNING_SECONDS
        jobs = await self.jobs.unsettled()
        self.under_way = Counter(job.state.value for job in jobs)
        self._purses = {job.id: self._purses[job.id] for job in jobs if job.id in self._purses}
        self._rests = {job.id: self._rests[job.id] for job in jobs if job.id in self._rests}
        return min([await self._in_its_turn(job) for job in jobs], default=IDLE_SECONDS)

    async def _in_its_turn(self, job: Job) -> float:
        """A step, unless the job rests: so one that waits costs nothing, however busy another is."""
        last = self._rests.get(job.id)
        if last is not None and last.version != job.version:
            last = None
        if last is not None and (left := last.until - self.clock.elapsed()) > _SLACK_SECONDS:
            return left
        wait = await self._safely(job)
        seconds = wait.after(None if last is None else (last.wait, last.seconds))
        self._rests[job.id] = _Rest(job.version, self.clock.elapsed() + seconds, wait, seconds)
        return seconds

    async def _safely(self, job: Job) -> Wait:
        """One step; a job that cannot take it keeps no other from its own."""
        try:
            return await self._step(job)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - our bug: told, and the others go on
            self.announce(LoopFailed("replay", error))
            return _AFTER_A_BUG

    async def _step(self, job: Job) -> Wait:
        now = self.clock.now()
        if job.shown_state(now) is not job.state:
            await self._expire(job)
            return _NOW
        if job.state in RELEASING:
            if await self.jobs.elect(self.worker.owner, job):
                return await self._move(job)
            self._purses.pop(job.id, None)
            return _RUNNING
        if job.state in OVER:
            return await self._settle(job)
        return _RUNNING if job.state is ReplayState.PAUSED else _IDLE

    # a job that runs

    async def _move(self, job: Job) -> Wait:
        figures = await self.jobs.figures(job, self.clock.now())
        if figures is None:
            return _NOW  # it was changed since it was read: read it anew
        integration = self.catalogue.numbered(job.integration)
        purse = self._refilled(job)
        limit = self.catalogue.defaults.of(integration, "concurrency")
        tries = not self.catalogue.defaults.breaker(integration).is_closed
        match decide(job, figures, saved=purse.saved, limit=limit, tries=tries):
            case Release() as release:
                released = await self._release(job, integration, release)
                purse.saved -= released
                return _NOW if released else _SOON  # it moved on, and is read anew
            case Become(state, because):
                await self._become(job, integration, state, because)
                return _NOW
            case Wait() as wait:
                return wait

    def _refilled(self, job: Job) -> _Purse:
        elapsed = self.clock.elapsed()
        purse = self._purses.get(job.id)
        if purse is None:
            purse = self._purses[job.id] = _Purse(elapsed, elapsed)
        purse.saved = refill(
            purse.saved,
            job.chosen.rate,
            seconds=elapsed - purse.filled_at,
            running_for=elapsed - purse.began_at,
        )
        purse.filled_at = elapsed
        return purse

    async def _release(self, job: Job, integration: Integration, release: Release) -> int:
        """Replay the next of them; how many moved, or were skipped."""
        found = await self.jobs.next_waiting(job, job.chosen.order, release.items, release.count)
        for one in found:
            if one.head is not None:
                self.store.ids.follow(one.head)
        now = self.clock.now()
        judged = [(one, judge_again(one)) for one in found]
        skipped = [(one.item, skip.value) for one, skip in judged if skip is not None]
        items = [self._next(job, integration, one) for one, skip in judged if skip is None]
        batch = Batch(
            job=job,
            max_attempts=self.catalogue.defaults.of(integration, "max_attempts"),
            opened_at=now,
            items=items,
            skipped=skipped,
        )
        released = await self.jobs.release(self.worker.owner, batch)
        if released is None:
            return 0
        for item in released:
            self.worker.due(job.integration, item, now)
        for _ in released:
            self.announce(AuditWritten(EventType.REPLAYED))
        return len(released) + len(skipped)

    def _next(self, job: Job, integration: Integration, one: Waiting) -> Next:
        assert one.status is not None  # noqa: S101 - as it was judged
        event = of_item(
            self.next_id, self.clock.now(), job, integration.integration_id, one, status=one.status
        )
        return Next(one.item, one.status, one.cycle, one.head, event)

    async def _become(self, job: Job, integration: Integration, state: ReplayState, because: str) -> None:
        now = self.clock.now()
        progress = await self.jobs.progress(job)
        if state is ReplayState.COMPLETED and progress.failed:
            state, because = ReplayState.COMPLETED_WITH_FAILURES, _failed_again(progress.failed)
        after = replace(
            job,
            state=state,
            version=job.version + 1,
            because=because,
            canary_passed=job.canary_passed or state is ReplayState.RUNNING,
            changed_at=now,
            changed_by="redrive",
        )
        shown = after.shown(progress)
        event = of_change(
            self.next_id,
            now,
            _KINDS[state],
            integration.integration_id,
            before=job,
            after=after,
            progress=shown,
        )
        if await self._write(after, [event]) and state is ReplayState.HALTED:
            self.announce(JobHalted(integration.integration_id, job.replay_id, because))

    # a job that is over

    async def _expire(self, job: Job) -> None:
        """A plan that nobody ran; or that was never finished, for whoever made it died."""
        if await self.jobs.elect(self.worker.owner, job):
            after = replace(
                job,
                state=ReplayState.EXPIRED,
                version=job.version + 1,
                final=_as_planned(job),
                because="it was not run in time",
            )
            await self._write(after, [])

    async def _settle(self, job: Job) -> Wait:
        """Write down of each item that the job is over, a chunk at a time, and then how it ended."""
        if not await self.jobs.elect(self.worker.owner, job):
            return _IDLE
        if job.state is ReplayState.EXPIRED:
            if not await self.jobs.discard(job, SWEPT_AT_ONCE):
                await self._write(replace(job, version=job.version + 1, settled=True), [])
            return _NOW
        left = await self.jobs.left(job)
        is_swept = job.state in (ReplayState.HALTED, ReplayState.CANCELLED)
        if left.is_waiting and is_swept and await self.jobs.sweep(job, SWEPT_AT_ONCE):
            return _NOW
        if left.is_waiting or left.is_in_flight:  # for hours, if a receiver asked for that
            return Wait(RUNNING_SECONDS, IDLE_SECONDS)
        progress = await self.jobs.progress(job)
        await self._write(replace(job, version=job.version + 1, settled=True, final=progress), [])
        return _NOW

    async def _write(self, job: Job, events: list[AuditEvent]) -> bool:
        """Over the version that was read; else somebody was faster, and the next turn reads that."""
        if not await self.jobs.change_job(job, events):
            return False
        for event in events:
            self.announce(AuditWritten(event.event_type.value))
        return True

    async def _rest(self, seconds: float) -> None:
        alarm = asyncio.create_task(self._wake_in(seconds))
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _wake_in(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self._wake.set()


def _as_planned(job: Job) -> Progress:
    if job.plan is None:
        return Progress()
    return Progress(skipped=job.plan.total - job.plan.eligible, cancelled=job.plan.eligible)


def _failed_again(count: int) -> str:
    return "1 item failed again" if count == 1 else f"{count} items failed again"
