"""Wiring: the only module that sees implementations. What the command line starts, it finds here."""

import asyncio
import contextlib
import gc
import resource
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import uvloop
from msgspec import structs

from redrive.api import system
from redrive.api.app import Api
from redrive.api.call import Route
from redrive.api.routes import routes
from redrive.clock import Clock, SystemClock, chance, unique_bytes
from redrive.config import BadSettings, Settings
from redrive.delivery.addresses import Network
from redrive.delivery.guard import Guard
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.names import Resolver, SystemResolver, is_local
from redrive.engine import keys
from redrive.engine.alerts import Alerting
from redrive.engine.jwt import Trust
from redrive.engine.provider import NAMED, Provider
from redrive.engine.runtime import Engine, Limits
from redrive.engine.tools import Tools
from redrive.engine.vault import Vault
from redrive.server import CannotServe, HttpServer, Signals, listening
from redrive.store import sqlite
from redrive.store.port import Store, StoreOwned
from redrive.store.sqlite import SqliteStore
from redrive.store.transfer import Copied, Tell
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import KeyFileMade, LoopFailed, Started, Stopped
from redrive.telemetry.log import log_to
from redrive.telemetry.metrics import Metrics

SWITCH_SECONDS = 0.0005  # a tenth of the default: the writer thread must not wait for a busy loop
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
YOUNG_AT_MOST = 5_000  # containers made and not freed before the garbage collector looks at these


@dataclass(frozen=True, slots=True)
class Ending:
    """How a service came to stop. `is_failure`: nobody asked it to."""

    reason: str
    aborted: int
    is_failure: bool


def serve(settings: Settings, listener: socket.socket | None = None, leash: int | None = None) -> None:
    """Run the service until it is told to stop; CannotServe when it cannot start, or ends otherwise.

    A *listener* of a parent's is shared with its other processes; a *leash* is a pipe that ends with it.
    """
    check_role(settings)
    _raise_file_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as opened:
        listener = listener or opened.enter_context(listening(settings.host, settings.port))
        probed = None
        if settings.metrics_port:
            probed = opened.enter_context(
                listening(settings.host, settings.metrics_port, option="REDRIVE_METRICS_PORT")
            )
        runner = opened.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(_serve(settings, listener, probed, leash))


def set_up(settings: Settings) -> None:
    """Make the schema of an empty database; StoreUnavailable when there is another than this version's."""

    async def open_once() -> None:
        async with open_store(settings):
            pass

    asyncio.run(open_once())


def bury(settings: Settings, pid: int) -> None:
    """Tell the store that a process of this machine is surely dead."""

    async def tell() -> None:
        store = await _postgres().PostgresStore.open(
            settings.database,
            SystemClock(),
            connections=2,
            timeout_seconds=settings.timeout_seconds,
            is_pooled=settings.database_is_pooled,
        )
        try:
            await store.bury(pid)
        finally:
            await store.close()

    asyncio.run(tell())


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


def copy(source: Settings, target: Settings, tell: Tell) -> Sequence[Copied]:
    """Carry everything over from a SQLite file that nobody runs on to an empty PostgreSQL database."""
    with sqlite.exported(_sqlite_path(source)) as whole:
        copied: Sequence[Copied] = asyncio.run(_postgres().load(target.database, whole, tell))
    return copied


def back_up(settings: Settings, to: Path, tell: Tell, *, replaces: bool) -> None:
    """Copy the SQLite file of *settings*, as it is now, to another; it *replaces* one or makes one."""
    sqlite.back_up(_sqlite_path(settings), to, tell, replaces=replaces)


def restore(settings: Settings, backup: Path, tell: Tell) -> Path | None:
    """Put a copy of *backup* in the place of the SQLite file, which nobody may own; where that is kept."""
    return sqlite.restore(_sqlite_path(settings), backup, SystemClock().now(), tell)


def owner(settings: Settings) -> str | None:
    """Who owns the SQLite file of *settings*; None when nobody does."""
    return sqlite.owner_of(_sqlite_path(settings).resolve())


def must_have_a_place(settings: Settings) -> None:
    """Raise StoreUnavailable when the SQLite file of *settings* cannot be where it should."""
    sqlite.must_have_a_place(_sqlite_path(settings).absolute())


async def key_in_use(settings: Settings) -> str | None:
    """The id of the key of the file that the database is sealed under; None when nothing was sealed yet."""
    async with open_store(settings) as store:
        return await keys.in_use(store)


