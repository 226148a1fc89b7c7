"""Recording what came of attempts, and what follows for the copies that ended."""

from collections.abc import Callable, Sequence
from datetime import datetime

from redrive.domain.ids import EventId, IdSequence, ItemId
from redrive.domain.item import RetryAt
from redrive.store.port import Result
from redrive.store.postgres import copies, work
from redrive.store.postgres.connection import Connection, Database, Unsettled
from redrive.store.postgres.cursors import Cursors
from redrive.store.postgres.work import SQL
from redrive.store.results import Numbers, OutOfOrder, one_each, which_are
from redrive.store.rows import to_ms
from redrive.store.superseding import Ended, Ids, IdsMissing, ended_copies


class Recording:
    """Knows which results may be written although nobody could learn it. *cursors*: of this incarnation."""

    def __init__(self, database: Database, ids: IdSequence, cursors: Callable[[], Cursors]) -> None:
        self._database = database
        self._ids = ids
        self._cursors = cursors
        self._unsettled: set[Numbers] = set()

    async def record(self, owner: int, results: Sequence[Result], *, now: datetime) -> Sequence[bool]:
        """Write attempts, steps and events. False: that claim was lost and nothing of it was written."""
        while ended := ended_copies(results):
            ids = await self.ids_for(ended, now)
            try:
                return await self._record(owner, results, ids)
            except OutOfOrder as error:
                self._ids.follow(error.last_event)
            except IdsMissing:
                continue
        return await self._record(owner, results)

    async def ids_for(self, ended: Sequence[Ended], now: datetime) -> Ids:
        """Ids for the events of what copies that ended supersede."""
        ids: dict[ItemId, EventId] = {}
        for copy in ended:
            if copy.event is not None:
                rows = await self._database.ask(SQL["family"], copy.integration, copy.of)
                ids |= {row[0]: EventId(self._ids.next(now)) for row in rows}
        return ids

    async def _record(
        self, owner: int, results: Sequence[Result], superseding: Ids | None = None
    ) -> Sequence[bool]:
        chosen = one_each(results)
        once = list(chosen.values())

        async def record(connection: Connection) -> set[Numbers]:
            if superseding is None:
                return await work.record(connection, owner, once)
            async with connection.transaction():
                won = await work.record(connection, owner, once)
                standing = [result for numbers, result in chosen.items() if numbers in won]
                await copies.settle(connection, ended_copies(standing), superseding)
                return won

        async def look_up(connection: Connection) -> set[Numbers]:
            return await work.recorded(connection, once) or await record(connection)

        try:
            won = await self._database.write(record, look_up)
        except Unsettled:
            self._unsettled.update(chosen)
            raise
        if unsure := [chosen[numbers] for numbers in (chosen.keys() & self._unsettled) - won]:
            won |= await self._database.again(lambda connection: work.recorded(connection, unsure))
        self._unsettled -= chosen.keys()
        for result in once:
            if isinstance(result.step, RetryAt):
                self._cursors().put_back(result.claim.delivery.integration, to_ms(result.step.due_at))
        return which_are((chosen[numbers] for numbers in chosen.keys() & won), results)
