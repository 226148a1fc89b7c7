"""Groups of failures in the file."""

from collections.abc import Sequence
from datetime import datetime

import apsw

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Resolution
from redrive.domain.failure_group import COUNTED_AT_MOST, Comment, DeadItem, FailureGroup, GroupState
from redrive.domain.ids import first_id_at, recovery_id
from redrive.store.groups import Closed, GroupPage, Position
from redrive.store.port import Import, Once, Page
from redrive.store.rows import (
    MILLISECOND,
    cause_row,
    judgement_row,
    position_of,
    to_comment,
    to_dead_item,
    to_group,
    to_ms,
)
from redrive.store.sqlite.connection import Do, ask
from redrive.store.sqlite.guarded import guarded
from redrive.store.sqlite.work import SQL, follows, head, write_events

TOP = (1 << 63) - 1


class SqliteGroups:
    """The verbs of `store.groups`; *read* and *write* run what they are given on a connection."""

    def __init__(self, read: Do, write: Do) -> None:
        self._read = read
        self._write = write

    async def page(
        self, integration: int, state: GroupState | None, *, limit: int, below: Position | None
    ) -> GroupPage:
        """A page of groups."""
        below_ms, number = below or (TOP, TOP)
        values = {
            "integration": integration,
            "state": state,
            "below_ms": below_ms,
            "below": number,
            "most": COUNTED_AT_MOST + 1,
            "limit": limit + 1,
        }
        rows = await self._read(lambda c: ask(c, SQL["groups"], values))
        found = [to_group(row) for row in rows[:limit]]
        return GroupPage(found, position_of(found[-1]) if len(rows) > limit else None)

    async def group(self, integration: int, number: int) -> FailureGroup | None:
        """One group."""
        values = {"integration": integration, "number": number, "most": COUNTED_AT_MOST + 1}
        rows = await self._read(lambda c: ask(c, SQL["group"], values))
        return to_group(rows[0]) if rows else None

    async def comments(self, integration: int, group: int, *, limit: int, below: int | None) -> Page[Comment]:
        """A page of comments."""
        values = (integration, group, below or TOP, limit + 1)
        rows = await self._read(lambda c: ask(c, SQL["comments"], values))
        found = [to_comment(row) for row in rows[:limit]]
        return Page(found, found[-1].id if len(rows) > limit else None)

    async def judge(
        self, before: FailureGroup, after: FailureGroup, event: AuditEvent, once: Once | None
    ) -> bool:
        """Replace what people said of a group."""
        named = (before.integration, before.cause.number)
        values = (*judgement_row(after.judgement), *named, *judgement_row(before.judgement))
        return await self._write(guarded(lambda c: bool(ask(c, SQL["judge"], values)), [event], once))

    async def comment(self, comment: Comment, event: AuditEvent, once: Once | None) -> bool:
        """Add a comment."""
        values = (comment.id, comment.written_by, comment.text, comment.integration, comment.group)
        return await self._write(guarded(lambda c: bool(ask(c, SQL["add_comment"], values)), [event], once))

    async def unresolved(
        self, integration: int, group: int, *, died_by: datetime, after: int, limit: int
    ) -> Sequence[DeadItem]:
        """Items that wait in a group. What died by then was accepted before."""
        before = first_id_at(died_by + MILLISECOND)
        values = (integration, group, after, before, to_ms(died_by), limit)

        def look(connection: apsw.Connection) -> list[DeadItem]:
            rows = ask(connection, SQL["unresolved"], values)
            return [to_dead_item(row, head(connection, recovery_id(row[0]))) for row in rows]

        return await self._read(look)

    async def close_items(
        self, integration: int, items: Sequence[Closed], resolution: Resolution
    ) -> int | None:
        """Close items of a group."""
        what = (to_ms(resolution.resolved_at), resolution.resolved_by, resolution.reason)

        def close(connection: apsw.Connection) -> int:
            closed = []
            for one in items:
                values = (*what, one.item.id, integration, one.item.status, one.item.cycle)
                if follows(connection, one.event) and ask(connection, SQL["resolve"], values):
                    closed.append(one.event)
            write_events(connection, closed)
            return len(closed)

        return await self._write(close)


def count(connection: apsw.Connection, item: Import) -> None:
    """Count an import among the failures of its cause."""
    if item.cause is not None:
        at, delivery = to_ms(item.delivery.created_at), item.delivery
        values = (delivery.integration, *cause_row(item.cause), 1, at, at, delivery.id)
        connection.execute(SQL["count_failures"], values)


def forget(connection: apsw.Connection, before: datetime, limit: int) -> int:
    """Forget some groups that were not seen since, and in which nothing waits; how many went."""
    old = ask(connection, SQL["old_groups"], (to_ms(before), limit))
    for part in ("forget_group", "forget_comments"):
        connection.executemany(SQL[part], old)
    return len(old)
