"""Items that are asked for at once, on PostgreSQL: read together, and none before it was asked for."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from redrive.clock import SystemClock
from redrive.domain.delivery import Item
from redrive.domain.ids import ItemId
from redrive.store.postgres import PostgresStore, read
from redrive.store.postgres.connection import Connection
from tests.factories import a_delivery, an_event, an_intake, an_integration
from tests.postgres import Server, a_database


@pytest.fixture
async def opened(postgres: Server) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(await a_database(postgres), SystemClock())
    yield store
    await store.close()


async def test_what_is_asked_for_during_a_reading_is_read_together_after_it(
    opened: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[list[ItemId]] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()
    items = read.items

    async def read_slowly(
        connection: Connection, integration: int, ids: Sequence[ItemId], *, whole: bool
    ) -> list[Item]:
        readings.append(list(ids))
        found = await items(connection, integration, ids, whole=whole)
        begun.set()
        await goes_on.wait()
        return found

    monkeypatch.setattr(read, "items", read_slowly)
    number = await opened.create_integration(an_integration(), an_event(), None)
    assert number is not None
    early, late, later = (a_delivery(number) for _ in range(3))
    await opened.accept([an_intake(early)])
    first = asyncio.create_task(opened.item(number, early.id))
    await begun.wait()

    await opened.accept([an_intake(late), an_intake(later)])  # after that reading has looked
    others = [asyncio.create_task(opened.item(number, one.id)) for one in (late, later)]
    goes_on.set()

    found = [await first, *[await other for other in others]]
    assert [item and item.delivery.id for item in found] == [early.id, late.id, later.id]
    assert readings == [[early.id], [late.id, later.id]]
