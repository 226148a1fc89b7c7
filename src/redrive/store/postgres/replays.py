"""Plans and jobs in the database."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from redrive.audit.record import AuditEvent
from redrive.domain.ids import ItemId, JobId, first_id_at, recovery_id
from redrive.domain.replay import ItemState, Job, Order, Progress, Wanted
from redrive.domain.replay_judging import Candidate, Waiting
from redrive.domain.replay_pace import Figures
from redrive.domain.replay_plan import Frozen
from redrive.store.named import load_queries
from redrive.store.port import Once
from redrive.store.postgres import operate, work
from redrive.store.postgres.connection import Connection, Database, Verb
from redrive.store.postgres.cursors import Cursors
from redrive.store.postgres.guarded import Guarded
from redrive.store.postgres.work import SQL as QUERIES
from redrive.store.replay_rows import (
    canary_of,
    job_columns,
    to_candidate,
    to_figures,
    to_item_row,
    to_job,
    to_moved_on,
    to_progress,
    to_progresses,
    to_waiting,
)
from redrive.store.replays import Batch, ItemRow, Left
from redrive.store.rows import event_row, previous_of, to_ms

SQL: Final = load_queries("redrive.store.postgres", "replays.sql")
SECOND: Final = timedelta(seconds=1)
ELECTED_MS: Final = 10_000  # then anyone may step a job; before, only when its process is dead
FORGOTTEN_AT_ONCE: Final = 5_000
TOP: Final = (1 << 63) - 1
_BY_KEY: Final = {  # the narrowest first: along which index, from above $4
    "group": (
        "(x.failure_group, x.id) > ($7, $4) AND x.failure_group = $7",
        "x.integration, x.failure_group, x.id",
    ),
    "failure_code": (
        "(x.failure_code, x.id) > ($8, $4) AND x.failure_code = $8",
        "x.integration, x.failure_code, x.id",
    ),
    "status": ("(x.status, x.id) > ($2, $4)", "x.integration, x.status, x.id"),
}


class PostgresReplays:
    """The verbs of `store.replays`. *cursors*: of the present incarnation."""

    def __init__(self, database: Database, cursors: Callable[[], Cursors], guarded: Guarded) -> None:
        self._database = database
        self._cursors = cursors
        self._guarded = guarded

    async def candidates(
        self, integration: int, wanted: Wanted, *, as_of: datetime, after: int, limit: int
    ) -> Sequence[Candidate]:
        """Dead items of one status."""
        along, order = next(where for name, where in _BY_KEY.items() if getattr(wanted, name) is not None)
        sql = SQL["replay_candidates"].replace("{along}", along).replace("{order}", order)
        low = -1 if wanted.since is None else first_id_at(wanted.since) - 1
        rows = await self._database.ask(
            sql,
            integration, wanted.status, to_ms(as_of), max(after, low), limit,
            None if wanted.until is None else first_id_at(wanted.until),
            wanted.group, wanted.failure_code, wanted.duplicate_risk, wanted.cycle, wanted.event_type,
        )  # fmt: skip
        return [to_candidate(row) for row in rows]

    async def named(self, integration: int, items: Sequence[ItemId]) -> Sequence[Candidate]:
        """Those very items."""
        return [
            to_candidate(row)
            for row in await self._database.ask(SQL["replay_named"], integration, list(items))
        ]

    async def failures_of(self, integration: int, job: JobId, *, after: int, limit: int) -> Sequence[ItemId]:
        """What failed again in a job."""
        rows = await self._database.ask(SQL["replay_failures_of"], integration, job, after, limit)
        return [ItemId(number) for (number,) in rows]

    async def mean_seconds(self, integration: int, since: datetime) -> float | None:
        """How long an attempt took."""
        rows = await self._database.ask(SQL["mean_duration"], integration, to_ms(since) // 60_000)
        [(duration, count)] = rows
        return duration / count / 1e6 if count else None

    async def freeze(self, job: Job, rows: Sequence[Frozen]) -> bool:
        """Write down a part of a plan."""
        columns = _columns([(row.item, row.cycle, row.risk, row.reason) for row in rows], 4)
        return bool(
            await self._database.again(lambda c: c.fetchval(SQL["freeze"], job.integration, job.id, *columns))
        )

    async def add_job(self, job: Job) -> None:
        """Write a new plan down."""
        row = (job.integration, job.id, *job_columns(job))
        await self._database.again(lambda c: c.execute(SQL["add_job"], *row))

    async def change_job(self, job: Job, events: Sequence[AuditEvent], once: Once | None = None) -> bool:
        """Replace it."""
        row = (*job_columns(job), job.integration, job.id, job.version - 1)

        async def change(connection: Connection) -> bool:
            async with connection.transaction():
                if not await connection.fetch(SQL["change_job"], *row):
                    return False
                await work.write_last_events(connection, events)
                await operate.remember(connection, once)
                return True

        return bool(await self._guarded.in_order(change, self._if_changed(job, events)))

    async def job(self, integration: int, job: JobId) -> Job | None:
        """One job."""
        rows = await self._database.ask(SQL["job"], integration, job)
        return to_job(rows[0]) if rows else None

    async def job_of_digest(self, integration: int, digest: str) -> Job | None:
        """The job of a digest."""
        rows = await self._database.ask(SQL["job_of_digest"], digest, integration)
        return to_job(rows[0]) if rows else None

    async def jobs(self, integration: int, *, limit: int, below: int | None) -> Sequence[Job]:
        """A page of jobs."""
        rows = await self._database.ask(SQL["jobs"], integration, TOP if below is None else below, limit)
        return [to_job(row) for row in rows]

    async def unsettled(self) -> Sequence[Job]:
        """Every job of which something may come."""
        return [to_job(row) for row in await self._database.ask(SQL["unsettled_jobs"])]

    async def progress(self, job: Job) -> Progress:
        """How many items are where."""
        return to_progress(await self._database.ask(SQL["replay_progress"], job.integration, job.id))

    async def progresses(self, integration: int, jobs: Sequence[JobId]) -> Mapping[JobId, Progress]:
        """How many items of each are where."""
        return to_progresses(await self._database.ask(SQL["replay_progresses"], integration, list(jobs)))

    async def told_since(self, job: Job, since: datetime) -> int:
        """How many first attempts ended."""
        [(count,)] = await self._database.ask(SQL["told_since"], job.integration, job.id, to_ms(since))
        return int(count)

    async def items(self, job: Job, state: ItemState | None, *, limit: int, after: int) -> Sequence[ItemRow]:
        """A page of its items."""
        of_job = (job.integration, job.id, after)
        if state is None:
            rows = await self._database.ask(SQL["replay_items"], *of_job, limit)
        else:
            rows = await self._database.ask(SQL["replay_items_in"], *of_job, state, limit)
        return [to_item_row(row) for row in rows]

    async def moved_on(self, job: Job) -> Mapping[str, int]:
        """How many are no longer as they were planned."""
        [counts] = await self._database.ask(SQL["moved_on"], job.integration, job.id)
        return to_moved_on(counts)

    async def waits_in(self, integration: int, item: ItemId) -> JobId | None:
        """The running job that an item waits in."""
        rows = await self._database.ask(SQL["waits_in"], integration, item)
        return JobId(rows[0][0]) if rows else None

    async def elect(self, owner: int, job: Job) -> bool:
        """Whether it is ours to step."""
        values = (_duty(job), owner, ELECTED_MS)
        return bool(await self._database.again(lambda c: c.fetch(QUERIES["take_duty"], *values)))

    async def figures(self, job: Job, now: datetime) -> Figures | None:
        """Where it stands."""
        return await self._database.run(lambda connection: _figures(connection, job, now))

    async def next_waiting(
        self, job: Job, order: Order, items: Sequence[ItemId] | None, limit: int
    ) -> Sequence[Waiting]:
        """The next items that wait."""
        return await self._database.run(lambda c: _next_waiting(c, job, order, items, limit))

    async def release(self, owner: int, batch: Batch) -> frozenset[ItemId] | None:
        """Open the next cycle of each."""
        values = _batch_values(owner, batch)

        async def release(connection: Connection) -> tuple[bool, list[int]]:
            is_allowed, items = await connection.fetchrow(SQL["release_batch"], *values)
            return is_allowed, items

        async def look_up(connection: Connection) -> tuple[bool, list[int]] | None:
            events = [one.event.id for one in batch.items]
            items = [one.item for one in batch.items]
            rows = await connection.fetch(SQL["released"], batch.job.integration, items, events)
            return (True, [item for (item,) in rows]) if rows else None

        is_allowed, items = await self._database.write(release, look_up)
        if not is_allowed:
            return None
        if items:
            self._cursors().put_back(batch.job.integration, to_ms(batch.opened_at))
        return frozenset(map(ItemId, items))

    async def left(self, job: Job) -> Left:
        """Whether any item waits, or is in flight."""
        [(waiting, in_flight)] = await self._database.ask(SQL["job_left"], job.integration, job.id)
        return Left(waiting, in_flight)

    async def sweep(self, job: Job, limit: int) -> int:
        """Cancel some of what waits."""
        return await self._change_items("sweep_items", job, limit)

    async def discard(self, job: Job, limit: int) -> int:
        """Delete some rows."""
        return await self._change_items("discard_items", job, limit)

    async def forget(self, before: datetime) -> int:
        """Forget settled jobs, a little at a time; several processes may."""
        gone, bound = 0, first_id_at(before)
        while rows := await self._database.ask(SQL["old_job"], bound):
            [(integration, number)] = rows
            values = (integration, number)
            count = await self._delete("discard_items", *values, FORGOTTEN_AT_ONCE)
            if count < FORGOTTEN_AT_ONCE:
                await self._delete("forget_job", *values)
            gone += count
        return gone

    async def _change_items(self, query: str, job: Job, limit: int) -> int:
        return await self._delete(query, job.integration, job.id, limit)

    async def _delete(self, query: str, *values: Any) -> int:
        async def delete(connection: Connection) -> int:
            told = str(await connection.execute(SQL[query], *values))
            return int(told.rpartition(" ")[2])

        return await self._database.again(delete)

    def _if_changed(self, job: Job, events: Sequence[AuditEvent]) -> Verb[bool | None]:
        """Whether it was changed, should nobody have answered: its event is there, or its very version."""

        async def look_up(connection: Connection) -> bool | None:
            if events:
                return bool(await connection.fetch(QUERIES["has_event"], events[0].id)) or None
            rows = await connection.fetch(SQL["job"], job.integration, job.id)
            return (bool(rows) and to_job(rows[0]) == job) or None

        return look_up


async def _figures(connection: Connection, job: Job, now: datetime) -> Figures | None:
    since = 0 if job.watched_from is None else to_ms(job.watched_from)
    of_job = (job.integration, job.id)
    row = await connection.fetchrow(
        SQL["figures"], *of_job, job.version, since, job.chosen.halt_if.last, to_ms(now - SECOND)
    )
    if row is None:
        return None
    canary = canary_of(job)
    tried = await connection.fetch(SQL["canary_items"], *of_job, list(canary)) if canary else []
    return to_figures(row, tried)


async def _next_waiting(
    connection: Connection, job: Job, order: Order, items: Sequence[ItemId] | None, limit: int
) -> list[Waiting]:
    keys = ("integration", "job", "state", "item")
    by = ", ".join(keys) if order == "oldest" else ", ".join(f"{key} DESC" for key in keys)
    rows = await connection.fetch(
        SQL["next_waiting"].replace("{order}", by),
        job.integration, job.id, job.started.request_id, limit, None if items is None else list(items),
    )  # fmt: skip
    named = await connection.fetch(SQL["heads"], [recovery_id(row[0]) for row in rows])
    heads = {name: (head, digest) for name, head, digest in named}
    return [to_waiting(row, heads) for row in rows]


def _batch_values(owner: int, batch: Batch) -> list[Any]:
    job, run, options = batch.job, batch.job.started, batch.job.chosen
    items = [
        (one.item, one.status.value, one.cycle, *event_row(one.event), previous_of(one.event))
        for one in batch.items
    ]
    return [
        owner, job.integration, job.id, job.version, *_columns(batch.skipped, 2),
        batch.max_attempts, to_ms(batch.opened_at),
        run.request_id, run.traceparent, run.by.id, options.reason,
        *_columns(items, 12),
    ]  # fmt: skip


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _duty(job: Job) -> str:
    return f"replay {job.integration} {job.id}"
