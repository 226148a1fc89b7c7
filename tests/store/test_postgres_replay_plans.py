"""What a job asks of PostgreSQL reads no more than it is about, also where the planner knows nothing yet."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.clock import SystemClock
from redrive.domain.ids import ItemId, recovery_id
from redrive.domain.item import Status
from redrive.domain.replay import Job, Plan, ReplayState, Wanted
from redrive.store.postgres import PostgresStore, prepare
from redrive.store.postgres.connection import Connection
from redrive.store.replays import Batch, Next
from tests.factories import a_job, an_event, run
from tests.postgres import Server, a_database
from tests.store.explained import ExplainedDatabase
from tests.store.under_test import add_integration

ITEMS = 3_000
AT_ONCE = 50
MOST_READ = 500  # rows of one table by one statement: ten times what it is about
GROWING = ("replay_item", "dead", "live", "delivery", "audit", "cycle", "erased", "edit")
_FILL = """
INSERT INTO delivery (id, integration, event_type, request_id, traceparent, created_by, max_attempts,
                      content_type, payload)
SELECT ((redrive_now() - 1704067200000) << 22) - n * 4096, $1, 'order.paid', 'req-' || n, 't', 'shop', 5,
       'a/b', '{}' FROM generate_series(1, $2) AS n;
"""
_DEAD = """
INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk,
                  failure_group)
SELECT id, integration, 'dlq', 1, 5, 5, 'HTTP_503', 1, 2, 7 FROM delivery
"""
_FROZEN = """
INSERT INTO replay_item (integration, job, item, cycle, risk, state)
SELECT integration, $1, id, 1, 2, 'waiting' FROM dead
"""


@dataclass
class Scene:
    """A store that tells its plans, and a job on every item of it."""

    store: PostgresStore
    owner: int
    database: ExplainedDatabase
    number: int
    job: Job
    items: Sequence[ItemId]


@pytest.fixture
async def scene(postgres: Server) -> AsyncIterator[Scene]:
    url = await a_database(postgres)
    await prepare(url, SystemClock())
    database = await ExplainedDatabase.open(url, SystemClock(), connections=1)
    database.plans = []
    store = PostgresStore(database, SystemClock(), url, sends=True)
    owner = await store.enter()
    number = await add_integration(store)
    jobs = [a_job(number) for _ in range(2)]
    for job in jobs:
        await store.replays.add_job(job)
    await database.run(lambda session: _fill(session, number, jobs))
    items = [ItemId(row[0]) for row in await database.ask("SELECT id FROM dead ORDER BY id")]
    plan = Plan("digest", {}, {2: ITEMS}, None, None, tuple(items[:5]))
    planned = replace(jobs[0], state=ReplayState.PLANNED, version=2, plan=plan)
    assert await store.replays.change_job(planned, [])
    assert await store.replays.change_job(run(planned), [])
    yield Scene(store, owner, database, number, run(planned), items)
    await store.close()


async def _fill(session: Connection, number: int, jobs: Sequence[Job]) -> None:
    for table in ("dead", "replay_item"):  # what autovacuum learns must not come between
        await session.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await session.execute(_FILL, number, ITEMS)
    await session.execute(_DEAD)
    for job in jobs:
        await session.execute(_FROZEN, job.id)


async def release(scene: Scene) -> None:
    found = await scene.store.replays.next_waiting(scene.job, "oldest", None, AT_ONCE)
    items = [
        Next(
            one.item,
            Status.DLQ,
            one.cycle,
            one.head,
            an_event(EventType.REPLAYED, target_id=recovery_id(one.item)),
        )
        for one in found
    ]
    batch = Batch(scene.job, 5, scene.store.clock.now(), items, [(scene.items[-1], "erased")])
    released = await scene.store.replays.release(scene.owner, batch)
    assert released == frozenset(one.item for one in found)
    assert len(released) == AT_ONCE


async def look(scene: Scene) -> None:
    await scene.store.replays.figures(replace(scene.job, canary_passed=False), scene.store.clock.now())


async def look_at_the_newest(scene: Scene) -> None:
    await scene.store.replays.next_waiting(scene.job, "newest", None, AT_ONCE)


async def look_at_some(scene: Scene) -> None:
    await scene.store.replays.next_waiting(scene.job, "oldest", scene.items[:5], 5)


async def find(scene: Scene) -> None:
    for wanted in (Wanted(), Wanted(failure_code="HTTP_503"), Wanted(group=7)):
        of_status = replace(wanted, status=Status.DLQ)
        found = await scene.store.replays.candidates(
            scene.number, of_status, as_of=scene.store.clock.now(), after=-1, limit=AT_ONCE
        )
        assert len(found) == AT_ONCE


async def name(scene: Scene) -> None:
    assert len(await scene.store.replays.named(scene.number, scene.items[:AT_ONCE])) == AT_ONCE


async def list_items(scene: Scene) -> None:
    await scene.store.replays.items(scene.job, None, limit=AT_ONCE, after=-1)


async def ask_for_one(scene: Scene) -> None:
    assert await scene.store.replays.waits_in(scene.number, scene.items[0]) == scene.job.id


async def ask_what_is_left(scene: Scene) -> None:
    assert (await scene.store.replays.left(scene.job)).is_waiting


async def sweep(scene: Scene) -> None:
    over = replace(scene.job, state=ReplayState.CANCELLED, version=scene.job.version + 1)
    assert await scene.store.replays.change_job(over, [])
    assert await scene.store.replays.sweep(over, AT_ONCE) == AT_ONCE
    assert await scene.store.replays.discard(over, AT_ONCE) == AT_ONCE


@pytest.mark.parametrize(
    "verb",
    [
        release,
        look,
        look_at_the_newest,
        look_at_some,
        find,
        name,
        list_items,
        ask_for_one,
        ask_what_is_left,
        sweep,
    ],
)
async def test_no_statement_of_a_job_reads_more_than_it_is_about(
    scene: Scene, verb: Callable[[Scene], Awaitable[Any]]
) -> None:
    scene.database.plans.clear()

    await verb(scene)

    read = {
        (table, plan.sql.strip().splitlines()[0][:60]): plan.rows_read(table)
        for plan in scene.database.plans
        for table in GROWING
    }
    assert {what: rows for what, rows in read.items() if rows > MOST_READ} == {}
