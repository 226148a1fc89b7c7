"""Changing the schema: one process at a time, all of it or nothing. And what a missing week is called."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from redrive.clock import SystemClock
from redrive.domain.ids import ID_EPOCH
from redrive.domain.item import Status
from redrive.store.migration import Migration, migrations
from redrive.store.port import Accepted, EventFilter, StoreUnavailable
from redrive.store.postgres import PostgresStore, migrate, prepare
from tests.factories import a_delivery, a_result, an_event, an_id, an_intake
from tests.postgres import Server, a_database
from tests.store.under_test import (
    PostgresUnderTest,
    accept,
    add_integration,
    claim_all,
    events_of,
    postgres_under_test,
    statuses,
)

PATIENCE_SECONDS = 10.0  # reached only by a broken test
CLOCK = SystemClock()
WEEK_SECONDS = 7 * 24 * 60 * 60
WIDER = Migration(9999, "9999_wider.sql", "CREATE TABLE wider (); ALTER TABLE live ADD COLUMN more int")


@pytest.fixture
async def url(postgres: Server) -> str:
    """Of a database that is empty."""
    return await a_database(postgres)


@pytest.fixture
async def store(postgres: Server) -> AsyncIterator[PostgresUnderTest]:
    async with postgres_under_test(postgres.url()) as store:
        yield store


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a lock for longer than a moment."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.05)


@pytest.fixture
def _newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version with one step more."""
    steps = [*migrations("redrive.store.postgres"), WIDER]
    monkeypatch.setattr(migrate, "migrations", lambda _: steps)


@asynccontextmanager
async def a_transaction(url: str, sql: str, *values: Any) -> AsyncIterator[asyncpg.Connection]:
    """One that has done something, and goes on."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(sql, *values)
            yield connection
    finally:
        await connection.close()


async def ask(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_of_two_that_migrate_at_once_one_waits_and_finds_it_done(url: str) -> None:
    alone = "SELECT pg_advisory_xact_lock($1)"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with a_transaction(url, alone, migrate.LOCK), asyncio.timeout(PATIENCE_SECONDS):
        two = [asyncio.create_task(prepare(url, CLOCK)) for _ in range(2)]
        while await ask(url, waiting) < len(two):
            await asyncio.wait(two, timeout=0.01)

    done = await asyncio.gather(*two)

    steps = [step.name for step in migrations("redrive.store.postgres")]
    assert sorted(done) == [[], steps]
    store = await PostgresStore.open(url, CLOCK)
    assert await store.enter()
    await store.close()


@pytest.mark.usefixtures("_hurried")
async def test_a_migration_that_may_not_begin_says_why_and_changes_nothing(url: str) -> None:
    async with a_transaction(url, "SELECT pg_advisory_xact_lock($1)", migrate.LOCK):
        with pytest.raises(StoreUnavailable, match="another process has been changing the schema"):
            await prepare(url, CLOCK)

    assert await ask(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


@pytest.mark.usefixtures("_hurried")
async def test_a_migration_that_waits_for_a_table_in_vain_changes_nothing(
    url: str, request: pytest.FixtureRequest
) -> None:
    await prepare(url, CLOCK)
    request.getfixturevalue("_newer")
    async with a_transaction(url, "SELECT FROM live"):
        with pytest.raises(StoreUnavailable, match=r"9999_wider\.sql waited .* nothing was changed"):
            await prepare(url, CLOCK)

    assert await ask(url, "SELECT to_regclass('wider')") is None
    assert await ask(url, "SELECT max(number) FROM migration") < WIDER.number
    assert await prepare(url, CLOCK) == [WIDER.name]


async def test_where_a_week_has_no_partition_it_says_which_and_what_makes_it(
    store: PostgresUnderTest,
) -> None:
    owner, number = await store.enter(), await add_integration(store)
    store.clock.move(6 * WEEK_SECONDS)
    now = store.clock.now()
    delivery, event = a_delivery(number, id=an_id(now)), an_event(id=an_id(now))
    missing = "the database has no partition of {} for the week of 2026-02-13; `redrive migrate` makes"

    with pytest.raises(StoreUnavailable, match=missing.format("delivery")):
        await store.accept([an_intake(delivery, owner=owner)])
    with pytest.raises(StoreUnavailable, match=missing.format("audit")):
        await store.note([event])

    assert await store.item(number, delivery.id) is None
    assert await store._database.run(migrate.migrate) == []
    assert await store.accept([an_intake(delivery)]) == [Accepted(claimed=False)]
    await store.note([event])


async def test_a_result_that_finds_no_partition_leaves_its_claim_as_it_was(store: PostgresUnderTest) -> None:
    owner, number = await store.enter(), await add_integration(store)
    await accept(store, delivery := a_delivery(number))
    [claim] = await claim_all(store, owner, number)
    week = (delivery.created_at - ID_EPOCH).days // 7
    await store.meddle(f"DROP TABLE attempt_w{week:04d}")
    event = an_event(target_id=claim.recovery_id)

    with pytest.raises(StoreUnavailable, match="no partition of attempt for the week of 2026-01-01"):
        await store.record(owner, [a_result(claim, events=(event,))])

    assert await statuses(store, number, [delivery.id]) == [Status.PENDING]
    assert await events_of(store, EventFilter(target_id=claim.recovery_id)) == []
    assert await claim_all(store, owner, number) == []
