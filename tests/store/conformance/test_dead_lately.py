"""How many died lately, as alerts count them."""

from datetime import timedelta

from redrive.audit.record import EventType
from redrive.domain import failure_group
from redrive.domain.delivery import Resolution
from tests.factories import NOW, an_event
from tests.store.under_test import StoreUnderTest, a_dead_item, add_integration

SOON = timedelta(minutes=1)


async def test_those_that_died_since_are_counted_by_integration(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    other = await add_integration(store, "other")
    for _ in range(3):
        await a_dead_item(store, owner, number)
    await a_dead_item(store, owner, other)

    assert await store.count_dead(NOW, most=10) == {number: 3, other: 1}
    assert await store.count_dead(NOW, most=2) == {number: 2, other: 1}
    assert await store.count_dead(NOW + SOON, most=10) == {}
    assert await store.count_dead(NOW - SOON, NOW, most=10) == {}
    assert await store.count_dead(NOW, NOW + SOON, most=10) == {number: 3, other: 1}


async def test_what_is_closed_does_not_count(store: StoreUnderTest, owner: int, number: int) -> None:
    delivery = await a_dead_item(store, owner, number)
    item = await store.item(number, delivery.id)
    assert item is not None

    await store.resolve(item, Resolution(NOW, "ops", "by phone"), an_event(), None)

    assert await store.count_dead(NOW, most=10) == {}


async def test_what_waits_in_a_muted_group_does_not_count_while_it_is_muted(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    await a_dead_item(store, owner, number)
    [group] = (await store.groups.page(number, None, limit=10, below=None)).rows
    muted = failure_group.muted(group, NOW + SOON, at=NOW)
    await store.groups.judge(group, muted, an_event(EventType.GROUP_MUTED), None)

    while_muted = await store.count_dead(NOW, most=10)
    store.clock.move(SOON.total_seconds())

    assert (while_muted, await store.count_dead(NOW, most=10)) == ({}, {number: 1})
