"""A stored record that violates its own rules is reported, never served. Each is broken by hand."""

import asyncio

import pytest

from redrive.domain.delivery import Item
from redrive.domain.ids import ItemId
from redrive.domain.item import Finish, Status
from redrive.domain.sharing import whole
from redrive.store.port import EventFilter, QueueFilter, StoreInconsistent
from redrive.store.tokens import Token
from tests.factories import DONE, NOW, a_claim, a_delivery, a_replay, an_event, an_intake, later
from tests.store.under_test import StoreUnderTest, accept, finish

LIVE = (
    "INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)"
    " SELECT id, integration, 'pending', 1, 0, 5, 0 FROM delivery"
)
BROKEN: dict[str, tuple[Status, str]] = {
    "unfinished and dead": (Status.DLQ, LIVE),
    "unfinished and succeeded": (Status.SUCCEEDED, LIVE),
    "nowhere after a failure": (Status.DLQ, "DELETE FROM dead"),
    "nowhere without an attempt": (Status.PENDING, "DELETE FROM live"),
    "nowhere while it retries": (Status.RETRYING, "DELETE FROM live"),
    "succeeded without its attempt": (Status.SUCCEEDED, "DELETE FROM attempt"),
    "succeeded with an answer that is gone": (Status.SUCCEEDED, "UPDATE attempt SET body = NULL"),
    "in a status that is none": (Status.PENDING, "UPDATE live SET status = 'lost'"),
    "dead in a status that is none": (Status.DLQ, "UPDATE dead SET status = 'gone'"),
    "dead under another integration": (Status.DLQ, "UPDATE dead SET integration = 99"),
    "unfinished under another integration": (Status.PENDING, "UPDATE live SET integration = 99"),
    "in a cycle nobody opened": (Status.RETRYING, "UPDATE live SET cycle = 2"),
    "in a cycle that was opened and forgotten": (Status.REPLAYED, "DELETE FROM cycle"),
    "behind its own attempts": (Status.RETRYING, "UPDATE live SET attempt = 0"),
    "behind its own cycle": (Status.REPLAYED, "UPDATE live SET cycle = 1"),
    "of a reach that is none": (Status.DLQ, "UPDATE attempt SET reach = 'far'"),
    "with headers that are none": (Status.PENDING, "UPDATE delivery SET headers = '{'"),
    "with an answer's headers that are none": (Status.DLQ, "UPDATE attempt SET headers = '[[1]]'"),
    "at an instant that is none": (Status.RETRYING, "UPDATE live SET due_at = 9000000000000000000"),
    "resolved by nobody": (Status.DLQ, "UPDATE dead SET resolved_at = 1"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_an_item_that_makes_no_sense_is_never_served(
    store: StoreUnderTest, number: int, owner: int, case: str
) -> None:
    status, sql = BROKEN[case]
    delivery = a_delivery(number)
    await store.accept([an_intake(delivery, owner=owner if status is not Status.PENDING else None)])
    match status:
        case Status.PENDING:
            pass
        case Status.RETRYING:
            await finish(store, a_claim(delivery, owner=owner), later())
        case Status.REPLAYED:
            await finish(store, a_claim(delivery, owner=owner), Finish(Status.DLQ))
            await store.replay(a_replay(delivery), None)
        case _:
            await finish(store, a_claim(delivery, owner=owner), Finish(status))
    await store.meddle(sql)

    with pytest.raises(StoreInconsistent):
        await store.item(number, delivery.id)
    if "answer that is gone" in case or "another integration" in case:
        return  # a list does not read the body; and the item stands in no list of this integration
    with pytest.raises(StoreInconsistent):
        await store.queue(number, QueueFilter(), limit=10, below=None)


async def test_of_items_that_are_asked_for_at_once_each_has_its_own_answer(
    store: StoreUnderTest, number: int
) -> None:
    first, broken, last = (a_delivery(number) for _ in range(3))
    await store.accept([an_intake(delivery) for delivery in (first, broken, last)])
    await store.meddle(f"UPDATE delivery SET headers = '{{' WHERE id = {broken.id}")
    ids = [first.id, broken.id, last.id, ItemId(first.id + 1), first.id]

    asked = [(number, item_id) for item_id in ids] + [(number + 1, last.id)]
    answers = await asyncio.gather(*(store.item(*one) for one in asked), return_exceptions=True)

    told = [answer.delivery.id if isinstance(answer, Item) else answer for answer in answers]
    assert (told[0], told[2], told[4]) == (first.id, last.id, first.id)
    assert isinstance(told[1], StoreInconsistent)
    assert (told[3], told[5]) == (None, None)


async def test_an_item_that_was_queued_but_never_stored_is_reported(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await accept(store, a_delivery(number))
    await store.meddle("DELETE FROM delivery")

    with pytest.raises(StoreInconsistent):
        await store.queue(number, QueueFilter(status=Status.PENDING), limit=10, below=None)
    assert "never stored" in (await store.claim(owner, {whole(number): 1})).set_aside[0]


async def test_a_claim_that_cannot_be_read_is_not_made(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    await store.meddle("UPDATE delivery SET headers = '{'")

    damaged, sound = await store.claim(owner, {whole(number): 1}), a_delivery(number)
    await accept(store, sound)
    others = await store.claim(owner, {whole(number): 10})

    assert (damaged.claims, len(damaged.set_aside)) == ([], 1)
    assert [claim.delivery for claim in others.claims] == [sound]
    await store.meddle("UPDATE delivery SET headers = NULL")
    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.attempt_count == 0


@pytest.mark.parametrize("record", ["{", "{}", '{"id": 1}'])
async def test_an_event_that_cannot_be_read_is_reported(store: StoreUnderTest, record: str) -> None:
    await store.note([an_event()])
    await store.meddle("UPDATE audit SET record = ?", record)

    with pytest.raises(StoreInconsistent):
        await store.events(EventFilter(), limit=10, below=None)


@pytest.mark.parametrize("config", ["{", "{}"])
async def test_an_integration_that_cannot_be_read_is_reported(
    store: StoreUnderTest, number: int, config: str
) -> None:
    await store.meddle("UPDATE integration SET config = ?", config)

    with pytest.raises(StoreInconsistent):
        await store.integrations()


async def test_an_integration_whose_lifecycle_disagrees_with_itself_is_reported(
    store: StoreUnderTest, number: int
) -> None:
    await store.meddle("UPDATE integration SET lifecycle = 'retired'")

    with pytest.raises(StoreInconsistent):
        await store.integrations()


async def test_a_lifecycle_that_is_none_stops_every_write_to_its_integration(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await store.meddle("UPDATE integration SET lifecycle = 'lost'")

    with pytest.raises(StoreInconsistent):
        await accept(store, a_delivery(number))


async def test_a_token_with_a_permission_that_is_none_is_reported(store: StoreUnderTest) -> None:
    await store.tokens.add(Token("tok_1", "shop", frozenset(), NOW, None, None), b"d" * 32)
    await store.meddle("UPDATE token SET permissions = 'everything'")

    with pytest.raises(StoreInconsistent):
        await store.tokens.find(b"d" * 32)
    with pytest.raises(StoreInconsistent):
        await store.tokens.all()


async def test_a_healthy_item_beside_a_broken_one_is_still_served(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    broken, healthy = a_delivery(number), a_delivery(number)
    await store.accept([an_intake(d, owner=owner) for d in (broken, healthy)])
    await finish(store, a_claim(healthy, owner=owner), DONE)
    await store.meddle("DELETE FROM live WHERE id = ?", broken.id)

    item = await store.item(number, healthy.id)

    assert item is not None
    assert item.status is Status.SUCCEEDED
