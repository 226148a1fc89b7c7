"""Every question goes by an index and costs the same whatever waits beside it. Rows and pages are counted."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.clock import SystemClock
from redrive.domain import failure_group
from redrive.domain.delivery import Claim, Erasure, Item, Resolution
from redrive.domain.failure_group import Comment, GroupState
from redrive.domain.ids import EventId, ItemId, recovery_id
from redrive.domain.item import DEAD, Status, Step
from redrive.domain.sharing import whole
from redrive.store.groups import Closed
from redrive.store.port import EventFilter, QueueFilter, Result
from redrive.store.postgres import PostgresStore, copies, prepare, work
from redrive.store.postgres.work import Place
from redrive.store.rows import event_row
from redrive.store.superseding import Ids, ended_copies
from tests.factories import (
    DONE,
    NOW,
    REFUSED,
    a_delivery,
    a_once,
    a_replay,
    a_result,
    an_edit,
    an_event,
    an_id,
    an_import,
    an_intake,
    later,
)
from tests.postgres import Server, a_database
from tests.store.explained import ExplainedDatabase, Plan
from tests.store.under_test import add_integration

pytestmark = pytest.mark.xdist_group("plans on postgresql")  # one worker fills the databases, not each
SIZES = (0, 10_000, 1_000_000)  # what waits for an integration that is down
A_GROUP = 7  # of forty
DOWN, OTHER, INTEGRATIONS = 1, 2, 20  # the number of that integration, of another, and of the last
GROWING = set("live delivery attempt dead audit dedupe cycle imported answer erased replay_item".split())
MOST_READ = 2_000  # by one statement from one table: a thousand at most, once to find them and once to write
MOST_PAGES = 3_000  # by a claim of a hundred with all that belongs to it

# Ids are spread over the four weeks that have partitions on whatever day, and the newest are due first. Those
# are stored whole, and beside each a dead one and one that succeeded, a key and an event.
FILL = """
CREATE TEMP TABLE given AS
  SELECT n, ((first_ms + n * (28 * 86400000::bigint / SIZE)) << 22) AS id, now_ms - n AS due_at,
         n > SIZE - greatest(2000, SIZE / 50) AS is_whole
    FROM (SELECT redrive_now() AS now_ms, redrive_now() - 1704067200000 AS first_ms OFFSET 0) AS present,
         generate_series(1, SIZE) AS n;
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)
  SELECT id, 1, 'retrying', 1, 1, 5, due_at FROM given;
INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, failure_group)
  SELECT id + 1, 1, CASE n % 3 WHEN 0 THEN 'failed' ELSE 'dlq' END, 1, 1, 5, 'HTTP_503', n, n % 40
    FROM given WHERE is_whole;
INSERT INTO failure_group (integration, number, fingerprint, failure_class, failure_code, detail, failures,
                           first_seen_at, last_seen_at, sample)
  SELECT 1, n, 'v1:' || n, 'http_5xx', 'HTTP_503', 'down', 1, n, n, n FROM generate_series(0, 39) AS n
  ON CONFLICT DO NOTHING;
INSERT INTO delivery (id, integration, event_type, request_id, traceparent, created_by, max_attempts,
                      content_type, payload)
  SELECT id + plus, 1, 'order.paid', 'req-' || n, 't', 'shop', 5, 'a/b', '{}'
    FROM given, generate_series(0, 2) AS plus WHERE is_whole;
INSERT INTO attempt (integration, item, cycle, attempt, started_at, duration_us, failure_code, failure_detail,
                     retryable, reach, span_id, http_status, truncated, body)
  SELECT 1, id + plus, 1, 1, n, 1, code, code, code IS NOT NULL OR NULL, 'answered', 's',
         CASE plus WHEN 2 THEN 200 ELSE 503 END, false, ''
    FROM given, generate_series(0, 2) AS plus,
         LATERAL (SELECT CASE WHEN plus < 2 THEN 'HTTP_503' END AS code) AS told WHERE is_whole;
INSERT INTO dedupe (integration, key, item, fingerprint)
  SELECT 1, 'key-' || n, id, 'one' FROM given WHERE is_whole;
INSERT INTO audit (integration, id, event_type, request_id, integration_id, target_id, actor, record)
  SELECT n % 100 + 1, id + 3, 'platform.integration.' || CASE n % 2 WHEN 0 THEN 'updated' ELSE 'created' END,
         'req-' || n / 2, 'partner-' || n % 100, 'rec_' || n / 4,
         CASE n % 50 WHEN 0 THEN 'ops' ELSE 'redrive' END, 'RECORD'
    FROM given WHERE is_whole;
