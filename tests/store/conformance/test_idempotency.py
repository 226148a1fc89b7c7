"""Once: the reply is stored with the effect, and whoever comes second leaves no trace."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from redrive.domain.delivery import Item, Resolution
from redrive.store.port import Accepted, AlreadyAnswered, EventFilter, Once, QueueFilter
from tests.factories import (
    NOW,
    a_delivery,
    a_once,
    a_replay,
    an_event,
    an_import,
    an_intake,
    an_integration,
    secrets,
)
from tests.store.under_test import StoreUnderTest, a_dead_item, add_integration, events_of

Verb = Callable[[StoreUnderTest, Item, Once | None], Awaitable[object]]
EVERYTHING = EventFilter()
ALL = QueueFilter()


async def accept(store: StoreUnderTest, item: Item, once: Once | None) -> object:
    intakes = [an_intake(a_delivery(item.delivery.integration, idempotency_key="key"))]
    return await store.accept(intakes, None if once is None else lambda verdicts: once)


async def hand_over(store: StoreUnderTest, item: Item, once: Once | None) -> object:
    return await store.hand_over(
        an_import(a_delivery(item.delivery.integration, idempotency_key="key")), once
    )


async def create(store: StoreUnderTest, item: Item, once: Once | None) -> object:
    return await store.create_integration(an_integration("new", secrets=secrets("whsec_1")), an_event(), once)


async def replay(store: StoreUnderTest, item: Item, once: Once | None) -> object:
    return await store.replay(a_replay(item.delivery), once)


async def resolve(store: StoreUnderTest, item: Item, once: Once | None) -> object:
    return await store.resolve(item, Resolution(NOW, "ops", "done"), an_event(), once)


each_verb = pytest.mark.parametrize("verb", [accept, hand_over, create, replay, resolve])


@pytest.fixture
async def item(store: StoreUnderTest, number: int) -> Item:
    """A dead item of an active integration."""
    delivery = await a_dead_item(store, await store.enter(), number)
    item = await store.item(number, delivery.id)
    assert item is not None
    return item


@each_verb
async def test_a_reply_is_recalled_as_it_was_stored(store: StoreUnderTest, item: Item, verb: Verb) -> None:
    once = a_once(body=b"\x00{}", status=201)

    await verb(store, item, once)

    assert await store.recall(once.scope) == once


@each_verb
async def test_whoever_comes_second_is_told_and_leaves_no_trace(
    store: StoreUnderTest, item: Item, verb: Verb
) -> None:
    first = a_once(body=b"first")
    await store.accept([an_intake(a_delivery(item.delivery.integration))], lambda verdicts: first)
    before = await picture(store, item)

    with pytest.raises(AlreadyAnswered):
        await verb(store, item, a_once(body=b"second"))

    assert await picture(store, item) == before
    assert await store.recall(first.scope) == first
    assert await verb(store, item, a_once(b"another scope"))  # nothing of it was kept, its key neither


@each_verb
async def test_of_many_at_once_one_takes_effect(store: StoreUnderTest, item: Item, verb: Verb) -> None:
    before = len(await events_of(store, EVERYTHING))

    done = await asyncio.gather(*(verb(store, item, a_once()) for _ in range(10)), return_exceptions=True)

    events = len(await events_of(store, EVERYTHING)) - before
    queue = await store.queue(item.delivery.integration, ALL, limit=100, below=None)
    assert (events, len(queue.rows)) == ((0, 2) if verb is accept else (1, 2 if verb is hand_over else 1))
    assert sum(result is True or isinstance(result, int | Accepted | list) for result in done) >= 1


async def test_a_scope_nobody_used_recalls_nothing(store: StoreUnderTest) -> None:
    assert await store.recall(b"nothing") is None


async def test_a_batch_whose_call_was_answered_before_is_undone_as_a_whole(
    store: StoreUnderTest, number: int
) -> None:
    await store.accept([an_intake(a_delivery(number))], lambda verdicts: a_once())
    batch = [an_intake(a_delivery(number, idempotency_key=f"{n}")) for n in range(3)]

    with pytest.raises(AlreadyAnswered):
        await store.accept(batch, lambda verdicts: a_once())

    assert list(await store.accept(batch)) == [Accepted(claimed=False)] * 3


async def test_a_reply_that_cannot_be_made_undoes_its_call_alone(store: StoreUnderTest, number: int) -> None:
    def broken(verdicts: object) -> Once:
        raise ZeroDivisionError

    lost, kept = a_delivery(number), a_delivery(number)

    done = await asyncio.gather(
        store.accept([an_intake(lost)], broken), store.accept([an_intake(kept)]), return_exceptions=True
    )

    assert isinstance(done[0], ZeroDivisionError)
    assert await store.item(number, lost.id) is None
    assert await store.item(number, kept.id) is not None


async def test_deliveries_without_a_key_are_told_and_nothing_is_kept_of_it(
    store: StoreUnderTest, number: int
) -> None:
    given, told = a_delivery(number), list[object]()

    verdicts = await store.accept([an_intake(given)], told.append)

    assert told == [verdicts]
    assert await store.item(number, given.id) is not None
    assert await store.prune(NOW) == 0


async def test_old_keys_and_replies_are_pruned_and_young_ones_stay(store: StoreUnderTest) -> None:
    number = await add_integration(store)
    old, young = a_delivery(number, idempotency_key="old"), a_delivery(number, idempotency_key="young")
    await store.accept([an_intake(old)], lambda verdicts: a_once(b"old", created_at=old.created_at))
    await store.accept([an_intake(young)], lambda verdicts: a_once(b"young", created_at=young.created_at))

    gone = await store.prune(young.created_at)

    again = await store.accept(
        [an_intake(a_delivery(number, idempotency_key=key)) for key in ("old", "young")]
    )
    assert gone == 2
    assert [isinstance(verdict, Accepted) for verdict in again] == [True, False]
    assert await store.recall(b"old") is None
    assert await store.recall(b"young") is not None
    assert await store.item(number, old.id) is not None


async def test_pruning_takes_all_that_is_old_however_much_it_is(store: StoreUnderTest, number: int) -> None:
    await store.accept([an_intake(a_delivery(number, idempotency_key=f"{n}")) for n in range(2_345)])

    assert (await store.prune(NOW), await store.prune(NOW)) == (2_345, 0)


async def picture(store: StoreUnderTest, item: Item) -> object:
    """Everything a verb could have changed."""
    queue = await store.queue(item.delivery.integration, ALL, limit=100, below=None)
    return queue, await store.integrations(), await events_of(store, EVERYTHING)
