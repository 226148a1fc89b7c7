"""Corrected copies of dead items, inside a write transaction: at most one of a family is under way."""

from collections.abc import Sequence
from itertools import compress

import apsw

from redrive.audit.record import chained
from redrive.domain.ids import ItemId
from redrive.store.port import Edit, Result, StoreInconsistent
from redrive.store.results import OutOfOrder
from redrive.store.rows import delivery_row, to_ms
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.read import item
from redrive.store.sqlite.work import SQL, door, write_events
from redrive.store.sqlite.work import record as record_all
from redrive.store.superseding import Ended, Ids, ended_copies, superseded


def edit(connection: apsw.Connection, edit: Edit) -> bool:
    """A copy that is due now, if the item is still as it was judged and the place is free."""
    copy = edit.copy
    if not door(connection, copy.integration).sends:
        return False
    if not ask(connection, SQL["is_correctable"], (edit.id, copy.integration, edit.status.value, edit.cycle)):
        return False
    if not is_place_free(connection, copy.integration, edit.of):
        return False
    connection.execute(SQL["take_place"], (copy.id, edit.of))
    connection.execute(SQL["insert_delivery"], delivery_row(copy))
    connection.execute(SQL["note_edit"], (copy.integration, copy.id, edit.of))
    due_ms = to_ms(copy.created_at)
    connection.execute(SQL["insert_live"], (copy.id, copy.integration, 0, copy.max_attempts, due_ms, None))
    return True


def is_place_free(connection: apsw.Connection, integration: int, of: ItemId) -> bool:
    """Whether a copy may stand in for an item: that is neither under way nor done with, and no other does.

    Nothing stands in for an item that is forgotten.
    """
    rows = ask(connection, SQL["place"], (of, integration))
    return bool(rows[0][0]) if rows else not ask(connection, SQL["is_known"], (of,))


def family(connection: apsw.Connection, integration: int, of: ItemId) -> list[ItemId]:
    """Those that are superseded when a copy succeeds: the item, and copies of it that failed."""
    return [
        ItemId(number) for (number,) in ask(connection, SQL["family"], (integration, of, integration, of))
    ]


def record(connection: apsw.Connection, owner: int, results: Sequence[Result], ids: Ids) -> list[bool]:
    """What came of attempts, copies among them."""
    written = record_all(connection, owner, results)
    _settle(connection, ended_copies(list(compress(results, written))), ids)
    return written


def _settle(connection: apsw.Connection, ended: Sequence[Ended], ids: Ids) -> None:
    for copy in ended:
        if copy.event is None:
            connection.execute(SQL["free_place"], (copy.of, copy.id))
        else:
            _supersede(connection, copy, ids)


def _supersede(connection: apsw.Connection, copy: Ended, ids: Ids) -> None:
    for number in family(connection, copy.integration, copy.of):
        found = item(connection, copy.integration, number)
        if found is None:
            raise StoreInconsistent(f"item {number} is dead but was never stored")
        event = superseded(copy, found, ids)
        for last, head in ask(connection, SQL["last_event_of"], (event.target_id,)):
            if last > event.id:
                raise OutOfOrder(last)
            [event] = chained(event, after=head)
        connection.execute(SQL["supersede"], (copy.id, number))
        write_events(connection, [event])
