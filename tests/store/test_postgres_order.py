"""Processes make ids by clocks that differ a little; an item's events stand in the order of what happened."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType, digest_of, record_of
from redrive.domain.delivery import Delivery, Resolution
from redrive.domain.ids import EventId, recovery_id
from redrive.domain.item import Status
from redrive.store.port import EventFilter, Once, Replay
from tests.factories import NOW, a_delivery, a_once, a_replay, a_result, an_event, an_id, later
from tests.postgres import Server
from tests.store.under_test import (
    PostgresUnderTest,
    a_dead_item,
    accept,
    add_integration,
    changed,
    claim_all,
    events_of,
    processes,
)

Another = Callable[[], Awaitable[PostgresUnderTest]]
AHEAD = NOW + timedelta(hours=1)


@pytest.fixture
async def another(postgres: Server) -> AsyncIterator[Another]:
    async with processes(postgres.url()) as another:
        yield another


@pytest.fixture
async def worker(another: Another) -> PostgresUnderTest:
    """A process whose clock is right."""
    return await another()


@pytest.fixture
async def owner(worker: PostgresUnderTest) -> int:
    return await worker.enter()


@pytest.fixture
async def number(worker: PostgresUnderTest, owner: int) -> int:
    return await add_integration(worker)


def by_a_fast_clock(delivery: Delivery) -> Replay:
    """The replay of a dead item by a process that is an hour ahead."""
    event = an_event(EventType.REPLAYED, id=EventId(an_id(AHEAD)), target_id=recovery_id(delivery.id))
    return a_replay(delivery, event=event)


async def test_what_follows_from_a_replay_stands_after_it(
    another: Another, worker: PostgresUnderTest, owner: int, number: int
) -> None:
    api = await another()
    delivery = await a_dead_item(worker, owner, number)
    assert await api.replay(replay := by_a_fast_clock(delivery), None)

    [claim] = await claim_all(worker, owner, number)

    assert claim.cycle == 2
    assert worker.ids.next(NOW) > replay.event.id


async def test_what_follows_from_a_retry_stands_after_it(
    another: Another, worker: PostgresUnderTest, owner: int, number: int
) -> None:
    other = await another()
    them = await other.enter()
    await accept(worker, delivery := a_delivery(number))
    [claim] = await claim_all(other, them, number)
    event = an_event(EventType.RETRY_SCHEDULED, id=EventId(an_id(AHEAD)), target_id=recovery_id(delivery.id))
    await other.record(them, [replace(a_result(claim, later(0)), events=(event,))])

    [again] = await claim_all(worker, owner, number)

    assert again.attempt == 2
    assert worker.ids.next(NOW) > event.id


@pytest.mark.parametrize("once", [None, a_once()], ids=["without a key", "with a key"])
async def test_an_event_is_not_written_before_one_that_it_follows_from(
    another: Another, worker: PostgresUnderTest, owner: int, number: int, once: Once | None
) -> None:
    api = await another()
    delivery = await a_dead_item(worker, owner, number)
    late = an_event(EventType.RETRY_EXHAUSTED, id=EventId(an_id(AHEAD)), target_id=recovery_id(delivery.id))
    await worker.note([late])
    head = digest_of(record_of(late)).hex()
    event = an_event(EventType.REPLAYED, target_id=recovery_id(delivery.id), previous=head)
    early = a_replay(delivery, event=event)

    assert not await api.replay(early, once)

    found = await api.item(number, delivery.id)
    assert found is not None
    assert found.status is Status.DLQ
    assert await api.recall(a_once().scope) is None
    assert await events_of(api, EventFilter(target_id=recovery_id(delivery.id))) == [late]
    second = replace(early, event=replace(early.event, id=EventId(api.ids.next(NOW))))
    assert second.event.id > late.id
    assert await api.replay(second, once)


async def test_a_resolution_is_not_written_before_what_it_follows_from(
    another: Another, worker: PostgresUnderTest, owner: int, number: int
) -> None:
    api = await another()
    delivery = await a_dead_item(worker, owner, number)
    late = an_event(id=EventId(an_id(AHEAD)), target_id=recovery_id(delivery.id))
    await worker.note([late])
    dead = await api.item(number, delivery.id)
    assert dead is not None
    resolution = Resolution(NOW, "ops", "by phone")
    early = an_event(target_id=recovery_id(delivery.id), previous=digest_of(record_of(late)).hex())

    assert not await api.resolve(dead, resolution, early, None)

    assert await api.item(number, delivery.id) == dead
    second = replace(early, id=EventId(api.ids.next(NOW)))
    assert await api.resolve(dead, resolution, second, None)


async def test_several_events_of_one_change_do_not_stand_in_each_others_way(
    worker: PostgresUnderTest,
    owner: int,
    number: int,
) -> None:
    [old] = await worker.integrations()
    events = [an_event(EventType.LIFECYCLE_CHANGED), an_event(EventType.UPDATED)]

    assert await worker.update_integration(changed(old, name="New"), events)