"""

# Neither cleaned nor analysed while a test looks.
LEAVE_ALONE = """
DO $$ DECLARE found regclass; BEGIN
    FOR found IN SELECT oid FROM pg_class WHERE relnamespace = current_schema::regnamespace AND relkind = 'r'
    LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', found); END LOOP;
END $$
"""


@dataclass
class Process:
    """A store on a filled database, entered; it sees what its statements do."""

    store: PostgresStore
    owner: int
    database: ExplainedDatabase

    async def plans_of(self, verb: Awaitable[Any]) -> list[Plan]:
        self.database.plans.clear()
        await verb
        return list(self.database.plans)


@pytest.fixture(scope="module")
def filled(postgres: Server) -> Mapping[int, str]:
    """The address of a database of each size. The largest was analysed, the others never."""
    return asyncio.run(fill_all(postgres))


async def fill_all(server: Server) -> Mapping[int, str]:
    connection = await asyncpg.connect(server.url())
    for size in SIZES:
        await connection.execute(f"CREATE DATABASE plans_{size}")
        await fill(server.url(f"plans_{size}"), size)
    await connection.close()
    return {size: server.url(f"plans_{size}") for size in SIZES}


async def fill(url: str, size: int) -> None:
    await prepare(url, SystemClock())
    store = await PostgresStore.open(url, SystemClock())
    for number in range(INTEGRATIONS):
        await add_integration(store, f"partner-{number}")
    await store.close()
    connection = await asyncpg.connect(url)
    await connection.execute(LEAVE_ALONE)
    if size:
        await connection.execute(rows(size))
    if size == max(SIZES):
        await connection.execute("ANALYZE")
    await connection.close()


def rows(size: int) -> str:
    return FILL.replace("SIZE", str(size)).replace("RECORD", event_row(an_event())[-2])


@asynccontextmanager
async def a_process(url: str) -> AsyncIterator[Process]:
    database = await ExplainedDatabase.open(url, SystemClock(), connections=1)
    database.plans = []
    store = PostgresStore(database, SystemClock(), url, sends=True)
    owner = await store.enter()
    await store.balance(owner)
    yield Process(store, owner, database)
    await store.leave(owner)
    await store.close()


@pytest.fixture(params=SIZES)
async def process(request: pytest.FixtureRequest, filled: Mapping[int, str]) -> AsyncIterator[Process]:
    async with a_process(filled[request.param]) as process:
        yield process


# what a store is asked, over and over

Verb = Callable[[Process], Awaitable[Any]]


async def claim(process: Process, limit: int = 100) -> list[Claim]:
    return list((await process.store.claim(process.owner, {whole(DOWN): limit})).claims)


async def record(process: Process) -> None:
    steps: list[Step] = [DONE, REFUSED, later()]
    results = [
        a_result(claim, steps[n % 3], events=(an_event(),)) for n, claim in enumerate(await claim(process))
    ]
    await process.store.record(process.owner, results)


async def give_back(process: Process) -> None:
    await process.store.give_back(process.owner, await claim(process))


async def accept(process: Process) -> None:
    keys = [None, "key-1", *(f"fresh-{n}" for n in range(20))]
    deliveries = [a_delivery(OTHER, idempotency_key=key) for key in keys]
    await process.store.accept([an_intake(delivery, owner=process.owner) for delivery in deliveries])


async def hand_over(process: Process) -> None:
    delivery = a_delivery(OTHER, idempotency_key="imported")
    await process.store.hand_over(an_import(delivery), a_once(b"import"))


async def a_dead_item(process: Process) -> Item | None:
    """One in whose place there is no copy."""
    wanted = QueueFilter(status=Status.DLQ, resolved=False)
    page = await process.store.queue(DOWN, wanted, limit=5, below=None)
    return next((item for item in page.rows if not (item.edited_as or item.superseded_by)), None)


async def replay(process: Process) -> None:
    if item := await a_dead_item(process):
        assert await process.store.replay(a_replay(item.delivery), a_once(b"replay"))


async def take(process: Process) -> None:
    """A dead item, in a new cycle, and an open one."""
    if item := await a_dead_item(process):
        replay = a_replay(item.delivery, is_trial=True)
        assert await process.store.take(process.owner, item, replay, a_once(b"take"))
    page = await process.store.queue(DOWN, QueueFilter(status=Status.RETRYING), limit=200, below=None)
    for waiting in [item for item in page.rows if item.next_retry_at is not None][:1]:
        assert await process.store.take(process.owner, waiting, None, None)


async def resolve(process: Process) -> None:
    if item := await a_dead_item(process):
        resolution = Resolution(NOW, "ops", "done")
        assert await process.store.resolve(item, resolution, an_event(), a_once(b"resolve"))


async def look_at_one(process: Process) -> None:
    for item in (await process.store.queue(DOWN, QueueFilter(), limit=1, below=None)).rows:
        assert await process.store.history(DOWN, item.delivery.id)


async def judge(process: Process) -> None:
    for group in (await process.store.groups.page(DOWN, None, limit=3, below=None)).rows:
        muted = failure_group.muted(group, NOW + timedelta(days=10_000), at=NOW)
        assert await process.store.groups.judge(group, muted, an_event(), None)


async def comment(process: Process) -> None:
    for group in (await process.store.groups.page(DOWN, None, limit=1, below=None)).rows:
        written = Comment(an_id(), DOWN, group.cause.number, "ops", "hm")
        assert await process.store.groups.comment(written, an_event(), None)
    await process.store.groups.comments(DOWN, A_GROUP, limit=50, below=None)


async def close_items(process: Process, at_once: int = 10) -> None:
    far = NOW + timedelta(days=10_000)
    items = await process.store.groups.unresolved(DOWN, A_GROUP, died_by=far, after=0, limit=at_once)
    given = [Closed(item, an_event(target_id=f"rec_{item.id}")) for item in items]
    assert await process.store.groups.close_items(DOWN, given, Resolution(NOW, "ops", "done")) == len(items)


def list_items(**wanted: Any) -> Verb:
    return lambda process: process.store.queue(DOWN, QueueFilter(**wanted), limit=50, below=None)


def list_events(**wanted: Any) -> Verb:
    async def look(process: Process) -> None:
        await process.store.events(EventFilter(**wanted), limit=50, below=None)
        await process.store.events(EventFilter(**wanted), limit=50, below=EventId(1 << 62))
        await process.store.count_events(EventFilter(**wanted), most=500)

    return look


def read_records(**wanted: Any) -> Verb:
    async def look(process: Process) -> None:
        first = await process.store.chains.records(EventFilter(**wanted), limit=50, above=-1)
        await process.store.chains.records(
            EventFilter(**wanted), limit=50, above=first[-1].id if first else 0
        )

    return look


async def edit(process: Process) -> None:
    """A corrected copy, which succeeds at once in the place of what it is of."""
    if listed := await a_dead_item(process):
        item = await process.store.item(DOWN, listed.delivery.id)
        assert item is not None
        given = an_edit(item)
        assert await process.store.edit(given, None)
        claim = Claim(given.copy, process.owner, 1, 1, 5, "req-1", edit_of=given.of)
        event = an_event(EventType.SUPERSEDED)
        result = replace(a_result(claim), superseded=event)
        ids = await process.store._recording.ids_for(ended_copies([result]), process.store.clock.now())
        await process.store._database.run(lambda c: _settled(c, result, ids))


async def _settled(connection: Any, result: Result, ids: Ids) -> None:
    async with connection.transaction():
        await copies.settle(connection, ended_copies([result]), ids)


async def erase(process: Process) -> None:
    if item := await a_dead_item(process):
        erasure = Erasure(NOW, "ops", "done")
        assert await process.store.erase(item, erasure, an_event(), a_once(b"erase"))


async def read_every_chain(process: Process) -> None:
    first = await process.store.chains.every(after=("", 0), limit=100)
    await process.store.chains.every(
        after=(first[-1].target_id, first[-1].id) if first else ("z", 0), limit=100
    )


async def read_whereabouts(process: Process) -> None:
    await process.store.chains.whereabouts(DOWN, above=-1, limit=100)
    await process.store.chains.whereabouts(DOWN, above=1 << 60, limit=100)


EVENTS: Mapping[str, Any] = {
    "incident": "INC-7",
    "request_id": "req-1",
    "event_type": EventType.UPDATED,
    "integration_id": "partner-7",
    "target_id": "rec_7",
    "actor": "ops",
    "tenant": "partner-7",
    "since": NOW,
    "until": NOW + timedelta(days=10_000),
}
LISTS: Mapping[str, Mapping[str, Any]] = {
    "every item": {},
    **{str(status): {"status": status} for status in Status},
    **{f"{status} of a code": {"status": status, "failure_code": "HTTP_503"} for status in sorted(DEAD)},
    "items of no type there is": {"event_type": "nothing"},
    "resolved items": {"status": Status.DLQ, "resolved": True},
    "items of a group": {"group": 7},
}
VERBS: Mapping[str, Verb] = {
    "claim": claim,
    "record": record,
    "give back": give_back,
    "next due": lambda process: process.store.next_due(process.owner),
    "renew": lambda process: process.store.renew(process.owner),
    "accept": accept,
    "hand over": hand_over,
    "replay": replay,
    "resolve": resolve,
    "recall": lambda process: process.store.recall(b"scope"),
    "note": lambda process: process.store.note([an_event()]),
    "last id": lambda process: process.store.last_id(),
    "prune": lambda process: process.store.prune(NOW + timedelta(days=10_000)),
    "has backlog": lambda process: process.store.has_backlog(DOWN, NOW),
    "has no backlog": lambda process: process.store.has_backlog(OTHER, NOW - timedelta(days=10_000)),
    "is followed": lambda process: process.store.is_followed(1),
    "count the dead": lambda process: process.store.count_dead(NOW - timedelta(days=10_000), most=3),
    "edit": edit,
    "token": lambda process: process.store.tokens.find(b"digest"),
    "changed integrations": lambda process: process.store.changed_integrations(),
    "one item": look_at_one,
    "list groups": lambda process: process.store.groups.page(DOWN, GroupState.OPEN, limit=3, below=None),
    "one group": lambda process: process.store.groups.group(DOWN, A_GROUP),
    "judge": judge,
    "comment": comment,
    "close items": close_items,
    **{f"list {name}": list_items(**wanted) for name, wanted in LISTS.items()},
    "list every event": list_events(),
    **{f"list events by {name}": list_events(**{name: value}) for name, value in EVENTS.items()},
    "erase": erase,
    "every record": read_records(),
    **{f"records by {name}": read_records(**{name: value}) for name, value in EVENTS.items()},
    "chains": lambda process: process.store.chains.of([recovery_id(n) for n in range(100)]),
    "every chain": read_every_chain,
    "whereabouts": read_whereabouts,
    "take": take,
    "arrivals": lambda process: process.store.arrivals(DOWN, NOW - timedelta(days=10_000)),
    "jobs of an item": lambda process: process.store.chains.jobs_of(DOWN, ItemId(7)),
}
INDEXES_OF_EVENTS = {
    None: {"_id_idx"},
    "integration_id": {"_pkey", "_integration_id_id_idx"},
    "tenant": {"_pkey"},
    "incident": {"_expr_id_idx"},
}
NARROWEST_FIRST = ("incident", "request_id", "target_id", "integration_id", "tenant", "actor", "event_type")


def too_dear(plans: Sequence[Plan]) -> list[tuple[str, int, str]]:
    """The tables of which a statement read too many rows, or all; how many, and the statement."""
    return [
        (table, plan.rows_read(table), plan.sql)
        for plan in plans
        for table in GROWING
        if table in plan.walked() or plan.rows_read(table) > MOST_READ
    ]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_finds_its_rows_by_an_index(process: Process, verb: str) -> None:
    plans = await process.plans_of(VERBS[verb](process))

    assert plans
    assert too_dear(plans) == []


@pytest.mark.parametrize(
    ("name", "left"),
    [("never", None), ("empty", 0), ("few", 20), ("some", 300)],
    ids=str,
)
async def test_a_plan_made_when_there_was_little_serves_when_there_is_much(
    postgres: Server, name: str, left: int | None
) -> None:
    """Also when just that was analysed, in tables that had been larger."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE plans_growing_{name}")
    await connection.close()
    url = postgres.url(f"plans_growing_{name}")
    await fill(url, 0)
    connection = await asyncpg.connect(url)
    if left is not None:
        await connection.execute(rows(2_000) + "DROP TABLE given;")
        for table in GROWING:
            oldest = f"SELECT ctid FROM {table} ORDER BY ctid OFFSET {left:d}"
            await connection.execute(f"DELETE FROM {table} WHERE ctid IN ({oldest})")
        await connection.execute("ANALYZE")
        await connection.execute("".join(f"DELETE FROM {table};" for table in GROWING))
    async with a_process(url) as process:
        for verb in VERBS.values():
            await verb(process)
        await connection.execute(rows(10_000))

        found = {name: too_dear(await process.plans_of(verb(process))) for name, verb in VERBS.items()}
    await connection.close()

    assert {name: dear for name, dear in found.items() if dear} == {}


