"""Replaying many: 100,000 dead letters planned, canaried and replayed to a sink; how fast a job obeys."""

import asyncio
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.harness import SCRATCH
from benchmarks.stores import SERVER
from benchmarks.tables import table
from redrive.client import Client
from redrive.clock import SystemClock
from redrive.domain.ids import first_id_at
from tests.e2e.service import Service
from tests.postgres import a_server

ITEMS: Final = 100_000
QUICK_ITEMS: Final = 10_000
SMALL_JOB: Final = 2_000
CAP: Final = 1_000.0  # items a second
STEADY_SECONDS: Final = 7.0  # the ramp of a rate, and as long again
SECONDS: Final = 600.0
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Sink:
    """Answers 200 to everything, in a thread of its own, and notes what came and when."""

    arrivals: list[float] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    port: int = 0

    def since(self, moment: float) -> int:
        """How many came after *moment*."""
        return sum(at > moment for at in self.arrivals)

    def in_cycle(self) -> int:
        """How many different items came."""
        return len(set(self.names))


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.seen = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while True:
            head, end, rest = self.seen.partition(b"\r\n\r\n")
            if not end:
                return
            headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            size = int(headers[b"content-length"])
            if len(rest) < size:
                return
            self.seen = rest[size:]
            self.sink.names.append(headers[b"webhook-id"])
            self.sink.arrivals.append(time.monotonic())
            self.transport.write(_ANSWER)


@contextmanager
def sinking() -> Iterator[Sink]:
    """A sink that listens."""
    sink, loop = Sink(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(sink), "127.0.0.1", 0))
    sink.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield sink
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def measure_replays(stores: Sequence[str], *, quick: bool, long: bool) -> None:  # noqa: ARG001 - as its siblings
    """Print what both stores need."""
    items = QUICK_ITEMS if quick else ITEMS
    print(f"\n## replays: {items:,} dead letters in one job, and {SMALL_JOB:,} in another\n", flush=True)
    found = {store: _measure(store, items) for store in stores}
    names = list(next(iter(found.values())))
    rows = [[name, *(figures[name] for figures in found.values())] for name in names]
    print(table(("", *found), rows), flush=True)


def _measure(store: str, items: int) -> dict[str, str]:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home, sinking() as sink:
        if store == "sqlite":
            return _of_service(Service(Path(home)), _fill_sqlite, sink, items)
        with a_server(durable=True, **SERVER) as server:
            service = Service(Path(home), database=server.url())
            return _of_service(service, lambda *given: _fill_postgres(server.url(), *given), sink, items)


Fill = Callable[..., None]


def _of_service(service: Service, fill: Fill, sink: Sink, items: int) -> dict[str, str]:
    service.start()
    try:
        with Client(service.url, service.a_token()) as client:
            return _figures(service, client, fill, sink, items)
    finally:
        service.close()


def _figures(service: Service, client: Client, fill: Fill, sink: Sink, items: int) -> dict[str, str]:
    partner = _Partner(client, sink, "many")
    fill(service, partner.name, items)
    planned, plan_s = partner.plan()
    started = time.monotonic()
    partner.run(planned, rate=CAP)
    partner.until(lambda job: job["state"] == "running")
    canary_s = time.monotonic() - started
    time.sleep(STEADY_SECONDS)
    paced = sink.since(time.monotonic() - 3.0) / 3.0
    asked = time.monotonic()
    partner.steer("pause")
    paused_s = _last_after(sink, asked)
    asked = time.monotonic()
    partner.steer("resume")
    resumed_s = _first_after(sink, asked)
    client.pace_replay(partner.name, partner.replay_id, None)
    left, began = partner.job()["progress"]["waiting"], time.monotonic()
    over = partner.until(lambda job: job["state"].startswith("completed"))
    free = left / (time.monotonic() - began)
    progress = over["progress"]
    assert progress["succeeded"] == items == sink.in_cycle(), (progress, sink.in_cycle())
    small = _Partner(client, sink, "small")
    fill(service, small.name, SMALL_JOB)
    planned, _ = small.plan()
    began = time.monotonic()
    small.run(planned, canary={"size": 0})
    small.until(lambda job: job["progress"]["succeeded"] == SMALL_JOB, each=0.02)
    small_s = time.monotonic() - began
    return {
        "plan": f"{plan_s:.2f} s",
        "canary of 5, to release": f"{canary_s:.2f} s",
        f"at a cap of {CAP:,.0f}/s": f"{paced:,.0f}/s",
        "without a cap": f"{free:,.0f}/s",
        "pause, to the last that arrives": f"{paused_s:.2f} s",
        "resume, to the first": f"{resumed_s:.2f} s",
        f"{SMALL_JOB:,} in one job, to success": f"{small_s:.2f} s",
        "the sink counted": f"{sink.in_cycle():,}, the jobs {items + SMALL_JOB:,}",
    }


