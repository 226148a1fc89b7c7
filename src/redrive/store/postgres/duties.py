"""What one process does for all of them: whoever did it last goes on while it lives."""

from functools import partial
from typing import Final

from redrive.store.postgres.connection import Connection, Database
from redrive.store.postgres.migrate import add_partitions
from redrive.store.postgres.retention import forget_deliveries, forget_events
from redrive.store.postgres.work import SQL

PRUNED_AT_ONCE: Final = 1_000
DUTY_MS: Final = 60 * 60 * 1000  # then anyone may take it over; before, only when its holder is dead


class Duties:
    """Each does nothing, and says 0, when another process has the duty. Bounds are exclusive."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, owner: int, *, before_id: int, before_ms: int) -> int:
        """Forget old idempotency keys and replies, a little at a time so that no transaction grows long.

        The same duty makes the partitions of the weeks ahead, and forgets what duties have run out: whoever
        stepped a job last, for instance.
        """
        if not await self.is_elected("prune", owner):
            return 0
        await self._database.again(add_partitions)
        await self._database.again(lambda c: c.execute(SQL["forget_duties"]))
        return await self._delete_all("prune_keys", before_id) + await self._delete_all(
            "prune_answers", before_ms
        )

    async def forget_deliveries(self, owner: int, *, before_id: int, resolved_before_id: int) -> int:
        """Forget finished deliveries, a week at a time."""
        if not await self.is_elected("forget deliveries", owner):
            return 0
        return await self._database.again(
            partial(forget_deliveries, before=before_id, resolved_before=resolved_before_id)
        )

    async def forget_events(self, owner: int, *, before_id: int) -> int:
        """Forget old events, a week at a time."""
        if not await self.is_elected("forget events", owner):
            return 0
        return await self._database.again(partial(forget_events, before=before_id))

    async def forget_tallies(self, owner: int, *, before: int) -> int:
        """Forget what came of attempts before a minute."""
        return (
            await self._delete_all("forget_tallies", before) if await self.is_elected("prune", owner) else 0
        )

    async def is_elected(self, duty: str, owner: int) -> bool:
        """Whether *owner* has a *duty*, from now on if nobody had it."""
        return bool(await self._database.again(lambda c: c.fetch(SQL["take_duty"], duty, owner, DUTY_MS)))

    async def _delete_all(self, query: str, bound: int) -> int:
        """How many rows went."""

        async def delete(connection: Connection) -> int:
            told = str(await connection.execute(SQL[query], bound, PRUNED_AT_ONCE))
            return int(told.rpartition(" ")[2])

        gone = 0
        while (count := await self._database.again(delete)) == PRUNED_AT_ONCE:
            gone += count
        return gone + count
