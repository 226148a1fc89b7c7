"""A TCP proxy before PostgreSQL that loses a connection at the one moment that matters: around a commit."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import Enum, auto

_WRITE = re.compile(rb"\b(INSERT|UPDATE|DELETE)\b")
_IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery, and no transaction: all of it is committed
_MOST = 1 << 16


class Loss(Enum):
    """When a connection ends: before a commit reached the server, or before its answer came back."""

    BEFORE = auto()
    AFTER = auto()


class Proxy:
    """Passes everything on, until it is told to lose the next commit."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.port = 0
        self._next_loss: Loss | None = None

    @property
    def has_lost(self) -> bool:
        """Whether it has done what it was told to."""
        return self._next_loss is None

    def lose(self, loss: Loss) -> None:
        """The next commit."""
        self._next_loss = loss

    def next_loss(self) -> Loss | None:
        """What is to be lost now; the next commit passes."""
        loss, self._next_loss = self._next_loss, None
        return loss

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        connection = _Connection(self, writer, to_server)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(connection.to_server(reader))
                pumps.create_task(connection.to_client(from_server))
        except* (_Ended, OSError):
            pass
        finally:
            writer.transport.abort()
            to_server.close()  # not at once: the server gets what was sent before


class _Ended(Exception):
    """Either side is gone, or has to go."""


class _Connection:
    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._has_started = False
        self._unread = b""  # the beginning of a message
        self._statements: dict[bytes, bytes] = {}
        self._in_transaction = False
        self._is_lost = False

    async def to_server(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_MOST):
            if self._commits(data) and (loss := self._proxy.next_loss()):
                if loss is Loss.BEFORE:
                    break
                self._is_lost = True
            self._server.write(data)
            await self._server.drain()
        raise _Ended

    async def to_client(self, reader: asyncio.StreamReader) -> None:
        answer = b""
        while data := await reader.read(_MOST):
            if not self._is_lost:
                self._client.write(data)
                await self._client.drain()
                continue
            answer += data
            if answer.endswith(_IDLE):
                break
        raise _Ended

    def _commits(self, data: bytes) -> bool:
        """Whether a message in it ends a transaction that wrote, or is one by itself."""
        found = False
        for kind, body in self._messages(data):
            found |= self._is_commit(kind, body)
        return found

    def _messages(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._unread += data
        while len(self._unread) > 4:
            kinds = int(self._has_started)  # a message that starts a session says not what it is
            end = kinds + int.from_bytes(self._unread[kinds : kinds + 4])
            if len(self._unread) < end:
                return
            kind, body = self._unread[:kinds], self._unread[kinds + 4 : end]
            self._has_started |= body.startswith(b"\x00\x03")  # version 3; before it, TLS is asked for
            self._unread = self._unread[end:]
            yield kind, body

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        name, _, rest = body.partition(b"\x00")
        match kind:
            case b"Q":
                was_in, self._in_transaction = self._in_transaction, not name.startswith((b"COMMIT", b"ROLL"))
                self._in_transaction &= was_in or name.startswith(b"BEGIN")
                return was_in and name.startswith(b"COMMIT")
            case b"P":
                self._statements[name] = rest
            case b"B":
                statement = self._statements[rest.partition(b"\x00")[0]]
                return not self._in_transaction and bool(_WRITE.search(statement))
        return False


@asynccontextmanager
async def a_proxy(server_port: int) -> AsyncIterator[Proxy]:
    """On a port of its own; its connections end with it."""
    proxy = Proxy(server_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
