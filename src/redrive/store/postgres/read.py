"""Questions. A list costs its page: a bounded walk along an index, then one statement for what was found."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from redrive.audit.chain import Record
from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Attempt, Item
from redrive.domain.draining import Arrivals
from redrive.domain.health import Tallies
from redrive.domain.ids import EventId, ItemId, first_id_at, recovery_id
from redrive.domain.integration import Integration
from redrive.domain.item import DEAD, OPEN
from redrive.store.assemble import Found, assemble
from redrive.store.port import EventFilter, Page, QueueFilter, StoreInconsistent
from redrive.store.postgres.connection import Connection
from redrive.store.postgres.work import SQL
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

Order = Literal["ASC", "DESC"]
MOST_SCANNED = 5_000  # items a page looks at before it ends short
CHUNK = 500
TOP = (1 << 63) - 1
_NARROWEST_FIRST = ("incident", "request_id", "target_id", "integration_id", "tenant", "actor", "event_type")
# As its index has it.
_INCIDENT = "(record::json #>> '{metadata,incident}')"
_HAS_INCIDENT = """ AND strpos(record, '"incident":') > 0"""
_NUMBER = "(SELECT number FROM integration WHERE integration_id = $3)"
# How the columns of `items` fall into the parts of Found; the cycles are the last.
_PARTS = (slice(0, 14), slice(14, 22), slice(22, 34), slice(34, 50), slice(50, 60), slice(60, 63))
_CYCLES, _ATTEMPTS, _HEAD = 63, 64, 65


async def integrations(connection: Connection, after: int) -> list[Integration]:
    """Those that changed after a version of the catalogue."""
    return [to_integration(row) for row in await _rows(connection, "integrations", after)]


async def items(connection: Connection, integration: int, ids: Sequence[int], *, whole: bool) -> list[Item]:
    """Items in the order of their *ids*; an id that this integration does not have is left out."""
    asked = (integration, list(ids), whole, False, _names(ids))
    rows = {row[0]: row for row in await _rows(connection, "items", *asked)}
    return [_item(rows[number]) for number in ids if number in rows]


async def history(
    connection: Connection, integration: int, item_id: ItemId
) -> tuple[Item, list[Attempt]] | None:
    """An item with every finished attempt, oldest first; one statement, so of one moment."""
    for row in await _rows(connection, "items", integration, [item_id], True, True, _names([item_id])):
        return _item(row), [to_attempt(tuple(attempt)) for attempt in row[_ATTEMPTS]]
    return None


async def queue(
    connection: Connection, integration: int, wanted: QueueFilter, limit: int, below: int | None
) -> Page[Item]:
    """Walk the narrowest index, newest first, until the page is full or enough was looked at."""
    found: list[Item] = []
    low, high = _bounds(wanted, below)
    query, key = _narrowest(wanted)
    scanned = 0
    while scanned < MOST_SCANNED:
        size = min(CHUNK, limit - len(found) + 1 if scanned == 0 else CHUNK)
        ids = [row[0] for row in await _rows(connection, query, integration, low, high, size, *key)]
        for item in await _all_of(connection, integration, ids):
            if len(found) == limit:
                return Page(found, next_below=high)
            high = item.delivery.id
            if wanted.matches(item):
                found.append(item)
        scanned += len(ids)
        if len(ids) < size:
            return Page(found, next_below=None)
    return Page(found, next_below=high)


async def events(
    connection: Connection, wanted: EventFilter, limit: int, below: EventId | None
) -> Page[AuditEvent]:
    """A page of events, newest first."""
    walks, values = _walks(wanted, _bounds(wanted, below), limit + 1)
    rows = await connection.fetch(_joined("id, record", walks, limit + 1), *values)
    page = [to_event(record) for _, record in rows[:limit]]
    return Page(page, next_below=rows[limit - 1][0] if len(rows) > limit else None)


async def count_events(connection: Connection, wanted: EventFilter, most: int) -> int:
    """How many match, counted up to *most*."""
    walks, values = _walks(wanted, _bounds(wanted, None), most)
    sql = f"SELECT count(*) FROM ({_joined('id', walks, most)}) AS matching"  # noqa: S608 - fixed texts
    return int(await connection.fetchval(sql, *values))


async def records(connection: Connection, wanted: EventFilter, limit: int, above: int) -> list[Record]:
    """The next that match, oldest first."""
    low, high = _bounds(wanted, None)
    walks, values = _walks(wanted, (max(low, above + 1), high), limit, order="ASC")
    rows = await connection.fetch(
        _joined("id, target_id, record, digest", walks, limit, order="ASC"), *values
    )
    return [to_record(row) for row in rows]


def _names(ids: Sequence[int]) -> list[str]:
    return [recovery_id(number) for number in ids]


async def _rows(connection: Connection, query: str, *values: Any) -> list[Row]:
    return [tuple(row) for row in await connection.fetch(SQL[query], *values)]


async def _all_of(connection: Connection, integration: int, ids: Sequence[int]) -> list[Item]:
    found = await items(connection, integration, ids, whole=False)
    if len(found) < len(ids):
        gone = sorted(set(ids) - {item.delivery.id for item in found})
        raise StoreInconsistent(f"item {gone[0]} is queued but was never stored")
    return found


def _item(row: Row) -> Item:
    *parts, cycles, head = (*(row[part] for part in _PARTS), row[_CYCLES], row[_HEAD])
    delivery, live, dead, last_attempt, imported, erased = parts
    return assemble(
        Found(
            delivery=delivery,
            live=_if_there(live),
            dead=_if_there(dead),
            cycles=[tuple(cycle) for cycle in cycles],
            last_attempt=_if_there(last_attempt),
            erased=_if_there(erased),
            imported=imported[1:] if imported[0] is not None else None,
            head=head,
        )
    )


def _if_there(part: Row) -> Row | None:
    """An outer join that found nothing gives nothing but nulls."""
    return None if part[0] is None else part


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


def _walks(
    wanted: EventFilter, bounds: tuple[int, int], most: int, *, order: Order = "DESC"
) -> tuple[list[str], list[Any]]:
    """Along the index of the narrowest thing that is given, in an order; whatever else is given filters.

    The order asks for that index, and no other has it: left to its estimates, the server would walk the
    whole log for an actor that it takes for a common one. What was written of an integration before there was
    one is a walk of its own. A tenant is a walk for each of its integrations.
    """
    given = [(name, value) for name in _NARROWEST_FIRST if (value := getattr(wanted, name)) is not None]
    values = [
        *bounds,
        *(f"{value}." if name == "tenant" else str(value) for name, value in given),
    ]
    others = "".join(f" AND {_condition(name, at)}" for at, (name, _) in enumerate(given[1:], 4))
    if not given:
        return [f"FROM audit WHERE id >= $1 AND id < $2 ORDER BY id {order}"], values
    name, _ = given[0]
    if name == "tenant":
        each = _along("integration", "i.number", others, order)
        what = "id, target_id, record, digest"
        lateral = f"CROSS JOIN LATERAL (SELECT {what} {each} LIMIT {most:d}) of_each"
        return [
            f"FROM integration i {lateral} WHERE {_condition('tenant', 3, 'i.')} ORDER BY id {order}"
        ], values
    if name == "incident":
        return [_along(_INCIDENT, "$3", _HAS_INCIDENT + others, order)], values
    if name != "integration_id":
        return [_along(name, "$3", others, order)], values
    before = _along("integration_id", "$3", f" AND integration = 0{others}", order)
    return [_along("integration", _NUMBER, others, order), before], values


def _condition(name: str, at: int, of: str = "") -> str:
    """That a column, *of* a table, is what parameter *at* says; a tenant's name is how its ids begin."""
    return f"starts_with({of}integration_id, ${at})" if name == "tenant" else f"{of}{name} = ${at}"


