"""Groups of failures in the database."""

from collections.abc import Sequence
from datetime import datetime

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Resolution
from redrive.domain.failure_group import COUNTED_AT_MOST, Comment, DeadItem, FailureGroup, GroupState
from redrive.domain.ids import first_id_at, recovery_id
from redrive.store.groups import Closed, GroupPage, Position
from redrive.store.port import Import, Once, Page
from redrive.store.postgres.connection import Connection, Database
from redrive.store.postgres.guarded import Guarded
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


class PostgresGroups:
    """The verbs of `store.groups`."""

    def __init__(self, database: Database, guarded: Guarded) -> None:
        self._database = database
        self._guarded = guarded

    async def page(
        self, integration: int, state: GroupState | None, *, limit: int, below: Position | None
    ) -> GroupPage:
        """A page of groups."""
        values = (integration, state, *(below or (TOP, TOP)), limit + 1, COUNTED_AT_MOST + 1)
        rows = await self._database.ask(SQL["groups"], *values)
        found = [to_group(tuple(row)) for row in rows[:limit]]
        return GroupPage(found, position_of(found[-1]) if len(rows) > limit else None)

    async def group(self, integration: int, number: int) -> FailureGroup | None:
        """One group."""
        rows = await self._database.ask(SQL["group"], integration, number, COUNTED_AT_MOST + 1)
        return to_group(tuple(rows[0])) if rows else None

    async def comments(self, integration: int, group: int, *, limit: int, below: int | None) -> Page[Comment]:
        """A page of comments."""
        rows = await self._database.ask(SQL["comments"], integration, group, below or TOP, limit + 1)
        found = [to_comment(tuple(row)) for row in rows[:limit]]
        return Page(found, found[-1].id if len(rows) > limit else None)

    async def judge(
        self, before: FailureGroup, after: FailureGroup, event: AuditEvent, once: Once | None
    ) -> bool:
        """Replace what people said of a group."""
        named = (before.integration, before.cause.number)
        values = (*named, *judgement_row(after.judgement), *judgement_row(before.judgement))

        async def judge(connection: Connection) -> bool:
            async with connection.transaction():
                judged = await connection.fetch(SQL["judge"], *values)
                if judged:
                    await write_last_events(connection, [event])
                return bool(judged)

        return await self._guarded.write(judge, [event], once)

    async def comment(self, comment: Comment, event: AuditEvent, once: Once | None) -> bool:
        """Add a comment."""
        of_group = (comment.integration, comment.group)

        async def write(connection: Connection) -> bool:
            async with connection.transaction():
                is_there = await connection.fetch(SQL["hold_group"], *of_group)
                if is_there:
                    values = (comment.id, *of_group, comment.written_by, comment.text)
                    await connection.execute(SQL["add_comment"], *values)
                    await write_last_events(connection, [event])
                return bool(is_there)

        return await self._guarded.write(write, [event], once)

    async def unresolved(
        self, integration: int, group: int, *, died_by: datetime, after: int, limit: int
    ) -> Sequence[DeadItem]:
        """Items that wait in a group. What died by then was accepted before."""
        before = first_id_at(died_by + MILLISECOND)
        values = (integration, group, after, before, to_ms(died_by), limit)

        async def look(connection: Connection) -> list[DeadItem]:
            rows = await connection.fetch(SQL["unresolved"], *values)
            ids = [row[0] for row in rows]
            # Read after the items: who wrote the next record of one changed its row: it is not closed then.
            heads = await connection.fetch(SQL["heads"], ids, [recovery_id(number) for number in ids])
            return [to_dead_item(tuple(row), head) for row, (head,) in zip(rows, heads, strict=True)]

        return await self._database.run(look)

    async def close_items(
        self, integration: int, items: Sequence[Closed], resolution: Resolution
    ) -> int | None:
        """Close items of a group."""
        return await self._guarded.in_order(
            lambda c: _close_items(c, integration, items, resolution), lambda c: _closed_items(c, items)
        )


async def count(connection: Connection, item: Import) -> None:
    """Count an import among the failures of its cause."""
    if item.cause is not None:
        seen = (to_ms(item.delivery.created_at), item.delivery.id)
        await connection.execute(
            SQL["count_failure"], item.delivery.integration, *cause_row(item.cause), *seen
        )


async def _close_items(
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


async def _closed_items(connection: Connection, items: Sequence[Closed]) -> int | None:
    """How many were closed by a call that nobody answered for; None: none, it did not happen."""
    count = await connection.fetchval(SQL["closed_items"], [one.event.id for one in items])
    return int(count) or None
