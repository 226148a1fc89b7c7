"""Containment is acknowledged: by every process that lives, and nobody else is waited for."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from redrive.domain.traffic import Traffic
from redrive.store.postgres.store import LEASE_SECONDS
from tests.factories import NOW, a_delivery, a_job, contained
from tests.postgres import Server
from tests.store.under_test import PostgresUnderTest, accept, add_integration, claim_all, processes

Join = Callable[[], Awaitable[tuple[PostgresUnderTest, int]]]


@pytest.fixture
async def join(postgres: Server) -> AsyncIterator[Join]:
    """Makes processes of one database: each with a store of its own, entered, that has read the catalogue."""
    async with AsyncExitStack() as stack:
        another = await stack.enter_async_context(processes(postgres.url()))

        async def join() -> tuple[PostgresUnderTest, int]:
            store = await another()
            owner = await store.enter()
            await store.changed_integrations()
            return store, owner

        yield join


async def contain(store: PostgresUnderTest) -> int:
    """The version of the catalogue that it came with."""
    [integration] = await store.integrations()
    traffic = await store.steer(integration, contained(integration.traffic), [])
    assert traffic is not None
    assert traffic.containment is not None
    return traffic.containment.version


async def follow(store: PostgresUnderTest, owner: int) -> None:
    """As a process does once it has stopped what it must."""
    await store.changed_integrations()
    await store.follow(owner, store.catalogue_version)


async def test_it_is_followed_when_every_process_has_confirmed(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()
    await add_integration(one)
    version = await contain(one)

    assert not await one.is_followed(version)
    await follow(one, alice)
    assert not await one.is_followed(version)
    await follow(other, bob)

    assert await one.is_followed(version)
    assert await other.is_followed(version)


async def test_who_read_the_catalogue_before_confirms_nothing_by_it(join: Join) -> None:
    store, owner = await join()
    await add_integration(store)
    await store.changed_integrations()
    version = await contain(store)

    await store.follow(owner, store.catalogue_version)

    assert not await store.is_followed(version)


async def test_a_process_whose_lease_ran_out_is_not_waited_for(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()
    await add_integration(one)
    version = await contain(one)
    await follow(one, alice)
    one.clock.move(LEASE_SECONDS)
    await one.renew(alice)
    assert not await one.is_followed(version), "its lease lasts until now"

    one.clock.move(0.001)

    assert await one.is_followed(version)
    assert await other.renew(bob), "nobody has buried it"


async def test_a_process_that_left_is_not_waited_for(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()
    await add_integration(one)
    version = await contain(one)
    await follow(one, alice)

    await other.leave(bob)

    assert await one.is_followed(version)


async def test_a_process_that_only_finishes_what_it_has_is_waited_for(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()
    await add_integration(one)
    await other.step_down(bob)
    version = await contain(one)
    await follow(one, alice)

    assert not await one.is_followed(version)


async def test_a_process_that_came_after_it_can_claim_nothing_and_is_not_waited_for(join: Join) -> None:
    one, alice = await join()
    number = await add_integration(one)
    await accept(one, a_delivery(number))
    version = await contain(one)
    await follow(one, alice)

    newcomer, bob = await join()

    assert await one.is_followed(version)
    assert await claim_all(newcomer, bob, number) == []


async def test_a_change_of_the_containment_has_not_to_be_confirmed_again(join: Join) -> None:
    store, owner = await join()
    await add_integration(store)
    version = await contain(store)
    await follow(store, owner)
    [integration] = await store.integrations()

    traffic = await store.steer(integration, contained(integration.traffic, version=version, by="bob"), [])

    assert traffic == contained(integration.traffic, version=version, by="bob")
    assert await store.is_followed(version)


async def test_the_same_version_is_confirmed_once(join: Join) -> None:
    store, owner = await join()
    await add_integration(store)
    await follow(store, owner)
    [(before,)] = await store._database.ask("SELECT xmin::text FROM incarnation WHERE id = $1", owner)

    await follow(store, owner)

    assert await store._database.ask("SELECT xmin::text FROM incarnation WHERE id = $1", owner) == [(before,)]


async def test_others_learn_of_it_and_of_its_end_as_of_any_change(join: Join) -> None:
    (one, _), (other, _) = await join(), await join()
    number = await add_integration(one)
    await other.changed_integrations()
    await contain(one)

    [held] = await other.changed_integrations()
    free = await one.steer(held, Traffic(version=2), [])
    [released] = await other.changed_integrations()

    assert (held.number, held.sends, released.sends) == (number, False, True)
    assert released.traffic == free


async def test_one_process_has_a_duty_until_it_is_gone(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()

    assert await one.is_elected("containment", alice)
    assert not await other.is_elected("containment", bob)
    await one.leave(alice)

    assert await other.is_elected("containment", bob)


async def test_who_has_a_duty_writes_only_when_half_of_its_time_is_gone(join: Join) -> None:
    (one, alice), (other, bob) = await join(), await join()
    number = await add_integration(one)
    job = a_job(number)

    async def rows() -> list[tuple[str, str, int]]:
        found = await one._database.ask("SELECT xmin::text, xmax::text, until FROM duty")
        return [(row[0], row[1], row[2]) for row in found]

    assert await one.replays.elect(alice, job)
    taken = await rows()
    one.clock.move(4.0)
    assert await one.replays.elect(alice, job)
    assert not await other.replays.elect(bob, job)
    assert await rows() == taken
    one.clock.move(2.0)
    assert await one.replays.elect(alice, job)

    [(_, _, until)] = taken
    [(_, _, later)] = await rows()
    assert later > until


async def test_a_duty_that_has_run_out_leaves_nothing(join: Join) -> None:
    one, alice = await join()
    job = a_job(await add_integration(one))
    assert await one.replays.elect(alice, job)
    one.clock.move(11.0)

    await one.prune(NOW)

    left = await one._database.ask("SELECT name FROM duty")
    assert [name for (name,) in left] == ["prune"]
