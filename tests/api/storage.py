"""What a service under test keeps everything in: a database of its own, and what only a test does to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw

from redrive.clock import Clock
from redrive.store.port import Store
from redrive.store.postgres import PostgresStore
from redrive.store.postgres.connection import Database
from redrive.store.postgres.migrate import set_up_if_empty
from redrive.store.sqlite import SqliteStore
from tests.store.under_test import meddle_with_postgres, meddle_with_sqlite

# What a call, and nothing else, can write to.
TABLES = ("integration", "delivery", "cycle", "dedupe", "answer", "token")


class Storage(Protocol):
    """A database; what it is asked beside `open` must be asked in the loop of whoever opened it."""

    is_full: bool  # then no commit succeeds, as on a disk that is full
    REFUSE_EVENTS: str
    TAKE_EVENTS_AGAIN: str

    async def open(self, clock: Clock) -> Store:
        """Its store, for one process."""
        ...

    async def meddle(self, sql: str, *values: Any) -> None:
        """Change it past every rule."""
        ...

    async def rows(self) -> dict[str, int]:
        """How many rows each of TABLES has."""
        ...


class SqliteStorage:
    """A file."""

    REFUSE_EVENTS = "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END"
    TAKE_EVENTS_AGAIN = "DROP TRIGGER no_audit"

    def __init__(self, path: Path) -> None:
        self.is_full = False
        self._path = path

    async def open(self, clock: Clock) -> Store:
        store = await SqliteStore.open(self._path, clock)
        await store._writer.run(lambda connection: connection.set_commit_hook(self._check_disk))
        return store

    async def meddle(self, sql: str, *values: Any) -> None:
        with self._connected() as connection:
            meddle_with_sqlite(connection, sql, *values)

    async def rows(self) -> dict[str, int]:
        with self._connected() as connection:
            return {name: connection.execute(f"SELECT count(*) FROM {name}").get for name in TABLES}

    @contextmanager
    def _connected(self) -> Iterator[apsw.Connection]:
        """Beside the service, which may not write."""
        with closing(apsw.Connection(str(self._path))) as connection:
            connection.set_busy_timeout(5_000)
            yield connection

    def _check_disk(self) -> bool:
        """Asked by SQLite before each commit; what it raises undoes the commit."""
        if self.is_full:
            raise apsw.FullError("database or disk is full")
        return False


class PostgresStorage:
    """A database of a server that is there already."""

    REFUSE_EVENTS = "ALTER TABLE audit ADD CONSTRAINT no_audit CHECK (false) NOT VALID"
    TAKE_EVENTS_AGAIN = "ALTER TABLE audit DROP CONSTRAINT IF EXISTS no_audit"

    def __init__(self, url: str) -> None:
        self.is_full = False
        self._url = url

    async def open(self, clock: Clock) -> Store:
        self._database = await FillableDatabase.open(self._url, clock, connections=10)
        self._database.storage = self
        await self._database.run(set_up_if_empty)
        return PostgresStore(self._database, clock, self._url, sends=True)

    async def meddle(self, sql: str, *values: Any) -> None:
        await meddle_with_postgres(self._database, sql, *values)

    async def rows(self) -> dict[str, int]:
        counts = ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in TABLES)
        [found] = await self._database.ask(f"SELECT {counts}")
        return dict(found)


class FillableDatabase(Database):
    """Its sessions only read while the storage is full."""

    storage: PostgresStorage

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        async with super()._session() as session:
            if not self.storage.is_full:
                yield session
                return
            await session.execute("SET default_transaction_read_only = on")
            try:
                yield session
            finally:
                await session.execute("RESET default_transaction_read_only")
