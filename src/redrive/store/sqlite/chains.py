"""Chains of audit records in the file."""

from collections.abc import Sequence

import apsw
import msgspec

from redrive.audit.chain import Record
from redrive.domain.ids import ItemId, recovery_id
from redrive.store.chains import Part, Stood
from redrive.store.port import EventFilter
from redrive.store.results import FORGOTTEN
from redrive.store.rows import to_part, to_record, to_stood
from redrive.store.sqlite import operate, read
from redrive.store.sqlite.connection import Do, ask
from redrive.store.sqlite.work import SQL


class SqliteChains:
    """The verbs of `store.chains`; *read* runs what it is given on a connection."""

    def __init__(self, read: Do) -> None:
        self._read = read

    async def records(self, wanted: EventFilter, *, limit: int, above: int) -> Sequence[Record]:
        """Records as they are stored."""
        return await self._read(lambda c: read.records(c, wanted, limit, above))

    async def of(self, targets: Sequence[str]) -> Sequence[Record]:
        """Every record of some targets."""
        return await self._read(
            lambda c: [to_record(row) for target in targets for row in ask(c, SQL["chain"], (target,))]
        )

    async def every(self, *, after: tuple[str, int], limit: int) -> Sequence[Record]:
        """The next records of all targets."""
        values = (*after, limit)
        return await self._read(lambda c: [to_record(row) for row in ask(c, SQL["every_chain"], values)])

    async def whereabouts(self, integration: int, *, above: int, limit: int) -> Sequence[Stood]:
        """Where the next items are."""

        def look(connection: apsw.Connection) -> list[Stood]:
            ids = [number for (number,) in ask(connection, SQL["next_items"], (integration, above, limit))]
            named = msgspec.json.encode([(number, recovery_id(number)) for number in ids]).decode()
            rows = ask(connection, SQL["whereabouts"], (named,))
            return [to_stood(row) for row in sorted(rows, key=lambda row: row[0])]

        return await self._read(look)

    async def jobs_of(self, integration: int, item_id: ItemId) -> Sequence[Part]:
        """The jobs an item was planned for."""
        values = (integration, item_id)
        return await self._read(lambda c: [to_part(row) for row in ask(c, SQL["jobs_of"], values)])

    async def forgotten_before(self) -> int:
        """From where on no record was forgotten."""
        kept = await self._read(lambda c: operate.kept(c, FORGOTTEN))
        return int.from_bytes(kept or b"")