@pytest.mark.parametrize("size", [size for size in SIZES if size])
async def test_what_waits_in_a_group_is_found_by_the_index_of_what_waits(
    filled: Mapping[int, str], size: int
) -> None:
    async with a_process(filled[size]) as process:
        for verb in (
            process.store.groups.group(DOWN, A_GROUP),
            process.store.groups.page(DOWN, None, limit=3, below=None),
            process.store.groups.unresolved(DOWN, A_GROUP, died_by=NOW, after=0, limit=100),
        ):
            plans = await process.plans_of(verb)

            assert {name for plan in plans for name in plan.indexes("dead")} == {"dead_open"}


@pytest.mark.parametrize("size", [size for size in SIZES if size])
async def test_closing_items_reads_those_alone(filled: Mapping[int, str], size: int) -> None:
    async with a_process(filled[size]) as process:
        await process.store.groups.group(DOWN, A_GROUP)  # asyncpg asks for its types once

        plans = await process.plans_of(close_items(process, at_once=20))

    assert max(plan.rows_read("dead") for plan in plans) == 2 * 20  # each once to see its version


@pytest.mark.parametrize("size", [size for size in SIZES if size])
async def test_events_are_listed_by_the_most_selective_index(filled: Mapping[int, str], size: int) -> None:
    combinations = [
        names for count in range(len(EVENTS) + 1) for names in itertools.combinations(EVENTS, count)
    ]
    async with a_process(filled[size]) as process:
        for names in combinations:
            wanted = EventFilter(**{name: EVENTS[name] for name in names})
            narrowest = next((key for key in NARROWEST_FIRST if key in names), None)
            expected = INDEXES_OF_EVENTS.get(narrowest, {f"_{narrowest}_id_idx"})

            [page] = await process.plans_of(process.store.events(wanted, limit=50, below=None))
            [count] = await process.plans_of(process.store.count_events(wanted, most=500))

            for plan in (page, count):
                assert {re.sub(r"audit_w\d+", "", name) for name in plan.indexes("audit")} == expected


