"""Groups of failures: questions, and what people say of them."""

from collections.abc import Sequence
from datetime import datetime

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Resolution
from redrive.domain.failure_group import COUNTED_AT_MOST, Comment, DeadItem, FailureGroup, GroupState
from redrive.domain.ids import first_id_at, recovery_id
from redrive.store.port import Closed, GroupPage, Import, Page, Position
from redrive.store.postgres.connection import Connection
from redrive.store.postgres.work import SQL, write_last_events
from redrive.store.results import OutOfOrder
from redrive.store.rows import (
    MILLISECOND,
    cause_row,
    event_row,
    judgement_row,
    position_of,
    previous_of,
    to_comment,
    to_dead_item,
    to_group,
    to_ms,
)

TOP = (1 << 63) - 1


async def groups(
    connection: Connection,
    integration: int,
    state: GroupState | None,
    limit: int,
    below: Position | None,
) -> GroupPage:
    """A page of them, the last seen first."""
    place = below or (TOP, TOP)
    rows = await connection.fetch(SQL["groups"], integration, state, *place, limit + 1, COUNTED_AT_MOST + 1)
    found = [to_group(tuple(row)) for row in rows[:limit]]
    return GroupPage(found, position_of(found[-1]) if len(rows) > limit else None)


async def group(connection: Connection, integration: int, number: int) -> FailureGroup | None:
    """One of them."""
    row = await connection.fetchrow(SQL["group"], integration, number, COUNTED_AT_MOST + 1)
    return None if row is None else to_group(tuple(row))


async def comments(
    connection: Connection, integration: int, number: int, limit: int, below: int | None
) -> Page[Comment]:
    """What was written about one, newest first."""
    rows = await connection.fetch(SQL["comments"], integration, number, below or TOP, limit + 1)
    found = [to_comment(tuple(row)) for row in rows[:limit]]
    return Page(found, found[-1].id if len(rows) > limit else None)


async def judge(connection: Connection, before: FailureGroup, after: FailureGroup, event: AuditEvent) -> bool:
    """Replace what people said of it, if nobody else did since it was read; with the event."""
    async with connection.transaction():
        values = (*judgement_row(after.judgement), *judgement_row(before.judgement))
        judged = await connection.fetch(SQL["judge"], before.integration, before.cause.number, *values)
        if judged:
            await write_last_events(connection, [event])
        return bool(judged)


async def comment(connection: Connection, given: Comment, event: AuditEvent) -> bool:
    """Write it down, with its event, if the group is there."""
    async with connection.transaction():
        is_there = await connection.fetch(SQL["hold_group"], given.integration, given.group)
        if is_there:
            await connection.execute(
                SQL["add_comment"], given.id, given.integration, given.group, given.written_by, given.text
            )
            await write_last_events(connection, [event])
        return bool(is_there)


async def unresolved(
    connection: Connection, integration: int, number: int, *, died_by: datetime, after: int, limit: int
) -> list[DeadItem]:
    """Items that wait in it, by id. What died by then was accepted before."""
    before = first_id_at(died_by + MILLISECOND)
    rows = await connection.fetch(
        SQL["unresolved"], integration, number, after, before, to_ms(died_by), limit
    )
    ids = [row[0] for row in rows]
    # Read after the items: whoever wrote the next record of one changed its row, which then is not closed.
    heads = await connection.fetch(SQL["heads"], ids, [recovery_id(number) for number in ids])
    return [to_dead_item(tuple(row), head) for row, (head,) in zip(rows, heads, strict=True)]


async def close_items(
    connection: Connection, integration: int, items: Sequence[Closed], resolution: Resolution
) -> int:
    """Resolve those that are still as they were read; OutOfOrder when an event would not be the last."""
    if not items:
        return 0
    rows = [
        (one.item.id, one.item.status, one.item.cycle, *event_row(one.event), previous_of(one.event))
        for one in items
    ]
    closed, later = await connection.fetchrow(
        SQL["close_items"],
        integration, to_ms(resolution.resolved_at), resolution.resolved_by, resolution.reason,
        *map(list, zip(*rows, strict=True)),
    )  # fmt: skip
    if later is not None:
        raise OutOfOrder(later)
    return int(closed)


async def closed_items(connection: Connection, items: Sequence[Closed]) -> int | None:
    """How many were closed by a call that nobody answered for; None: none, it did not happen."""
    count = await connection.fetchval(SQL["closed_items"], [one.event.id for one in items])
    return int(count) or None


async def count(connection: Connection, item: Import) -> None:
    """Count an import among the failures of its cause."""
    if item.cause is not None:
        seen = (to_ms(item.delivery.created_at), item.delivery.id)
        await connection.execute(
            SQL["count_failure"], item.delivery.integration, *cause_row(item.cause), *seen
        )
