"""Connections: what a session is set to, what the server's errors mean, and what a lost one leaves open."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from copy import copy
from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Self, TypeVar

import asyncpg

from redrive.clock import Clock
from redrive.domain.ids import instant_of
from redrive.store.port import StoreInconsistent, StoreUnavailable

Done = TypeVar("Done")
Connection = Any  # asyncpg's pool hands out proxies of its connections, which have no type of their own
Verb = Callable[[Connection], Awaitable[Done]]
Backend = tuple[int, datetime]  # a server process: its id, and when it began

CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 15.0  # how long to wait for the fate of a commit before giving up on knowing it
POLL_SECONDS: Final = 0.1
_NAME: Final = {"application_name": "redrive"}
# The statements here find every row by an index, in the index's order: a plan that was made while a table was
# small must not read all of it when it has grown.
_SETTINGS: Final = {
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_material": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": f"{STATEMENT_SECONDS:g}s",
    "lock_timeout": "10s",
}
_SET_LOCAL: Final = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items())
# What stops a statement and says nothing about it: connections, memory, locks, an operator; and what the
# server refuses: a role, its password or rights (42501), a database, a parameter of the URL (42704).
_TROUBLE: Final = ("08", "25", "28", "3D", "40", "42501", "42704", "53", "55", "57", "58", "XX")
_ALL_BUSY: Final = "every connection to the database is busy"
_MORE: Final = "look at what keeps it busy, or raise database_connections"
_ROLE: Final = "check the role in its address, and its password (PGPASSWORD, or ~/.pgpass)"
_ADVICE: Final = {
    asyncpg.InvalidCatalogNameError: "make it first (`createdb`), or correct the name in its address",
    asyncpg.InvalidAuthorizationSpecificationError: _ROLE,
    asyncpg.InvalidPasswordError: _ROLE,
}

_FIRST_THAT_VARIES: Final = 10_000  # FirstGenbkiObjectId: ids below it were given by hand, for ever
_NOT_ASKED: Final = SimpleNamespace(name="none")  # in the place of a statement that took no other's
_BACKEND: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END_BACKEND: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
)
_UNKNOWN: Final = "the connection to the database was lost, and whether it was written is unknown"


async def connect(url: str) -> Any:
    """A connection of its own, outside every pool."""
    with translated():
        # Without a cache of statements, which a pooler may hand to another server process.
        return await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings=_NAME, statement_cache_size=0
        )


class _Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A session that does not ask what another asked before: what the server's own types are made of.

    asyncpg learns most arrays from the server, in each session anew: two round trips and 5 to 15 ms of the
    server's CPU, just when a burst of calls opens sessions. They are the same in every PostgreSQL.
    """

    _known: ClassVar[dict[frozenset[int], Any]] = {}

    async def _introspect_types(self, typeoids: Collection[int], *how_long: float | None) -> tuple[Any, Any]:
        asked = frozenset(typeoids)
        if (types := self._known.get(asked)) is not None:
            return types, _NOT_ASKED
        types, statement = await super()._introspect_types(typeoids, *how_long)
        if max(asked) < _FIRST_THAT_VARIES:
            self._known[asked] = types
        return types, statement


class Unsettled(StoreUnavailable):
    """It was not possible to learn whether a session that was lost has committed; it may even do so later."""

    may_have_happened = True

    def __init__(self, reason: str, backends: Sequence[Backend]) -> None:
        super().__init__(reason)
        self.backends = backends


class Lost(Exception):
    """A connection ended before the server answered: nobody knows yet whether it committed."""

    def __init__(self, backend: Backend, cause: BaseException) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.backend = backend


