"""A person's verbs on many items: plan, run, pause, resume, cancel, pace; and what may be seen of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, DependencyUnavailable, ReplayNotFound
from redrive.domain.health import Verdict
from redrive.domain.ids import JobId, parse_replay_id
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.replay import (
    ACTIVE,
    MOVED_ON_SHARE,
    OVER,
    PLAN_LASTS,
    RELEASING,
    Doer,
    ItemState,
    Job,
    Options,
    Progress,
    ReplayState,
    Run,
    Wanted,
    check_transition,
    eta_seconds,
    resumed,
)
from redrive.domain.replay_plan import Candidate, Drafting, estimate_seconds, head_of
from redrive.engine.catalogue import Catalogue
from redrive.engine.once import Key, Render, Told, idempotent, kept, until_written
from redrive.engine.paging import Paging
from redrive.engine.replay_events import of_change
from redrive.engine.tools import Tools
from redrive.store.replays import ItemRow
from redrive.telemetry.events import AuditWritten, Operated

CHUNK: Final = 10_000  # of a plan: no commit holds the store longer than that takes
MEAN_OF: Final = timedelta(hours=1)
PACE_OF: Final = timedelta(seconds=10)
Chunk = Sequence[Candidate]
_SETTING: Final = (  # what of an integration a plan is made for
    "url", "method", "auth_mode", "lifecycle_status", "timeout_seconds", "max_attempts", "base_delay_seconds",
    "max_delay_seconds", "jitter", "retryable_network_codes", "concurrency", "rate_per_second",
)  # fmt: skip


VerdictOf = Callable[[Integration], Awaitable[Verdict]]


class SeenJob(Struct, frozen=True):
    """A job, and how far it is."""

    job: Job
    integration: Integration
    progress: Progress
    outcomes_per_second: float
    now: datetime
    verdict: Verdict  # on the receiver

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest will take; None: nobody knows."""
        return eta_seconds(self.job, self.progress, self.outcomes_per_second)