class _Partner:
    """An integration whose receiver is the sink, and its one job."""

    def __init__(self, client: Client, sink: Sink, name: str) -> None:
        self.client, self.name, self.replay_id = client, name, ""
        url = f"http://127.0.0.1:{sink.port}/{name}"
        client.create_integration(integration_id=name, name=name, url=url, auth_mode="none", concurrency=128)

    def plan(self) -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        planned = self.client.plan_replay(self.name, status="dlq")["replay"]
        self.replay_id = planned["replay_id"]
        return planned, time.monotonic() - began

    def run(self, planned: dict[str, Any], **options: Any) -> None:
        self.client.run_replay(self.name, planned["plan"]["digest"], "a benchmark", **options)

    def steer(self, verb: str) -> None:
        getattr(self.client, f"{verb}_replay")(self.name, self.replay_id)

    def job(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.replay_job(self.name, self.replay_id)["replay"]
        return found

    def until(self, reached: Callable[[dict[str, Any]], bool], *, each: float = 0.2) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while not reached(job := self.job()):
            assert time.monotonic() < deadline, job
            assert job["state"] not in ("halted", "cancelled"), job
            time.sleep(each)
        return job


def _last_after(sink: Sink, moment: float) -> float:
    """How long after *moment* things still arrived, until there is nothing for two seconds."""
    while time.monotonic() < max([moment, *sink.arrivals[-1:]]) + 2.0:
        time.sleep(0.1)
    return max(0.0, sink.arrivals[-1] - moment)


def _first_after(sink: Sink, moment: float) -> float:
    while sink.arrivals[-1] <= moment:
        time.sleep(0.001)
    return next(at for at in sink.arrivals if at > moment) - moment


_DELIVERIES: Final = (
    "INSERT INTO delivery (id, integration, event_type, request_id, traceparent, created_by, max_attempts,"
    " content_type, payload) SELECT {top} - n * 4096, {number}, 'order.paid' || (n % 5), 'req-' || n,"
    " '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'shop', 5, 'application/json', {payload}"
    " FROM {series}"
)
_DEAD: Final = (
    "INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk)"
    " SELECT id, integration, 'dlq', 1, 5, 5, 'HTTP_503', 0, 2 FROM delivery WHERE integration = {number}"
)


def _top() -> int:
    """Ids before those that are made from now on."""
    return first_id_at(SystemClock().now()) - (1 << 32)


def _fill_sqlite(service: Service, name: str, items: int) -> None:
    counted = f"SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {items}"
    series = f"(WITH RECURSIVE s (n) AS ({counted}) SELECT n FROM s)"
    with closing(sqlite3.connect(service.database, timeout=60)) as connection, connection:
        question = "SELECT number FROM integration WHERE integration_id = ?"
        [(number,)] = connection.execute(question, (name,)).fetchall()
        payload = "CAST('{\"order\":' || n || '}' AS BLOB)"
        connection.execute(_DELIVERIES.format(top=_top(), number=number, payload=payload, series=series))
        connection.execute(_DEAD.format(number=number))


def _fill_postgres(url: str, _: Service, name: str, items: int) -> None:
    async def fill() -> None:
        connection = await asyncpg.connect(url)
        question = "SELECT number FROM integration WHERE integration_id = $1"
        number = await connection.fetchval(question, name)
        payload = "convert_to('{\"order\":' || n || '}', 'UTF8')"
        series = f"generate_series(1, {items}) AS n"
        await connection.execute(
            _DELIVERIES.format(top=_top(), number=number, payload=payload, series=series)
        )
        await connection.execute(_DEAD.format(number=number))
        await connection.execute("ANALYZE")
        await connection.close()

    asyncio.run(fill())
