"""Questions, each answered from one snapshot by a reader's connection."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apsw

from redrive.audit.record import AuditEvent
from redrive.domain.access import Permission
from redrive.domain.delivery import Attempt, Delivery, Evidence, Item, Resolution
from redrive.domain.ids import EventId, ItemId, first_id_at
from redrive.domain.integration import Integration
from redrive.domain.item import DEAD, OPEN, Status
from redrive.domain.outcome import Failed, Succeeded
from redrive.store.port import EventFilter, Page, QueueFilter, StoreInconsistent, Token
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.rows import (
    Row,
    from_ms,
    to_attempt,
    to_choice,
    to_delivery,
    to_event,
    to_evidence,
    to_integration,
)
from redrive.store.sqlite.work import SQL

MOST_SCANNED = 5_000  # items a page looks at before it ends short
CHUNK = 500
TOP = (1 << 63) - 1


def integrations(connection: apsw.Connection) -> list[Integration]:
    """All of them, with their secrets."""
    secrets: dict[int, list[str]] = {}
    for number, value in ask(connection, SQL["secrets"]):
        secrets.setdefault(number, []).append(value)
    return [
        to_integration(row, tuple(secrets.get(row[0], ()))) for row in ask(connection, SQL["integrations"])
    ]


def item(connection: apsw.Connection, integration: int, item_id: ItemId) -> Item | None:
    """One item, whole."""
    rows = ask(connection, SQL["delivery"], (item_id,))
    if not rows or rows[0][1] != integration:
        return None
    return _item(connection, rows[0], whole=True)


def attempts(connection: apsw.Connection, item_id: ItemId) -> list[Attempt]:
    """Every finished attempt, oldest first."""
    return [to_attempt(row) for row in ask(connection, SQL["attempts"], (item_id,))]


def cycle_request_ids(connection: apsw.Connection, item_id: ItemId) -> frozenset[str]:
    """Of the first cycle, and of every replay."""
    first = {row[3] for row in ask(connection, SQL["delivery_without_payload"], (item_id,))}
    return frozenset(first | {row[1] for row in ask(connection, SQL["cycles"], (item_id,))})


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
        if _matches(candidate, wanted):
            found.append(candidate)
    return Page(found, next_below=None)


def events(
    connection: apsw.Connection, wanted: EventFilter, limit: int, below: EventId | None
) -> Page[AuditEvent]:
    """A page of events, newest first."""
    where, values = _conditions(wanted, below)
    sql = f"SELECT id, record FROM audit WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - fixed texts
    rows = ask(connection, sql, (*values, limit + 1))
    page = [to_event(record) for _, record in rows[:limit]]
    return Page(page, next_below=rows[limit - 1][0] if len(rows) > limit else None)


def count_events(connection: apsw.Connection, wanted: EventFilter, most: int) -> int:
    """How many match, counted up to *most*."""
    where, values = _conditions(wanted, None)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM audit WHERE {where} LIMIT ?)"  # noqa: S608 - fixed texts
    [(count,)] = ask(connection, sql, (*values, most))
    return int(count)


def next_due(connection: apsw.Connection) -> dict[int, datetime]:
    """The earliest unclaimed due time of each integration that has one."""
    return {number: from_ms(due) for number, due in ask(connection, SQL["next_due"]) if due is not None}


def to_token(row: Row) -> Token:
    """From the columns of `tokens`."""
    token_id, subject, permissions, created, expires, revoked = row
    return Token(
        token_id=token_id,
        subject=subject,
        permissions=frozenset(to_choice(Permission, name) for name in permissions.split()),
        created_at=from_ms(created),
        expires_at=None if expires is None else from_ms(expires),
        revoked_at=None if revoked is None else from_ms(revoked),
    )


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


def _narrowest(wanted: QueueFilter) -> tuple[str, tuple[str, ...]]:
    if wanted.status in OPEN:
        return "queue_of_live", (str(wanted.status),)
    if wanted.status in DEAD and wanted.failure_code is not None:
        return "queue_of_code", (wanted.failure_code,)
    if wanted.status in DEAD:
        return "queue_of_dead", (str(wanted.status),)
    return "queue_of_all", ()


def _matches(item: Item, wanted: QueueFilter) -> bool:
    return (
        wanted.status in (None, item.status)
        and wanted.failure_code in (None, item.last.failure_code)
        and wanted.event_type in (None, item.delivery.event_type)
        and wanted.resolved in (None, item.resolution is not None)
        and wanted.succeeded in (None, item.status is Status.SUCCEEDED)
    )


def _conditions(wanted: EventFilter, below: EventId | None) -> tuple[str, list[Any]]:
    named = {  # the most selective first
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
    }
    columns = [column for column, value in named.items() if value is not None]
    # `+` hides a column from the planner, which otherwise takes the index that was made last.
    used = [f"{column} = ?" for column in columns[:1]] + [f"+{column} = ?" for column in columns[1:]]
    used += [text for text, value in bounds.items() if value is not None]
    values = [value for value in (*named.values(), *bounds.values()) if value is not None]
    return " AND ".join(used) or "1", values


def _item(connection: apsw.Connection, row: Row, *, whole: bool) -> Item:
    """Put an item together from where it is: live, dead, or neither, which means it succeeded."""
    *columns, payload_size = row
    delivery = to_delivery(tuple(columns))
    last, last_size = _last_attempt(connection, delivery, whole=whole)
    cycles = ask(connection, SQL["cycles"], (delivery.id,))
    place = _place(connection, delivery, last, cycles)
    _check(delivery, place, last, cycles)
    touched = [(delivery.created_at, delivery.created_by)]
    request_id = delivery.request_id
    for _, cycle_request_id, _, opened_ms, opened_by in cycles:
        touched.append((from_ms(opened_ms), opened_by))
        request_id = cycle_request_id
    if last is not None:
        touched.append((last.started_at + last.duration, "redrive"))
    if place.resolution is not None:
        touched.append((place.resolution.resolved_at, place.resolution.resolved_by))
    updated_at, updated_by = max(touched, key=lambda pair: pair[0])
    evidence = _imported(connection, delivery, whole=whole) if last is None else _evidence(last, last_size)
    return Item(
        delivery=delivery,
        payload_size=payload_size,
        status=place.status,
        cycle=place.cycle,
        attempt_count=place.attempt,
        max_attempts=place.max_attempts,
        request_id=request_id,
        next_retry_at=place.next_retry_at,
        last=evidence,
        resolution=place.resolution,
        updated_by=updated_by,
        updated_at=updated_at,
    )


class _Place:
    """Where an item is, and what that place says of it."""

    __slots__ = ("attempt", "cycle", "integration", "max_attempts", "next_retry_at", "resolution", "status")

    def __init__(self, integration: int, status: str, cycle: int, attempt: int, max_attempts: int) -> None:
        self.integration = integration
        self.status = to_choice(Status, status)
        self.cycle = cycle
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.next_retry_at: datetime | None = None
        self.resolution: Resolution | None = None


def _place(
    connection: apsw.Connection, delivery: Delivery, last: Attempt | None, cycles: list[Row]
) -> _Place:
    live = ask(connection, SQL["live"], (delivery.id,))
    dead = ask(connection, SQL["dead"], (delivery.id,))
    if live and dead:
        raise StoreInconsistent(f"{delivery.id} is both unfinished and dead")
    if live:
        *where, due_ms, claimed_by = live[0]
        place = _Place(*where)
        if place.status is Status.RETRYING and claimed_by is None:
            place.next_retry_at = from_ms(due_ms)
        return place
    if dead:
        *where, at, by, why = dead[0]
        place = _Place(*where)
        if at is not None:
            if by is None or why is None:
                raise StoreInconsistent(f"{delivery.id} was resolved by nobody, or for no reason")
            place.resolution = Resolution(from_ms(at), by, why)
        return place
    if last is None or isinstance(last.outcome, Failed):
        raise StoreInconsistent(f"{delivery.id} is neither unfinished nor dead, and did not succeed")
    max_attempts = cycles[-1][2] if cycles else delivery.max_attempts
    return _Place(delivery.integration, Status.SUCCEEDED, last.cycle, last.attempt, max_attempts)


def _check(delivery: Delivery, place: _Place, last: Attempt | None, cycles: list[Row]) -> None:
    """What the tables say of one item must agree, or it is not served."""
    if place.integration != delivery.integration:
        raise StoreInconsistent(f"{delivery.id} is stored under two integrations")
    if [row[0] for row in cycles] != list(range(2, place.cycle + 1)):
        raise StoreInconsistent(f"{delivery.id} is in a cycle that was not opened")
    if last is None:
        return
    if (last.cycle, last.attempt) > (place.cycle, place.attempt):
        raise StoreInconsistent(f"{delivery.id} has more attempts than were counted")
    if isinstance(last.outcome, Succeeded) is not (place.status is Status.SUCCEEDED):
        raise StoreInconsistent(f"{delivery.id} is {place.status}, its last attempt says otherwise")


def _last_attempt(
    connection: apsw.Connection, delivery: Delivery, *, whole: bool
) -> tuple[Attempt | None, int]:
    rows = ask(connection, SQL["last_attempt" if whole else "last_attempt_without_body"], (delivery.id,))
    if not rows:
        return None, 0
    *columns, size = rows[0]
    return to_attempt(tuple(columns)), size or 0


def _imported(connection: apsw.Connection, delivery: Delivery, *, whole: bool) -> Evidence:
    known = ask(connection, SQL["imported" if whole else "imported_without_body"], (delivery.id,))
    return to_evidence(known[0]) if known else Evidence()


def _evidence(last: Attempt, answer_size: int) -> Evidence:
    outcome = last.outcome
    answer = outcome.answer
    failed = outcome if isinstance(outcome, Failed) else None
    return Evidence(
        failure_code=None if failed is None else failed.code,
        failure_detail=None if failed is None else failed.detail,
        last_http_status=None if answer is None else answer.status,
        retryable=last.retryable,
        occurred_at=last.started_at,
        answer=answer,
        answer_size=answer_size,
    )
