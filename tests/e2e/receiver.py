"""A partner's endpoint that writes down every request it gets, and answers as its script says."""

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any


@dataclass
class Sent:
    """One request, as the receiver saw it; written down when its header is there."""

    webhook_id: str
    request_id: str  # of the call that opened the cycle: one for each cycle
    span_id: str  # of the attempt
    headers: Mapping[str, str]
    arrived_at: float  # by the steady clock, as the next
    ended_at: float = inf  # when its answer left, or its sender had gone away
    body: bytes | None = None  # None: the connection ended before it was complete
    answered: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the receiver says, and when: *after* is set, or that many seconds have passed."""

    status: int
    after: threading.Event | float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Script = Callable[[Sent], Answer]
OK = Answer(200)


class Receiver:
    """The ledger of what was sent to it."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.ledger: list[Sent] = []
        self.closing = threading.Event()
        self.health: Callable[[], int] = lambda: 200  # what a GET is answered
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hooks"

    def sends_of(self, webhook_id: str) -> list[Sent]:
        return [sent for sent in list(self.ledger) if sent.webhook_id == webhook_id]

    def unanswered(self) -> int:
        """How many requests wait for their answer now."""
        return sum(sent.answered is None for sent in list(self.ledger))

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving(script: Script = lambda _: OK, *, port: int = 0) -> Iterator[Receiver]:
    """A receiver on *port*, or on one of its own."""
    receiver = Receiver(script, port)
    try:
        yield receiver
    finally:
        receiver.close()


@contextmanager
def taking_no_connection() -> Iterator[int]:
    """A port whose listener takes no connection: whoever connects, waits."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(4):  # as many as fill its queue, and some more
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def waiting_to_connect(port: int) -> int:
    """How many sockets of this machine wait for *port* to take their connection."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum((remote, state) == (f"0100007F:{port:04X}", "02") for _, _, remote, state, *_ in sockets)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a sender that was killed hangs up
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body leave together
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server: socketserver.BaseServer = self.server
        assert isinstance(server, _Server)
        receiver = server.receiver
        sent = self._written_down(receiver)
        answer = receiver.script(sent)
        if isinstance(answer.after, threading.Event):
            while not answer.after.wait(0.05) and not receiver.closing.is_set():
                pass
        elif answer.after is not None:
            receiver.closing.wait(answer.after)
        sent.answered, sent.ended_at = answer.status, time.monotonic()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        """Somebody asks how it is."""
        server: socketserver.BaseServer = self.server
        assert isinstance(server, _Server)
        self.send_response(server.receiver.health())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _written_down(self, receiver: Receiver) -> Sent:
        headers = {name.lower(): value for name, value in self.headers.items()}
        sent = Sent(
            webhook_id=headers["webhook-id"],
            request_id=headers["x-request-id"],
            span_id=headers["traceparent"].split("-")[2],
            headers=headers,
            arrived_at=time.monotonic(),
        )
        receiver.ledger.append(sent)
        size = int(headers["content-length"])
        body = self.rfile.read(size)
        if len(body) < size:
            sent.ended_at = time.monotonic()
            raise ConnectionResetError("the sender went away")
        sent.body = body
        return sent

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        pass
