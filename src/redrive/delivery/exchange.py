"""One kept connection, and one exchange at a time over it: bytes out, llhttp's reading of what comes back."""

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

import httptools

MAX_ANSWER: Final = 64 * 1024
MAX_HEAD: Final = 64 * 1024
MAX_HEADERS: Final = 100
MAX_INTERIM: Final = 5
MAX_RECEIVED: Final = 16 * MAX_ANSWER  # with the sizes of chunks and the trailers, which are not kept


class ProtocolError(Exception):
    """What came back is not an HTTP answer to what was asked."""


class Connection(asyncio.Protocol):
    """A connection to one receiver. The first complete header decides an exchange; nothing is sent twice.

    `on_idle` is called when another exchange may follow; until then, and after it, an unexpected byte ends
    the connection, so that an answer nobody asked for never becomes the next delivery's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_idle: Callable[["Connection"], None]) -> None:
        self._loop = loop
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None  # asks the socket itself; made once, when first needed
        self._done: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reset()
        self.idle_since = 0.0
        self.error: Exception | None = None

    def _reset(self) -> None:
        self._received = self._head_size = self._interim = 0
        self._may_keep = False
        self._fields: list[tuple[bytes, bytes]] = []
        self.status: int | None = None  # until there is a complete header
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.is_whole = False
        self._announced = False  # how long the body is, by a header

    # what the deliverer asks for

    @property
    def is_open(self) -> bool:
        """Whether an exchange may still begin here."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came that is not read yet: the end, or an answer to what was not yet asked."""
        if self._poll is None:
            assert self._transport is not None  # noqa: S101 - it came with the connection
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    async def exchange(self, head: bytes, body: bytes, deadline: float) -> None:
        """Send a request and wait for its answer, at most until *deadline* (loop time).

        Afterwards `status` is None and `error` says why, or the answer is in `status`, `headers` and `body`;
        not `is_whole`: there was, or may have been, more of the body.
        """
        self._reset()
        self.error = None
        self._done = self._loop.create_future()
        assert self._transport is not None  # noqa: S101 - it came with the connection
        if len(body) <= MAX_ANSWER:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        timer = self._loop.call_at(deadline, self._fail, TimeoutError())
        try:
            await self._done
        finally:
            timer.cancel()
            self._finish()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        """Keep the connection when both sides are done with this exchange, else cut it."""
        self._done = None
        if (
            self.is_whole
            and self.is_open
            and self.error is None
            and self._may_keep
            and self._transport is not None
            and self._transport.get_write_buffer_size() == 0
        ):
            self._parser = httptools.HttpResponseParser(self)
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            self.abort()

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self.error = error
            self._done.set_result(None)

    def _settle(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    # what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands (and its TLS)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its methods, not its class

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or of something nobody asked for."""
        if self._done is None or self._done.done():
            self.abort()
            return
        if not self._received and data[:1] in (b"R", b"I"):
            self._fail(ProtocolError("it is not HTTP"))  # llhttp reads RTSP/ and ICE/ as well
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - httptools wraps what its callbacks raise in its own
            told = error.__context__ if isinstance(error.__context__, ProtocolError) else error
            self._fail(told if isinstance(told, ProtocolError) else ProtocolError(str(told)))
            return
        if self.status is None and self._received > MAX_HEAD * (self._interim + 1):
            self._fail(ProtocolError(f"its header is longer than {MAX_HEAD} bytes"))
        elif len(self.body) > MAX_ANSWER or self._received > MAX_RECEIVED:
            self._settle()  # not whole: the connection is cut

    def eof_received(self) -> bool:
        """The receiver will send no more: the connection goes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone. A body whose length nothing announced ends so."""
        if self.status is not None and exc is None and not self._announced:
            self.is_whole = len(self.body) <= MAX_ANSWER
        self._fail(exc or ConnectionResetError())

    # what llhttp tells

    def on_message_begin(self) -> None:
        """Another answer: fine after an interim one, poison after the one that was asked for."""
        if self.status is not None:
            self.is_whole = False
            raise ProtocolError("a second answer came")

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, which means nothing."""
        self._measure(len(reason))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if self.status is not None:
            return
        self._measure(len(name) + len(value))
        self._fields.append((name, value))
        if len(self._fields) > MAX_HEADERS:
            raise ProtocolError(f"it has more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        """A complete header: 1xx are on the way to the answer, which is the first other."""
        if (version := self._parser.get_http_version()) not in ("1.0", "1.1"):
            raise ProtocolError(f"it says that it is HTTP/{version}")
        status = self._parser.get_status_code()
        if 100 <= status <= 199 and status != 101:  # 101 ends HTTP here, which nobody asked for
            self._interim += 1
            self._fields, self._head_size = [], 0
            if self._interim > MAX_INTERIM:
                raise ProtocolError(f"it sent more than {MAX_INTERIM} interim answers")
            return
        self.status, self.headers = status, self._fields
        names = {name.lower() for name, _ in self._fields}
        self._announced = bool(names & {b"content-length", b"transfer-encoding"}) or status in (204, 304)

    def on_body(self, data: bytes) -> None:
        """A piece of the body: kept a little past the limit, to know that there is more."""
        if len(self.body) <= MAX_ANSWER:
            self.body += data[: MAX_ANSWER + 1 - len(self.body)]

    def on_message_complete(self) -> None:
        """The whole answer is here, if the header was that of an answer."""
        if self.status is not None:
            self.is_whole = len(self.body) <= MAX_ANSWER
            self._may_keep = self._announced and self._parser.should_keep_alive()
            self._loop.call_soon(self._settle)  # first let what follows in this packet be seen

    def _measure(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise ProtocolError(f"its header is longer than {MAX_HEAD} bytes")
