"""Stores as tests see them: the port, and what only a test may do to one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Claim, Delivery
from redrive.domain.ids import ItemId
from redrive.domain.integration import Integration
from redrive.domain.item import Finish, Status, Step
from redrive.store.port import EventFilter, Intake, Store
from redrive.store.sqlite import SqliteStore
from redrive.store.sqlite.connection import ask
from tests.factories import NOW, REFUSED, a_delivery, a_result, an_event, an_integration


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

    async def meddle(self, sql: str, *values: Any) -> None:
        """Break a record by hand, CHECKs and all."""
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

    async def meddle(self, sql: str, *values: Any) -> None:
        def break_it(connection: Any) -> None:
            connection.pragma("ignore_check_constraints", True)
            connection.execute(sql, values)
            connection.pragma("ignore_check_constraints", False)

        await self._writer.run(break_it)


@asynccontextmanager
async def sqlite_under_test(directory: Path) -> AsyncIterator[SqliteUnderTest]:
    clock = OffsetClock()
    store = await SqliteUnderTest.open(directory / "redrive.db", clock)
    store.clock = clock
    try:
        yield store
    finally:
        await store.close()


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
    return list((await store.claim(owner, {number: limit})).claims)


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


async def events_of(store: Store, wanted: EventFilter) -> list[AuditEvent]:
    """Newest first."""
    return list((await store.events(wanted, limit=1_000, below=None)).rows)
