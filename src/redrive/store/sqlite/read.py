"""Questions, each answered from one snapshot by a reader's connection."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apsw

from redrive.audit.chain import Record
from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Attempt, Item
from redrive.domain.draining import Arrivals
from redrive.domain.health import Tallies
from redrive.domain.ids import EventId, ItemId, first_id_at, recovery_id
from redrive.domain.integration import Integration
from redrive.domain.item import DEAD, OPEN
from redrive.domain.sharing import Lane, whole
from redrive.domain.traffic import Standing
from redrive.store.assemble import Found, assemble
from redrive.store.port import EventFilter, Page, QueueFilter, StoreInconsistent
from redrive.store.rows import (
    ARRIVALS_COUNTED,
    Row,
    from_ms,
    to_arrivals,
    to_attempt,
    to_event,
    to_integration,
    to_record,
    to_tallies,
)
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.work import SQL

MOST_SCANNED = 5_000  # items a page looks at before it ends short
CHUNK = 500
TOP = (1 << 63) - 1


def integrations(connection: apsw.Connection) -> list[Integration]:
    """All of them."""
    return [to_integration(row) for row in ask(connection, SQL["integrations"])]


def item(connection: apsw.Connection, integration: int, item_id: ItemId) -> Item | None:
    """One item, whole."""
    rows = ask(connection, SQL["delivery"], (item_id,))
    if not rows or rows[0][1] != integration:
        return None
    return _item(connection, rows[0], whole=True)


def history(
    connection: apsw.Connection, integration: int, item_id: ItemId
) -> tuple[Item, list[Attempt]] | None:
    """One item, whole, and every finished attempt, oldest first."""
    found = item(connection, integration, item_id)
    if found is None:
        return None
    return found, [to_attempt(row) for row in ask(connection, SQL["attempts"], (item_id,))]


def queue(
    connection: apsw.Connection,
    integration: int,
    wanted: QueueFilter,
    limit: int,
    below: int | None,
) -> Page[Item]:
    """Walk the narrowest index, newest first, until the page is full or enough was looked at."""
    found: list[Item] = []
    last = below or TOP
    for scanned, number in enumerate(_candidates(connection, integration, wanted, last)):
        if scanned == MOST_SCANNED or len(found) == limit:
            return Page(found, next_below=last)
        last = number
        row = ask(connection, SQL["delivery_without_payload"], (number,))
        if not row:
            raise StoreInconsistent(f"item {number} is queued but was never stored")
        candidate = _item(connection, row[0], whole=False)
        if wanted.matches(candidate):
            found.append(candidate)
    return Page(found, next_below=None)


def events(
    connection: apsw.Connection, wanted: EventFilter, limit: int, below: EventId | None
) -> Page[AuditEvent]:
    """A page of events, newest first."""
    where, values = _matching(wanted, below, limit + 1)
    sql = f"SELECT id, record FROM audit WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - fixed texts
    rows = ask(connection, sql, (*values, limit + 1))
    page = [to_event(record) for _, record in rows[:limit]]
    return Page(page, next_below=rows[limit - 1][0] if len(rows) > limit else None)


def count_events(connection: apsw.Connection, wanted: EventFilter, most: int) -> int:
    """How many match, counted up to *most*."""
    where, values = _matching(wanted, None, most)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM audit WHERE {where} LIMIT ?)"  # noqa: S608 - fixed texts
    [(count,)] = ask(connection, sql, (*values, most))
    return int(count)


def records(connection: apsw.Connection, wanted: EventFilter, limit: int, above: int) -> list[Record]:
    """The next that match, oldest first."""
    where, values = _matching(wanted, None, limit, above=above)
    found = "SELECT id, target_id, CAST(record AS BLOB), digest FROM audit"
    sql = f"{found} WHERE {where} ORDER BY id LIMIT ?"
    return [to_record(row) for row in ask(connection, sql, (*values, limit))]


def next_due(connection: apsw.Connection) -> dict[Lane, datetime]:
    """The earliest unclaimed due time of each integration that has one."""
    rows = ask(connection, SQL["next_due"])
    return {whole(number): from_ms(due) for number, due in rows if due is not None}


def standing(connection: apsw.Connection, integration: int) -> Standing:
    """The open items of an integration, each counted in an index."""
    [(waiting, open_items)] = ask(connection, SQL["standing"], {"number": integration})
    return Standing(waiting, open_items - waiting)


def has_backlog(connection: apsw.Connection, integration: int, until_ms: int) -> bool:
    """Whether something unclaimed was due by then."""
    return bool(ask(connection, SQL["has_backlog"], (integration, until_ms)))


def tallies(connection: apsw.Connection, integration: int, since_minute: int) -> Tallies:
    """What came of attempts."""
    [last] = ask(connection, SQL["last_minutes"], {"number": integration})
    return to_tallies(ask(connection, SQL["tallies"], (integration, since_minute)), last)


def arrivals(connection: apsw.Connection, integration: int, since: datetime) -> Arrivals:
    """How much was accepted."""
    values = (integration, first_id_at(since), ARRIVALS_COUNTED)
    [(count, first)] = ask(connection, SQL["arrivals"], values)
    return to_arrivals(count, first, since, ARRIVALS_COUNTED)


def _candidates(
    connection: apsw.Connection, integration: int, wanted: QueueFilter, below: int
) -> Iterator[int]:
    low = 0 if wanted.since is None else first_id_at(wanted.since)
    high = below if wanted.until is None else min(below, first_id_at(wanted.until))
    query, key = _narrowest(wanted)
    while True:
        rows = ask(connection, SQL[query], (integration, *key, low, high, CHUNK))
        for (number,) in rows:
            yield number
        if len(rows) < CHUNK:
            return
        high = rows[-1][0]


def _narrowest(wanted: QueueFilter) -> tuple[str, tuple[str | int, ...]]:
    if wanted.group is not None:
        return "queue_of_group", (wanted.group,)
    if wanted.status in OPEN:
        return "queue_of_live", (str(wanted.status),)
    if wanted.status in DEAD and wanted.failure_code is not None:
        return "queue_of_code", (wanted.failure_code,)
    if wanted.status in DEAD:
        return "queue_of_dead", (str(wanted.status),)
    return "queue_of_all", ()


# The last events of each integration of a tenant, by the index of each.
_OF_EACH = """id IN (
    SELECT each_one.id FROM integration AS i CROSS JOIN audit AS each_one
     WHERE i.integration_id >= ? AND i.integration_id < ?
       AND each_one.id IN (SELECT id FROM audit WHERE {where} ORDER BY id {order} LIMIT ?))"""
# As its index has it.
_INCIDENT = """instr(record, '"incident":') > 0 AND record ->> '$.metadata.incident'"""


def _matching(
    wanted: EventFilter, below: EventId | None, most: int, *, above: int | None = None
) -> tuple[str, list[Any]]:
    """What narrows the audit log down to the events that are wanted, of which *most* are read.

    They are the last of them, or else the first that are *above* an id.
    """
    if wanted.tenant is None:
        return _conditions(wanted, below, above)
    own = [f"{wanted.tenant}.", f"{wanted.tenant}/"]  # a slash comes right after a dot
    if wanted.incident or wanted.request_id or wanted.target_id or wanted.integration_id:
        where, values = _conditions(wanted, below, above)
        return f"{where} AND +integration_id >= ? AND +integration_id < ?", [*values, *own]
    where, values = _conditions(wanted, below, above, along="integration_id = i.integration_id")
    order = "DESC" if above is None else "ASC"
    return _OF_EACH.format(where=where, order=order), [*own, *values, most]


def _conditions(
    wanted: EventFilter, below: EventId | None, above: int | None, *, along: str | None = None
) -> tuple[str, list[Any]]:
    """*along*: what is found by an index; else the most selective thing that is given."""
    named = {  # the most selective first
        _INCIDENT: wanted.incident,
        "request_id": wanted.request_id,
        "target_id": wanted.target_id,
        "integration_id": wanted.integration_id,
        "actor": wanted.actor,
        "event_type": None if wanted.event_type is None else wanted.event_type.value,
    }
    bounds = {
        "id >= ?": None if wanted.since is None else first_id_at(wanted.since),
        "id < ?": None if wanted.until is None else first_id_at(wanted.until),
        "id < ? ": below,
        "id > ?": above,
    }
    found = [f"{column} = ?" for column, value in named.items() if value is not None]
    led = found if along is None else [along, *found]
    # `+` hides a column from the planner, which otherwise takes the index that was made last.
    used = [*led[:1], *(f"+{condition}" for condition in led[1:])]
    used += [text for text, value in bounds.items() if value is not None]
    values = [value for value in (*named.values(), *bounds.values()) if value is not None]
    return " AND ".join(used) or "1", values


def _item(connection: apsw.Connection, row: Row, *, whole: bool) -> Item:
    """Put an item together from wherever something of it stands."""
    number = row[0]
    last = ask(connection, SQL["last_attempt" if whole else "last_attempt_without_body"], (number,))
    found = Found(
        delivery=row,
        live=_one(ask(connection, SQL["live"], (number,))),
        dead=_one(ask(connection, SQL["dead"], (number,))),
        cycles=ask(connection, SQL["cycles"], (number,)),
        last_attempt=_one(last),
        erased=_one(ask(connection, SQL["erased"], (number,))),
        imported=None if last else _one(ask(connection, SQL[_imported(whole=whole)], (number,))),
        head=_head(connection, number) if whole else None,
    )
    return assemble(found)


def _head(connection: apsw.Connection, number: int) -> str | None:
    rows = ask(connection, SQL["head"], (recovery_id(number),))
    return rows[0][0].hex() if rows and rows[0][0] is not None else None


def _imported(*, whole: bool) -> str:
    return "imported" if whole else "imported_without_body"


def _one(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None
