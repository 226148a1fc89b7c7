"""A process claims from where it got to, and still nothing that is due stays behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from redrive.domain.delivery import Delivery
from redrive.domain.sharing import Share
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

    assert (unseen, due) == ([], {number: delivery.created_at})
    assert await claimed(store, owner, number) == [delivery]


async def test_now_and_then_a_sweep_finds_whatever_is_due(
    another: Another, store: PostgresUnderTest, owner: int, number: int
) -> None:
    yesterday = a_delivery(number)
    await accept(await another(), yesterday)

    found = [await store.next_due(owner) for _ in range(WHOLE_EVERY)]

    assert found == [{}] * (WHOLE_EVERY - 1) + [{number: yesterday.created_at}]
    assert await claimed(store, owner, number) == [yesterday]


def test_a_claim_that_ends_after_more_became_ours_does_not_pass_over_it() -> None:
    cursors = Cursors()
    cursors.follow({1: Share(2, frozenset({0}))})
    asked = [cursors.place(1)]
    cursors.follow({1: Share(2, frozenset({0, 1}))})

    cursors.advance(asked, {1: None}, 10_000)

    assert cursors.place(1).since == 0


def test_a_claim_that_ends_after_something_was_put_back_does_not_pass_over_it() -> None:
    cursors = Cursors()
    cursors.advance([cursors.place(1)], {1: None}, 10_000)
    asked = [cursors.place(1)]
    cursors.put_back(1, 5_000)

    cursors.advance(asked, {1: None}, 20_000)

    assert cursors.place(1).since < 5_000


async def claimed(store: PostgresUnderTest, owner: int, number: int) -> list[Delivery]:
    return [claim.delivery for claim in await claim_all(store, owner, number)]
