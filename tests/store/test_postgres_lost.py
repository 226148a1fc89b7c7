"""What goes wrong between this process and the database, and what must not come of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Delivery
from redrive.domain.integration import Lifecycle
from redrive.domain.sharing import whole
from redrive.domain.traffic import Containment, Mode, Traffic
from redrive.store.port import Accepted, StoreUnavailable
from redrive.store.postgres.connection import Lost, Unsettled
from redrive.store.postgres.store import LEASE_SECONDS
from tests.factories import NOW, a_claim, a_delivery, a_replay, a_result, an_event, an_intake, later
from tests.postgres import Server
from tests.store.under_test import (
    CONNECTIONS,
    ClockedDatabase,
    PostgresUnderTest,
    a_dead_item,
    accept,
    add_integration,
    attempts_of,
    changed,
    claim_all,
    finish,
    postgres_under_test,
    processes,
)


@pytest.fixture
async def store(postgres: Server) -> AsyncIterator[PostgresUnderTest]:
    """A store whose sessions do not wait for a lock for long."""
    async with postgres_under_test(postgres.url()) as store:
        await store._database.run(lambda session: session.execute("SET lock_timeout = '50ms'"))
        yield store


@asynccontextmanager
async def locked(store: PostgresUnderTest, table: str) -> AsyncIterator[None]:
    """A table that nobody else can read, as retention keeps it while it swaps a partition."""
    connection = await asyncpg.connect(store.url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def claimed(store: PostgresUnderTest, owner: int, number: int) -> list[tuple[Delivery, int]]:
    return [(claim.delivery, claim.attempt) for claim in await claim_all(store, owner, number)]


async def test_what_was_claimed_but_could_not_be_read_is_claimed_again(store: PostgresUnderTest) -> None:
    owner, number = await store.enter(), await add_integration(store)
    await accept(store, delivery := a_delivery(number))
    async with locked(store, "delivery"):
        with pytest.raises(StoreUnavailable):
            await store.claim(owner, {whole(number): 10})

    due = await store.next_due(owner)

    assert due == {whole(number): delivery.created_at}
    assert await claimed(store, owner, number) == [(delivery, 1)]


async def test_an_orphan_that_could_not_be_read_stays_an_orphan(store: PostgresUnderTest) -> None:
    dead, number = await store.join(), await add_integration(store)
    await store.accept([an_intake(orphan := a_delivery(number), owner=dead)])
    owner = await store.enter()
    await store.expire(dead)
    async with locked(store, "delivery"):
        with pytest.raises(StoreUnavailable):
            await store.claim(owner, {whole(number): 10})
    await store.next_due(owner)

    given = await store.claim(owner, {whole(number): 10})

    assert [(claim.delivery, claim.attempt) for claim in given.orphans] == [(orphan, 1)]
    assert given.claims == []
    assert await attempts_of(store, number, orphan.id) == []


async def test_a_lease_is_renewed_while_every_other_session_is_taken(store: PostgresUnderTest) -> None:
    owner, taken, done = await store.enter(), asyncio.Semaphore(0), asyncio.Event()

    async def take(_: Any) -> None:
        taken.release()
        await done.wait()

    takers = [asyncio.create_task(store._database.run(take)) for _ in range(CONNECTIONS)]
    for _ in range(CONNECTIONS - 1):
        await taken.acquire()

    assert await store.renew(owner) == LEASE_SECONDS
    done.set()
    await asyncio.gather(*takers)


Meanwhile = Callable[[], Awaitable[Any]]


class LossyDatabase(ClockedDatabase):
    """The next write is committed, its answer lost, and looked up after what happens *meanwhile*."""

    meanwhile: Meanwhile | None = None

    async def write(self, verb: Any, look_up: Any) -> Any:
        if (meanwhile := self.meanwhile) is None:
            return await super().write(verb, look_up)
        self.meanwhile = None
        await self._once(verb)
        await meanwhile()
        return await self._once(look_up)


class Unanswered:
    """A connection that is lost while its transaction commits."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            yield
        raise ConnectionResetError("lost")


