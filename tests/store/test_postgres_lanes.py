"""Leases and lanes on PostgreSQL: who is alive, who owns what, and how it changes hands."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from redrive.domain.sharing import Lane, whole
from redrive.store.port import Balance
from tests.factories import a_claim, a_delivery, an_intake
from tests.postgres import Server
from tests.store.under_test import (
    PostgresUnderTest,
    accept,
    add_integration,
    changed,
    finish,
    processes,
)

LEASE = 15.0
Join = Callable[..., Awaitable[tuple[PostgresUnderTest, int]]]


@pytest.fixture
async def join(postgres: Server) -> AsyncIterator[Join]:
    """Makes processes of one database: each with a store of its own, entered."""
    async with AsyncExitStack() as stack:
        another = await stack.enter_async_context(processes(postgres.url()))

        async def join(*, lease_seconds: float = LEASE) -> tuple[PostgresUnderTest, int]:
            store = await another(lease_seconds=lease_seconds)
            return store, await store.enter()

        yield join


async def balanced(store: PostgresUnderTest, owner: int) -> Balance:
    balance = await store.balance(owner)
    assert balance is not None
    return balance


async def test_a_process_alone_owns_every_lane(join: Join) -> None:
    store, owner = await join()
    numbers = [await add_integration(store, name) for name in ("one", "two", "three")]

    balance = await balanced(store, owner)

    assert balance == Balance(frozenset(Lane(number, 1, 0) for number in numbers))


async def test_a_process_that_joins_gets_its_part_once_the_other_lets_go(join: Join) -> None:
    first, one = await join()
    for name in "abcdef":
        await add_integration(first, name)
    await balanced(first, one)
    second, two = await join()

    assert (await balanced(second, two)).owned == frozenset()  # nothing is free yet
    surplus = (await balanced(first, one)).surplus
    await first.release(one, surplus)

    assert len(surplus) == 3
    assert (await balanced(second, two)).owned == surplus
    assert (await balanced(first, one)).surplus == frozenset()


async def test_a_process_that_leaves_gives_its_lanes_back(join: Join) -> None:
    first, one = await join()
    second, two = await join()
    for name in "abcd":
        await add_integration(first, name)
    await balanced(first, one)
    await balanced(second, two)

    await first.leave(one)

    assert len((await balanced(second, two)).owned) == 4


async def test_a_process_that_steps_down_gives_its_lanes_up_and_may_still_record(join: Join) -> None:
    first, one = await join()
    number = await add_integration(first)
    await balanced(first, one)
    await first.accept([an_intake(delivery := a_delivery(number), owner=one)])
    second, two = await join()
    await first.step_down(one)

    leaving = await balanced(first, one)
    await finish(first, a_claim(delivery, owner=one))
    await first.release(one, leaving.surplus)

    assert leaving.surplus == leaving.owned == {Lane(number, 1, 0)}
    assert (await balanced(second, two)).owned == leaving.surplus
    assert (await balanced(first, one)).owned == frozenset()


async def test_a_process_whose_lease_ran_out_is_buried_and_its_lanes_are_taken(join: Join) -> None:
    first, one = await join()
    number = await add_integration(first)
    await balanced(first, one)
    second, two = await join()
    first.clock.move(LEASE + 1)
    assert await second.renew(two)

    balance = await balanced(second, two)

    assert balance.owned == {Lane(number, 1, 0)}
    assert await first.renew(one) is None


async def test_a_process_that_renews_in_time_is_not_buried(join: Join) -> None:
    first, one = await join()
    second, two = await join()
    for _ in range(3):
        first.clock.move(LEASE - 1)
        assert await first.renew(one)
        assert await second.renew(two)
        await balanced(second, two)

    assert await first.renew(one)


async def test_a_lease_lasts_as_long_as_its_own_process_was_told(join: Join) -> None:
    patient, one = await join()
    hasty, two = await join(lease_seconds=3.0)

    patient.clock.move(4)
    await balanced(patient, one)

    assert await hasty.renew(two) is None
    assert await patient.renew(one) == LEASE


async def test_a_buried_process_gets_no_lane(join: Join) -> None:
    store, owner = await join()
    await add_integration(store)
    await store.expire(owner)

    assert (await balanced(store, owner)).owned == frozenset()


async def test_a_lane_of_the_dead_comes_with_what_they_had_claimed(join: Join) -> None:
    first, one = await join()
    number = await add_integration(first)
    await balanced(first, one)
    claimed, free = a_delivery(number), a_delivery(number)
    await first.accept([an_intake(claimed, owner=one), an_intake(free)])
    second, two = await join()
    await first.expire(one)

    assert (await balanced(second, two)).owned == {Lane(number, 1, 0)}
    given = await second.claim(two, {whole(number): 10})

    assert [orphan.delivery for orphan in given.orphans] == [claimed]
    assert [orphan.attempt for orphan in given.orphans] == [1]
    assert [claim.delivery for claim in given.claims] == [free]


async def test_a_split_integration_is_claimed_by_shard(join: Join) -> None:
    first, one = await join()
    second, two = await join()
    number = await add_integration(first, shards=2)
    mine, others = await balanced(first, one), await balanced(second, two)
    deliveries = [a_delivery(number) for _ in range(40)]
    await accept(first, *deliveries)

    [lane], [other] = mine.owned, others.owned

    claims = (await first.claim(one, {lane: 100})).claims
    rest = (await second.claim(two, {other: 100})).claims

    assert {lane.shard, other.shard} == {0, 1}
    assert {claim.delivery.id % 2 for claim in claims} <= {lane.shard}
    assert {claim.delivery.id % 2 for claim in rest} <= {other.shard}
    assert {claim.delivery for claim in (*claims, *rest)} == set(deliveries)


async def test_no_lane_of_a_new_split_is_taken_while_one_of_the_old_is_owned(join: Join) -> None:
    first, one = await join()
    number = await add_integration(first)
    await balanced(first, one)
    second, two = await join()
    [integration] = await first.integrations()

    assert await first.update_integration(changed(integration, shards=2), [])
    while_owned = await balanced(second, two)
    surplus = (await balanced(first, one)).surplus
    await first.release(one, surplus)

    assert while_owned.owned == frozenset()
    assert surplus == {Lane(number, 1, 0)}
    owned = (await balanced(first, one)).owned | (await balanced(second, two)).owned
    assert owned == {Lane(number, 2, 0), Lane(number, 2, 1)}


@pytest.mark.parametrize("ending", ["killed", "leaves in doubt"])
async def test_a_new_split_waits_until_no_receiver_can_be_at_what_a_dead_owner_sent(
    join: Join, ending: str
) -> None:
    first, one = await join()
    number = await add_integration(first, timeout_seconds=20.0)
    await balanced(first, one)
    await first.accept([an_intake(a_delivery(number), owner=one)])
    second, two = await join()
    await (first.expire(one) if ending == "killed" else first.leave(one))
    await second.step_down(two)  # it frees the lane, and does not take it
    await balanced(second, two)
    third, three = await join()
    [integration] = await third.integrations()

    assert await third.update_integration(changed(integration, shards=2), [])
    at_once = await balanced(third, three)
    third.clock.move(19.9)
    assert await third.renew(three)
    too_early = await balanced(third, three)
    third.clock.move(0.2)

    assert at_once.owned == too_early.owned == frozenset()
    assert (await balanced(third, three)).owned == {Lane(number, 2, 0), Lane(number, 2, 1)}


async def test_a_new_split_does_not_wait_for_whoever_let_go_of_its_lanes_before_it_left(join: Join) -> None:
    first, one = await join()
    number = await add_integration(first)
    await first.release(one, (await balanced(first, one)).owned)
    await first.leave(one)
    second, two = await join()
    [integration] = await second.integrations()

    assert await second.update_integration(changed(integration, shards=2), [])

    assert (await balanced(second, two)).owned == {Lane(number, 2, 0), Lane(number, 2, 1)}


async def test_a_process_that_only_takes_calls_owns_nothing(join: Join) -> None:
    store, _ = await join()
    store._sends = False
    caller = await store.enter()
    await add_integration(store)

    assert await store.balance(caller) == Balance(frozenset())


async def test_what_one_process_changes_the_others_learn_once(join: Join) -> None:
    first, _ = await join()
    second, _ = await join()
    await add_integration(first, "one")
    assert [one.integration_id for one in await second.changed_integrations()] == ["one"]
    await add_integration(first, "two")

    assert [one.integration_id for one in await second.changed_integrations()] == ["two"]
    assert await second.changed_integrations() == ()
