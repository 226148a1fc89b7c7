"""A service played by the standard library: records what it is sent, answers what it is told to."""

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Canned:
    """One answer to give. `hangs_up`: none, the connection ends; `closes`: it ends silently afterwards."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    closes: bool = False


class Peer:
    """The played service; `answers` are given in order, then `{}`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: deque[Canned] = deque()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        """Answer the next request with *value* as JSON."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answers.append(Canned(status, json.dumps(value).encode(), named))

    def problem(self, status: int, error_code: str, detail: str = "so it is", **members: Any) -> None:
        """Answer the next request with an error."""
        body = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
        self.answer(body | {"error_code": error_code, "request_id": "req-of-the-peer", **members}, status)

    @property
    def last(self) -> Received:
        return self.received[-1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                port = self.client_address[1]
                peer.received.append(Received(self.command, self.path, headers, body, port))
                canned = peer.answers.popleft() if peer.answers else Canned()
                if canned.hangs_up:
                    self.close_connection = True
                    return
                self.send_response(canned.status)
                for name, value in canned.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(canned.body)))
                self.end_headers()
                self.wfile.write(canned.body)
                if canned.closes:  # without Connection: close, as a restart would
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = _answer  # noqa: N815  # the names http.server looks for

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@contextmanager
def running_peer() -> Iterator[Peer]:
    """A peer that answers until the block ends."""
    peer = Peer()
    thread = threading.Thread(target=peer.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        peer.server.shutdown()
        thread.join()
        peer.server.server_close()


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
