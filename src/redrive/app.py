"""Wiring: the only module that sees implementations. What the command line starts, it finds here."""

import asyncio
import contextlib
import http.client
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from redrive.api.app import Api
from redrive.api.call import Route
from redrive.api.routes import routes
from redrive.clock import Clock, SystemClock, chance, unique_bytes
from redrive.config import BadSettings, Settings
from redrive.delivery.guard import Guard
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.names import SystemResolver, is_local
from redrive.domain.ids import IdSequence
from redrive.engine.runtime import Engine, Limits
from redrive.engine.tools import Tools
from redrive.store import sqlite
from redrive.store.port import Store, StoreOwned, StoreUnavailable
from redrive.store.sqlite import SqliteStore
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import Started
from redrive.telemetry.log import log_to
from redrive.telemetry.metrics import Metrics

OK, UNAVAILABLE = 0, 8
SWITCH_SECONDS = 0.0005  # a tenth of the default: the writer thread must not wait for a busy loop
IDLE_SECONDS = 75  # how long an idle client's connection is kept


class CannotStart(Exception):
    """The process cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `doctor` found out about one thing."""

    name: str
    ok: bool
    detail: str


def serve(settings: Settings, listener: socket.socket | None = None, leash: int | None = None) -> int:
    """Run the service until it is told to stop; the exit code.

    A *listener* of a parent's is shared with its other processes; a *leash* is a pipe that ends with it.
    """
    check_role(settings)
    _raise_file_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        listener = listener or stack.enter_context(listening(settings))
        loop = stack.enter_context(contextlib.closing(uvloop.new_event_loop()))
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(_serve(settings, listener, leash))


def set_up(settings: Settings) -> None:
    """Make the schema of an empty database; StoreUnavailable when there is another than this version's."""

    async def open_once() -> None:
        async with open_store(settings):
            pass

    asyncio.run(open_once())


