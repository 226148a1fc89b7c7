"""Erasing what an item was delivered with: what goes, what stays, and who comes first."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Erasure, Item, Resolution
from redrive.domain.item import Status
from redrive.store.port import EventFilter
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    a_delivery,
    a_once,
    a_replay,
    an_event,
    an_import,
    an_intake,
    later,
)
from tests.store.under_test import StoreUnderTest, accept, claim_all, events_of, finish

ERASURE = Erasure(NOW + timedelta(hours=1), "dpo", "request 4711")
PERSONAL = {"payload": b"personal", "headers": (("X-Name", "personal"),), "tracestate": "personal=1"}


async def ended(store: StoreUnderTest, owner: int, number: int, step: Any) -> Item:
    """An item after one attempt that was answered."""
    delivery = a_delivery(number, **PERSONAL)
    await store.accept([an_intake(delivery)])
    [claim] = [each for each in await claim_all(store, owner, number) if each.delivery.id == delivery.id]
    await finish(store, claim, step)
    return await found(store, number, delivery.id)


async def found(store: StoreUnderTest, number: int, item_id: Any) -> Item:
    item = await store.item(number, item_id)
    assert item is not None
    return item


def without_content(item: Item) -> Item:
    """As it is once it is erased."""
    answer = item.last.answer
    assert answer is not None
    return replace(
        item,
        delivery=replace(item.delivery, payload=b"", headers=(), tracestate=None),
        payload_size=0,
        last=replace(item.last, answer=replace(answer, headers=(), body=b""), answer_size=0),
        erasure=ERASURE,
        updated_at=ERASURE.erased_at,
        updated_by="dpo",
    )


@pytest.mark.parametrize("step", [DONE, EXHAUSTED], ids=["succeeded", "dlq"])
async def test_the_content_goes_and_the_history_stays(
    store: StoreUnderTest, number: int, owner: int, step: Any
) -> None:
    item = await ended(store, owner, number, step)
    event = an_event(EventType.ERASED)

    erased = await store.erase(item, ERASURE, event, None)

    history = await store.history(number, item.delivery.id)
    assert erased
    assert history is not None
    after, [attempt] = history
    expected = without_content(item)
    if item.status is Status.DLQ:
        expected = replace(expected, resolution=Resolution(ERASURE.erased_at, "dpo", "request 4711"))
    assert after == expected
    assert attempt.outcome.answer is not None
    assert (attempt.outcome.answer.body, attempt.outcome.answer.headers) == (b"", ())
    assert await events_of(store, EventFilter(event_type=EventType.ERASED)) == [event]


async def test_what_was_known_of_an_import_goes_too(store: StoreUnderTest, number: int) -> None:
    given = an_import(a_delivery(number, **PERSONAL))
    await store.hand_over(given, None)
    item = await found(store, number, given.delivery.id)

    assert await store.erase(item, ERASURE, an_event(), None)

    after = await found(store, number, given.delivery.id)
    assert after.delivery.payload == b""
    assert (after.last.failure_code, after.last.answer_size) == (given.last.failure_code, 0)


async def test_a_resolution_stays(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await ended(store, owner, number, EXHAUSTED)
    resolution = Resolution(NOW, "ops", "by phone")
    await store.resolve(item, resolution, an_event(), None)

    assert await store.erase(item, ERASURE, an_event(), None)

    assert (await found(store, number, item.delivery.id)).resolution == resolution


async def test_it_is_erased_once(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await ended(store, owner, number, DONE)
    await store.erase(item, ERASURE, an_event(), None)

    again = await store.erase(item, replace(ERASURE, reason="another"), an_event(EventType.ERASED), a_once())

    assert not again
    assert (await found(store, number, item.delivery.id)).erasure == ERASURE
    assert await store.recall(b"scope") is None
    assert await events_of(store, EventFilter(event_type=EventType.ERASED)) == []


async def test_what_is_erased_is_not_replayed(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await ended(store, owner, number, EXHAUSTED)
    await store.erase(item, ERASURE, an_event(), None)

    assert not await store.replay(a_replay(item.delivery), None)


@pytest.mark.parametrize("place", ["pending", "retrying", "replayed"])
async def test_what_is_open_is_not_erased(store: StoreUnderTest, number: int, owner: int, place: str) -> None:
    if place == "pending":
        delivery = a_delivery(number)
        await accept(store, delivery)
        item = await found(store, number, delivery.id)
    else:
        item = await ended(store, owner, number, EXHAUSTED if place == "replayed" else later(3600))
        if place == "replayed":
            await store.replay(a_replay(item.delivery), None)

    erased = [
        await store.erase(judged, ERASURE, an_event(EventType.ERASED), None)
        for judged in (item, replace(item, status=Status.SUCCEEDED))
    ]

    assert erased == [False, False]
    after = await found(store, number, item.delivery.id)
    assert (after.delivery.payload, after.erasure) == (item.delivery.payload, None)
    assert await events_of(store, EventFilter(event_type=EventType.ERASED)) == []


@pytest.mark.parametrize("moved", [{"status": Status.FAILED}, {"cycle": 2}, {"integration": 99}], ids=str)
async def test_what_is_not_as_judged_is_not_erased(
    store: StoreUnderTest, number: int, owner: int, moved: dict[str, Any]
) -> None:
    item = await ended(store, owner, number, EXHAUSTED)
    judged = (
        replace(item, delivery=replace(item.delivery, **moved))
        if "integration" in moved
        else replace(item, **moved)
    )

    assert not await store.erase(judged, ERASURE, an_event(), None)
    assert await found(store, number, item.delivery.id) == item


async def test_of_a_replay_and_an_erasure_at_once_one_happens(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    for _ in range(10):
        item = await ended(store, owner, number, EXHAUSTED)

        replayed, erased = await asyncio.gather(
            store.replay(a_replay(item.delivery), None), store.erase(item, ERASURE, an_event(), None)
        )

        after = await found(store, number, item.delivery.id)
        assert replayed is not erased
        assert after.status is (Status.REPLAYED if replayed else Status.DLQ)
        assert (after.delivery.payload == b"") is erased


async def test_of_erasures_at_once_one_happens(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await ended(store, owner, number, DONE)

    erased = await asyncio.gather(*(store.erase(item, ERASURE, an_event(), None) for _ in range(5)))

    assert sorted(erased) == [False] * 4 + [True]
