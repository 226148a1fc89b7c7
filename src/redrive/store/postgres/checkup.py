"""What there is to know of a server and of the database on it, asked in one read-only transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from redrive.clock import Clock
from redrive.domain.ids import instant_of
from redrive.store.named import load_queries
from redrive.store.port import StoreUnavailable
from redrive.store.postgres.connection import Connection, connect, translated
from redrive.store.postgres.migrate import PARTITIONED, check_schema
from redrive.store.rows import from_ms

SQL: Final = load_queries("redrive.store.postgres", "checkup.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server, and what we may do there: the columns of `server`."""

    version: str
    version_number: int
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    asynchronous_standbys: int
    is_standby: bool
    is_read_only: bool
    connections: int  # how many there may be, besides those kept for a superuser
    connected: int
    role: str
    schema: str | None
    may_create: bool | None
    has_schema: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who keeps dead rows from being cleaned up, and for how long; `seconds` is None where nobody tells."""

    who: str
    seconds: float | None
    transactions: int
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A live process; one whose lease is over waits for another to bury it."""

    process: str
    sends: bool
    lease_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the database holds, as far as it matters here."""

    processes: Sequence[Process]
    lanes: int
    ownerless: int
    longest_timeout: float | None  # among the integrations that have their own
    reaches: Mapping[str, datetime]  # up to when each table has partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything. `content` is None where there is none, or another schema than this version's."""

    server: Server
    now: datetime  # by the server's clock
    seconds_apart: float  # how far this machine's clock is ahead of it
    holder: Holder | None
    trouble_with_schema: str | None
    content: Content | None


async def check_up(url: str, clock: Clock) -> Facts:
    """Look at the database of *url*, and change nothing; StoreUnavailable when it cannot be reached."""
    connection = await connect(url)
    try:
        with translated():
            async with connection.transaction(readonly=True):
                return await _look(connection, clock)
    finally:
        await connection.close()


async def _look(connection: Connection, clock: Clock) -> Facts:
    server = Server(**dict(await connection.fetchrow(SQL["server"])))
    before = clock.now()
    now = from_ms(await connection.fetchval(SQL["time"]))
    here = before + (clock.now() - before) / 2
    holder = await connection.fetchrow(SQL["oldest"])
    trouble = await _trouble_with_schema(connection) if server.has_schema else None
    return Facts(
        server=server,
        now=now,
        seconds_apart=(here - now).total_seconds(),
        holder=None if holder is None else Holder(**dict(holder)),
        trouble_with_schema=trouble,
        content=await _content(connection) if server.has_schema and trouble is None else None,
    )


async def _trouble_with_schema(connection: Connection) -> str | None:
    try:
        await check_schema(connection)
    except StoreUnavailable as error:
        return str(error)
    return None


async def _content(connection: Connection) -> Content:
    processes = [Process(**dict(row)) for row in await connection.fetch(SQL["processes"])]
    lanes, ownerless = await connection.fetchrow(SQL["lanes"])
    ends = {table: await connection.fetchval(SQL["ends"], table) for table in PARTITIONED}
    return Content(
        processes=processes,
        lanes=lanes,
        ownerless=ownerless,
        longest_timeout=await connection.fetchval(SQL["longest_timeout"]),
        reaches={table: instant_of(end) for table, end in ends.items()},
    )
