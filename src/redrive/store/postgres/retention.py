"""Forgetting by partition: a week goes as a whole, and what is still open of it is carried over first."""

from typing import Any, Final

from redrive.domain.ids import instant_of
from redrive.store.postgres.work import SQL
from redrive.store.rows import to_ms

LOCK_SECONDS: Final = 2
PATIENCE_SECONDS: Final = 3600.0
# The table, and the column that names the item; locked in the order in which everybody else reads them.
HISTORY: Final = (("delivery", "id"), ("attempt", "item"))


async def forget_deliveries(connection: Any, before: int, resolved_before: int) -> int:
    """Forget what is done with of the weeks that end before an id; how many deliveries went.

    What was resolved stays until its week ends before another id, which is not later.
    """
    gone = 0
    for week, end in await _weeks(connection, "delivery", before):
        gone += await _forget_week(connection, week, min(end, resolved_before))
    await connection.execute(SQL["forget_cycles"], before)
    await connection.execute(SQL["forget_imported"], before)
    await connection.execute(SQL["forget_erased"], before)
    await _forget_groups(connection, to_ms(instant_of(before)))
    await connection.execute(SQL["forget_edits"], before)
    return gone


async def forget_events(connection: Any, before: int) -> int:
    """Drop the weeks of the log that end before an id, and before all open work; how many events went."""
    bound = min(before, await connection.fetchval(SQL["oldest_open"]) or before)
    gone = 0
    for week, end in await _weeks(connection, "audit", bound):
        async with connection.transaction():
            await _hurry(connection)
            count = f"SELECT count(*) FROM audit_w{week:04d}"  # noqa: S608 - a number of ours
            gone += await connection.fetchval(count, timeout=PATIENCE_SECONDS)
            await connection.execute(f"DROP TABLE audit_w{week:04d}")
            await connection.execute(SQL["note_forgotten"], end)
    return gone


async def _forget_groups(connection: Any, before_ms: int) -> None:
    """Those that were not seen since, some at a time, for nobody can count a failure meanwhile."""
    while cold := await connection.fetch(SQL["cold_groups"], before_ms):
        integrations, numbers = (list(column) for column in zip(*cold, strict=True))
        async with connection.transaction():
            await _hurry(connection)
            await connection.execute(SQL["hold_counts"])
            await connection.execute(SQL["forget_groups"], before_ms, integrations, numbers)


async def _forget_week(connection: Any, week: int, resolved_end: int) -> int:
    """All of it in one transaction: an item has its attempts, and its place, for as long as it is there."""
    async with connection.transaction():
        await _hurry(connection)
        await connection.execute(SQL["forget_resolved"], resolved_end, timeout=PATIENCE_SECONDS)
        counts = [await _carry_over(connection, table, item, week) for table, item in HISTORY]
        return counts[0]


async def _carry_over(connection: Any, table: str, item: str, week: int) -> int:
    """Put a partition with nothing but open work in the place of one with more; how many rows went."""
    name = f"{table}_w{week:04d}"
    is_open = SQL["is_open"].replace("{item}", item)
    count = f"SELECT count(*) FROM {name} old WHERE NOT ({is_open})"  # noqa: S608 - names of ours
    done = await connection.fetchval(count, timeout=PATIENCE_SECONDS)
    if done:
        bounds = await connection.fetchval(SQL["bounds"], name)
        await connection.execute(
            f"ALTER TABLE {table} DETACH PARTITION {name};"  # noqa: S608 - names of ours
            f"ALTER TABLE {name} RENAME TO {name}_old;"
            f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
            f"INSERT INTO {name} SELECT * FROM {name}_old old WHERE {is_open};"
            f"DROP TABLE {name}_old;"
            f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}",
            timeout=PATIENCE_SECONDS,
        )
    return int(done)


async def _weeks(connection: Any, table: str, before: int) -> list[tuple[int, int]]:
    """A table's partitions with nothing from *before* on, the oldest first; each with the id it ends at."""
    return [(week, end) for week, end in await connection.fetch(SQL["weeks"], table) if end <= before]


async def _hurry(connection: Any) -> None:
    """Everybody waits behind a lock on a whole table: rather give up, and try again in the next round.

    Once it is there, what is to be done may take its time.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL statement_timeout = 0")
