"""Corrected copies of dead items, each in a transaction: at most one of a family is under way."""

from collections.abc import Sequence

from redrive.audit.record import chained
from redrive.domain.ids import ItemId
from redrive.store.port import Edit, Replay
from redrive.store.postgres import operate
from redrive.store.postgres.connection import Connection
from redrive.store.postgres.read import items
from redrive.store.postgres.work import SQL, follows, write_last_events
from redrive.store.rows import delivery_row
from redrive.store.superseding import Ended, Ids, superseded


async def edit(connection: Connection, edit: Edit) -> bool:
    """A copy that is due now, if the item is still as it was judged and the place is free."""
    async with connection.transaction():
        copy = edit.copy
        if not await is_place_free(connection, copy.integration, edit.of):
            return False
        judged = (edit.id, copy.integration, edit.status.value, edit.cycle)
        if not await connection.fetch(SQL["hold_correctable"], *judged):
            return False
        if not await follows(connection, edit.events[0]):
            return False
        await connection.execute(SQL["take_place"], copy.integration, edit.of, copy.id)
        await connection.execute(SQL["insert_copy"], *delivery_row(copy), edit.of)
        await connection.execute(SQL["insert_live"], copy.id, copy.integration, copy.max_attempts)
        await write_last_events(connection, edit.events)
        return True


async def replay(connection: Connection, replay: Replay) -> bool:
    """The next cycle of an item; of a copy, if the place of what that is a copy of is free."""
    of = replay.edit_of
    if of is None:
        return await operate.replay(connection, replay)
    async with connection.transaction():
        if not await is_place_free(connection, replay.integration, of):
            return False
        if not await operate.replay(connection, replay):
            return False
        await connection.execute(SQL["take_place"], replay.integration, of, replay.id)
        return True


async def is_place_free(connection: Connection, integration: int, of: ItemId) -> bool:
    """Whether a copy may stand in for an item: that is neither under way nor done with, and no other does.

    The place is held, before all else: of two that wait for each other one would have to give up. Nothing
    stands in for an item that is forgotten.
    """
    rows = await connection.fetch(SQL["place"], integration, of)
    return bool(rows[0][0]) if rows else not await connection.fetch(SQL["is_known"], integration, of)


async def family(connection: Connection, integration: int, of: ItemId) -> list[ItemId]:
    """Those that are superseded when a copy succeeds: the item, and copies of it that failed."""
    return [row[0] for row in await connection.fetch(SQL["family"], integration, of)]


async def settle(connection: Connection, copies: Sequence[Ended], ids: Ids) -> None:
    """What follows from copies that ended, in the transaction that ends them."""
    for copy in copies:
        if copy.event is None:
            await connection.execute(SQL["free_place"], copy.integration, copy.of, copy.id)
        else:
            await _supersede(connection, copy, ids)


async def _supersede(connection: Connection, copy: Ended, ids: Ids) -> None:
    numbers = await family(connection, copy.integration, copy.of)
    for item in await items(connection, copy.integration, numbers, whole=False):
        event = superseded(copy, item, ids)
        head: bytes | None = await connection.fetchval(SQL["head"], event.target_id)
        [event] = chained(event, after=None if head is None else head.hex())
        await write_last_events(connection, [event])
        await connection.execute(SQL["supersede"], copy.integration, item.delivery.id, copy.id)
