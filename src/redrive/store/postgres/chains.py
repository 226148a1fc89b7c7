"""Chains of audit records in the database."""

from collections.abc import Sequence

from redrive.audit.chain import Record
from redrive.domain.ids import ItemId, parse_recovery_id, recovery_id
from redrive.store.chains import Part, Stood
from redrive.store.port import EventFilter
from redrive.store.postgres import operate, read
from redrive.store.postgres.connection import Connection, Database
from redrive.store.postgres.work import SQL
from redrive.store.results import FORGOTTEN
from redrive.store.rows import to_part, to_record, to_stood


class PostgresChains:
    """The verbs of `store.chains`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def records(self, wanted: EventFilter, *, limit: int, above: int) -> Sequence[Record]:
        """Records as they are stored."""
        return await self._database.run(lambda connection: read.records(connection, wanted, limit, above))

    async def of(self, targets: Sequence[str]) -> Sequence[Record]:
        """Every record of some targets."""
        since = [parse_recovery_id(target) or 0 for target in targets]
        return [to_record(row) for row in await self._database.ask(SQL["chains"], list(targets), since)]

    async def every(self, *, after: tuple[str, int], limit: int) -> Sequence[Record]:
        """The next records of all targets."""
        return [to_record(row) for row in await self._database.ask(SQL["every_chain"], *after, limit)]

    async def whereabouts(self, integration: int, *, above: int, limit: int) -> Sequence[Stood]:
        """Where the next items are, with their last records; these are of one statement."""

        async def look(connection: Connection) -> list[Stood]:
            ids = [row[0] for row in await connection.fetch(SQL["next_items"], integration, above, limit)]
            names = [recovery_id(number) for number in ids]
            rows = await connection.fetch(SQL["whereabouts"], integration, ids, names)
            return [to_stood(tuple(row)) for row in rows]

        return await self._database.run(look)

    async def jobs_of(self, integration: int, item_id: ItemId) -> Sequence[Part]:
        """The jobs an item was planned for."""
        rows = await self._database.ask(SQL["jobs_of"], integration, item_id)
        return [to_part(row) for row in sorted(rows, key=lambda row: row[0])]

    async def forgotten_before(self) -> int:
        """From where on no record was forgotten."""
        kept = await self._database.run(lambda c: operate.kept(c, FORGOTTEN))
        return int.from_bytes(kept or b"")
