"""Partners' endpoints: one real HTTP server that answers each path as its script says."""

import asyncio
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from tests.api.loops import LoopThread
from tests.api.wire import PATIENCE, Header


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: tuple[Header, ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header that stands at most once."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} stands {len(found)} times"
        return found[0] if found else None


@dataclass(frozen=True)
class Answer:
    """What to answer; with a *gate*, not before it is opened."""

    status: int = 200
    body: bytes = b"ok"
    headers: tuple[Header, ...] = ()
    gate: threading.Event | None = None


class Receiver:
    """Remembers what it was sent, by path; answers 200 where nothing else was asked for."""

    def __init__(self) -> None:
        self._thread = LoopThread("receiver")
        self.is_open = True
        self._scripts: dict[str, list[Answer]] = {}
        self._received: defaultdict[str, list[Received]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._thread.call(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def answers(self, path: str, *answers: Answer | int) -> None:
        """Answer requests to *path* with these, one after the other, and the last one for ever."""
        self._scripts[path] = [Answer(one) if isinstance(one, int) else one for one in answers]

    def received(self, path: str) -> list[Received]:
        return list(self._received[path])

    def close(self) -> None:
        self.is_open = False
        self._thread.call(self._close())
        self._thread.stop()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                request = await _read(reader)
                self._received[request.path].append(request)
                writer.write(await self._answer(request.path))
                await writer.drain()
        writer.close()

    async def _answer(self, path: str) -> bytes:
        script = self._scripts.get(path, [Answer()])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer.gate is not None:
            await asyncio.to_thread(answer.gate.wait, PATIENCE)
        lines = [f"{name}: {value}" for name, value in answer.headers]
        head = [f"HTTP/1.1 {answer.status} Scripted", *lines, f"Content-Length: {len(answer.body)}", "", ""]
        return "\r\n".join(head).encode("latin-1") + answer.body


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.rstrip("\r\n").split("\r\n")
    method, path, _ = line.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (field.partition(":") for field in fields))
    size = int(next(value for name, value in headers if name.lower() == "content-length"))
    return Received(method, path, headers, await reader.readexactly(size))
