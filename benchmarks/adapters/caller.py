"""A caller that costs little, for the load must not be what is measured: POSTs over kept connections."""

import asyncio
import re

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Caller:
    """Calls one process; each call that is under way at once has a connection of its own."""

    def __init__(self, url: str, token: str = "") -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._always = f"Host: {self._host}\r\nContent-Type: application/json\r\n"
        if token:
            self._always += f"Authorization: Bearer {token}\r\n"
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes, headers: str = "") -> tuple[int, bytes]:
        """Status and body of the answer. *headers*: further ones, each with its line's end.

        OSError or EOFError when the connection goes.
        """
        opened = self._kept.pop() if self._kept else await asyncio.open_connection(self._host, self._port)
        reader, writer = opened
        head = f"POST {path} HTTP/1.1\r\n{self._always}{headers}Content-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(answer)
            told = await reader.readexactly(int(length[1]) if length else 0)
        except BaseException:
            writer.close()
            raise
        self._kept.append(opened)
        return int(answer.split(b" ", 2)[1]), told
