"""Forgetting, inside write transactions, a chunk at a time. Open work stays whole, however old it is."""

import apsw

from redrive.store.results import FORGOTTEN_BYTES
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.work import SQL

AT_ONCE = 500
PARTS = (
    "forget_attempts",
    "forget_cycles",
    "forget_imported",
    "forget_erased",
    "forget_edit",
    "forget_dead",
    "forget_delivery",
)


def forget_deliveries(
    connection: apsw.Connection, after: int, before: int, resolved_before: int
) -> tuple[int, int | None]:
    """Forget some of those from *after* to *before* that are done with, resolved ones to *resolved_before*.

    How many went, and the last that was looked at; None when that was all.
    """
    rows = ask(connection, SQL["old_deliveries"], (resolved_before, after, before, AT_ONCE))
    done = [(number,) for number, is_done in rows if is_done]
    for part in PARTS:
        connection.executemany(SQL[part], done)
    return len(done), rows[-1][0] if len(rows) == AT_ONCE else None


def forget_events(connection: apsw.Connection, before: int) -> int:
    """Forget some events from before an id, and from before all open work; how many went."""
    gone = ask(connection, SQL["forget_events"], {"before": before, "most": AT_ONCE})
    if gone:
        bound = max(number for (number,) in gone) + 1
        connection.execute(SQL["note_forgotten"], (bound.to_bytes(FORGOTTEN_BYTES),))
    return len(gone)
