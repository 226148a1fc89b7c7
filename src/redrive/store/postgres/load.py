"""Filling an empty database from another: in one transaction, so that all of it is there or nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from redrive.store.named import load_queries
from redrive.store.port import StoreInconsistent
from redrive.store.postgres.connection import CONNECT_SECONDS, Connection, connect, translated
from redrive.store.postgres.migrate import migrate
from redrive.store.rows import Row
from redrive.store.transfer import Copied, Digest, Occupied, Source, Tell

SQL: Final = load_queries("redrive.store.postgres", "load.sql")
OURS: Final = (
    "incarnation",
    "lane",
    "failure_count",
)  # what a source does not have, and an empty database neither
READ_AT_ONCE: Final = 64  # rows; a payload may have 1 MiB
TOLD_EVERY: Final = 256  # rows


async def load(url: str, source: Source, tell: Tell) -> Sequence[Copied]:
    """Copy *source* into the empty database of *url*, and read everything back to compare.

    Raises Occupied when it is not empty, StoreInconsistent when what came out is not what went in.
    """
    connection = await connect(url)
    try:
        with translated():
            async with connection.transaction():
                return await _fill(connection, source, tell)
    except asyncpg.DataError as error:
        raise StoreInconsistent(f"PostgreSQL does not take what is stored: {error}") from error
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: Sequence[str]
    booleans: Sequence[int]  # the places of the columns that are true or false

    def converted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """A source may write a truth as a number."""
        if not self.booleans:
            yield from rows
            return
        for row in rows:
            values = list(row)
            for place in self.booleans:
                values[place] = None if values[place] is None else bool(values[place])
            yield tuple(values)


class _Progress:
    """Counts rows, each of which passes twice: when it is written and when it is read back."""

    def __init__(self, tell: Tell, rows: int) -> None:
        self._tell = tell
        self._passages = max(2 * rows, 1)
        self._passed = 0
        self._stage = ""

    def begin(self, stage: str) -> None:
        """From now on *stage* is what is done."""
        self._stage = stage
        self._tell(stage, self._passed / self._passages)

    def count(self) -> None:
        """One more."""
        self._passed += 1
        if self._passed % TOLD_EVERY == 0:
            self._tell(self._stage, self._passed / self._passages)


async def _fill(connection: Connection, source: Source, tell: Tell) -> list[Copied]:
    await connection.execute(SQL["take_your_time"])
    await migrate(connection)
    tables = [await _table(connection, source, name) for name in source.tables()]
    await _must_be_empty(connection, [*OURS, *(table.name for table in tables)])
    progress = _Progress(tell, sum(source.count(table.name) for table in tables))
    copied = [Copied(table.name, await _write(connection, source, table, progress)) for table in tables]
    await _complete(connection, source)
    for table, written in zip(tables, copied, strict=True):
        await _compare(connection, table, written.digest, progress)
    return copied


async def _table(connection: Connection, source: Source, name: str) -> _Table:
    columns = dict(await connection.fetch(SQL["columns"], name))
    if columns.keys() != set(source.columns(name)):
        raise StoreInconsistent(f"{name} has other columns there: {', '.join(columns) or 'none at all'}")
    return _Table(name, list(columns), [at for at, is_boolean in enumerate(columns.values()) if is_boolean])


async def _must_be_empty(connection: Connection, tables: Sequence[str]) -> None:
    """And stay so: no process may enter, nobody make a token, until all is done."""
    await connection.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
    filled = [
        name
        for name in tables
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {name})")  # noqa: S608 - names of ours
    ]
    if filled:
        raise Occupied(
            f"the database is not empty: there is something in {', '.join(filled)}"
            " (a `redrive serve` that ran on it once is enough)"
        )


async def _write(connection: Connection, source: Source, table: _Table, progress: _Progress) -> Digest:
    digest = Digest()
    progress.begin(f"copying {table.name}")

    def rows() -> Iterator[Row]:
        for row in table.converted(source.rows(table.name, table.columns)):
            digest.take(row)
            progress.count()
            yield row

    await connection.copy_records_to_table(table.name, columns=table.columns, records=rows())
    return digest


async def _complete(connection: Connection, source: Source) -> None:
    """What stands beside the rows: the counters, each past what was copied, and a lane for every shard.

    So no process that comes here has the number of one that made a claim there: those claims are orphans.
    """
    last_number = await connection.fetchval(SQL["last_number"])
    await connection.execute(f"ALTER TABLE integration ALTER COLUMN number RESTART WITH {last_number + 1}")
    await connection.execute(
        f"ALTER TABLE incarnation ALTER COLUMN id RESTART WITH {source.last_incarnation + 1}"
    )
    await connection.execute(SQL["make_lanes"])
    await connection.execute(SQL["set_version"])


async def _compare(connection: Connection, table: _Table, written: Digest, progress: _Progress) -> None:
    found = Digest()
    progress.begin(f"comparing {table.name}")
    query = f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 - names of ours
    async for record in connection.cursor(query, prefetch=READ_AT_ONCE):
        found.take(tuple(record))
        progress.count()
    if found != written:
        raise StoreInconsistent(
            f"{table.name}: {written.rows} rows with {written.bytes} bytes were written, and what was read"
            f" back ({found.rows} rows with {found.bytes} bytes) is not the same"
        )
