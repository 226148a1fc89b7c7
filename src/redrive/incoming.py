"""A caller's connection: uvicorn's protocol, with limits in size and in time, and only one way to read it.

What two programs on the way could read differently is refused, never guessed at (RFC 9112 §11.2).
"""

import asyncio
import sys
from typing import Any, Final, cast

from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from redrive.api import problems
from redrive.api.call import SECURITY_HEADERS, new_request_id
from redrive.domain.errors import Fault, InvalidPayload

MAX_HEAD: Final = 32 * 1024
MAX_HEADERS: Final = 100
MAX_PIPELINED: Final = 100  # requests that wait for the answer to one before
MAX_UNWANTED: Final = 1 << 20  # of a body, when the request was answered without it


class Patience(Struct, frozen=True):
    """How long a caller may take: to begin or send a request, and to read an answer. In seconds."""

    for_a_request: float = 10.0
    bytes_per_second: float = 16 * 1024  # each second's worth of these that came adds a second to it
    at_most: float = 300.0
    for_an_answer: float = 30.0  # without a byte of it being taken
    looks_every: float = 1.0

    def ends(self, since: float, received: int) -> float:
        """When a request of which *received* bytes came *since* then has taken too long."""
        return since + min(self.at_most, self.for_a_request + received / self.bytes_per_second)


PATIENCE: Final = Patience()


class Refused(Exception):
    """A request that is not read any further; the message says why."""


class Incoming(HttpToolsProtocol):
    """One connection. Whoever owns the server calls `look` as often as the patience says.

    An answer leaves in one piece: its header and body apart cost a system call more.
    """

    def __init__(self, *args: Any, patience: Patience, **more: Any) -> None:
        super().__init__(*args, **more)
        self._patience = patience
        self._since: float | None = self.loop.time()  # a request is awaited, or under way, since then
        self._received = 0  # bytes of it
        self._is_in_head = self._is_in_body = False
        self._has_begun = self._has_brought = False  # in the bytes being read: a request, a piece of a body
        self._unparsed = 0  # bytes of a header, of trailers or between chunks: the parser keeps them
        self._unwanted = 0  # bytes of a body whose request was answered without it
        self._before: RequestResponseCycle | None = None  # the request before the one being read
        self._taken = 0  # bytes of answers, when we last looked
        self._taken_at = 0.0

    def look(self, now: float) -> None:
        """Cut the connection off when its caller takes too long."""
        if self.pipeline:  # a request waits for the answer before it: nothing is read meanwhile
            self._since = None if self._since is None else now
        if self._since is not None and now > self._patience.ends(self._since, self._received):
            self.transport.abort()
            return
        unread = self.transport.get_write_buffer_size()
        taken = cast(Gathering, self.transport).written - unread
        if not unread or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at > self._patience.for_an_answer:
            self.transport.abort()

    # what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is there."""
        gathering = Gathering(cast(asyncio.Transport, transport), self.loop)  # uvloop's has its methods
        super().connection_made(cast(asyncio.Transport, gathering))

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        if self._since is None:
            self._since, self._received = self.loop.time(), 0
        self._received += len(data)
        self._has_begun = self._has_brought = False
        super().data_received(data)
        if self._is_in_head or self._is_in_body:
            self._unparsed = 0 if self._has_begun or self._has_brought else self._unparsed + len(data)
            if self._unparsed > MAX_HEAD:
                self._refuse(_TOO_LONG)
        if self._is_in_body and self.cycle.response_complete:
            self._unwanted += len(data)
            if self._unwanted > MAX_UNWANTED:
                self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's gives None: close
        """The caller sends no more. What it asked for is answered; it may be listening still."""
        current = cast(RequestResponseCycle | None, self.cycle)
        if self._is_in_head or self._is_in_body or current is None or current.response_complete:
            return False
        current.keep_alive = False
        return True

    # what llhttp tells

    def on_message_begin(self) -> None:
        """A request, perhaps right behind another one."""
        if self._since is None:
            self._since, self._received = self.loop.time(), 0
        self._is_in_head = self._has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The header is whole: from here on uvicorn acts on it."""
        self._is_in_head = False
        why = what_is_wrong(self.url, self.headers, self.parser.get_http_version())
        if why is None and len(self.pipeline) >= MAX_PIPELINED:
            why = "too many requests wait for the answer to one before"
        upgrades = self.parser.should_upgrade()
        if why is None and upgrades and has_body(self.headers):
            # The parser takes what follows for another protocol's. Java's HttpClient asks for h2c by itself.
            why = "it asks for another protocol and has a body; ask for HTTP/1.1 alone"
        if why is not None:
            raise Refused(why)
        self._before = self.cycle
        super().on_headers_complete()
        self._is_in_body, self._unparsed, self._unwanted = True, 0, 0
        self.headers = []  # trailers: they are no headers, and nobody looks at them
        if upgrades:
            self.cycle.keep_alive = False
            self.transport.pause_reading()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._has_brought = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if len(self.headers) > MAX_HEADERS:
            raise Refused(_TOO_MANY)
        self._since, self._is_in_body = None, False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn calls it, while it handles the parser's error: which is what we tell."""
        error = sys.exc_info()[1]
        if error is not None:
            msg = str(error.__context__ or error)  # what a callback of ours raised comes wrapped
        self._refuse(msg)

    def _refuse(self, why: str) -> None:
        """Answer with what is wrong, and read nothing more. The answer to what came before goes first."""
        current = cast(RequestResponseCycle | None, self.cycle)  # None before the first
        if self._is_in_body and self.pipeline:  # it waits for its turn, which never comes
            self.pipeline.popleft()
            self.cycle = current = cast(RequestResponseCycle, self._before)
        elif self._is_in_body:
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            current = None
        if current is not None and not current.response_complete:
            current.keep_alive = False
            self.transport.pause_reading()
            self._since, self._is_in_head, self._is_in_body = None, False, False  # it is awaited no more
            return
        error = InvalidPayload(Fault("", f"not a request we can read in one way only: {why}"))
        reply = problems.reply(error, instance="", request_id=(request_id := new_request_id()))
        headers = (
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *SECURITY_HEADERS,
        )
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + reply.body)
        self.transport.close()


