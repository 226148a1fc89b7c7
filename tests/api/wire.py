"""A client that can send anything: what it is told, byte for byte, over a socket of its own."""

import io
import json
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, Protocol, cast

PATIENCE = 10.0  # a deadline for facts that come at once; reached only by a broken test
Header = tuple[str, str]
JSON: Header = ("Content-Type", "application/json")


@dataclass(frozen=True)
class Reply:
    """One answer as it came."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header that stands at most once."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} stands {len(found)} times"
        return found[0] if found else None

    @property
    def error_code(self) -> str:
        """The code of a problem, whose form is checked as well."""
        assert self.header("content-type") == "application/problem+json", self
        code: str = self.json()["error_code"]
        return code

    @property
    def pointers(self) -> list[str]:
        """Where a 400 says that something is wrong."""
        return [fault["pointer"] for fault in self.json()["errors"]]


class Caller:
    """Calls a service with one token (or none); every call on a connection of its own."""

    def __init__(self, port: Callable[[], int], token: str | None = None, subject: str = "") -> None:
        self._port = port
        self.token = token
        self.subject = subject

    def send(self, method: str, path: str, body: bytes | None = None, *headers: Header) -> Reply:
        """Send exactly this, and the token."""
        given = headers if self.token is None else (("Authorization", f"Bearer {self.token}"), *headers)
        return exchange(self._port(), a_request(method, path, body, given), method)

    def get(self, path: str, *headers: Header) -> Reply:
        return self.send("GET", path, None, *headers)

    def post(self, path: str, document: Any, *headers: Header) -> Reply:
        return self.send("POST", path, as_json(document), JSON, *headers)

    def patch(self, path: str, document: Any, *headers: Header) -> Reply:
        return self.send("PATCH", path, as_json(document), JSON, *headers)


def as_json(document: Any) -> bytes:
    """*document* as JSON; bytes are JSON already."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def a_request(method: str, path: str, body: bytes | None, headers: Iterable[Header]) -> bytes:
    """An HTTP/1.1 request, its header values in Latin-1, as HTTP has them."""
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: redrive.test",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")


def exchange(port: int, request: bytes, method: str = "GET") -> Reply:
    """Send *request* and read the one answer to it, also when it comes before all was sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return read_reply(connection, method)


class Readable(Protocol):
    """As much of a socket as an answer is read from."""

    def makefile(self, mode: Any, /) -> Any: ...


def every_reply(port: int, request: bytes) -> list[Reply]:
    """Every answer to *request* until the connection is closed, also when several come at once."""
    replies = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        stream = Stream(connection.makefile("rb", buffering=0))
        while stream.peek(1):
            replies.append(read_reply(stream))
    return replies


class Stream(io.BufferedReader):
    """What comes in, read by one HTTPResponse after the other: none closes it or reads past its answer."""

    def makefile(self, _mode: str) -> "Stream":
        return self

    def close(self) -> None:
        pass


def read_reply(connection: Readable, method: str = "GET") -> Reply:
    """The next answer on *connection*."""
    response = HTTPResponse(cast(socket.socket, connection), method=method)
    try:
        response.begin()
        return Reply(response.status, tuple(response.getheaders()), response.read())
    finally:
        response.close()
