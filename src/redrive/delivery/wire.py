"""The one place that changes how aiohttp works: what it promises less strictly than we do."""

from functools import partial
from typing import Any

from aiohttp import ClientPayloadError, Payload, StreamReader, TCPConnector
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler

_HEADER_END = b"\r\n\r\n"


class Body(Payload):
    """Exactly these bytes, written at most once.

    aiohttp sends a PUT again when its kept connection turns out to be dead, but never a body that
    says it is consumed. The header leaves together with the first of the body, so `consumed` also
    tells whether any of the request can have left.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        self._consumed = True
        await writer.write(self._value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, which only a debugger wants."""
        return bytes(self._value).decode(encoding, errors)


class Receiver(ResponseHandler):
    """One answer to one request, decided by its header.

    - aiohttp forgets a complete header when what follows in the same packet is broken, so header
      and body go to its parser one after the other.
    - aiohttp lets the reader of a body wait for ever when a chunk is broken.
    - aiohttp would take an answer nobody asked for as that to the next request on this connection,
      so a second answer ends the connection.
    """

    _answered = True
    _seen = b""  # the end of a header's pieces so far, in case its end is cut in two
    _content: StreamReader | None = None

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be sent here."""
        self._answered, self._seen, self._content = False, b"", None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; a header may come in several pieces."""
        while not self._answered and data:
            seen = self._seen
            end = (seen + data).find(_HEADER_END)
            if end < 0:
                self._seen = (seen + data)[-3:]
                break
            cut = end + len(_HEADER_END) - len(seen)
            self._seen = b""
            super().data_received(data[:cut])
            data = data[cut:]
            if not data:
                return
        super().data_received(data)  # also none: aiohttp resumes its parser so

    def feed_data(self, data: Any, size: int = 0) -> None:
        """A complete header: 1xx are on the way to the answer, which is the first other."""
        if self._answered:
            if self.transport is not None:
                self.transport.close()
            return
        message, self._content = data
        self._answered = message.code >= 200
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """The connection failed: so did a body that is still coming."""
        super().set_exception(exc, *cause)
        if self._content is not None and not self._content.is_eof():
            self._content.set_exception(ClientPayloadError(str(exc)))


class Connector(TCPConnector):
    """A pool of connections that answer through a Receiver."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(Receiver, loop=self._loop)  # type: ignore[assignment]  # a subclass