@pytest.mark.parametrize("size", [size for size in SIZES if size])
async def test_a_claim_of_a_hundred_reads_a_hundred_rows_of_any_backlog(
    filled: Mapping[int, str], size: int
) -> None:
    async with a_process(filled[size]) as process:
        await process.store.claim(process.owner, {whole(OTHER): 1})  # asyncpg asks for its types once

        plans = await process.plans_of(claim(process))

    [taken, deliveries, next_due] = plans
    assert taken.rows_read("live") == 2 * 100  # once to find them, once to stamp them
    assert deliveries.rows_read("delivery") == 100
    assert next_due.rows_read("live") <= 100 + 1  # past those just claimed
    assert sum(plan.pages for plan in plans) < MOST_PAGES
    assert taken.indexes("live") == {"live_due", "live_pkey"}
    assert next_due.indexes("live") == {"live_due"}


async def test_a_claim_passes_over_what_an_old_snapshot_keeps_only_once(filled: Mapping[int, str]) -> None:
    url = filled[10_000]
    drainer, onlooker = await asyncpg.connect(url), await asyncpg.connect(url)
    await drainer.execute(BACKLOG, OTHER, 100_000)
    await onlooker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM live LIMIT 1")
    await drainer.execute("DELETE FROM live WHERE integration = $1 AND due_at <= 100000", OTHER)

    async with a_process(url) as process:
        costs = []
        for _ in range(3):
            plans = await process.plans_of(process.store.claim(process.owner, {whole(OTHER): 10}))
            costs.append(sum(plan.pages for plan in plans))
    await onlooker.close()
    await drainer.close()

    assert costs[0] > 2_000  # it is there
    assert max(costs[1:]) < MOST_PAGES / 10


async def test_what_a_lost_call_claimed_is_found_without_a_walk_past_what_is_due_at_another_time(
    postgres: Server,
) -> None:
    url = await a_database(postgres)
    await fill(url, 0)
    connection = await asyncpg.connect(url)
    await connection.execute(BACKLOG, DOWN, 10_000)
    await connection.execute("UPDATE live SET due_at = redrive_now() + 3600000 WHERE id > 5000")
    await connection.close()
    places = [Place(whole(DOWN), since=5_000)]

    async with a_process(url) as process:
        plans = [
            plan
            for verb in (work.claimed, work.undo_call)
            for plan in await process.plans_of(
                process.database.run(lambda c: verb(c, process.owner, places, 1))  # noqa: B023 - awaited here
            )
            if plan.indexes("live")  # asyncpg asks for its types once
        ]

    assert [(plan.rows_read("live"), plan.indexes("live")) for plan in plans] == [
        (1, {"live_due"}),
        (1, {"live_due", "live_pkey"}),
    ]


BACKLOG = """
INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)
  SELECT n, $1, 'pending', 1, 0, 5, n FROM generate_series(1, $2 + 100) AS n
"""
