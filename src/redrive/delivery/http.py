"""Sends requests over HTTP/1.1, to the addresses that were judged and to no others."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Final

from redrive.clock import Clock
from redrive.delivery.exchange import MAX_ANSWER, Connection
from redrive.delivery.failures import blocked, failure
from redrive.delivery.guard import Guard, is_literal
from redrive.delivery.names import KeptNames, Refused, Resolver, vetted
from redrive.delivery.port import Request
from redrive.delivery.tls import Identity, context_of, system_trust
from redrive.delivery.tunnel import open_tunnel
from redrive.domain.delivery import Headers
from redrive.domain.outcome import Answer, Outcome, classify, is_retryable_status
from redrive.domain.proxy import Proxy
from redrive.domain.retry import parse_retry_after

MAX_KEPT_HEADERS: Final = 16 * 1024
MAX_TRIED: Final = 16  # addresses of a name: each gets a share of the time, and nobody sends us everywhere
_IDLE_SECONDS: Final = 30.0
# Also under whose verdict it was made, and as whom: others may not go there.
_Origin = tuple[Guard, str, str, int, Identity | None]


class HttpDeliverer:
    """The deliverer: kept connections, no cookies, no redirects, no inflating, no proxy but the one given.

    Make it inside a running event loop. *tls* replaces the system's trust.
    """

    def __init__(
        self,
        guard: Guard,
        resolver: Resolver,
        clock: Clock,
        *,
        proxy: Proxy | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._names = KeptNames(resolver)
        self._clock = clock
        self._proxy = proxy
        self._tls = tls or system_trust()
        self._loop = asyncio.get_running_loop()
        self._idle: dict[_Origin, deque[Connection]] = {}
        self._is_closed = False
        self._sweeper = self._loop.call_later(_IDLE_SECONDS, self._sweep)

    async def send(self, request: Request, leaving: Callable[[], None] = lambda: None) -> Outcome:
        """Make one HTTP exchange, never a second. A remote failure is a value and never raises."""
        target, timeout_seconds = request.target, request.timeout_seconds
        guard = self._guard.of(request.integration_id)
        if (why := guard.judge_port(target)) is not None:
            return blocked(why)
        head = _head(request)
        deadline = self._loop.time() + timeout_seconds
        origin = (guard, target.scheme, target.host, target.port, request.identity)
        connection = self._take(origin)
        if connection is None:
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await self._open(origin, deadline)
            except OSError as error:  # TimeoutError, gaierror and SSLError are among them
                return failure(error, target, sent=False, timeout_seconds=timeout_seconds, via=self._proxy)
        try:
            leaving()  # and nothing is awaited from here until the first byte is on its way
        except BaseException:
            connection.abort()
            raise
        await connection.exchange(head, request.body, deadline)
        if connection.status is None:
            lost = connection.error or ConnectionResetError()
            return failure(lost, target, sent=True, timeout_seconds=timeout_seconds)
        return self._judge(connection, connection.status)

    async def close(self) -> None:
        """Close every kept connection, and look nothing up any more."""
        self._is_closed = True
        self._sweeper.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.abort()
        self._idle.clear()
        await self._names.close()

    def _take(self, origin: _Origin) -> Connection | None:
        """The connection used last: those before it may be let go."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            is_fresh = self._loop.time() - connection.idle_since < _IDLE_SECONDS
            if connection.is_open and is_fresh and connection.is_quiet:
                return connection
            connection.abort()
        return None

    async def _open(self, origin: _Origin, deadline: float) -> Connection:
        """A new connection to the first address that takes one, each given its share of the time."""
        guard, _, host, port, _ = origin
        known = [host] if is_literal(host) else await vetted(self._names, guard, host, port)
        addresses = known[:MAX_TRIED]
        first: OSError | None = None
        for at, address in enumerate(addresses):
            share = (deadline - self._loop.time()) / (len(addresses) - at)
            try:
                async with asyncio.timeout(share):
                    return await self._connect(origin, address)
            except OSError as error:
                first = first or error
        assert first is not None  # noqa: S101 - there is an address, or vetted() raised
        raise first

    async def _connect(self, origin: _Origin, address: str) -> Connection:
        """To the very address that was judged: a literal, so that no resolver has another say."""
        guard, scheme, host, port, identity = origin
        if (why := guard.judge(address, port)) is not None:
            raise Refused(why)
        peer = await self._reach(address, port)
        connection = Connection(self._loop, partial(self._keep, origin))
        try:
            await self._loop.create_connection(
                lambda: connection,
                sock=peer,
                ssl=self._trust(identity) if scheme == "https" else None,
                server_hostname=host.rstrip(".") if scheme == "https" else None,
            )
        except BaseException:
            connection.abort()  # else a TLS that stands already would wait for the other side to end it too
            peer.close()
            raise
        return connection

    async def _reach(self, address: str, port: int) -> socket.socket:
        if self._proxy is not None:
            return await open_tunnel(self._loop, self._proxy, self._names, address, port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        peer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await self._loop.sock_connect(peer, (address, port))
            _must_be_at(peer, address, port)
        except BaseException:
            peer.close()
            raise
        return peer

    def _trust(self, identity: Identity | None) -> ssl.SSLContext:
        return self._tls if identity is None else context_of(identity)

    def _keep(self, origin: _Origin, connection: Connection) -> None:
        """Into the pool of this moment: the one it was opened under may have been swept away since."""
        if self._is_closed:
            connection.abort()
        else:
            self._idle.setdefault(origin, deque()).append(connection)

    def _judge(self, connection: Connection, status: int) -> Outcome:
        body = bytes(connection.body[:MAX_ANSWER])
        answer = Answer(status, _kept(connection.headers), body, truncated=not connection.is_whole)
        if not is_retryable_status(status):
            return classify(answer)
        asked = [value for name, value in connection.headers if name.lower() == b"retry-after"]
        wait = parse_retry_after(asked[0].decode("latin-1"), self._clock.now()) if len(asked) == 1 else None
        return classify(answer, retry_after=wait)

    def _sweep(self) -> None:
        """Let go of connections nobody used for a while, and of receivers without any."""
        now = self._loop.time()
        for kept in self._idle.values():
            while kept and (not kept[0].is_open or now - kept[0].idle_since >= _IDLE_SECONDS):
                kept.popleft().abort()
        self._idle = {origin: kept for origin, kept in self._idle.items() if kept}
        self._sweeper = self._loop.call_later(_IDLE_SECONDS, self._sweep)


def _must_be_at(peer: socket.socket, address: str, port: int) -> None:
    """Refuse a connection that something on this machine led elsewhere."""
    host, at, *_ = peer.getpeername()
    if ip_address(host) != ip_address(address) or at != port:
        raise Refused(f"the connection to {address} port {port} was led to {host} port {at}")


def _head(request: Request) -> bytes:
    """The request line and header: the host, what was given, and the length, in this order."""
    target = request.target
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    lines += [f"Content-Length: {len(request.body)}", "", ""]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ValueError("a header holds a line break")  # a bug of ours: all of it was checked on its way in
    return head.encode("latin-1")


def _kept(headers: list[tuple[bytes, bytes]]) -> Headers:
    """The headers, as far as a reader of evidence can use them; bytes that are not UTF-8 are escaped."""
    kept, size = [], 0
    for name, value in headers:
        text = value.decode("utf-8", "backslashreplace")
        size += len(name) + len(text.encode())  # an escaped byte takes four
        if size > MAX_KEPT_HEADERS:
            break
        kept.append((name.decode("latin-1"), text))
    return tuple(kept)
