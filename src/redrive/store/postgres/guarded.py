"""Guarded writes: a change, what is told of it, and the reply to its call, or nothing of it."""

from collections.abc import Sequence
from typing import TypeVar

from redrive.audit.record import AuditEvent
from redrive.domain.ids import IdSequence
from redrive.store.port import Once
from redrive.store.postgres.connection import Connection, Database, Verb
from redrive.store.postgres.operate import remember
from redrive.store.postgres.work import SQL
from redrive.store.results import OutOfOrder

Done = TypeVar("Done")


class Guarded:
    """Writes that fail when an event of theirs would stand before one that was written before it.

    A process with a clock a little ahead of ours made the id of that one. The caller decides anew, with *ids*
    that come after.
    """

    def __init__(self, database: Database, ids: IdSequence) -> None:
        self._database = database
        self._ids = ids

    async def write(
        self,
        change: Verb[bool],
        events: Sequence[AuditEvent],
        once: Once | None = None,
        look_up: Verb[bool | None] | None = None,
    ) -> bool:
        """A change that writes its events, and a stored reply: all of it or, when a guard fails, nothing.

        *look_up* says whether it was written; its events do without.
        """

        async def with_reply(connection: Connection) -> bool:
            async with connection.transaction():
                changed = await change(connection)
                if changed:
                    await remember(connection, once)
                return changed

        verb = change if once is None else with_reply
        return bool(await self.in_order(verb, look_up or if_written(events, True)))

    async def in_order(self, verb: Verb[Done], look_up: Verb[Done | None]) -> Done | None:
        """As `Database.write` has it; None when an event would be out of order, and nothing was written."""
        try:
            return await self._database.write(verb, look_up)
        except OutOfOrder as error:
            self._ids.follow(error.last_event)
            return None


def if_written(events: Sequence[AuditEvent], result: Done) -> Verb[Done | None]:
    """A look-up: *result* when these events are there, which were written in the same transaction."""

    async def look_up(connection: Connection) -> Done | None:
        is_there = events and await connection.fetch(SQL["has_event"], events[0].id)
        return result if is_there else None

    return look_up
