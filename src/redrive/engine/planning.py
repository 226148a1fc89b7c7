"""Planning a replay of many: what matches now is judged item by item, and frozen."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, DependencyUnavailable, ReplayNotFound
from redrive.domain.ids import JobId
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.replay import MOVED_ON_SHARE, PLAN_LASTS, Job, ReplayState, Wanted
from redrive.domain.replay_judging import Candidate
from redrive.domain.replay_plan import Drafting, estimate_seconds, head_of
from redrive.engine.acting import tell_operated
from redrive.engine.catalogue import Catalogue
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.replay_events import of_change
from redrive.engine.seeing import Seeing, SeenJob
from redrive.engine.tools import Tools

CHUNK: Final = 10_000  # of a plan: no commit holds the store longer than that takes
MEAN_OF: Final = timedelta(hours=1)
Chunk = Sequence[Candidate]
_SETTING: Final = (  # what of an integration a plan is made for
    "url", "method", "auth_mode", "lifecycle_status", "timeout_seconds", "max_attempts", "base_delay_seconds",
    "max_delay_seconds", "jitter", "retryable_network_codes", "concurrency", "rate_per_second",
)  # fmt: skip


class Planning:
    """Makes plans, and tells whether one still holds."""

    def __init__(self, tools: Tools, catalogue: Catalogue, seeing: Seeing) -> None:
        self.jobs = tools.store.replays
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.seeing = seeing

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
        again = wanted.failures_of
        if again is not None and await self.jobs.job(integration.number, again) is None:
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
        async with (
            aclosing(self._candidates(integration.number, wanted, now)) as found,
            aclosing(_ahead(found)) as chunks,
        ):
            async for candidates in chunks:
                if not await self.jobs.freeze(job, draft.add(candidates)):
                    raise DependencyUnavailable("contention", "the plan expired while it was being made")
        plan = draft.finish(await self._estimate(integration, draft.eligible, now))
        planned = replace(
            job, state=ReplayState.PLANNED, version=2, plan=plan, expires_at=self.clock.now() + PLAN_LASTS
        )
        event = of_change(
            self.next_id,
            now,
            EventType.REPLAY_PLANNED,
            integration.integration_id,
            before=None,
            after=planned,
            call=call,
        )
        told = render(await self.seeing.at(integration, planned, plan.progress))
        if not await self.jobs.change_job(planned, [event], kept(key, told, now)):
            raise DependencyUnavailable("contention", "the plan expired while it was being made")
        tell_operated(self.announce, event.event_type, call, integration.integration_id, event.target_id)
        return told

    async def _candidates(self, number: int, wanted: Wanted, as_of: datetime) -> AsyncGenerator[Chunk, None]:
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

    async def check_unchanged(self, job: Job, integration: Integration) -> None:
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
        """What is compared: where it goes, how it is retried as is in force, and whether it is contained."""
        defaults = self.catalogue.defaults
        found = {
            name: defaults.of(integration, name) if hasattr(defaults, name) else getattr(integration, name)
            for name in _SETTING
        }
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
        containment = integration.traffic.containment
        return plain | {"containment": None if containment is None else containment.mode}


async def _ahead(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """The same chunks; the next is read while one is looked at."""
    coming = asyncio.ensure_future(anext(chunks, None))
    try:
        while (chunk := await coming) is not None:
            coming = asyncio.ensure_future(anext(chunks, None))
            yield chunk
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)  # or they could not be closed yet
