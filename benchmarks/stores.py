"""Stores to measure without the service around them, each with a way around the store to its database."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import apsw
import asyncpg

from benchmarks.harness import SCRATCH
from redrive.clock import SystemClock
from redrive.domain.ids import ID_EPOCH, TIME_SHIFT
from redrive.store.port import Store
from redrive.store.postgres import PostgresStore
from redrive.store.rows import to_ms
from redrive.store.sqlite import SqliteStore
from tests.postgres import a_server

# As the peers' bench sets it, but with autovacuum at the pace it has by default, and as much of the memory as
# PostgreSQL's documentation advises: a quarter.
SHARED_MIB: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (4 << 20)
SERVER: Final = {"shared_buffers": f"{SHARED_MIB}MB", "max_wal_size": "4GB", "autovacuum_naptime": "60s"}
EACH_MS: Final = 5  # items that came in within one millisecond: 5,000 a second
AT_ONCE: Final = 500_000  # rows a statement
Execute = Callable[[str], Awaitable[list[Any]]]


class Subject:
    """A store that was entered, and another connection to its database: SQLite's words for what differs."""

    begin = "BEGIN"
    payload = "x'7b7d'"

    def __init__(self, store: Store, owner: int, execute: Execute) -> None:
        self.store = store
        self.owner = owner
        self.execute = execute

    async def add_integrations(self, count: int) -> None:
        """Numbers 1 to *count*, all of them ours."""
        await self.execute(
            "INSERT INTO integration (integration_id, lifecycle, version, config)"
            f" SELECT 'partner-' || n, 'active', 1, '{{}}' FROM ({_numbers(1, count)}) AS numbers"
        )

    async def fill(self, first: int, last: int, integrations: int, since_ms: int) -> None:
        """Add items *first* to *last*, due one after another from *since_ms* on."""
        for low in range(first, last + 1, AT_ONCE):
            numbers = _numbers(low, min(last, low + AT_ONCE - 1))
            due = f"({since_ms} + n / {EACH_MS})"
            item = f"(({due} - {to_ms(ID_EPOCH)} << {TIME_SHIFT}) + n % {EACH_MS}), n % {integrations} + 1"
            await self.execute(
                "INSERT INTO delivery (id, integration, event_type, request_id, traceparent, created_by,"
                f" max_attempts, content_type, payload) SELECT {item}, 'order.paid', 'req-' || n, '', 'shop',"
                f" 5, 'application/json', {self.payload} FROM ({numbers}) AS numbers"
            )
            await self.execute(
                "INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)"
                f" SELECT {item}, 'pending', 1, 0, 5, {due} FROM ({numbers}) AS numbers"
            )

    async def sizes(self) -> dict[str, int]:
        """Bytes of `live` and of its indexes, by name."""
        rows = await self.execute("SELECT name FROM sqlite_schema WHERE tbl_name = 'live' AND rootpage > 0")
        size = "SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE AND name = "
        return dict([(await self.execute(f"{size}'{name}'"))[0] for (name,) in rows])

    @asynccontextmanager
    async def old_snapshot(self) -> AsyncIterator[None]:
        """A reader that began before what follows, and does not end: what is deleted is kept for it."""
        await self.execute(self.begin)
        await self.execute("SELECT id FROM live LIMIT 1")
        try:
            yield
        finally:
            await self.execute("COMMIT")


class PostgresSubject(Subject):
    """PostgreSQL's words."""

    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    payload = "'{}'"

    async def add_integrations(self, count: int) -> None:
        """Numbers 1 to *count*, all of them ours."""
        await self.execute(
            "INSERT INTO integration (integration_id, lifecycle, version, changed, shards, config)"
            f" SELECT 'partner-' || n, 'active', 1, 1, 1, '{{}}' FROM generate_series(1, {count}) AS n"
        )
        await self.execute("INSERT INTO lane SELECT number, 1, 0 FROM integration")
        await self.store.balance(self.owner)

    async def sizes(self) -> dict[str, int]:
        """Bytes of `live` and of its indexes, by name."""
        return dict(
            await self.execute(
                "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE oid = 'live'::regclass"
                " OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'live'::regclass)"
                " ORDER BY relname"
            )
        )


@asynccontextmanager
async def sqlite() -> AsyncIterator[Subject]:
    """In a file of its own."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="sqlite-") as directory:
        path = Path(directory) / "redrive.db"
        store = await SqliteStore.open(path, SystemClock())
        aside = apsw.Connection(str(path))
        aside.set_busy_timeout(60_000)

        async def execute(sql: str) -> list[Any]:
            return await asyncio.to_thread(lambda: aside.execute(sql).fetchall())

        try:
            yield Subject(store, await store.enter(), execute)
        finally:
            aside.close()
            await store.close()


@asynccontextmanager
async def postgres() -> AsyncIterator[PostgresSubject]:
    """On a server of its own."""
    with a_server(durable=True, **SERVER) as server:
        store = await PostgresStore.open(server.url(), SystemClock())
        aside = await asyncpg.connect(server.url())
        try:
            yield PostgresSubject(store, await store.enter(), aside.fetch)
        finally:
            await aside.close()
            await store.close()


STORES: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[Subject]]]] = {
    "sqlite": sqlite,
    "postgres": postgres,
}


def _numbers(first: int, last: int) -> str:
    return (
        f"WITH RECURSIVE series (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last})"
        " SELECT n FROM series"
    )
