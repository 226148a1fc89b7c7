"""The list of items: every filter, and pages that neither lose nor repeat."""

from datetime import timedelta
from itertools import product

import pytest
from msgspec.structs import replace

from redrive.domain.delivery import Delivery, Item, Resolution
from redrive.domain.ids import ItemId
from redrive.domain.item import Finish, Status
from redrive.domain.outcome import Failed, Reach
from redrive.store.port import QueueFilter
from tests.factories import (
    NOW,
    SUCCESS,
    a_claim,
    a_delivery,
    a_replay,
    a_result,
    an_event,
    an_id,
    an_import,
    an_intake,
    later,
)
from tests.store.under_test import StoreUnderTest, a_dead_item, accept, add_integration, finish

ALL = QueueFilter()
CHOICES = (None, True, False)


@pytest.fixture
async def items(store: StoreUnderTest, number: int, owner: int) -> list[Item]:
    """Two of every status (one a `ping`), a resolved one, and imports; newest first. Others stand beside."""
    made: list[ItemId] = []
    for status, event_type in product(Status, ("ping", "pong")):
        made.append(await an_item(store, owner, number, status, event_type))
    resolved = await a_dead_item(store, owner, number, Status.FAILED, event_type="ping")
    dead = await store.item(number, resolved.id)
    assert dead is not None
    await store.resolve(dead, Resolution(NOW, "ops", "done"), an_event(), None)
    imported = an_import(a_delivery(number), Status.DLQ)
    await store.hand_over(imported, None)
    other = await add_integration(store, "other")
    await accept(store, a_delivery(other))
    found = [await store.item(number, item_id) for item_id in (*made, resolved.id, imported.delivery.id)]
    return [item for item in reversed(found) if item is not None]


async def an_item(store: StoreUnderTest, owner: int, number: int, status: Status, event_type: str) -> ItemId:
    delivery = a_delivery(number, event_type=event_type)
    await store.accept([an_intake(delivery, owner=owner)])
    claim = a_claim(delivery, owner=owner)
    match status:
        case Status.PENDING:
            pass
        case Status.RETRYING:
            await finish(store, claim, later())
        case Status.REPLAYED:
            await finish(store, claim, Finish(Status.DLQ))
            await store.replay(a_replay(delivery), None)
        case _:
            await finish(store, claim, Finish(status))
    return delivery.id


FILTERS = [
    QueueFilter(status=status, event_type=event_type, failure_code=code)
    for status, event_type, code in product((None, *Status), (None, "ping", "none"), (None, "HTTP_503"))
] + [
    QueueFilter(status=status, resolved=resolved, done=done)
    for status, resolved, done in product((None, Status.FAILED, Status.SUCCEEDED), CHOICES, CHOICES)
]


@pytest.mark.parametrize("limit", [100, 3])
async def test_a_filter_gives_what_it_says_newest_first(
    store: StoreUnderTest, number: int, items: list[Item], limit: int
) -> None:
    for wanted in FILTERS:
        found = await walk(store, number, wanted, limit)

        assert found == [listed(item) for item in items if matches(item, wanted)], wanted


async def test_instants_bound_when_an_item_was_accepted(
    store: StoreUnderTest, number: int, items: list[Item]
) -> None:
    newest, *_, oldest = items
    for status in (None, *Status):
        wanted = QueueFilter(
            status=status,
            since=oldest.delivery.created_at + timedelta(milliseconds=1),
            until=newest.delivery.created_at,
        )

        found = await walk(store, number, wanted, 3)

        assert found == [listed(i) for i in items[1:-1] if status in (None, i.status)]


async def test_an_instant_before_all_time_or_after_it_is_no_bound(
    store: StoreUnderTest, number: int, items: list[Item]
) -> None:
    wanted = QueueFilter(since=NOW - timedelta(days=9_999), until=NOW + timedelta(days=99_999))

    assert len(await walk(store, number, wanted, 100)) == len(items)


async def test_an_empty_queue_is_one_empty_page(store: StoreUnderTest, number: int) -> None:
    page = await store.queue(number, ALL, limit=10, below=None)

    assert (list(page.rows), page.next_below) == ([], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 11])
