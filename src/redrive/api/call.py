"""One HTTP call on its way through: what came in, who asks, and what goes out."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from redrive.clock import timed_bytes, unique_bytes
from redrive.domain.access import Call, Permission, Principal
from redrive.domain.errors import Fault, InvalidPayload, TooLarge
from redrive.domain.trace import new_traceparent, parse_traceparent, parse_tracestate
from redrive.engine.once import Key, Told
from redrive.engine.runtime import Engine

SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)  # of every answer; nothing allows another origin to read one (CORS)
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
MIB = 1 << 20
SMALL_BODY = 64 * 1024
_KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e][\x21-\x7e]{0,254})', re.ASCII)
_JSON = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?\s*', re.ASCII | re.IGNORECASE)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
encode = msgspec.json.Encoder().encode


class Headers(msgspec.Struct):
    """The request headers we read, each value with how often it came."""

    values: dict[bytes, bytes]
    repeated: set[bytes]

    @classmethod
    def of(cls, raw: list[tuple[bytes, bytes]]) -> "Headers":
        """Names are in lower case already (ASGI)."""
        values: dict[bytes, bytes] = {}
        repeated: set[bytes] = set()
        for name, value in raw:
            if name in values:
                repeated.add(name)
            # Several tracestate headers are one list, in the order they came (W3C Trace Context §3.3.1).
            values[name] = values[name] + b"," + value if name == b"tracestate" and name in values else value
        return cls(values, repeated)

    def once(self, name: bytes) -> str | None:
        """The value of a header that came exactly once, as text; else None."""
        value = self.values.get(name)
        return None if value is None or name in self.repeated else value.decode("latin-1")


class Reply(msgspec.Struct):
    """What goes out: a body, or a *stream* of unknown length that is made while it goes."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = []
    stream: AsyncGenerator[bytes, None] | None = None


class Asked(msgspec.Struct):
    """What a handler works with. `path` holds the parameters of the route's template."""

    engine: Engine
    headers: Headers
    method: str
    route: str
    path: dict[str, str]
    raw_path: str
    query_string: bytes
    receive: Receive
    request_id: str
    traceparent: str
    tracestate: str | None
    principal: Principal | None = None

    @property
    def call(self) -> Call:
        """The call as verbs know it."""
        assert self.principal is not None  # noqa: S101 - routes without a permission ask no verb
        return Call(self.principal, self.request_id, self.traceparent, self.tracestate)

    def json(self, status: int, document: dict[str, Any]) -> Reply:
        """A reply that carries the call's request id."""
        document["request_id"] = self.request_id
        return Reply(status, encode(document))

    def told(self, status: int, document: dict[str, Any], *, again: bool = False) -> Told:
        """What a verb tells: as much of a reply as is stored under an idempotency key."""
        return Told(status, self.json(status, document).body, again)

    def reply(self, told: Told) -> Reply:
        """The reply that tells it; what was told before is told under the request id of this call."""
        if not told.again:
            return Reply(told.status, told.body)
        reply = self.json(told.status, msgspec.json.decode(told.body))
        reply.headers.append((b"idempotency-replayed", b"true"))
        return reply

    async def body(self, most: int = SMALL_BODY) -> bytes:
        """The whole body, which must be JSON and at most *most* bytes."""
        self._check_type()
        announced = self.headers.values.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > most:
            raise TooLarge(_too_large(most))
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts = [body]
            size = len(body)
            while message.get("more_body") and message["type"] == "http.request" and size <= most:
                message = await self.receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
            body = b"".join(parts)
        if len(body) > most:  # a chunked one announces nothing
            raise TooLarge(_too_large(most))
        if message["type"] == "http.disconnect":
            raise InvalidPayload(Fault("", "the connection closed before the body was complete"))
        return body

    def idempotency_key(self) -> str | None:
        """The Idempotency-Key, bare or quoted, without its quotes; None when there is none."""
        raw = self.headers.values.get(b"idempotency-key")
        if raw is None:
            return None
        match = _KEY.fullmatch(raw.decode("latin-1"))
        if match is None or b"idempotency-key" in self.headers.repeated:
            raise InvalidPayload(
                Fault("Idempotency-Key", "one header of 1–255 visible ASCII characters, bare or in quotes")
            )
        return match[1] or match[2]

    def key(self, body: bytes) -> Key | None:
        """The key that makes this call happen once, if it came with one."""
        key = self.idempotency_key()
        if key is None:
            return None
        secret = self.engine.vault.derive("fingerprint")
        return Key.of(self.call.principal.caller, f"{self.method} {self.raw_path}", key, body, secret=secret)

    def _check_type(self) -> None:
        if self.headers.values.get(b"content-encoding", b"identity") != b"identity":
            raise InvalidPayload(Fault("Content-Encoding", "send the body as it is, not compressed"))
        given = self.headers.values.get(b"content-type", b"")
        if given != b"application/json" and not _JSON.fullmatch(given.decode("latin-1")):
            raise InvalidPayload(Fault("Content-Type", "must be application/json (in UTF-8)"))


Handler = Callable[[Asked], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True):
    """One call of the contract: the table of these is the API, and its OpenAPI description."""

    method: str
    path: str
    permission: Permission | None
    handler: Handler
    summary: str


def correlation(headers: Headers) -> tuple[str, str, str | None]:
    """Request id, traceparent, tracestate: the caller's where they are valid, else our own."""
    request_id = headers.once(b"x-request-id")
    if request_id is None or not REQUEST_ID.fullmatch(request_id):
        request_id = new_request_id()
    given = headers.once(b"traceparent")
    traceparent = None if given is None else parse_traceparent(given)
    if traceparent is None:  # then its tracestate means nothing either
        return request_id, new_traceparent(unique_bytes(16), unique_bytes(8)), None
    state = headers.values.get(b"tracestate")
    return request_id, traceparent, None if state is None else parse_tracestate(state.decode("latin-1"))


def new_request_id() -> str:
    """One that sorts by when it was made."""
    return f"req-{timed_bytes().hex()}"


def _too_large(most: int) -> str:
    return f"the body of this call holds at most {most:,} bytes"
