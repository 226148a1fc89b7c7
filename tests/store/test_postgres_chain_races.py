"""Two verbs that read the same last record of an item, at once: one is held before its commit. None forks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Delivery, Item, Resolution
from redrive.domain.failure_group import DeadItem
from redrive.domain.ids import first_id_at
from redrive.domain.replay import Plan, ReplayState
from redrive.domain.replay_plan import Frozen
from redrive.store.groups import Closed
from redrive.store.port import Store, StoreUnavailable
from redrive.store.replays import Batch, Next
from tests.factories import EXHAUSTED, NOW, a_job, run
from tests.postgres import Server
from tests.store import under_test
from tests.store.test_postgres_races import PATIENCE_SECONDS, HeldDatabase, Hold, is_waited_for
from tests.store.told import (
    a_told_item,
    an_event_of,
    chain_of,
    edit,
    erase,
    found,
    replay,
    resolve,
    tell,
    wrong_with,
)
from tests.store.under_test import PostgresUnderTest, add_integration, claim_all

Verb = Callable[[PostgresUnderTest, Item], Awaitable[bool]]


async def close_as_a_group(store: Store, item: Item) -> bool:
    event = an_event_of(store, item, EventType.RESOLVED, resolved=True)
    dead = DeadItem(
        item.delivery.id, item.status, item.cycle, item.attempt_count, "HTTP_503", "req-1", item.head
    )
    count = await store.groups.close_items(
        item.delivery.integration, [Closed(dead, event)], Resolution(NOW, "ops", "why")
    )
    return bool(count)


async def release(store: PostgresUnderTest, item: Item) -> bool:
    """The job that it waits in releases it."""
    [job] = await store.replays.unsettled()
    [(owner,)] = await store.peek("SELECT max(id) FROM incarnation")
    event = an_event_of(store, item, EventType.REPLAYED)
    following = Next(item.delivery.id, item.status, item.cycle, None, event)
    return bool(await store.replays.release(owner, Batch(job, 5, NOW, [following], [])))


VERBS: list[Verb] = [replay, resolve, erase, edit, close_as_a_group, release]
PAIRS = [  # what waits in a job that runs is replayed by that and nobody else
    pair for pair in product(VERBS, VERBS) if set(pair) != {replay, release}
]

CLOSE: list[Verb] = [resolve, erase, close_as_a_group]
PAIRS_OF_A_COPY = [*product([edit], CLOSE), *product(CLOSE, [edit])]


@pytest.fixture
async def stores(postgres: Server) -> AsyncIterator[list[PostgresUnderTest]]:
    async with under_test.processes(postgres.url()) as another:
        stores = [await another(kind=HeldDatabase), await another(), await another()]
        for slot, store in enumerate(stores[:2], 1):  # the clock stands: ids differ by process
            store.ids.start(slot, first_id_at(NOW))
        yield stores


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "is rolled back"])
@pytest.mark.parametrize(("held", "other"), PAIRS, ids=lambda verb: getattr(verb, "__name__", ""))
async def test_of_two_that_read_the_same_record_one_writes_the_next(
    stores: list[PostgresUnderTest], held: Verb, other: Verb, *, commits: bool
) -> None:
    aside = stores[2]
    number = await add_integration(aside)
    delivery = await a_told_item(aside, await aside.enter(), number, EXHAUSTED)
    if release in (held, other):
        await run_a_job(aside, delivery)

    await one_of_them_writes_the_next(stores, delivery, held, other, commits=commits)


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "is rolled back"])
@pytest.mark.parametrize(("held", "other"), PAIRS_OF_A_COPY, ids=lambda verb: getattr(verb, "__name__", ""))
async def test_so_it_is_with_a_copy_that_failed_whose_place_is_elsewhere(
    stores: list[PostgresUnderTest], held: Verb, other: Verb, *, commits: bool
) -> None:
    aside = stores[2]
    number = await add_integration(aside)
    owner = await aside.enter()
    original = await a_told_item(aside, owner, number, EXHAUSTED)
    assert await edit(aside, await found(aside, original))
    [claim] = await claim_all(aside, owner, number)
    await tell(aside, claim, EXHAUSTED)

    await one_of_them_writes_the_next(stores, claim.delivery, held, other, commits=commits)


async def one_of_them_writes_the_next(
    stores: list[PostgresUnderTest], delivery: Delivery, held: Verb, other: Verb, *, commits: bool
) -> None:
    one, another, aside = stores
    read, length = await found(aside, delivery), len(await chain_of(aside, delivery))
    hold = one._database.hold = Hold(commits=commits)  # type: ignore[attr-defined] # a HeldDatabase

    async with asyncio.timeout(PATIENCE_SECONDS):
        first = asyncio.create_task(_done(held(one, read)))
        backend = await hold.backend
        second = asyncio.create_task(_done(other(another, read)))
        while not (second.done() or await is_waited_for(aside, backend)):
            await asyncio.wait([second], timeout=0.01)
        hold.ends.set()
        done = await asyncio.gather(first, second)

    assert sorted(done) == [False, True]
    assert done[0] is commits
    assert len(await chain_of(aside, delivery)) == length + 1
    assert await wrong_with(aside, delivery) == []


async def run_a_job(store: Store, delivery: Delivery) -> None:
    """In which it waits."""
    job = a_job(delivery.integration)
    await store.replays.add_job(job)
    assert await store.replays.freeze(job, [Frozen(delivery.id, 1, 2, None)])
    plan = Plan("digest", {}, {2: 1}, None, None, ())
    job = replace(job, state=ReplayState.PLANNED, version=job.version + 1, plan=plan)
    assert await store.replays.change_job(job, [])
    assert await store.replays.change_job(run(job), [])


async def _done(verb: Awaitable[bool]) -> bool:
    """Whether it was; not when its session was ended."""
    try:
        return bool(await verb)
    except StoreUnavailable:
        return False
