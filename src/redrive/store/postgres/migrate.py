"""Bringing a database's schema up to this version, and its partitions up to the day."""

from typing import Any, Final

import asyncpg

from redrive.clock import Clock
from redrive.domain.ids import ID_EPOCH, TIME_SHIFT
from redrive.store.migration import Migration, migrations, missing
from redrive.store.port import StoreUnavailable
from redrive.store.postgres.connection import Database, PooledDatabase
from redrive.store.rows import to_ms

LOCK: Final = 0x7265647269766500  # "redrive": the advisory lock of whoever changes the schema
LOCK_SECONDS: Final = 10
PATIENCE_SECONDS: Final = 3600.0  # an index on a big table takes its time
PARTITIONED: Final = ("delivery", "attempt", "audit")
WEEK_MS: Final = 7 * 24 * 60 * 60 * 1000
WEEKS_AHEAD: Final = 4
_BOOK = """
CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at bigint NOT NULL
)
"""

_NOTE = "INSERT INTO migration VALUES ($1, $2, $3, redrive_now())"


async def prepare(url: str, clock: Clock, *, is_pooled: bool = False) -> list[str]:
    """Bring the schema up to this version; what was applied."""
    database = await (PooledDatabase if is_pooled else Database).open(url, clock, connections=1)
    try:
        return await database.run(migrate)
    finally:
        await database.close()


async def migrate(connection: Any) -> list[str]:
    """Bring the schema up to this version, and its partitions up to the day; the names of what was applied.

    One process at a time.
    """
    async with connection.transaction():
        await _alone(connection)
        await connection.execute(_BOOK)
        steps = missing(await _applied(connection), migrations("redrive.store.postgres"))
        for step in steps:
            await _apply(connection, step)
        await _add_partitions(connection)
    return [step.name for step in steps]


async def set_up_if_empty(connection: Any) -> bool:
    """Make the schema where there is none (whether so); StoreUnavailable when there is another version's."""
    is_empty = await connection.fetchval("SELECT to_regclass('migration')") is None
    if is_empty:
        await migrate(connection)
    await check_schema(connection)
    return is_empty


async def check_schema(connection: Any) -> None:
    """StoreUnavailable when the schema is another than this version's."""
    lacking = missing(await _applied(connection), migrations("redrive.store.postgres"))
    if lacking:
        raise StoreUnavailable(
            f"the database lacks {', '.join(step.name for step in lacking)} of this version;"
            " run `redrive migrate`, beside the processes of the older version",
            fatal=True,
        )


async def add_partitions(connection: Any) -> list[str]:
    """Make the partitions of the weeks ahead; the names of the new ones."""
    async with connection.transaction():
        await _alone(connection)
        return await _add_partitions(connection)


async def _alone(connection: Any) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL statement_timeout = 0")
    try:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise StoreUnavailable(
            f"another process has been changing the schema for {LOCK_SECONDS} s; try again when it is done"
        ) from error


async def _apply(connection: Any, step: Migration) -> None:
    try:
        await connection.execute(step.sql, timeout=PATIENCE_SECONDS)
    except asyncpg.LockNotAvailableError as error:
        raise StoreUnavailable(
            f"{step.name} waited {LOCK_SECONDS} s for a table that another session has; nothing was changed:"
            " try again, or end that session (`redrive doctor` names the oldest transaction)"
        ) from error
    await connection.execute(_NOTE, step.number, step.name, step.checksum)


async def _applied(connection: Any) -> dict[int, str]:
    return dict(await connection.fetch("SELECT number, checksum FROM migration"))


async def _add_partitions(connection: Any) -> list[str]:
    now_ms = await connection.fetchval("SELECT redrive_now()")
    first = (now_ms - to_ms(ID_EPOCH)) // WEEK_MS
    made = []
    for table in PARTITIONED:
        last = await connection.fetchval(_LAST_PARTITION, table)
        for week in range(first if last is None else last + 1, first + WEEKS_AHEAD + 1):
            name, low = f"{table}_w{week:04d}", "MINVALUE" if last is None else str(_first_id(week))
            await _add_partition(connection, table, name, low, _first_id(week + 1))
            last = week
            made.append(name)
    return made


async def _add_partition(connection: Any, table: str, name: str, low: str, high: int) -> None:
    """Made beside the table and then attached: that locks no one out who reads or writes."""
    await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
    )


def _first_id(week: int) -> int:
    return week * WEEK_MS << TIME_SHIFT


_LAST_PARTITION = """
SELECT max(substring(c.relname FROM '_w([0-9]+)$')::int)
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = $1::text::regclass
"""
