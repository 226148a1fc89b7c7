"""The HTTP server: uvicorn on a socket that was taken beforehand, and the signals that end it."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, cast

import uvicorn

from redrive.clock import SystemClock
from redrive.incoming import PATIENCE, Incoming, Patience

IDLE_SECONDS: Final = 75  # how long an idle client's connection is kept
HEARD: Final = (signal.SIGTERM, signal.SIGINT)
ANSWER_SECONDS: Final = 10  # how long a stop waits for answers under way


class CannotServe(Exception):
    """The process cannot serve, or cannot go on; the message says why and what to do."""


@contextlib.contextmanager
def listening(host: str, port: int, *, option: str = "--port") -> Iterator[socket.socket]:
    """The socket is taken first, and listens later: a port in use is said before anything is opened.

    *option* is where the port was chosen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise _cannot_listen(host, port, error, option) from error
        yield listener


class HttpServer:
    """Answers on *listener* from `start` until `close`."""

    def __init__(
        self,
        application: Any,
        listener: socket.socket,
        *,
        option: str = "--port",
        patience: Patience = PATIENCE,
    ) -> None:
        """*option* is where the port of *listener* was chosen."""
        self._listener = listener
        self._patience = patience
        self._option = option
        self._uvicorn = _Uvicorn(_configured(application, patience))
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> "asyncio.Task[None]":
        """From now on whoever connects is answered. The task ends when the server does, asked to or not."""
        host, port = self._listener.getsockname()[:2]
        try:
            self._listener.listen()  # uvicorn does it too, but only later
        except OSError as error:  # another process had bound it as well, and was the first to listen
            raise _cannot_listen(host, port, error, self._option) from error
        self._serving = asyncio.create_task(self._serve())
        return self._serving

    def stop(self) -> None:
        """Take no more calls; those under way are answered."""
        self._uvicorn.should_exit = True

    def hurry(self) -> None:
        """Wait for no answer any more."""
        self._uvicorn.force_exit = True

    async def close(self) -> None:
        """Stop, and return once nothing is served."""
        self.stop()
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def _serve(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            await self._uvicorn.serve(sockets=[self._listener])
        finally:
            watching.cancel()
            for server in self._uvicorn.servers:  # uvicorn leaves them open when its own loop fails
                server.close()

    async def _watch(self) -> None:
        """Cut off callers that take too long."""
        loop, clock = asyncio.get_running_loop(), SystemClock()
        while True:
            await clock.sleep(self._patience.looks_every)
            for connection in list(self._uvicorn.server_state.connections):
                cast(Incoming, connection).look(loop.time())


class Signals:
    """SIGTERM and SIGINT: the first asks to stop, each further one calls *hurry*."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.first = asyncio.Event()
        self.name = ""  # of the first
        self._hurry = hurry
        self._loop = asyncio.get_running_loop()
        for number in HEARD:
            self._loop.add_signal_handler(number, self._hear, number.name)

    @staticmethod
    def forget() -> None:
        """Let signals mean again what they mean to any process; uvloop does not when it ends."""
        for number in HEARD:
            asyncio.get_running_loop().remove_signal_handler(number)

    def follow(self, leash: int) -> None:
        """Take the end of a pipe for a signal: whoever held the other end is gone."""

        def let_go() -> None:
            self._loop.remove_reader(leash)
            self._hear("the parent process ended")

        self._loop.add_reader(leash, let_go)

    def _hear(self, name: str) -> None:
        if self.first.is_set():
            self._hurry()
        self.name = self.name or name
        self.first.set()


class _Uvicorn(uvicorn.Server):
    """uvicorn, leaving the signals to us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configured(application: Any, patience: Patience) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="none",
        http=cast(Any, partial(Incoming, patience=patience)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what callers do wrong they are told; it is no news to us
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=ANSWER_SECONDS,
    )


def _cannot_listen(host: str, port: int, error: OSError, option: str = "--port") -> CannotServe:
    advice = f"choose another {option}"
    if error.errno == errno.EADDRNOTAVAIL:
        advice = "choose another --host: this machine has no such address"
    elif isinstance(error, socket.gaierror):
        advice = "--host is an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    return CannotServe(f"cannot listen on {host}:{port} ({error.strerror}); {advice}")
