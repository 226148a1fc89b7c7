"""A process claims from where it got to, and still nothing that is due stays behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from redrive.domain.delivery import Delivery
from redrive.domain.sharing import Lane, whole
from redrive.store.postgres.cursors import WHOLE_EVERY, Cursors
from tests.factories import NOW, a_claim, a_delivery, an_id, an_intake, later
from tests.postgres import Server
from tests.store.under_test import (
    PostgresUnderTest,
    accept,
    add_integration,
    claim_all,
    finish,
    processes,
)

Another = Callable[[], Awaitable[PostgresUnderTest]]


@pytest.fixture
async def another(postgres: Server) -> AsyncIterator[Another]:
    async with processes(postgres.url()) as another:
        yield another


@pytest.fixture
async def store(another: Another) -> PostgresUnderTest:
    return await another()


@pytest.fixture
async def owner(store: PostgresUnderTest) -> int:
    return await store.enter()


@pytest.fixture
async def number(store: PostgresUnderTest, owner: int) -> int:
    """An integration that this process owns, has swept, and has claimed from up to NOW."""
    number = await add_integration(store)
    assert await store.next_due(owner) == {}
    assert await claim_all(store, owner, number) == []
    return number


async def test_what_a_process_accepts_behind_its_cursor_it_claims_at_once(
    store: PostgresUnderTest, owner: int, number: int
) -> None:
    yesterday = a_delivery(number)

    await accept(store, yesterday)

    assert await claimed(store, owner, number) == [yesterday]


async def test_what_a_process_retries_behind_its_cursor_it_claims_at_once(
    store: PostgresUnderTest, owner: int, number: int
) -> None:
    delivery = a_delivery(number)
    await store.accept([an_intake(delivery, owner=owner)])
    store.clock.move(60)
    assert await claimed(store, owner, number) == []

    await finish(store, a_claim(delivery, owner=owner), later(0))

    assert await claimed(store, owner, number) == [delivery]


async def test_what_a_process_gives_back_it_claims_again_at_once(
    store: PostgresUnderTest, owner: int, number: int
) -> None:
    await accept(store, delivery := a_delivery(number))
    claims = await claim_all(store, owner, number)

    await store.give_back(owner, claims)

    assert await claimed(store, owner, number) == [delivery]


async def test_a_commit_that_came_late_is_claimed_within_the_time_held_back(
    another: Another, store: PostgresUnderTest, owner: int, number: int
) -> None:
    late = a_delivery(number, id=an_id(NOW - timedelta(milliseconds=200)))

    await accept(await another(), late)

    assert await claimed(store, owner, number) == [late]


async def test_a_sweep_finds_what_another_process_put_a_little_behind_the_cursor(
    another: Another, store: PostgresUnderTest, owner: int, number: int
) -> None:
    delivery = a_delivery(number, id=an_id(NOW - timedelta(seconds=20)))
    await accept(await another(), delivery)
    unseen = await claimed(store, owner, number)

    due = await store.next_due(owner)

    assert (unseen, due) == ([], {whole(number): delivery.created_at})
    assert await claimed(store, owner, number) == [delivery]


async def test_now_and_then_a_sweep_finds_whatever_is_due(
    another: Another, store: PostgresUnderTest, owner: int, number: int
) -> None:
    yesterday = a_delivery(number)
    await accept(await another(), yesterday)

    found = [await store.next_due(owner) for _ in range(WHOLE_EVERY)]

    assert found == [{}] * (WHOLE_EVERY - 1) + [{whole(number): yesterday.created_at}]
    assert await claimed(store, owner, number) == [yesterday]


def test_a_claim_that_ends_after_its_lane_came_anew_does_not_pass_over_what_others_left() -> None:
    lane, cursors = Lane(1, 2, 0), Cursors()
    cursors.follow(frozenset({lane}))
    cursors.advance([cursors.place(lane)], {lane: None}, 10_000)
    asked = [cursors.place(lane)]
    cursors.follow(frozenset())
    cursors.follow(frozenset({lane}))

    cursors.advance(asked, {lane: None}, 20_000)

    assert cursors.place(lane).since == 0


def test_what_is_put_back_is_looked_for_in_every_lane_of_its_integration() -> None:
    lanes = [Lane(1, 2, 0), Lane(1, 2, 1), whole(2)]
    cursors = reached(*lanes)

    cursors.put_back(1, 5_000)

    since = [cursors.place(lane).since for lane in lanes]
    assert since[0] == since[1] < 5_000 < since[2]


@pytest.mark.parametrize("due_ms", [5_000, 15_000], ids=["behind its cursor", "ahead of it"])
def test_a_claim_that_ends_after_something_was_put_back_does_not_pass_over_it(due_ms: int) -> None:
    cursors = reached(whole(1))
    asked = [cursors.place(whole(1))]
    cursors.put_back(1, due_ms)

    cursors.advance(asked, {whole(1): None}, 20_000)

    assert cursors.place(whole(1)).since < due_ms


def test_nor_does_the_first_claim_of_a_lane() -> None:
    cursors = Cursors()
    cursors.follow(frozenset({whole(1)}))
    asked = [cursors.place(whole(1))]
    cursors.put_back(1, 5_000)

    cursors.advance(asked, {whole(1): None}, 20_000)

    assert cursors.place(whole(1)).since < 5_000


def test_what_was_put_back_holds_a_cursor_back_once() -> None:
    cursors = reached(whole(1))
    cursors.put_back(1, 15_000)

    for _ in range(2):
        cursors.advance([cursors.place(whole(1))], {whole(1): None}, 20_000)

    assert cursors.place(whole(1)).since > 15_000


def reached(*lanes: Lane) -> Cursors:
    """Cursors of a process that owns these lanes, and claimed from them up to 10,000."""
    cursors = Cursors()
    cursors.follow(frozenset(lanes))
    cursors.advance([cursors.place(lane) for lane in lanes], dict.fromkeys(lanes), 10_000)
    return cursors


async def claimed(store: PostgresUnderTest, owner: int, number: int) -> list[Delivery]:
    return [claim.delivery for claim in await claim_all(store, owner, number)]


async def test_a_lane_with_nothing_due_is_not_looked_through_from_the_beginning_again(
    store: PostgresUnderTest, owner: int, number: int
) -> None:
    store.clock.move(60)
    await store.renew(owner)
    for _ in range(WHOLE_EVERY):
        await store.next_due(owner)

    [place] = store._cursors.sweep()

    assert place.since > 0