def what_is_wrong(url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> str | None:
    """Why a header is not acted on: too large, or to be read in two ways. Names are in lower case."""
    if len(headers) > MAX_HEADERS:
        return _TOO_MANY
    names, values = [name for name, _ in headers], b"".join([value for _, value in headers])
    if len(url) + len(b"".join(names)) + len(values) > MAX_HEAD:
        return _TOO_LONG
    if not url.startswith(b"/") or b"#" in url:
        return "its target is no path"
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version != "1.0"):
        return f"it has {hosts} Host headers, and needs one"
    host = headers[names.index(b"host")][1] if hosts else b"-"
    if not host or b"," in host:
        return "its Host names none, or several"
    if b"\n" in values or b"\r" in values:
        return "a header goes on in the next line"
    if names.count(b"content-length") > 1:
        return "it has more than one Content-Length"
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "it has Content-Length and Transfer-Encoding"
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if version == "1.0" or codings != [b"chunked"]:
            return "the one Transfer-Encoding is chunked, and HTTP/1.1 has it"
    return None


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a header says that a body follows."""
    found = dict(headers)
    return b"transfer-encoding" in found or found.get(b"content-length", b"0").strip(b"0") != b""


class Gathering:
    """A transport that sends two things together that are written one right after the other.

    `written`: bytes that were handed to it and left for the transport's own buffer, or the caller.
    """

    __slots__ = ("_held", "_loop", "_transport", "written")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self.written = 0

    def write(self, data: bytes) -> None:
        """Hold *data* back for what follows at once: then both leave, else it does when this turn is over."""
        if self._held:
            self._held += data
            self._send()  # now: whoever asked goes on while we answer others
        else:
            self._held = data
            self._loop.call_soon(self._send)

    def close(self) -> None:
        """Send what was written, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():  # else whoever asked has gone meanwhile
            self.written += len(held)
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


_TOO_LONG: Final = f"its header is longer than {MAX_HEAD} bytes"
_TOO_MANY: Final = f"it has more than {MAX_HEADERS} headers"
