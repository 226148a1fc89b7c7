"""Partners on raw sockets, each playing a script, and a deliverer that may reach them."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_network

from redrive.delivery.guard import Guard
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.names import Resolver, is_local
from redrive.delivery.port import Request
from redrive.domain.proxy import Proxy
from redrive.domain.target import Target

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = 10.0  # a deadline for facts that come at once; reached only by a broken test
SHORT = 0.25  # the timeout of a request that is meant to run into it


class Call:
    """One connection as a script sees it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, partner: "Partner"
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._partner = partner

    async def request(self) -> bytes:
        """The next complete request, as it came."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        self._partner.requests.append(head + await self.reader.readexactly(size))
        return self._partner.requests[-1]

    async def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError  # uvloop would raise RuntimeError
        self._writer.write(data)
        await self._writer.drain()

    async def is_left(self) -> None:
        """Return when the other side has closed or reset the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self._partner.left.set()

    async def end(self) -> None:
        """Say that no more will come, and return when the other side has closed as well."""
        self._writer.write_eof()
        await self.is_left()

    def reset(self) -> None:
        """Close with RST, so that the other side sees an error and not an end."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


class Partner:
    """What happened at a receiver."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self.left = asyncio.Event()


@asynccontextmanager
async def playing(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Partner]:
    """A partner that plays *script* on each connection and closes it at the end of the script."""
    partner, tasks = Partner(), set[asyncio.Task[None] | None]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        partner.connections += 1
        tasks.add(asyncio.current_task())
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            await script(Call(reader, writer, partner))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    partner.port = server.sockets[0].getsockname()[1]
    try:
        yield partner
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None))


def answering(*answers: bytes) -> Script:
    """Answer each request of a connection with the next of *answers*, the last one for ever."""

    async def script(call: Call) -> None:
        for answer in answers[:-1]:
            await call.request()
            await call.send(answer)
        while True:
            await call.request()
            await call.send(answers[-1])

    return script


class Names:
    """A resolver that knows these names and counts its lookups. An exception is raised."""

    def __init__(self, known: dict[str, Sequence[str] | Exception]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        found = self.known.get(host, socket.gaierror(socket.EAI_NONAME, "not known"))
        if isinstance(found, Exception):
            raise found
        return found


class StillClock:
    """It is always NOW."""

    def now(self) -> datetime:
        return NOW

    def elapsed(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a deliverer has no reason to sleep")


def a_guard(*ranges: str, ports: frozenset[int] = frozenset(), allow_http: bool = False) -> Guard:
    return Guard(
        allow_targets=[ip_network(text) for text in ranges],
        allow_ports=ports,
        allow_http=allow_http,
        is_local=is_local,
    )


@asynccontextmanager
async def a_deliverer(
    names: Resolver,
    guard: Guard | None = None,
    tls: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
) -> AsyncIterator[HttpDeliverer]:
    made = HttpDeliverer(guard or a_guard("127.0.0.0/8"), names, StillClock(), proxy=proxy, tls=tls)
    try:
        yield made
    finally:
        await made.close()


def a_request(
    port: int,
    *,
    method: str = "POST",
    scheme: str = "http",
    host: str = "127.0.0.1",
    path: str = "/hooks",
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),),
    body: bytes = b"{}",
    timeout_seconds: float = PATIENCE,
    integration_id: str = "billing",
) -> Request:
    target = Target(scheme, host, port, path)
    return Request(method, target, headers, body, timeout_seconds, integration_id)


def a_free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
