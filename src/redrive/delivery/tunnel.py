"""Through a forward proxy: a tunnel (CONNECT, RFC 9110 §9.3.6) to the very address that was judged."""

import asyncio
import os
import re
import socket
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from redrive.delivery.guard import is_literal
from redrive.delivery.names import OURS, Resolver
from redrive.domain.proxy import Proxy

MAX_ANSWER_HEAD: Final = 16 * 1024
_VERSION: Final = b"HTTP/1."
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")


class NoTunnel(OSError):
    """The proxy gives no tunnel. An OSError, as a client expects of a failing connection."""

    def __init__(self, proxy: Proxy, what: str) -> None:
        self.why = f"the proxy {proxy} {what}"
        super().__init__(self.why)


async def open_tunnel(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, resolver: Resolver, address: str, port: int
) -> socket.socket:
    """A socket on which *address* answers, at the other end of *proxy*.

    Raises NoTunnel, or an OSError that is a fault of our own.
    """
    peer = await _connected(loop, proxy, await _found(proxy, resolver))
    try:
        await loop.sock_sendall(peer, _request(proxy, address, port))
        await _take_answer(loop, proxy, peer)
    except NoTunnel:
        peer.close()
        raise
    except OSError as error:
        peer.close()
        raise NoTunnel(proxy, f"ended the connection: {_told(error)}") from error
    except BaseException:
        peer.close()
        raise
    return peer


async def _found(proxy: Proxy, resolver: Resolver) -> Sequence[str]:
    if is_literal(proxy.host):
        return [proxy.host]
    try:
        return await resolver(proxy.host)
    except socket.gaierror as error:
        if error.errno == socket.EAI_MEMORY:
            raise
        raise NoTunnel(proxy, f"could not be looked up: {error.strerror}") from error


async def _connected(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, addresses: Sequence[str]
) -> socket.socket:
    """To the first address of the proxy that takes a connection. None is judged: it is the operator's."""
    why = "has no address"
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        peer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(peer, (address, proxy.port))
        except OSError as error:
            peer.close()
            if error.errno in OURS:
                raise
            why = f"cannot be reached: {_told(error)}"
        except BaseException:
            peer.close()
            raise
        else:
            return peer
    raise NoTunnel(proxy, why)


def _request(proxy: Proxy, address: str, port: int) -> bytes:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.user:
        named = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {named}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _take_answer(loop: asyncio.AbstractEventLoop, proxy: Proxy, peer: socket.socket) -> None:
    """Read the answer's head, and be sure that nothing follows: the next to speak is us."""
    told = b""
    while b"\r\n\r\n" not in told:
        if len(told) > MAX_ANSWER_HEAD:
            raise NoTunnel(proxy, f"answered with a header of more than {MAX_ANSWER_HEAD} bytes")
        if not told.startswith(_VERSION[: len(told)]):
            raise NoTunnel(proxy, "did not answer in valid HTTP")
        if not (data := await loop.sock_recv(peer, 4096)):
            raise NoTunnel(proxy, "closed the connection before it answered")
        told += data
    head, _, more = told.partition(b"\r\n\r\n")
    status = _STATUS.match(head + b"\r")
    if status is None:
        raise NoTunnel(proxy, "did not answer in valid HTTP")
    if status[1] == b"407":
        raise NoTunnel(proxy, "answered 407: it wants other credentials than REDRIVE_EGRESS_PROXY has")
    if not status[1].startswith(b"2"):
        raise NoTunnel(proxy, f"answered {status[1].decode()} and opened no tunnel")
    if more:
        raise NoTunnel(proxy, "sent more than its answer before anything was sent")


def _told(error: OSError) -> str:
    """In the system's words: a loop may have its own."""
    return os.strerror(error.errno) if error.errno else type(error).__name__
