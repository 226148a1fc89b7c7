"""Plans and jobs in the file."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import apsw
import msgspec

from redrive.audit.record import AuditEvent
from redrive.domain.ids import ItemId, JobId, first_id_at, recovery_id
from redrive.domain.replay import ItemState, Job, Order, Progress, ReplayState, Wanted
from redrive.domain.replay_judging import Candidate, Waiting
from redrive.domain.replay_pace import Figures
from redrive.domain.replay_plan import Frozen
from redrive.store.named import load_queries
from redrive.store.port import Once
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
from redrive.store.rows import to_ms
from redrive.store.sqlite import work
from redrive.store.sqlite.connection import Do, ask, insert
from redrive.store.sqlite.guarded import guarded

SQL: Final = load_queries("redrive.store.sqlite", "replays.sql")
SECOND: Final = timedelta(seconds=1)
FORGOTTEN_AT_ONCE: Final = 2_000
_ALONG: Final = {  # the narrowest index first; what it is searched by
    "group": ("dead_group", "x.failure_group"),
    "failure_code": ("dead_code", "x.failure_code"),
    "status": ("dead_status", "x.status"),
}
_COLUMNS: Final = {
    "group": "x.failure_group",
    "failure_code": "x.failure_code",
    "duplicate_risk": "x.risk",
    "cycle": "x.cycle",
}


class SqliteReplays:
    """The verbs of `store.replays`; *read* and *write* run what they are given on a connection."""

    def __init__(self, read: Do, write: Do) -> None:
        self._read = read
        self._write = write

    async def candidates(
        self, integration: int, wanted: Wanted, *, as_of: datetime, after: int, limit: int
    ) -> Sequence[Candidate]:
        """Dead items of one status."""
        sql, values = _candidates(integration, wanted, as_of, after, limit)
        return await self._read(lambda c: [to_candidate(row) for row in ask(c, sql, values)])

    async def named(self, integration: int, items: Sequence[ItemId]) -> Sequence[Candidate]:
        """Those very items."""
        values = {"integration": integration, "items": str(list(items))}
        return await self._read(lambda c: [to_candidate(row) for row in ask(c, SQL["replay_named"], values)])

    async def failures_of(self, integration: int, job: JobId, *, after: int, limit: int) -> Sequence[ItemId]:
        """What failed again in a job."""
        values = (integration, job, after, limit)
        rows = await self._read(lambda c: ask(c, SQL["replay_failures_of"], values))
        return [ItemId(number) for (number,) in rows]

    async def mean_seconds(self, integration: int, since: datetime) -> float | None:
        """How long an attempt took."""
        values = (integration, to_ms(since) // 60_000)
        [(duration, count)] = await self._read(lambda c: ask(c, SQL["mean_duration"], values))
        return duration / count / 1e6 if count else None

    async def freeze(self, job: Job, rows: Sequence[Frozen]) -> bool:
        """Write down a part of a plan."""
        text = _json([(row.item, row.cycle, row.risk, row.reason) for row in rows])
        values = {"integration": job.integration, "job": job.id, "rows": text}

        def freeze(connection: apsw.Connection) -> bool:
            state = ask(connection, SQL["job"], (job.integration, job.id))
            connection.execute(SQL["freeze"], values)
            return bool(state) and to_job(state[0]).state is ReplayState.PLANNING

        return await self._write(freeze)

    async def add_job(self, job: Job) -> None:
        """Write a new plan down."""
        row = (job.integration, job.id, *job_columns(job))
        await self._write(lambda c: c.execute(SQL["add_job"], row))

    async def change_job(self, job: Job, events: Sequence[AuditEvent], once: Once | None = None) -> bool:
        """Replace it."""
        row = (*job_columns(job), job.integration, job.id, job.version - 1)
        return await self._write(guarded(lambda c: bool(ask(c, SQL["change_job"], row)), events, once))

    async def job(self, integration: int, job: JobId) -> Job | None:
        """One job."""
        rows = await self._read(lambda c: ask(c, SQL["job"], (integration, job)))
        return to_job(rows[0]) if rows else None

    async def job_of_digest(self, integration: int, digest: str) -> Job | None:
        """The job of a digest."""
        rows = await self._read(lambda c: ask(c, SQL["job_of_digest"], (digest, integration)))
        return to_job(rows[0]) if rows else None

    async def jobs(self, integration: int, *, limit: int, below: int | None) -> Sequence[Job]:
        """A page of jobs."""
        values = (integration, (1 << 63) - 1 if below is None else below, limit)
        return [to_job(row) for row in await self._read(lambda c: ask(c, SQL["jobs"], values))]

    async def unsettled(self) -> Sequence[Job]:
        """Every job of which something may come."""
        return [to_job(row) for row in await self._read(lambda c: ask(c, SQL["unsettled_jobs"]))]

    async def progress(self, job: Job) -> Progress:
        """How many items are where."""
        rows = await self._read(lambda c: ask(c, SQL["replay_progress"], (job.integration, job.id)))
        return to_progress(rows)

    async def progresses(self, integration: int, jobs: Sequence[JobId]) -> Mapping[JobId, Progress]:
        """How many items of each are where."""
        values = {"integration": integration, "jobs": str(list(jobs))}
        return to_progresses(await self._read(lambda c: ask(c, SQL["replay_progresses"], values)))

    async def told_since(self, job: Job, since: datetime) -> int:
        """How many first attempts ended."""
        values = (job.integration, job.id, to_ms(since))
        [(count,)] = await self._read(lambda c: ask(c, SQL["told_since"], values))
        return int(count)

    async def items(self, job: Job, state: ItemState | None, *, limit: int, after: int) -> Sequence[ItemRow]:
        """A page of its items."""
        of_job = (job.integration, job.id, after)
        if state is None:
            rows = await self._read(lambda c: ask(c, SQL["replay_items"], (*of_job, limit)))
        else:
            rows = await self._read(lambda c: ask(c, SQL["replay_items_in"], (*of_job, state, limit)))
        return [to_item_row(row) for row in rows]

    async def moved_on(self, job: Job) -> Mapping[str, int]:
        """How many are no longer as they were planned."""
        [counts] = await self._read(lambda c: ask(c, SQL["moved_on"], (job.integration, job.id)))
        return to_moved_on(counts)

    async def waits_in(self, integration: int, item: ItemId) -> JobId | None:
        """The running job that an item waits in."""
        rows = await self._read(lambda c: ask(c, SQL["waits_in"], (integration, item)))
        return JobId(rows[0][0]) if rows else None

    async def elect(self, owner: int, job: Job) -> bool:  # noqa: ARG002 - as the port has it
        """There is one process."""
        return True

    async def figures(self, job: Job, now: datetime) -> Figures | None:
        """Where it stands."""
        return await self._read(lambda c: _figures(c, job, now))

    async def next_waiting(
        self, job: Job, order: Order, items: Sequence[ItemId] | None, limit: int
    ) -> Sequence[Waiting]:
        """The next items that wait."""
        return await self._read(lambda c: _next_waiting(c, job, order, items, limit))

    async def release(self, owner: int, batch: Batch) -> frozenset[ItemId] | None:
        """Open the next cycle of each."""
        return await self._write(lambda c: _release(c, owner, batch))

    async def left(self, job: Job) -> Left:
        """Whether any item waits, or is in flight."""
        values = {"integration": job.integration, "job": job.id}
        [(waiting, in_flight)] = await self._read(lambda c: ask(c, SQL["job_left"], values))
        return Left(bool(waiting), bool(in_flight))

    async def sweep(self, job: Job, limit: int) -> int:
        """Cancel some of what waits."""
        return await self._change_items("sweep_items", job, limit)

    async def discard(self, job: Job, limit: int) -> int:
        """Delete some rows."""
        return await self._change_items("discard_items", job, limit)

    async def forget(self, before: datetime) -> int:
        """Forget settled jobs, a little at a time."""
        gone = 0
        while rows := await self._read(lambda c: ask(c, SQL["old_job"], (first_id_at(before),))):
            [of_job] = rows
            gone += await self._write(partial(_forget, of_job=of_job))
        return gone

    async def _change_items(self, query: str, job: Job, limit: int) -> int:
        values = {"integration": job.integration, "job": job.id, "most": limit}

        def change(connection: apsw.Connection) -> int:
            connection.execute(SQL[query], values)
            return connection.changes()

        return await self._write(change)


def _candidates(
    integration: int, wanted: Wanted, as_of: datetime, after: int, limit: int
) -> tuple[str, dict[str, Any]]:
    index, column = next(where for name, where in _ALONG.items() if getattr(wanted, name) is not None)
    values = {
        "integration": integration,
        "status": wanted.status,
        "event_type": wanted.event_type,
        "as_of": to_ms(as_of),
        "after": max(after, -1 if wanted.since is None else first_id_at(wanted.since) - 1),
        "most": limit,
    }
    conditions = []
    for name, own in _COLUMNS.items():
        if (value := getattr(wanted, name)) is not None:
            values[name] = value
            conditions.append(f"{own if own == column else '+' + own} = :{name}")
    if wanted.until is not None:
        values["below"] = first_id_at(wanted.until)
        conditions.append("x.id < :below")
    sql = SQL["replay_candidates"].replace("{along}", index)
    if index == "dead_status":
        sql = sql.replace("+x.status", "x.status")
    return sql.replace(" ORDER BY", "".join(f" AND {one}" for one in conditions) + " ORDER BY"), values


def _figures(connection: apsw.Connection, job: Job, now: datetime) -> Figures | None:
    of_job = (job.integration, job.id)
    if not (sends := ask(connection, SQL["job_sends"], (*of_job, job.version))):
        return None
    [(in_flight, untold)] = ask(connection, SQL["job_in_flight"], of_job)
    [(waits,)] = ask(connection, SQL["job_has_waiting"], of_job)
    since = 0 if job.watched_from is None else to_ms(job.watched_from)
    [(told,)] = ask(connection, SQL["told_since"], (*of_job, to_ms(now - SECOND)))
    canary = canary_of(job)
    values = {"integration": job.integration, "job": job.id, "items": str(list(canary))}
    tried = ask(connection, SQL["canary_items"], values) if canary else []
    last = [
        stumbled
        for (stumbled,) in ask(connection, SQL["last_told"], (*of_job, since, job.chosen.halt_if.last))
    ]
    return to_figures((sends[0][0], in_flight, untold, waits, last, told), tried)


def _next_waiting(
    connection: apsw.Connection, job: Job, order: Order, items: Sequence[ItemId] | None, limit: int
) -> list[Waiting]:
    values: dict[str, Any] = {
        "integration": job.integration,
        "job": job.id,
        "request_id": job.started.request_id,
        "most": limit,
    }
    among = "1"
    if items is not None:
        among, values["items"] = "r.item IN (SELECT value FROM json_each(:items))", str(list(items))
    sql = SQL["next_waiting"].replace("{among}", among)
    rows = ask(connection, sql.replace("{order}", "ASC" if order == "oldest" else "DESC"), values)
    names = _json([recovery_id(row[0]) for row in rows])
    heads = {name: (head, digest) for name, head, digest in ask(connection, SQL["heads"], (names,))}
    return [to_waiting(row, heads) for row in rows]


def _release(connection: apsw.Connection, owner: int, batch: Batch) -> frozenset[ItemId] | None:
    job, run, options = batch.job, batch.job.started, batch.job.chosen
    of_job = {"integration": job.integration, "job": job.id}
    if not ask(connection, SQL["may_release"], (job.integration, job.id, job.version, owner)):
        return None
    if batch.skipped:
        connection.execute(SQL["skip_items"], of_job | {"rows": _json(batch.skipped)})
    given = [(one.item, one.status, one.cycle, recovery_id(one.item), one.head) for one in batch.items]
    risks = dict(ask(connection, SQL["standing"], of_job | {"rows": _json(given)}))
    standing = [one for one in batch.items if one.item in risks]
    ids = str([one.item for one in standing])
    opened_at = to_ms(batch.opened_at)
    connection.execute(SQL["exhume_items"], (ids,))
    live = [
        (one.item, job.integration, one.cycle + 1, batch.max_attempts, opened_at, risks[one.item])
        for one in standing
    ]
    insert(connection, SQL["reopen_items"], live)
    cycles = [
        (one.item, one.cycle + 1, run.request_id, run.traceparent, batch.max_attempts, opened_at,
         run.by.id, options.reason, job.id)
        for one in standing
    ]  # fmt: skip
    insert(connection, SQL["open_cycles"], cycles)
    connection.execute(SQL["release_items"], (job.integration, job.id, ids))
    work.write_events(connection, [one.event for one in standing])
    return frozenset(one.item for one in standing)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _forget(connection: apsw.Connection, of_job: tuple[int, int]) -> int:
    integration, number = of_job
    values = {"integration": integration, "job": number, "most": FORGOTTEN_AT_ONCE}
    connection.execute(SQL["discard_items"], values)
    gone = connection.changes()
    if gone < FORGOTTEN_AT_ONCE:
        connection.execute(SQL["forget_job"], (integration, number, integration, number))
    return gone
