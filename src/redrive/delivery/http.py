"""Sends requests over HTTP/1.1, to the addresses that were judged and to no others."""

import asyncio
import socket
import ssl
from functools import lru_cache
from typing import Final

from aiohttp import (
    AddrInfoType,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
    hdrs,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from redrive.clock import Clock
from redrive.delivery.failures import blocked, failure
from redrive.delivery.guard import Guard
from redrive.delivery.names import Refused, Resolver, vetted
from redrive.delivery.port import Request
from redrive.delivery.wire import Body, Connector
from redrive.domain.delivery import Headers
from redrive.domain.outcome import Answer, Outcome, classify, is_retryable_status
from redrive.domain.retry import parse_retry_after
from redrive.domain.target import Target

MAX_ANSWER: Final = 64 * 1024
MAX_KEPT_HEADERS: Final = 16 * 1024
_NAMES_KEPT_SECONDS: Final = 10
_IDLE_SECONDS: Final = 30.0
_NO_LIMIT: Final = ClientTimeout(total=None, sock_connect=None)  # `send` has the only one


class HttpDeliverer:
    """The deliverer on aiohttp: kept connections, no cookies, no redirects, no proxy, no inflating.

    Make it inside a running event loop. *tls* replaces the system's trust.
    """

    def __init__(
        self, guard: Guard, resolver: Resolver, clock: Clock, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._session = ClientSession(
            connector=Connector(
                limit=0,  # the engine limits
                keepalive_timeout=_IDLE_SECONDS,
                resolver=_Vetting(guard, resolver),
                ttl_dns_cache=_NAMES_KEPT_SECONDS,
                socket_factory=self._open,
                ssl=tls or True,
            ),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT),
            timeout=_NO_LIMIT,
            read_bufsize=MAX_ANSWER,
            max_headers=100,
        )

    async def send(self, request: Request) -> Outcome:
        """Make one HTTP exchange, never a second. A remote failure is a value and never raises."""
        target = request.target
        if (why := self._guard.judge_port(target)) is not None:
            return blocked(why)
        body, received = Body(request.body), bytearray()
        response, whole = None, False
        try:
            async with asyncio.timeout(request.timeout_seconds):
                response = await self._session.request(
                    request.method,
                    _url(target),
                    headers=request.headers,
                    data=body,
                    allow_redirects=False,
                )
                whole = await _read(response, received)
        except InvalidURL:  # a bug of ours: grammar and guard are stricter
            raise
        except (ClientError, OSError) as error:  # TimeoutError is an OSError
            if response is None:
                return failure(error, target, sent=body.consumed, timeout_seconds=request.timeout_seconds)
        finally:
            if response is not None and not whole:
                response.close()
        return self._judge(response, bytes(received[:MAX_ANSWER]), truncated=not whole)

    async def close(self) -> None:
        """Close every kept connection."""
        await self._session.close()

    def _judge(self, response: ClientResponse, body: bytes, *, truncated: bool) -> Outcome:
        headers = _kept(response)
        answer = Answer(response.status, headers, body, truncated)
        if not is_retryable_status(response.status):
            return classify(answer)
        asked = response.headers.getall(hdrs.RETRY_AFTER, ())
        wait = parse_retry_after(asked[0], self._clock.now()) if len(asked) == 1 else None
        return classify(answer, retry_after=wait)

    def _open(self, info: AddrInfoType) -> socket.socket:
        """The last gate: every socket is made here, for an IP literal as for a name."""
        family, kind, protocol, _, address = info
        if (why := self._guard.judge(str(address[0]), int(address[1]))) is not None:
            raise Refused(why)
        return socket.socket(family, kind, protocol)


class _Vetting(AbstractResolver):
    """Gives aiohttp only addresses that the guard allows."""

    def __init__(self, guard: Guard, resolver: Resolver) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - always AF_UNSPEC here
    ) -> list[ResolveResult]:
        addresses = await vetted(self._resolver, self._guard, host, port)
        return [_resolved(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held."""


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=family,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )


async def _read(response: ClientResponse, received: bytearray) -> bool:
    """Read the body into *received*; False when there is more of it than is kept."""
    while chunk := await response.content.readany():
        received += chunk
        if len(received) > MAX_ANSWER:
            return False
    return True


def _kept(response: ClientResponse) -> Headers:
    """The headers, as far as a reader of evidence can use them."""
    kept, size = [], 0
    for name, value in response.headers.items():
        size += len(name) + len(value)
        if size > MAX_KEPT_HEADERS:
            break
        kept.append((str(name), _readable(value)))
    return tuple(kept)


def _readable(value: str) -> str:
    """A header's value that can be stored: bytes that are not UTF-8 are escaped."""
    if value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=4096)
def _url(target: Target) -> URL:
    return URL(target.origin + target.path, encoded=True)