async def rotate_key(settings: Settings, *, renews: bool) -> str | None:
    """Seal the database under a new key, the first of the key file from now on; its id, or None."""
    async with open_store(settings) as store:
        return await keys.rotate(settings.key_path(), store, renews=renews)


def check_keys(settings: Settings) -> tuple[bool, str]:
    """Whether the key file is as it should be, and how it is; StoreUnavailable when it opens no secret."""

    async def look() -> tuple[bool, str]:
        async with open_store(settings) as store:
            return await keys.check(settings.key_path(), store)

    return asyncio.run(look())


def check_up(settings: Settings) -> list[tuple[str, bool, str]]:
    """What the PostgreSQL server has to say: about what, whether that is well, and how it is."""
    postgres = _postgres()
    plan = postgres.Plan(
        processes=settings.workers,
        connections=settings.database_connections,
        timeout_seconds=settings.timeout_seconds,
        lease_seconds=settings.lease_seconds,
    )
    facts = asyncio.run(postgres.check_up(settings.database, SystemClock()))
    return [tuple(remark) for remark in postgres.diagnose(facts, plan)]


def check_role(settings: Settings) -> None:
    """SQLite belongs to one process, which does everything; several need PostgreSQL."""
    if settings.sqlite_path() is not None and (settings.role != "all" or settings.workers > 1):
        what = f"role {settings.role}" if settings.role != "all" else f"{settings.workers} workers"
        raise BadSettings(
            f"{what}: one process owns a SQLite database and does it all;"
            " several processes need --database postgresql://…"
        )


async def _serve(
    settings: Settings, listener: socket.socket, probed: socket.socket | None, leash: int | None
) -> None:
    """Open one thing after the other, serve, and close them in the opposite order, whatever fails."""
    async with contextlib.AsyncExitStack() as opened:
        opened.callback(Signals.forget)  # last of all: what is closed before may have to be hurried
        bus, metrics = Bus(), Metrics()
        log_to(bus, level=settings.log_level, form=settings.log_format)
        metrics.listen(bus)
        _trace(settings, bus, opened)
        listeners = [listener] if probed is None else [listener, probed]
        engine = await _engine(settings, listeners, bus, opened)
        opened.push_async_callback(engine.close)
        _collect_rarely()
        try:
            incarnation = await engine.start()
        except StoreOwned as error:
            raise CannotServe(str(error)) from error
        table = routes(metrics)
        serving = []
        if probed is not None:
            prober = HttpServer(Api(engine, _of_one_process(table)), probed, option="REDRIVE_METRICS_PORT")
            opened.push_async_callback(prober.close)
            serving.append(prober.start())
        server = HttpServer(Api(engine, _routes(settings, table)), listener)
        opened.push_async_callback(server.close)
        signals = _signals(engine, server, leash)  # whoever reads `started` may send one
        serving.append(server.start())
        bus(_started(settings, engine.store, listener, incarnation))
        ending = await _until_stopped(engine, server, serving, signals)
    bus(Stopped(ending.reason, ending.aborted))
    if ending.is_failure:
        raise CannotServe(f"the service stopped: {ending.reason}")


