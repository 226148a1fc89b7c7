"""A person's verbs on many items: plan, run, pause, resume, cancel, pace; and what may be seen of it."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, ReplayNotFound
from redrive.domain.health import Verdict
from redrive.domain.ids import parse_replay_id
from redrive.domain.integration import Integration
from redrive.domain.replay import (
    ACTIVE,
    OVER,
    Doer,
    ItemState,
    Job,
    Options,
    Progress,
    ReplayState,
    Run,
    check_transition,
    resumed,
)
from redrive.engine.acting import tell_operated
from redrive.engine.catalogue import Catalogue
from redrive.engine.once import Key, Render, Told, idempotent, kept, until_written
from redrive.engine.paging import Paging
from redrive.engine.planning import Planning
from redrive.engine.replay_events import of_change
from redrive.engine.seeing import Seeing, SeenJob
from redrive.engine.tools import Tools
from redrive.store.replays import ItemRow


class Replays:
    """The verbs. A change is decided anew until it is written over the very version it was decided for."""

    def __init__(
        self,
        tools: Tools,
        catalogue: Catalogue,
        planning: Planning,
        seeing: Seeing,
        wake: Callable[[], None],
    ) -> None:
        self.jobs = tools.store.replays
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.planning = planning
        self.seeing = seeing
        self.paging = Paging(tools.vault)
        self.wake = wake

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
        await self.planning.check_unchanged(job, integration)
        verdict = await self.seeing.verdict_of(integration)
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
        told = render(await self.seeing.at(integration, after, job.plan.progress, verdict))
        if not await self.jobs.change_job(after, [event], kept(key, told, now)):
            return None
        tell_operated(self.announce, event.event_type, call, integration_id, event.target_id)
        self.wake()
        return told

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
            told = render(await self.seeing.at(integration, after, progress))
            if not await self.jobs.change_job(after, [event], kept(key, told, now)):
                return None
            tell_operated(self.announce, event.event_type, call, integration_id, event.target_id)
            self.wake()
            return told

        return await idempotent(self.store, key, lambda: until_written(act))

    # what may be seen

    async def show(self, call: Call, integration_id: str, name: str) -> SeenJob:
        """One plan or job, and how far it is."""
        call.require(Permission.VIEW)
        integration, job = await self._job(call, integration_id, name)
        [seen] = await self.seeing.now(integration, [job])
        return seen

    async def list(
        self, call: Call, integration_id: str, *, limit: int, cursor: str | None
    ) -> tuple[Sequence[SeenJob], str | None]:
        """Plans and jobs, newest first, and the cursor of the next page."""
        call.require(Permission.VIEW)
        scope = f"replays {integration_id}"
        below = self._position(cursor, scope)
        integration = await self.catalogue.current(call, integration_id)
        jobs = await self.jobs.jobs(integration.number, limit=limit + 1, below=below)
        page = await self.seeing.now(integration, jobs[:limit])
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

    async def _job(self, call: Call, integration_id: str, name: str) -> tuple[Integration, Job]:
        integration = await self.catalogue.current(call, integration_id)
        number = parse_replay_id(name)
        job = None if number is None else await self.jobs.job(integration.number, number)
        if job is None:
            raise ReplayNotFound(f"{integration_id} has no replay {name!r}")
        return integration, job

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