class Replays:
    """The verbs. A change is decided anew until it is written over the very version it was decided for."""

    def __init__(
        self, tools: Tools, catalogue: Catalogue, wake: Callable[[], None], verdict_of: VerdictOf
    ) -> None:
        self.verdict_of = verdict_of
        self.jobs = tools.store.replays
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.paging = Paging(tools.vault)
        self.wake = wake

    # planning

    async def plan(
        self,
        call: Call,
        integration_id: str,
        wanted: Wanted,
        *,
        render: Render[SeenJob],
        key: Key | None = None,
    ) -> Told:
        """Freeze what *wanted* matches now, judged item by item; nothing is replayed yet."""
        call.require(Permission.OPERATE)
        integration = await self.catalogue.current(call, integration_id)
        if wanted.failures_of is not None and await self._find(integration, wanted.failures_of) is None:
            raise ReplayNotFound(f"{integration_id} has no replay whose failures could be replayed")
        return await idempotent(
            self.store, key, lambda: self._plan(call, integration, wanted, render=render, key=key)
        )

    async def _plan(
        self,
        call: Call,
        integration: Integration,
        wanted: Wanted,
        *,
        render: Render[SeenJob],
        key: Key | None,
    ) -> Told:
        now = self.clock.now()
        setting = self._setting(integration)
        named = wanted.recovery_ids
        job = Job(
            id=JobId(self.next_id(now)),
            integration=integration.number,
            state=ReplayState.PLANNING,
            wanted=replace(wanted, recovery_ids=None),
            named=None if named is None else len(set(named)),
            as_of=now,
            expires_at=now + PLAN_LASTS,
            planned_by=call.principal.id,
            request_id=call.request_id,
            setting=setting,
            changed_at=now,
            changed_by=call.principal.id,
        )
        await self.jobs.add_job(job)
        head = head_of(job.replay_id, integration.integration_id, now, msgspec.json.encode(setting).decode())
        draft = Drafting(head, as_of=now, sends=integration.sends)
        async for candidates in _ahead(self._candidates(integration.number, wanted, now)):
            if not await self.jobs.freeze(job, draft.add(candidates)):
                raise DependencyUnavailable("contention", "the plan expired while it was being made")
        plan = draft.finish(await self._estimate(integration, draft.eligible, now))
        planned = replace(
            job, state=ReplayState.PLANNED, version=2, plan=plan, expires_at=self.clock.now() + PLAN_LASTS
        )
        event = self._event(EventType.REPLAY_PLANNED, call, integration, before=None, after=planned)
        progress = Progress(waiting=plan.eligible, skipped=plan.total - plan.eligible)
        told = render(SeenJob(planned, integration, progress, 0.0, now, await self.verdict_of(integration)))
        if not await self.jobs.change_job(planned, [event], kept(key, told, now)):
            raise DependencyUnavailable("contention", "the plan expired while it was being made")
        self._announce(event, call)
        return told

    async def _candidates(
        self, number: int, wanted: Wanted, as_of: datetime
    ) -> AsyncIterator[Sequence[Candidate]]:
        """Chunk by chunk, each item once."""
        if wanted.recovery_ids is not None:
            ids = list(dict.fromkeys(wanted.recovery_ids))
            for at in range(0, len(ids), CHUNK):
                yield await self.jobs.named(number, ids[at : at + CHUNK])
            return
        if wanted.failures_of is not None:
            after = -1
            while items := await self.jobs.failures_of(number, wanted.failures_of, after=after, limit=CHUNK):
                yield await self.jobs.named(number, items)
                after = items[-1]
            return
        for status in (Status.FAILED, Status.DLQ) if wanted.status is None else (wanted.status,):
            of_status, after = replace(wanted, status=status), -1
            while found := await self.jobs.candidates(
                number, of_status, as_of=as_of, after=after, limit=CHUNK
            ):
                yield found
                after = found[-1].id

    async def _estimate(self, integration: Integration, eligible: int, now: datetime) -> float | None:
        return estimate_seconds(
            eligible,
            rate=integration.rate_per_second,
            concurrency=self.catalogue.defaults.of(integration, "concurrency"),
            mean_seconds=await self.jobs.mean_seconds(integration.number, now - MEAN_OF),
        )

    # running

    async def run(
        self,
        call: Call,
        integration_id: str,
        digest: str,
        options: Options,
        *,
        render: Render[SeenJob],
        key: Key | None = None,
    ) -> Told:
        """Replay what was planned, and nothing else."""
        call.require(Permission.OPERATE)
        return await idempotent(
            self.store,
            key,
            lambda: until_written(
                lambda: self._run(call, integration_id, digest, options, render=render, key=key)
            ),
        )

    async def _run(
        self,
        call: Call,
        integration_id: str,
        digest: str,
        options: Options,
        *,
        render: Render[SeenJob],
        key: Key | None,
    ) -> Told | None:
        integration = await self.catalogue.current(call, integration_id)
        job = await self.jobs.job_of_digest(integration.number, digest)
        if job is None or job.plan is None:
            raise ReplayNotFound(f"{integration_id} has no plan with the digest {digest!r}")
        now = self.clock.now()
        if job.shown_state(now) is ReplayState.EXPIRED:
            raise Conflict(f"the plan {job.replay_id} has expired; make a new one")
        if job.state is not ReplayState.PLANNED:
            raise Conflict(f"the plan {job.replay_id} was run already: it is {job.state}")
        if not job.plan.eligible:
            raise Conflict(f"the plan {job.replay_id} holds nothing that can be replayed")
        await self._check_unchanged(job, integration)
        verdict = await self.verdict_of(integration)
        if options.require_healthy and verdict is not Verdict.HEALTHY:
            raise Conflict(f"the receiver is {verdict}, and this run needs a healthy one; probe it first")
        has_canary = options.canary.size > 0
        after = replace(
            job,
            state=ReplayState.CANARY if has_canary else ReplayState.RUNNING,
            version=job.version + 1,
            options=options,
            run=Run(_doer(call), now, call.request_id, call.traceparent),
            canary_passed=not has_canary,
            watched_from=now,
            changed_at=now,
            changed_by=call.principal.id,
        )
        event = self._event(EventType.REPLAY_STARTED, call, integration, before=job, after=after)
        progress = Progress(waiting=job.plan.eligible, skipped=job.plan.total - job.plan.eligible)
        told = render(SeenJob(after, integration, progress, 0.0, now, verdict))
        if not await self.jobs.change_job(after, [event], kept(key, told, now)):
            return None
        self._announce(event, call)
        self.wake()
        return told

    async def _check_unchanged(self, job: Job, integration: Integration) -> None:
        """What was looked at when it was planned must still be so, but for a few items."""
        assert job.plan is not None  # noqa: S101 - it is planned
        setting = self._setting(integration)
        changed = [
            {"field": name, "planned": job.setting.get(name), "now": now}
            for name, now in setting.items()
            if job.setting.get(name) != now
        ]
        moved = await self.jobs.moved_on(job)
        gone = sum(moved.values())
        if changed or gone > MOVED_ON_SHARE * job.plan.eligible:
            what = f"{gone} of {job.plan.eligible} items have moved on"
            if changed:
                what = f"the integration's {', '.join(str(one['field']) for one in changed)} changed"
            difference = {"eligible": job.plan.eligible, "moved_on": dict(moved), "changed": changed}
            raise Conflict(
                f"since the plan {job.replay_id} was made, {what}; make a new one", difference=difference
            )

    def _setting(self, integration: Integration) -> dict[str, Any]:
        """What is compared: where it goes and how it is retried, as it is in force, and whether it sends."""
        defaults = self.catalogue.defaults
        found = {
            name: defaults.of(integration, name) if hasattr(defaults, name) else getattr(integration, name)
            for name in _SETTING
        }
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
        return plain | {"sends": integration.sends}

    # what a person does to a job that runs

    async def pause(
        self, call: Call, integration_id: str, name: str, *, render: Render[SeenJob], key: Key | None = None
    ) -> Told:
        """Replay nothing more of it for now."""
        return await self._change(call, integration_id, name, _paused, render=render, key=key)

    async def resume(
        self, call: Call, integration_id: str, name: str, *, render: Render[SeenJob], key: Key | None = None
    ) -> Told:
        """Go on; what failed before is no reason to halt."""
        return await self._change(call, integration_id, name, _resumed, render=render, key=key)

    async def cancel(
        self, call: Call, integration_id: str, name: str, *, render: Render[SeenJob], key: Key | None = None
    ) -> Told:
        """Replay nothing more of it, for good; what was replayed stays so."""
        return await self._change(call, integration_id, name, _cancelled, render=render, key=key)

    async def set_rate(
        self,
        call: Call,
        integration_id: str,
        name: str,
        rate: float | None,
        *,
        render: Render[SeenJob],
        key: Key | None = None,
    ) -> Told:
        """Pace it anew: items a second; None: as fast as the integration's own limits."""
        return await self._change(
            call, integration_id, name, lambda job: _paced(job, rate), render=render, key=key
        )

    async def _change(
        self,
        call: Call,
        integration_id: str,
        name: str,
        decide: Callable[[Job], tuple[EventType, Job]],
        *,
        render: Render[SeenJob],
        key: Key | None,
    ) -> Told:
        call.require(Permission.OPERATE)

        async def act() -> Told | None:
            integration, job = await self._job(call, integration_id, name)
            now = self.clock.now()
            kind, decided = decide(job)
            after = replace(
                decided,
                version=job.version + 1,
                watched_from=now if kind is EventType.REPLAY_RESUMED else job.watched_from,
                changed_at=now,
                changed_by=call.principal.id,
            )
            progress = after.shown(await self.jobs.progress(job))
            event = self._event(kind, call, integration, before=job, after=after, progress=progress)
            verdict = await self.verdict_of(integration)
            told = render(SeenJob(after, integration, progress, 0.0, now, verdict))
            if not await self.jobs.change_job(after, [event], kept(key, told, now)):
                return None
            self._announce(event, call)
            self.wake()
            return told

        return await idempotent(self.store, key, lambda: until_written(act))

    # what may be seen

    async def show(self, call: Call, integration_id: str, name: str) -> SeenJob:
        """One plan or job, and how far it is."""
        call.require(Permission.VIEW)
        integration, job = await self._job(call, integration_id, name)
        return await self._seen(integration, job, await self.verdict_of(integration))

    async def list(
        self, call: Call, integration_id: str, *, limit: int, cursor: str | None
    ) -> tuple[Sequence[SeenJob], str | None]:
        """Plans and jobs, newest first, and the cursor of the next page."""
        call.require(Permission.VIEW)
        scope = f"replays {integration_id}"
        below = self._position(cursor, scope)
        integration = await self.catalogue.current(call, integration_id)
        jobs = await self.jobs.jobs(integration.number, limit=limit + 1, below=below)
        verdict = await self.verdict_of(integration)
        page = [await self._seen(integration, job, verdict) for job in jobs[:limit]]
        last = jobs[limit - 1].id if len(jobs) > limit else None
        return page, self._cursor(last, scope)

    async def items(
        self,
        call: Call,
        integration_id: str,
        name: str,
        state: ItemState | None,
        *,
        limit: int,
        cursor: str | None,
    ) -> tuple[Job, Sequence[ItemRow], str | None]:
        """What became of each item, in the order of their ids, and the cursor of the next page."""
        call.require(Permission.VIEW)
        scope = f"replay items {integration_id} {name} {state}"
        after = self._position(cursor, scope)
        _, job = await self._job(call, integration_id, name)
        rows = await self.jobs.items(job, state, limit=limit + 1, after=-1 if after is None else after)
        last = rows[limit - 1].item if len(rows) > limit else None
        return job, rows[:limit], self._cursor(last, scope)

    def _cursor(self, last: int | None, scope: str) -> str | None:
        return None if last is None else self.paging.cursor(last.to_bytes(8, "big"), scope)

    def _position(self, cursor: str | None, scope: str) -> int | None:
        return None if cursor is None else int.from_bytes(self.paging.position(cursor, scope, 8), "big")

    async def _seen(self, integration: Integration, job: Job, verdict: Verdict) -> SeenJob:
        now = self.clock.now()
        counted = job.final
        if counted is None:  # of a plan that is still being made nothing counts yet
            counted = Progress() if job.plan is None else await self.jobs.progress(job)
            if job.plan is not None and counted.total != job.plan.total:  # it expired: its rows are going
                job = await self._find(integration, job.id) or job
                counted = job.final or counted
        pace = 0.0
        if job.state in RELEASING and job.run is not None:
            since = max(job.run.at, now - PACE_OF)
            told = await self.jobs.told_since(job, since)
            pace = told / max((now - since).total_seconds(), 1.0)
        return SeenJob(job, integration, job.shown(counted), pace, now, verdict)

    async def _job(self, call: Call, integration_id: str, name: str) -> tuple[Integration, Job]:
        integration = await self.catalogue.current(call, integration_id)
        number = parse_replay_id(name)
        job = None if number is None else await self._find(integration, number)
        if job is None:
            raise ReplayNotFound(f"{integration_id} has no replay {name!r}")
        return integration, job

    async def _find(self, integration: Integration, number: JobId) -> Job | None:
        return await self.jobs.job(integration.number, number)

    def _event(
        self,
        kind: EventType,
        call: Call,
        integration: Integration,
        *,
        before: Job | None,
        after: Job,
        progress: Progress | None = None,
    ) -> AuditEvent:
        return of_change(
            self.next_id,
            self.clock.now(),
            kind,
            integration.integration_id,
            before=before,
            after=after,
            call=call,
            progress=progress,
        )

    def _announce(self, event: AuditEvent, call: Call) -> None:
        self.announce(AuditWritten(event.event_type.value))
        self.announce(
            Operated(
                event.event_type.value,
                call.principal.id,
                event.integration_id or "",
                event.target_id,
                call.request_id,
            )
        )