class CommittingDatabase(ClockedDatabase):
    """Each write commits, and nobody answers that; it is looked up."""

    async def write(self, verb: Any, look_up: Any) -> Any:
        with pytest.raises(Lost):
            await self._once(lambda connection: verb(Unanswered(connection)))
        return await self._once(look_up)


async def nobody_learns_it() -> None:
    raise Unsettled("the database is away", [])


@pytest.fixture
async def lossy(postgres: Server) -> AsyncIterator[PostgresUnderTest]:
    async with processes(postgres.url()) as another:
        yield await another(kind=LossyDatabase)


def lose_an_answer(store: PostgresUnderTest, meanwhile: Meanwhile) -> None:
    store._database.meanwhile = meanwhile  # type: ignore[attr-defined] # a LossyDatabase


@pytest.mark.parametrize("is_known", [True, False], ids=["looked up", "called again"])
async def test_to_give_back_again_does_not_undo_a_newer_claim(
    lossy: PostgresUnderTest, *, is_known: bool
) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    await accept(lossy, a_delivery(number))
    claims = await claim_all(lossy, owner, number)

    async def claimed_anew() -> None:
        lossy._cursors.put_back(number, 0)
        assert await claim_all(lossy, owner, number) == claims
        if not is_known:
            await nobody_learns_it()

    lose_an_answer(lossy, claimed_anew)
    if not is_known:
        with pytest.raises(Unsettled):
            await lossy.give_back(owner, claims)

    await lossy.give_back(owner, claims)

    assert await claim_all(lossy, owner, number) == []
    await finish(lossy, claims[0])


async def test_a_damaged_orphan_stays_an_orphan(store: PostgresUnderTest) -> None:
    dead, number = await store.join(), await add_integration(store)
    await store.accept([an_intake(orphan := a_delivery(number), owner=dead)])
    owner = await store.enter()
    await store.expire(dead)
    await store.meddle("UPDATE delivery SET headers = '{'")
    damaged = await store.claim(owner, {whole(number): 10})
    await store.meddle("UPDATE delivery SET headers = NULL")
    store.clock.move(60 * 60)

    given = await store.claim(owner, {whole(number): 10})

    assert (len(damaged.set_aside), damaged.orphans) == (1, [])
    assert [(claim.delivery, claim.attempt) for claim in given.orphans] == [(orphan, 1)]
    assert given.claims == []


async def test_what_an_accept_stored_and_another_call_claimed_is_not_claimed_twice(
    lossy: PostgresUnderTest,
) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    [active] = await lossy.integrations()
    paused = changed(active, lifecycle_status=Lifecycle.PAUSED)
    assert await lossy.update_integration(paused, [])
    delivery = a_delivery(number)

    async def sent_again() -> None:
        assert await lossy.update_integration(changed(paused, lifecycle_status=Lifecycle.ACTIVE), [])
        assert await claim_all(lossy, owner, number) == [a_claim(delivery, owner=owner)]

    lose_an_answer(lossy, sent_again)

    assert await lossy.accept([an_intake(delivery, owner=owner)]) == [Accepted(claimed=False)]


async def test_what_an_accept_claimed_and_nobody_learned_of_is_claimed_again(
    lossy: PostgresUnderTest,
) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    mine, other = a_delivery(number), a_delivery(number)
    await lossy.accept([an_intake(other, owner=owner)])
    lose_an_answer(lossy, nobody_learns_it)
    with pytest.raises(Unsettled):
        await lossy.accept([an_intake(mine, owner=owner)])

    await lossy.next_due(owner)

    assert await claimed(lossy, owner, number) == [(mine, 1)]