class Database:
    """A pool of sessions on one database."""

    def __init__(self, clock: Clock, *, connections: int) -> None:
        self._clock = clock
        self._pool: Any = None
        self._room: AbstractAsyncContextManager[Any] = asyncio.Semaphore(max(1, connections - 1))
        self._since: dict[int, datetime] = {}  # when our server processes began: their ids come again

    @classmethod
    async def open(cls, url: str, clock: Clock, *, connections: int) -> Self:
        """A pool that connects when it is first asked."""
        database = cls(clock, connections=connections)
        with translated():
            database._pool = await asyncpg.create_pool(
                url,
                min_size=0,  # with more the pool reconnects by itself, and prints how that fails
                max_size=connections,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS + CONNECT_SECONDS,
                reset=_keep_session,
                connection_class=_Session,
                max_inactive_connection_lifetime=0,
                **database._how_to_connect(),
            )
        return database

    def _how_to_connect(self) -> dict[str, Any]:
        return {"server_settings": _NAME | _SETTINGS, "init": self._remember}

    def reserved(self) -> Self:
        """The same pool, but with the session that is kept free for what must not wait behind anything."""
        database = copy(self)
        database._room = nullcontext()  # noqa: SLF001 - it is one of us
        return database

    async def close(self) -> None:
        """Close every session, at once when the server does not let go."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def ask(self, query: str, *values: Any) -> list[Any]:
        """The rows of a question."""
        return await self.run(lambda connection: connection.fetch(query, *values))

    async def run(self, verb: Verb[Done]) -> Done:
        """Run *verb* on a session; StoreUnavailable when that is lost midway, for it may be asked again."""
        try:
            return await self._once(verb)
        except Lost as lost:
            raise StoreUnavailable(f"the connection to the database was lost: {lost}") from lost

    async def write(self, verb: Verb[Done], look_up: Verb[Done | None]) -> Done:
        """Run a *verb* that commits. Should nobody answer, *look_up* says what it gave, or None."""
        try:
            return await self._once(verb)
        except Lost as lost:
            found = await self._settled(lost, look_up)
            if found is None:
                raise StoreUnavailable(
                    f"the connection to the database was lost: {lost}; nothing was changed"
                ) from lost
            return found

    async def again(self, verb: Verb[Done]) -> Done:
        """Run a *verb* that may as well run twice: whether a lost one was committed does not matter."""

        async def told(connection: Connection) -> tuple[Done]:
            return (await verb(connection),)  # a verb may well give None

        (done,) = await self.write(told, told)
        return done

    async def _remember(self, connection: Any) -> None:
        pid, since = await connection.fetchrow(_BACKEND)
        self._since[pid] = since

    @asynccontextmanager
    async def _session(self) -> Any:
        with translated():
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await held.enter_async_context(self._room)
                except TimeoutError as error:
                    raise StoreUnavailable(_ALL_BUSY, advice=_MORE) from error
                yield await held.enter_async_context(self._pool.acquire(timeout=CONNECT_SECONDS))

    @asynccontextmanager
    async def _backend(self, connection: Connection) -> AsyncIterator[Backend]:
        """The server process that runs what is run inside."""
        pid = connection.get_server_pid()
        yield pid, self._since[pid]

    async def _once(self, verb: Verb[Done]) -> Done:
        async with self._session() as connection:
            backend: Backend | None = None
            try:
                async with self._backend(connection) as backend:
                    return await verb(connection)
            except (TimeoutError, *_CONNECTION_LOST) as error:
                if isinstance(error, asyncpg.InterfaceError) and _is_open(connection):
                    raise RuntimeError(f"the driver refused a call of ours: {error}") from error
                if isinstance(error, TimeoutError):  # the server says nothing: this session is of no use
                    connection.terminate()
                if backend is None:
                    raise
                raise Lost(backend, error) from error

    async def _settled(self, lost: Lost, look_up: Verb[Done | None]) -> Done | None:
        """Wait until the lost session has ended on the server: only then its commit has happened, or not."""
        until = self._clock.elapsed() + SETTLED_SECONDS
        unsettled = [lost.backend]

        async def look(connection: Connection) -> tuple[bool, Done | None]:
            if not await have_ended(connection, unsettled):
                return False, None
            return True, await look_up(connection)

        while True:
            why = "that session still goes on"
            try:
                is_settled, found = await self._once(look)
                if is_settled:
                    return found
            except Lost as error:  # a look-up may write as well
                unsettled.append(error.backend)
                why = str(error)
            except StoreUnavailable as error:
                why = str(error)
            if self._clock.elapsed() >= until:
                raise Unsettled(f"{_UNKNOWN}: {why}", unsettled)
            await self._clock.sleep(POLL_SECONDS)


class PooledDatabase(Database):
    """Behind a pooler in transaction mode: a session's settings and its server last for a transaction."""

    def _how_to_connect(self) -> dict[str, Any]:
        return {"server_settings": _NAME, "statement_cache_size": 0}

    @asynccontextmanager
    async def _backend(self, connection: Connection) -> AsyncIterator[Backend]:
        async with connection.transaction():
            await connection.execute(_SET_LOCAL)
            pid, since = await connection.fetchrow(_BACKEND)
            yield pid, since


_CONNECTION_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    OSError,
)


def _is_open(connection: Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # the pool took it back, and was closed
        return False


async def _keep_session(_connection: Any) -> None:
    """Nothing to reset: no session here is left with a lock, a setting or a transaction of its own."""


async def have_ended(connection: Connection, backends: Sequence[Backend]) -> bool:
    """Whether server processes are gone; those that are not are told to go."""
    return not [True for backend in backends if await connection.fetch(_END_BACKEND, *backend)]


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's exceptions into the port's; a lost connection is told apart where a verb runs."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
            raise StoreUnavailable(_no_partition(error)) from error
        raise StoreInconsistent(f"a write would break a rule of the store: {error}") from error
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(_TROUBLE):
            advice = _ADVICE.get(type(error), "")
            raise StoreUnavailable(f"the database cannot be used: {error}", advice=advice) from error
        raise
    except asyncpg.InterfaceError as error:
        raise StoreUnavailable(f"the database cannot be used: {error}") from error
    except OSError as error:  # TimeoutError is one
        why = str(error) or "it does not answer"
        advice = "check the host and port of its address, and that PostgreSQL runs there"
        raise StoreUnavailable(f"the database cannot be reached: {why}", advice=advice) from error


def _no_partition(error: asyncpg.CheckViolationError) -> str:
    """No CHECK of ours, which all have names; the detail, in whatever language, has the id in brackets."""
    number = re.search(r"\((\d+)\)", error.detail or "")
    week = f"the week of {instant_of(int(number[1])):%Y-%m-%d}" if number else "this week"
    return (
        f"the database has no partition of {error.table_name} for {week};"
        " `redrive migrate` makes those up to four weeks from now, and so does whoever starts `redrive serve`"
    )