async def _ahead(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The same chunks; the next is read while one is looked at."""
    coming = asyncio.ensure_future(anext(chunks, None))
    try:
        while (chunk := await coming) is not None:
            coming = asyncio.ensure_future(anext(chunks, None))
            yield chunk
    finally:
        coming.cancel()


def _paused(job: Job) -> tuple[EventType, Job]:
    check_transition(job, ReplayState.PAUSED)
    return EventType.REPLAY_PAUSED, replace(job, state=ReplayState.PAUSED)


def _resumed(job: Job) -> tuple[EventType, Job]:
    if job.state is not ReplayState.PAUSED:
        raise Conflict(f"{job.replay_id} is {job.state}: only a paused one can be resumed")
    return EventType.REPLAY_RESUMED, replace(job, state=resumed(job))


def _cancelled(job: Job) -> tuple[EventType, Job]:
    check_transition(job, ReplayState.CANCELLED)
    return EventType.REPLAY_CANCELLED, replace(job, state=ReplayState.CANCELLED)


def _paced(job: Job, rate: float | None) -> tuple[EventType, Job]:
    if job.state not in ACTIVE or job.options is None:
        over = "it is over" if job.state in OVER else "it was not run yet"
        raise Conflict(f"{job.replay_id} is {job.state}: {over}, and has no rate to change")
    return EventType.REPLAY_RATE_CHANGED, replace(job, options=replace(job.options, rate=rate))


def _doer(call: Call) -> Doer:
    by = call.principal
    return Doer(by.id, by.type, by.session_id, by.tenant)