async def test_a_result_that_was_written_unseen_is_said_to_be_recorded_once(lossy: PostgresUnderTest) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    await accept(lossy, delivery := a_delivery(number))
    [claim] = await claim_all(lossy, owner, number)
    result = a_result(claim, later())
    lose_an_answer(lossy, nobody_learns_it)
    with pytest.raises(Unsettled):
        await lossy.record(owner, [result])

    again = [await lossy.record(owner, [result]) for _ in range(2)]

    assert again == [[True], [False]]
    assert len(await attempts_of(lossy, number, delivery.id)) == 1


async def test_a_result_of_another_is_not_taken_for_one_that_was_written_unseen(
    lossy: PostgresUnderTest,
) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    await accept(lossy, a_delivery(number))
    [claim] = await claim_all(lossy, owner, number)
    mine = a_result(claim)
    theirs = replace(mine, attempt=replace(mine.attempt, span_id="0000000000000001"))
    await lossy.record(owner, [theirs])
    lose_an_answer(lossy, nobody_learns_it)
    with pytest.raises(Unsettled):
        await lossy.record(owner, [mine])

    assert await lossy.record(owner, [mine]) == [False]


async def test_a_call_that_the_driver_refuses_is_our_mistake_and_no_loss(store: PostgresUnderTest) -> None:
    with pytest.raises(RuntimeError, match="the server expects 1 argument"):
        await store._database.write(lambda session: session.fetch("SELECT $1::int"), nothing_to_look_up)


async def nothing_to_look_up(_: Any) -> None:
    raise AssertionError("its session was not lost")


async def nothing_happens() -> None:
    pass


@pytest.mark.parametrize("is_told", [False, True], ids=["without an event", "with one"])
async def test_traffic_that_was_written_unseen_is_looked_up(postgres: Server, *, is_told: bool) -> None:
    async with processes(postgres.url()) as another:
        store = await another()
        await add_integration(store)
        [integration] = await store.integrations()
        contained = Containment(Mode.HOLD, "down", "ada", "ada", NOW, NOW + timedelta(hours=1), "req-1")
        lossy = await another(kind=CommittingDatabase)

        events = [an_event(EventType.CONTAINED, id=an_event().id + 1)] if is_told else []
        stored = await lossy.steer(integration, Traffic(contained, version=1), events)

        assert stored is not None
        [again] = await store.integrations()
        assert stored == again.traffic


async def test_traffic_of_another_is_not_taken_for_what_was_written_unseen(lossy: PostgresUnderTest) -> None:
    await add_integration(lossy)
    [integration] = await lossy.integrations()
    ours, anothers = Traffic(gone_at=NOW, version=1), Traffic(version=2)

    async def write_over() -> None:
        assert await lossy.steer(replace(integration, traffic=ours), anothers, [])

    lose_an_answer(lossy, write_over)

    assert await lossy.steer(integration, ours, []) is None


@pytest.mark.parametrize("is_dead", [True, False])
async def test_an_item_that_was_taken_without_an_answer_is_looked_up(
    lossy: PostgresUnderTest, *, is_dead: bool
) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    delivery = await a_dead_item(lossy, owner, number) if is_dead else a_delivery(number)
    if not is_dead:
        await accept(lossy, delivery)
    item = await lossy.item(number, delivery.id)
    assert item is not None

    lose_an_answer(lossy, nothing_happens)
    claim = await lossy.take(owner, item, a_replay(delivery, is_trial=True) if is_dead else None, None)

    assert claim is not None
    assert (claim.delivery, claim.cycle, claim.attempt) == (delivery, 1 + is_dead, 1)
    await finish(lossy, claim)


async def test_an_item_that_was_taken_and_nobody_learned_it_is_let_go(lossy: PostgresUnderTest) -> None:
    owner, number = await lossy.enter(), await add_integration(lossy)
    await accept(lossy, delivery := a_delivery(number))
    item = await lossy.item(number, delivery.id)
    assert item is not None
    lose_an_answer(lossy, nobody_learns_it)
    with pytest.raises(Unsettled):
        await lossy.take(owner, item, None, None)

    await lossy.next_due(owner)

    assert await claimed(lossy, owner, number) == [(delivery, 1)]