async def test_pages_have_no_gap_and_no_repetition_while_new_items_arrive(
    store: StoreUnderTest, number: int, limit: int
) -> None:
    given = in_a_row(number, 10)
    await accept(store, *given)

    found: list[ItemId] = []
    below = None
    while True:
        page = await store.queue(number, ALL, limit=limit, below=below)
        found += [item.delivery.id for item in page.rows]
        assert len(page.rows) <= limit
        await accept(store, a_delivery(number))
        if (below := page.next_below) is None:
            break

    assert found == [delivery.id for delivery in reversed(given)]


async def test_a_long_page_has_no_gap(store: StoreUnderTest, number: int) -> None:
    given = in_a_row(number, 1_700)
    await accept(store, *given)

    page = await store.queue(number, ALL, limit=2_000, below=None)

    assert [item.delivery.id for item in page.rows] == [delivery.id for delivery in reversed(given)]


async def test_a_page_that_is_exactly_full_and_last_has_no_next(store: StoreUnderTest, number: int) -> None:
    await accept(store, *(a_delivery(number) for _ in range(4)))

    page = await store.queue(number, ALL, limit=4, below=None)

    assert (len(page.rows), page.next_below) == (4, None)


async def test_a_rare_match_is_found_in_bounded_steps(store: StoreUnderTest, number: int) -> None:
    rare = [a_delivery(number, event_type="rare")]
    crowd = [a_delivery(number) for _ in range(5_600)]
    await accept(store, *rare, *crowd)
    wanted = QueueFilter(event_type="rare")

    first = await store.queue(number, wanted, limit=10, below=None)
    second = await store.queue(number, wanted, limit=10, below=first.next_below)

    assert (list(first.rows), first.next_below is None) == ([], False)
    assert [item.delivery.id for item in second.rows] == [rare[0].id]
    assert second.next_below is None


async def test_a_list_leaves_payload_and_answer_bodies_out_but_knows_their_size(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = a_delivery(number, payload=b"payload")
    await store.accept([an_intake(given, owner=owner)])
    await finish(store, a_claim(given, owner=owner), Finish(Status.DLQ))
    handed = an_import(a_delivery(number), last=replace(an_import(a_delivery()).last, answer=SUCCESS.answer))
    handed = replace(handed, last=replace(handed.last, last_http_status=200, answer_size=9))
    await store.hand_over(handed, None)

    page = await store.queue(number, ALL, limit=10, below=None)

    imported, tried = page.rows
    for item, size in ((imported, 9), (tried, 4)):
        assert item.last.answer is not None
        assert (item.delivery.payload, item.last.answer.body) == (b"", b"")
        assert item.last.answer_size == size
    assert tried.payload_size == 7


async def test_a_failure_code_finds_what_carries_it_in_any_status(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    wanted = QueueFilter(failure_code="ECONNRESET")
    for step in (later(), Finish(Status.DLQ), Finish(Status.FAILED)):
        delivery = a_delivery(number)
        await store.accept([an_intake(delivery, owner=owner)])
        claim = a_claim(delivery, owner=owner)
        broken = Failed("ECONNRESET", "it broke", Reach.SENT)
        await store.record(owner, [a_result(claim, step, broken)])

    found = await walk(store, number, wanted, 2)

    assert [item.status for item in found] == [Status.FAILED, Status.DLQ, Status.RETRYING]


async def walk(store: StoreUnderTest, number: int, wanted: QueueFilter, limit: int) -> list[Item]:
    """Page by page to the end."""
    found: list[Item] = []
    below = None
    while True:
        page = await store.queue(number, wanted, limit=limit, below=below)
        found += page.rows
        if (below := page.next_below) is None:
            return found


def in_a_row(number: int, count: int) -> list[Delivery]:
    """With no id between two of theirs: made within one millisecond."""
    first = an_id()
    return [a_delivery(number, id=first + n) for n in range(count)]


def matches(item: Item, wanted: QueueFilter) -> bool:
    return (
        wanted.status in (None, item.status)
        and wanted.event_type in (None, item.delivery.event_type)
        and wanted.failure_code in (None, item.last.failure_code)
        and wanted.resolved in (None, item.resolution is not None)
        and wanted.done in (None, item.status is Status.SUCCEEDED or item.resolution is not None)
    )


def listed(item: Item) -> Item:
    """As a list shows it."""
    answer = item.last.answer
    bare = None if answer is None else replace(answer, body=b"")
    return replace(item, delivery=replace(item.delivery, payload=b""), last=replace(item.last, answer=bare))
