"""From a name to addresses: looked up once, with a time limit, and judged one and all."""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from redrive.delivery.guard import Guard

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OURS = EXHAUSTED | {errno.EADDRNOTAVAIL}  # what keeps us from connecting is a fault of our own
LOOKUP_SECONDS = 5.0
KEPT_SECONDS = 10.0
NAMES_KEPT = 10_000


class Resolver(Protocol):
    """Looks a name up: every address, A and AAAA. Raises socket.gaierror."""

    async def __call__(self, host: str) -> Sequence[str]: ...


class Refused(OSError):
    """The guard refuses a connection. An OSError, as a client expects of a failing connection."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class SystemResolver:
    """The machine's resolver, on threads of its own: names that hang do not hold up other work.

    A thread cannot be stopped: who asks again for a name that hangs waits for the same one.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="redrive-names")
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """The addresses of *host*, in the system's order of preference."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
            self._under_way[host] = lookup
            lookup.add_done_callback(lambda _: self._under_way.pop(host, None))
        return await asyncio.shield(lookup)

    def close(self) -> None:
        """Let go of the threads; a lookup under way is left to end by itself."""
        for lookup in self._under_way.values():
            lookup.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


class KeptNames:
    """A resolver that asks another once for many: it keeps what it was told for a few seconds.

    What it gives is still judged at every connection.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._kept: dict[str, tuple[float, asyncio.Task[Sequence[str]]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """The addresses of *host*; a lookup that is under way is waited for."""
        now = asyncio.get_running_loop().time()
        until, lookup = self._kept.get(host, (0.0, None))
        if lookup is None or now >= until or (lookup.done() and lookup.exception() is not None):
            if len(self._kept) >= NAMES_KEPT:
                self._kept.clear()
            lookup = asyncio.create_task(_look_up_once(self._resolver, host))
            self._kept[host] = (now + KEPT_SECONDS, lookup)
        return await asyncio.shield(lookup)

    async def close(self) -> None:
        """End the lookups that are under way: they outlive whoever asked for them."""
        lookups = [lookup for _, lookup in self._kept.values()]
        self._kept.clear()
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)


async def vetted(resolver: Resolver, guard: Guard, host: str, port: int) -> Sequence[str]:
    """The addresses of *host*, all allowed on *port*. Raises Refused or socket.gaierror."""
    addresses = await resolver(host)
    for address in addresses:
        if (why := guard.judge(address, port)) is not None:
            raise Refused(why)  # one denied answer blocks all: the next lookup may put it first
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return addresses


def is_local(address: str) -> bool:
    """Whether *address* is one of this machine's own: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise  # our own fault, which must not be taken for a verdict
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


async def _look_up_once(resolver: Resolver, host: str) -> Sequence[str]:
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            return await resolver(host)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {LOOKUP_SECONDS:g} s") from None


def _look_up(host: str) -> list[str]:
    # As bytes, for Python would apply IDNA to a str; the grammar of a target is ASCII already.
    try:
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        os.close(os.open(os.devnull, os.O_RDONLY))  # no handles left look like no such name: then this raises
        raise
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