def _along(key: str, value: str, others: str, order: Order) -> str:
    first, end = f"({key}, id) >= ({value}, $1)", f"({key}, id) < ({value}, $2)"
    return f"FROM audit WHERE {first} AND {end}{others} ORDER BY {key} {order}, id {order}"


def _joined(what: str, walks: Sequence[str], most: int, *, order: Order = "DESC") -> str:
    """The first rows that some walks come by."""
    # All of it is fixed texts: the values are parameters.
    found = [f"(SELECT {what} {walk} LIMIT {most:d})" for walk in walks]
    if len(found) == 1:
        return found[0]
    both = " UNION ALL ".join(found)
    return f"SELECT {what} FROM ({both}) AS found ORDER BY id {order} LIMIT {most:d}"  # noqa: S608 - fixed texts


def _bounds(wanted: QueueFilter | EventFilter, below: int | None) -> tuple[int, int]:
    """The first id that is wanted, and the first after that which is not."""
    low = 0 if wanted.since is None else first_id_at(wanted.since)
    high = TOP if below is None else below
    return low, high if wanted.until is None else min(high, first_id_at(wanted.until))


def instant(milliseconds: int | None) -> datetime | None:
    """An instant, if there is one."""
    return None if milliseconds is None else from_ms(milliseconds)


async def tallies(connection: Connection, integration: int, since_minute: int) -> Tallies:
    """What came of attempts."""
    last = await connection.fetchrow(SQL["last_minutes"], integration)
    return to_tallies(await connection.fetch(SQL["tallies"], integration, since_minute), last)


async def arrivals(connection: Connection, integration: int, since: datetime) -> Arrivals:
    """How much was accepted."""
    values = (integration, first_id_at(since), ARRIVALS_COUNTED)
    count, first = await connection.fetchrow(SQL["arrivals"], *values)
    return to_arrivals(count, first, since, ARRIVALS_COUNTED)
