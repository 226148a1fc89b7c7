"""Stores as tests see them: the port, and what only a test may do to one."""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from redrive.audit.record import AuditEvent
from redrive.clock import Clock
from redrive.domain.delivery import Attempt, Claim, Delivery
from redrive.domain.ids import ItemId
from redrive.domain.integration import Integration
from redrive.domain.item import Finish, Status, Step
from redrive.domain.sharing import Lane, whole
from redrive.store.port import EventFilter, Intake, Store
from redrive.store.postgres import PostgresStore
from redrive.store.postgres.connection import Database
from redrive.store.postgres.migrate import add_partitions, migrate
from redrive.store.postgres.store import LEASE_SECONDS
from redrive.store.rows import to_ms
from redrive.store.sqlite import SqliteStore
from redrive.store.sqlite.connection import ask
from tests.factories import NOW, REFUSED, a_delivery, a_result, an_event, an_integration

CONNECTIONS = 4  # of a process


class OffsetClock:
    """Stands at NOW until a test moves it."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def move(self, seconds: float) -> None:
        self.offset += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return NOW + self.offset

    def elapsed(self) -> float:
        return self.offset.total_seconds()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a store never sleeps")


class StoreUnderTest(Store, Protocol):
    """What a store must offer beside the port so that the conformance suite can run on it."""

    clock: OffsetClock

    async def join(self) -> int:
        """Another live incarnation, of a process that is not there."""
        ...

    async def expire(self, owner: int) -> None:
        """End a lease as the database would: the incarnation's row goes."""
        ...

    async def rescue(self, owner: int) -> list[Claim]:
        """What dead processes had claimed becomes *owner*'s; nothing else does."""
        ...

    async def meddle(self, sql: str, *values: Any) -> None:
        """Break a record by hand, CHECKs and all."""
        ...

    async def peek(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows, where no verb of the port tells of them."""
        ...


class SqliteUnderTest(SqliteStore):
    """SQLite takes one process at a time; the second incarnation is written by hand."""

    clock: OffsetClock

    async def join(self) -> int:
        sql = "INSERT INTO incarnation (started_at, process) VALUES (0, 'a test') RETURNING id"
        [(owner,)] = await self._writer.run(lambda connection: ask(connection, sql))
        return int(owner)

    async def expire(self, owner: int) -> None:
        await self.meddle("DELETE FROM incarnation WHERE id = ?", owner)

    async def rescue(self, owner: int) -> list[Claim]:
        return list((await self.adopt(owner, 100)).claims)

    async def meddle(self, sql: str, *values: Any) -> None:
        await self._writer.run(lambda connection: meddle_with_sqlite(connection, sql, *values))

    async def peek(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return await self._writer.run(lambda connection: ask(connection, sql, values))


def meddle_with_sqlite(connection: Any, sql: str, *values: Any) -> None:
    """Break a record by hand, CHECKs and all."""
    connection.pragma("ignore_check_constraints", True)
    connection.execute(sql, values)
    connection.pragma("ignore_check_constraints", False)


@asynccontextmanager
async def sqlite_under_test(directory: Path, *, migrates: bool = False) -> AsyncIterator[SqliteUnderTest]:
    clock = OffsetClock()
    store = await SqliteUnderTest.open(directory / "redrive.db", clock, migrates=migrates)
    store.clock = clock
    try:
        yield store
    finally:
        await store.close()


_STAND_STILL = """
CREATE OR REPLACE FUNCTION redrive_now() RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT current_setting('redrive.now')::bigint $$
"""


_DROP_PARTITIONS = """
DO $$ DECLARE partition regclass; BEGIN
    FOR partition IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
         WHERE c.relnamespace = current_schema::regnamespace AND c.relkind = 'r'
    LOOP EXECUTE format('DROP TABLE %s', partition); END LOOP;
END $$
"""
_DROP_CHECKS = """
DO $$ DECLARE sql text; BEGIN
    FOR sql IN
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
         WHERE contype = 'c' AND connamespace = current_schema::regnamespace AND coninhcount = 0
    LOOP EXECUTE sql; END LOOP;
END $$
"""


class ClockedDatabase(Database):
    """Sessions whose database stands at the time of the test's clock."""

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        async with super()._session() as session:
            now_ms = to_ms(self._clock.now())
            await session.execute("SELECT set_config('redrive.now', $1, false)", str(now_ms))
            yield session


class ClockedPostgres(PostgresStore):
    """PostgreSQL with a clock that only tests move."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        url: str,
        *,
        sends: bool = True,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.url = url
        super().__init__(database, clock, url, sends=sends, lease_seconds=lease_seconds)
        self.clock = clock
        self.grace_ms = 0  # the server was started for this test


class PostgresUnderTest(ClockedPostgres):
    """What a test may do to PostgreSQL."""

    clock: OffsetClock

    async def next_due(self, owner: int) -> Mapping[Lane, datetime]:
        await self.balance(owner)
        return await super().next_due(owner)

    async def join(self) -> int:
        return await self.enter()

    async def expire(self, owner: int) -> None:
        await self.meddle("DELETE FROM incarnation WHERE id = ?", owner)

    async def rescue(self, owner: int) -> list[Claim]:
        wants = {whole(one.number): 100 for one in await self.integrations()}
        claimed = await self.claim(owner, wants)
        await self.give_back(owner, claimed.claims)
        return list(claimed.orphans)

    async def meddle(self, sql: str, *values: Any) -> None:
        await meddle_with_postgres(self._database, sql, *values)

    async def peek(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._database.ask(numbered(sql), *values)]


async def meddle_with_postgres(database: Database, sql: str, *values: Any) -> None:
    """Break a record by hand, CHECKs and all; values stand in it as question marks, as for SQLite."""
    await database.run(lambda session: session.execute(_DROP_CHECKS))
    await database.run(lambda session: session.execute(numbered(sql), *values))


def numbered(sql: str) -> str:
    """With PostgreSQL's names for the values that stand in it as question marks."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


@asynccontextmanager
async def postgres_under_test(url: str, *, age: timedelta = timedelta()) -> AsyncIterator[PostgresUnderTest]:
    """In a schema of its own, on a database that is shared with other tests, set up *age* ago."""
    async with processes(url, age=age) as another:
        yield await another()


@asynccontextmanager
async def processes(
    url: str, *, age: timedelta = timedelta()
) -> AsyncIterator[Callable[..., Awaitable[PostgresUnderTest]]]:
    """Makes stores on one new schema and one clock, as many processes have them."""
    clock = OffsetClock()
    clock.offset = -age
    async with a_schema(url, clock) as where, AsyncExitStack() as stack:
        clock.offset = timedelta()
        first = await ClockedDatabase.open(where, clock, connections=1)
        stack.push_async_callback(first.close)
        await first.run(add_partitions)

        async def another(
            *, lease_seconds: float = LEASE_SECONDS, kind: type[ClockedDatabase] = ClockedDatabase
        ) -> PostgresUnderTest:
            database = await kind.open(where, clock, connections=CONNECTIONS)
            store = PostgresUnderTest(database, clock, where, lease_seconds=lease_seconds)
            stack.push_async_callback(store.close)
            return store

        yield another


@asynccontextmanager
async def a_schema(url: str, clock: Clock) -> AsyncIterator[str]:
    """The address of a new schema, whose database stands at the time of *clock*; gone afterwards."""
    schema = f"test_{secrets.token_hex(8)}"
    where = f"{url}?search_path={schema}"
    database = await ClockedDatabase.open(where, clock, connections=1)
    try:
        await database.run(lambda session: session.execute(f"CREATE SCHEMA {schema}"))
        await database.run(migrate)
        await database.run(lambda session: session.execute(_STAND_STILL))
        await database.run(lambda session: session.execute(_DROP_PARTITIONS))  # those of the real present
        await database.run(add_partitions)
        yield where
        await database.run(lambda session: session.execute(f"DROP SCHEMA {schema} CASCADE"))
    finally:
        await database.close()


# what tests do over and over


async def add_integration(store: Store, integration_id: str = "acme", **fields: Any) -> int:
    """Create one; its number."""
    number = await store.create_integration(an_integration(integration_id, **fields), an_event(), None)
    assert number is not None
    return number


def changed(integration: Integration, **fields: Any) -> Integration:
    """The next version of *integration*, as update_integration wants it."""
    return replace(integration, version=integration.version + 1, **fields)


async def accept(store: Store, *deliveries: Delivery) -> None:
    """Accept them unclaimed."""
    await store.accept([Intake(delivery, b"one", None) for delivery in deliveries])


async def claim_all(store: Store, owner: int, number: int, limit: int = 100) -> list[Claim]:
    return list((await store.claim(owner, {whole(number): limit})).claims)


async def finish(store: Store, claim: Claim, step: Step = REFUSED) -> None:
    """Record that *claim* led to *step*."""
    assert list(await store.record(claim.owner, [a_result(claim, step)])) == [True]


async def a_dead_item(
    store: Store, owner: int, number: int, status: Status = Status.DLQ, **fields: Any
) -> Delivery:
    """An item whose first attempt ended in *status*."""
    delivery = a_delivery(number, **fields)
    await store.accept([Intake(delivery, b"one", owner)])
    claim = Claim(delivery, owner, 1, 1, delivery.max_attempts, delivery.request_id)
    await finish(store, claim, Finish(status))
    return delivery


async def statuses(store: Store, number: int, ids: Sequence[ItemId]) -> list[Status | None]:
    items = [await store.item(number, item_id) for item_id in ids]
    return [None if item is None else item.status for item in items]


async def attempts_of(store: Store, number: int, item_id: ItemId) -> list[Attempt]:
    """Oldest first."""
    found = await store.history(number, item_id)
    assert found is not None
    return list(found[1])


async def events_of(store: Store, wanted: EventFilter) -> list[AuditEvent]:
    """Newest first."""
    return list((await store.events(wanted, limit=1_000, below=None)).rows)