def bury(settings: Settings, pid: int) -> int:
    """Tell the store that a process of this machine is surely dead; the exit code."""

    async def tell() -> None:
        store = await _postgres().PostgresStore.open(
            settings.database, SystemClock(), connections=2, is_pooled=settings.database_is_pooled
        )
        try:
            await store.bury(pid)
        finally:
            await store.close()

    asyncio.run(tell())
    return OK


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The store of *settings*, beside whoever owns it; made when there is none."""
    check_role(settings)
    store = await _store(settings, SystemClock())
    try:
        yield store
    finally:
        await store.close()


def migrate(settings: Settings) -> list[str]:
    """Bring the schema up to this version; what was applied. On SQLite nobody may count on the old one."""
    if settings.sqlite_path() is None:
        is_pooled = settings.database_is_pooled
        return asyncio.run(_postgres().prepare(settings.database, SystemClock(), is_pooled=is_pooled))
    return sqlite.migrate(_sqlite_path(settings), SystemClock())


def doctor(settings: Settings) -> list[Finding]:
    """Look at the settings and the store without changing anything."""
    check_role(settings)
    findings = [Finding("role", True, settings.role), *_look_at_store(settings), _look_at_port(settings)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.slots + 256
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    advice = "" if enough else f"; {needed} are needed for {settings.slots} slots: raise `ulimit -n`"
    findings.append(Finding("open files", enough, f"{soft} now, up to {hard}{advice}"))
    return findings


def check_role(settings: Settings) -> None:
    """SQLite belongs to one process, which does everything; several need PostgreSQL."""
    if settings.sqlite_path() is not None and (settings.role != "all" or settings.workers > 1):
        what = f"role {settings.role}" if settings.role != "all" else f"{settings.workers} workers"
        raise BadSettings(
            f"{what}: one process owns a SQLite database and does it all;"
            " several processes need --database postgresql://…"
        )


async def _serve(settings: Settings, listener: socket.socket, leash: int | None) -> int:
    bus, metrics = Bus(), Metrics()
    log_to(bus, level=settings.log_level, form=settings.log_format)
    metrics.listen(bus)
    spans = _trace(settings, bus)
    clock = SystemClock()
    guard = Guard(
        allow_targets=settings.allow_targets,
        allow_ports=frozenset(settings.allow_ports),
        allow_http=settings.allow_http,
        is_local=is_local,
    )
    guard.protect([listener.getsockname()[:2]])
    store = await _store(settings, clock, migrates=True)
    resolver = SystemResolver()
    tools = Tools(store, store.clock, chance, unique_bytes, IdSequence(), bus)
    engine = Engine(
        tools,
        HttpDeliverer(guard, resolver, store.clock),
        settings.defaults(),
        Limits(
            settings.slots,
            settings.max_queued,
            settings.drain_seconds,
            settings.history_days,
            settings.audit_days,
        ),
        allow_http=settings.allow_http,
        sends=settings.role != "api",
    )
    try:
        incarnation = await engine.start()
    except StoreOwned as error:
        await engine.deliverer.close()
        await store.close()
        raise CannotStart(str(error)) from error
    server = _Server(_http(Api(engine, _routes(settings, metrics))))
    stop = _stop_signals(asyncio.get_running_loop(), leash)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    listener.listen()  # uvicorn does it too, but only later: whoever reads `started` may connect
    bus(Started(settings.role, f"{host}:{port}", str(store.describe()["path"]), incarnation))
    reason = await _until_stopped(engine, stop, serving)
    code = OK if not engine.lost.is_set() else UNAVAILABLE
    await _drain(engine, server, serving, stop, reason)
    resolver.close()
    if spans is not None:
        await asyncio.to_thread(spans.close)
    return code


async def _until_stopped(engine: Engine, stop: "_Signals", serving: asyncio.Task[None]) -> str:
    """Until a signal, or until the engine or the server cannot go on; why."""
    waiting = [asyncio.create_task(stop.first.wait()), asyncio.create_task(engine.lost.wait()), serving]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting[:2]:
        task.cancel()
    return engine.why_lost or stop.name or "the HTTP server ended"


async def _drain(
    engine: Engine, server: uvicorn.Server, serving: asyncio.Task[None], stop: "_Signals", reason: str
) -> None:
    """Stop claiming, finish what is in flight, then stop; a second signal stops at once."""
    server.should_exit = True
    draining = asyncio.create_task(engine.drain(at_once=engine.lost.is_set()))
    hurry = asyncio.create_task(_hurry(engine, server, stop))
    aborted = await draining
    await serving
    hurry.cancel()
    await engine.close(reason, aborted)


async def _hurry(engine: Engine, server: uvicorn.Server, stop: "_Signals") -> None:
    await stop.second.wait()
    server.force_exit = True
    engine.worker.abort()


class _Server(uvicorn.Server):
    """uvicorn, leaving the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Signals:
    """SIGTERM and SIGINT: the first asks to drain, the second to stop at once."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.name = ""

    def __call__(self, name: str) -> None:
        (self.second if self.first.is_set() else self.first).set()
        self.name = self.name or name


def _stop_signals(loop: asyncio.AbstractEventLoop, leash: int | None) -> _Signals:
    signals = _Signals()
    if leash is not None:

        def let_go() -> None:
            loop.remove_reader(leash)
            signals("the parent process ended")

        loop.add_reader(leash, let_go)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals, number.name)
    return signals


def _http(api: Api) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=10,
    )


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket is taken first: a port in use is said before anything is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port"
            ) from error
        yield listener


def _routes(settings: Settings, metrics: Metrics) -> list[Route]:
    """Every call; a process that only sends answers those that need no permission."""
    table = routes(metrics)
    return table if settings.role != "worker" else [route for route in table if route.permission is None]


async def _store(settings: Settings, clock: Clock, *, migrates: bool = False) -> Store:
    """*migrates*: whether it is going to be entered, and the schema of a file brought up to date then."""
    if settings.sqlite_path() is not None:
        return await SqliteStore.open(
            _sqlite_path(settings), clock, readers=settings.readers, migrates=migrates
        )
    postgres: Store = await _postgres().PostgresStore.open(
        settings.database,
        clock,
        connections=settings.database_connections,
        lease_seconds=settings.lease_seconds,
        sends=settings.role != "api",
        is_pooled=settings.database_is_pooled,
    )
    return postgres


def _postgres() -> Any:
    try:
        from redrive.store import postgres  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadSettings(f"{error}: install redrive with its extra, redrive[postgres]") from error
    return postgres


def _trace(settings: Settings, bus: Bus) -> Any:
    if not settings.otel:
        return None
    try:
        from redrive.telemetry.otel import AttemptSpans  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadSettings(str(error)) from error
    spans = AttemptSpans()
    spans.listen(bus)
    return spans


def _look_at_store(settings: Settings) -> list[Finding]:
    if settings.sqlite_path() is None:
        return _look_at_postgres(settings)
    path = _sqlite_path(settings).absolute()
    return [*_look_at_database(settings, path), _look_for_owner(path)]


def _look_at_postgres(settings: Settings) -> list[Finding]:
    postgres = _postgres()
    plan = postgres.Plan(
        processes=settings.workers,
        connections=settings.database_connections,
        timeout_seconds=settings.timeout_seconds,
    )
    try:
        facts = asyncio.run(postgres.check_up(settings.database, SystemClock()))
    except StoreUnavailable as error:
        return [Finding("database", False, str(error))]
    found = [Finding(*remark) for remark in postgres.diagnose(facts, plan)]
    return [Finding("database", True, settings.database_address()), *found]


def _look_at_database(settings: Settings, path: Path) -> list[Finding]:
    if not path.exists():
        advice = "is this the directory that `redrive serve` runs in? (it makes one when it starts)"
        return [Finding("database", False, f"there is no database at {path}; {advice}")]

    async def version() -> str:
        async with open_store(settings) as store:
            return str(store.describe()["version"])

    try:
        return [Finding("SQLite", True, asyncio.run(version())), Finding("database", True, str(path))]
    except StoreUnavailable as error:
        return [Finding("database", False, str(error))]


def _look_for_owner(path: Path) -> Finding:
    try:
        owner = sqlite.owner_of(path.resolve())
    except OSError as error:
        return Finding("service", False, f"cannot read {error.filename}: {error.strerror}")
    return Finding(
        "service", True, f"runs on this database ({owner})" if owner else "none runs on this database"
    )


def _look_at_port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        with listening(settings):
            return Finding("port", True, f"{where} is free")
    except CannotStart as error:
        if _is_redrive(settings.host, settings.port):
            return Finding("port", True, f"{where} is answered by a redrive service")
        return Finding("port", False, str(error))


def _is_redrive(host: str, port: int) -> bool:
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart, not listened on
    connection = http.client.HTTPConnection(anywhere.get(host, host), port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(1024).startswith(b'{"status":"ok"')
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _sqlite_path(settings: Settings) -> Any:
    path = settings.sqlite_path()
    assert path is not None  # noqa: S101 - check_role said so
    return path


def _raise_file_limit() -> None:
    """Every attempt in flight holds a socket; the soft limit of 1,024 is a shell's habit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
