"""What goes wrong between this process and the database, and what must not come of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from redrive.domain.delivery import Delivery
from redrive.store.port import StoreUnavailable
from redrive.store.postgres.store import LEASE_SECONDS
from tests.factories import a_delivery, an_intake
from tests.postgres import Server
from tests.store.under_test import (
    CONNECTIONS,
    PostgresUnderTest,
    accept,
    add_integration,
    attempts_of,
    claim_all,
    postgres_under_test,
)


@pytest.fixture
async def store(postgres: Server) -> AsyncIterator[PostgresUnderTest]:
    """A store whose sessions do not wait for a lock for long."""
    async with postgres_under_test(postgres.url()) as store:
        await store._database.run(lambda session: session.execute("SET lock_timeout = '50ms'"))
        yield store


@asynccontextmanager
async def locked(store: PostgresUnderTest, table: str) -> AsyncIterator[None]:
    """A table that nobody else can read, as retention keeps it while it swaps a partition."""
    connection = await asyncpg.connect(store.url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def claimed(store: PostgresUnderTest, owner: int, number: int) -> list[tuple[Delivery, int]]:
    return [(claim.delivery, claim.attempt) for claim in await claim_all(store, owner, number)]


async def test_what_was_claimed_but_could_not_be_read_is_claimed_again(store: PostgresUnderTest) -> None:
    owner, number = await store.enter(), await add_integration(store)
    await accept(store, delivery := a_delivery(number))
    async with locked(store, "delivery"):
        with pytest.raises(StoreUnavailable):
            await store.claim(owner, {number: 10})

    due = await store.next_due(owner)

    assert due == {number: delivery.created_at}
    assert await claimed(store, owner, number) == [(delivery, 1)]


async def test_an_orphan_that_could_not_be_read_stays_an_orphan(store: PostgresUnderTest) -> None:
    dead, number = await store.join(), await add_integration(store)
    await store.accept([an_intake(orphan := a_delivery(number), owner=dead)])
    owner = await store.enter()
    await store.expire(dead)
    async with locked(store, "delivery"):
        with pytest.raises(StoreUnavailable):
            await store.claim(owner, {number: 10})
    await store.next_due(owner)

    given = await store.claim(owner, {number: 10})

    assert [(claim.delivery, claim.attempt) for claim in given.orphans] == [(orphan, 1)]
    assert given.claims == []
    assert await attempts_of(store, number, orphan.id) == []


async def test_a_lease_is_renewed_while_every_other_session_is_taken(store: PostgresUnderTest) -> None:
    owner, taken, done = await store.enter(), asyncio.Semaphore(0), asyncio.Event()

    async def take(_: Any) -> None:
        taken.release()
        await done.wait()

    takers = [asyncio.create_task(store._database.run(take)) for _ in range(CONNECTIONS)]
    for _ in range(CONNECTIONS - 1):
        await taken.acquire()

    assert await store.renew(owner) == LEASE_SECONDS
    done.set()
    await asyncio.gather(*takers)