def _collect_rarely() -> None:
    """What was made by now stays: the garbage collector looks at the new alone, and not so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_AT_MOST)


def _started(settings: Settings, store: Store, listener: socket.socket, incarnation: int) -> Started:
    host, port = listener.getsockname()[:2]
    facts = store.describe()
    return Started(
        role=settings.role,
        address=f"{host}:{port}",
        store=facts["path"],
        made_schema=facts["made_schema"],
        incarnation=incarnation,
    )


async def _engine(
    settings: Settings, listeners: list[socket.socket], bus: Bus, opened: contextlib.AsyncExitStack
) -> Engine:
    store = await _store(settings, SystemClock(), migrates=True)
    opened.push_async_callback(store.close)
    resolver = SystemResolver()
    opened.callback(resolver.close)
    guard = _guard(settings, listeners, settings.allow_targets_of)
    deliverer = HttpDeliverer(guard, resolver, store.clock, proxy=settings.egress_proxy)
    opened.push_async_callback(deliverer.close)
    path = settings.key_path()
    was_there = await asyncio.to_thread(path.exists)
    vault = Vault(await keys.of_file(path, store), str(path))
    if not was_there:
        bus(KeyFileMade(str(path)))
    tools = Tools(store, store.clock, chance, unique_bytes, bus, vault, settings.seal_content)
    return Engine(
        tools,
        deliverer,
        settings.defaults(),
        Limits(
            settings.slots,
            settings.max_queued,
            settings.drain_seconds,
            settings.history_days,
            settings.resolved_days,
            settings.audit_days,
            settings.auth_failures_per_minute,
            settings.calls_per_second,
        ),
        allow_http=settings.allow_http,
        judge=guard.judge_early,
        sends=settings.role != "api",
        provider=_provider(settings, listeners, resolver, tools, opened),
        alerting=Alerting(settings.alerts_to, settings.alerting()),
    )


def _provider(
    settings: Settings,
    listeners: list[socket.socket],
    resolver: Resolver,
    tools: Tools,
    opened: contextlib.AsyncExitStack,
) -> Provider | None:
    """The identity provider, asked through a client of its own: the host the operator named may be any."""
    if not settings.jwt_issuer:
        return None
    guard = _guard(settings, listeners, [(NAMED, network) for network in EVERYWHERE])
    deliverer = HttpDeliverer(guard, resolver, tools.clock, proxy=settings.egress_proxy)
    opened.push_async_callback(deliverer.close)
    trust = Trust(
        settings.jwt_issuer,
        settings.jwt_audience,
        settings.jwt_permissions_claim,
        settings.jwt_permissions,
        settings.jwt_tenant_claim,
    )
    return Provider(
        trust,
        settings.jwt_jwks_url or None,
        deliverer,
        tools.clock,
        tools.announce,
        allow_http=settings.allow_http,
    )


def _guard(
    settings: Settings, listeners: list[socket.socket], allow_targets_of: Sequence[tuple[str, Network]]
) -> Guard:
    guard = Guard(
        allow_targets=settings.allow_targets,
        allow_targets_of=_by_integration(allow_targets_of),
        allow_ports=frozenset(settings.allow_ports),
        allow_http=settings.allow_http,
        is_local=is_local,
    )
    guard.protect([listener.getsockname()[:2] for listener in listeners])
    return guard


def _by_integration(pairs: Sequence[tuple[str, Network]]) -> dict[str, list[Network]]:
    ranges: dict[str, list[Network]] = {}
    for integration_id, network in pairs:
        ranges.setdefault(integration_id, []).append(network)
    return ranges


def _signals(engine: Engine, server: HttpServer, leash: int | None) -> Signals:
    def hurry() -> None:
        server.hurry()
        engine.worker.abort()

    signals = Signals(hurry)
    if leash is not None:
        signals.follow(leash)
    return signals


async def _until_stopped(
    engine: Engine, server: HttpServer, serving: "list[asyncio.Task[None]]", signals: Signals
) -> Ending:
    """Until a signal, or until the engine or a server cannot go on; then finish what is in flight."""
    waiting = [asyncio.create_task(signals.first.wait()), asyncio.create_task(engine.lost.wait())]
    await asyncio.wait([*waiting, *serving], return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    failure = engine.why_lost or ("" if signals.name else _why_ended(engine, serving))
    server.stop()
    aborted = await engine.drain(at_once=engine.lost.is_set())
    return Ending(failure or signals.name, aborted, is_failure=bool(failure))


def _why_ended(engine: Engine, serving: "list[asyncio.Task[None]]") -> str:
    why = "the HTTP server ended by itself"
    [ended, *_] = [task for task in serving if task.done()]
    if (error := ended.exception()) is None:
        return why
    engine.announce(LoopFailed("http", error))
    return f"{why} ({type(error).__name__})"


def _routes(settings: Settings, table: list[Route]) -> list[Route]:
    """Every call; of a process that only sends, those about itself.

    A port that several processes share gives no metrics: nobody could tell whose they are.
    """
    if settings.role == "worker":
        table = _of_one_process(table)
    if settings.workers == 1:
        return table
    return [
        structs.replace(route, handler=system.no_metrics) if route.path == "/metrics" else route
        for route in table
    ]


def _of_one_process(table: list[Route]) -> list[Route]:
    return [route for route in table if route.path in ("/healthz", "/readyz", "/metrics")]


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
        timeout_seconds=settings.timeout_seconds,
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


def _trace(settings: Settings, bus: Bus, opened: contextlib.AsyncExitStack) -> None:
    if not settings.otel:
        return
    try:
        from redrive.telemetry.otel import AttemptSpans  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadSettings(str(error)) from error
    spans = AttemptSpans()
    opened.push_async_callback(asyncio.to_thread, spans.close)
    spans.listen(bus)


def _sqlite_path(settings: Settings) -> Path:
    path = settings.sqlite_path()
    assert path is not None  # noqa: S101 - check_role said so
    return path


def _raise_file_limit() -> None:
    """Every attempt in flight holds a socket; the soft limit of 1,024 is a shell's habit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
