"""Groups of failures: questions, and what people say of them, inside a transaction."""

from collections.abc import Sequence
from datetime import datetime

import apsw

from redrive.domain.delivery import Resolution
from redrive.domain.failure_group import COUNTED_AT_MOST, Comment, DeadItem, FailureGroup, GroupState
from redrive.domain.ids import first_id_at, recovery_id
from redrive.store.port import Closed, GroupPage, Import, Page, Position
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
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.work import SQL, follows, head, write_events

TOP = (1 << 63) - 1


def groups(
    connection: apsw.Connection,
    integration: int,
    state: GroupState | None,
    limit: int,
    below: Position | None,
) -> GroupPage:
    """A page of them, the last seen first."""
    below_ms, number = below or (TOP, TOP)
    rows = ask(
        connection,
        SQL["groups"],
        {
            "integration": integration,
            "state": state,
            "below_ms": below_ms,
            "below": number,
            "most": COUNTED_AT_MOST + 1,
            "limit": limit + 1,
        },
    )
    found = [to_group(row) for row in rows[:limit]]
    return GroupPage(found, position_of(found[-1]) if len(rows) > limit else None)


def group(connection: apsw.Connection, integration: int, number: int) -> FailureGroup | None:
    """One of them."""
    values = {"integration": integration, "number": number, "most": COUNTED_AT_MOST + 1}
    rows = ask(connection, SQL["group"], values)
    return to_group(rows[0]) if rows else None


def comments(
    connection: apsw.Connection, integration: int, number: int, limit: int, below: int | None
) -> Page[Comment]:
    """What was written about one, newest first."""
    rows = ask(connection, SQL["comments"], (integration, number, below or TOP, limit + 1))
    found = [to_comment(row) for row in rows[:limit]]
    return Page(found, found[-1].id if len(rows) > limit else None)


def judge(connection: apsw.Connection, before: FailureGroup, after: FailureGroup) -> bool:
    """Replace what people said of it, if nobody else did since it was read."""
    named = (before.integration, before.cause.number)
    values = (*judgement_row(after.judgement), *named, *judgement_row(before.judgement))
    return bool(ask(connection, SQL["judge"], values))


def comment(connection: apsw.Connection, given: Comment) -> bool:
    """Write it down, if the group is there."""
    values = (given.id, given.written_by, given.text, given.integration, given.group)
    return bool(ask(connection, SQL["add_comment"], values))


def unresolved(
    connection: apsw.Connection, integration: int, number: int, *, died_by: datetime, after: int, limit: int
) -> list[DeadItem]:
    """Items that wait in it, by id. What died by then was accepted before."""
    before = first_id_at(died_by + MILLISECOND)
    values = (integration, number, after, before, to_ms(died_by), limit)
    rows = ask(connection, SQL["unresolved"], values)
    return [to_dead_item(row, head(connection, recovery_id(row[0]))) for row in rows]


def close_items(
    connection: apsw.Connection, integration: int, items: Sequence[Closed], resolution: Resolution
) -> int:
    """Resolve those that are still as they were read."""
    what = (to_ms(resolution.resolved_at), resolution.resolved_by, resolution.reason)
    closed = [
        one
        for one in items
        if follows(connection, one.event)
        and ask(
            connection, SQL["resolve"], (*what, one.item.id, integration, one.item.status, one.item.cycle)
        )
    ]
    write_events(connection, [one.event for one in closed])
    return len(closed)


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
