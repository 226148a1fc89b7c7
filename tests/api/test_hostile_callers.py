"""What comes in over a connection: refused whole when two programs could read it differently, and cut off."""

import asyncio
import socket
from contextlib import suppress

import pytest

from redrive.incoming import MAX_PIPELINED
from tests.api.service import EVENTS, INTEGRATIONS, Partner, Service
from tests.api.wire import JSON, PATIENCE, Reply, a_request, every_reply, read_reply

BODY = b'{"event_type": "made", "payload": 1}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
HOST = b"Host: redrive.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def chunks(*, size: bytes = b"%x" % len(BODY), end: bytes = b"\r\n", rest: bytes = b"0\r\n\r\n") -> bytes:
    return size + b"\r\n" + BODY + end + rest


# header lines besides those of `send`, and the body
UNREADABLE = {
    "a length and chunks": (HOST + LENGTH + CHUNKED, chunks()),
    "chunks and a length": (HOST + CHUNKED + LENGTH, chunks()),
    "two lengths that agree": (HOST + LENGTH + LENGTH, BODY),
    "two lengths": (HOST + LENGTH + b"Content-Length: 1\r\n", BODY),
    "a list of lengths": (HOST + b"Content-Length: 36, 36\r\n", BODY),
    "a length with a sign": (HOST + b"Content-Length: +36\r\n", BODY),
    "a negative length": (HOST + b"Content-Length: -36\r\n", BODY),
    "a hexadecimal length": (HOST + b"Content-Length: 0x24\r\n", BODY),
    "a length with a gap": (HOST + b"Content-Length: 3 6\r\n", BODY),
    "an underscored length": (HOST + b"Content-Length: 3_6\r\n", BODY),
    "a length past 64 bits": (HOST + b"Content-Length: 18446744073709551652\r\n", BODY),
    "no length": (HOST + b"Content-Length:\r\n", BODY),
    "an encoding that is not chunked": (HOST + b"Transfer-Encoding: gzip\r\n", BODY),
    "identity": (HOST + b"Transfer-Encoding: identity\r\n", BODY),
    "compressed chunks": (HOST + b"Transfer-Encoding: gzip, chunked\r\n", chunks()),
    "chunked and then compressed": (HOST + b"Transfer-Encoding: chunked, gzip\r\n", chunks()),
    "chunked twice": (HOST + b"Transfer-Encoding: chunked, chunked\r\n", chunks()),
    "two encodings": (HOST + CHUNKED + CHUNKED, chunks()),
    "nearly chunked": (HOST + b"Transfer-Encoding: xchunked\r\n", chunks()),
    "chunked behind a vertical tab": (HOST + b"Transfer-Encoding: \x0bchunked\r\n", chunks()),
    "no host": (LENGTH, BODY),
    "two hosts": (HOST + b"Host: other.test\r\n" + LENGTH, BODY),
    "an empty host": (b"Host:\r\n" + LENGTH, BODY),
    "a list of hosts": (b"Host: redrive.test, other.test\r\n" + LENGTH, BODY),
    "another protocol": (HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH, BODY),
    "another protocol, in chunks": (HOST + b"Connection: Upgrade\r\nUpgrade: x\r\n" + CHUNKED, chunks()),
    "a space before the colon": (b"Host : redrive.test\r\n" + LENGTH, BODY),
    "a length with a space before the colon": (HOST + b"Content-Length : 36\r\n", BODY),
    "a line that goes on": (HOST + b"X-Note: one\r\n two\r\n" + LENGTH, BODY),
    "a line that goes on behind a tab": (HOST + b"X-Note: one\r\n\tContent-Length: 1\r\n" + LENGTH, BODY),
    "a line that begins with a space": (HOST + b" X-Note: one\r\n" + LENGTH, BODY),
    "a header without a name": (HOST + b": one\r\n" + LENGTH, BODY),
    "a header without a colon": (HOST + b"X-Note\r\n" + LENGTH, BODY),
    "a name with a space": (HOST + b"X Note: one\r\n" + LENGTH, BODY),
    "a name in brackets": (HOST + b"(X-Note): one\r\n" + LENGTH, BODY),
    "a name that is not ASCII": (HOST + "X-Nöte: one\r\n".encode() + LENGTH, BODY),
    "a NUL": (HOST + b"X-Note: o\x00ne\r\n" + LENGTH, BODY),
    "a bare CR": (HOST + b"X-Note: o\rne\r\n" + LENGTH, BODY),
    "lines that end in LF alone": (HOST.replace(b"\r", b"") + LENGTH, BODY),
    "101 headers": (HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + LENGTH, BODY),
    "a long header": (HOST + b"X-Note: " + b"n" * 33_000 + b"\r\n" + LENGTH, BODY),
    "many long headers": (
        HOST + b"".join(b"X-%d: %b\r\n" % (n, b"n" * 1000) for n in range(40)) + LENGTH,
        BODY,
    ),
    "a chunk of no size": (HOST + CHUNKED, chunks(size=b"")),
    "a chunk whose size is no number": (HOST + CHUNKED, chunks(size=b"zz")),
    "a chunk of negative size": (HOST + CHUNKED, chunks(size=b"-1")),
    "a chunk size written 0x": (HOST + CHUNKED, chunks(size=b"0x24")),
    "a chunk size past 64 bits": (HOST + CHUNKED, chunks(size=b"10000000000000024")),
    "a chunk longer than it says": (HOST + CHUNKED, chunks(end=b"x\r\n")),
    "a chunk that ends in LF alone": (HOST + CHUNKED, chunks(end=b"\n")),
    "a bad trailer": (HOST + CHUNKED, chunks(rest=b"0\r\nX Note: one\r\n\r\n")),
    "200 trailers": (
        HOST + CHUNKED,
        chunks(rest=b"0\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n"),
    ),
}


def send(
    service: Service, target: bytes, lines: bytes, body: bytes, version: bytes = b"HTTP/1.1"
) -> list[Reply]:
    """Every answer to exactly this, until the connection is closed."""
    head = (
        b"POST " + target + b" " + version + b"\r\nAuthorization: Bearer " + str(service.admin.token).encode()
    )
    return every_reply(
        service.port, head + b"\r\nContent-Type: application/json\r\n" + lines + b"\r\n" + body
    )


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_happens(
    service: Service, quiet: Partner, name: str
) -> None:
    lines, body = UNREADABLE[name]
    before = quiet.facts()

    replies = send(service, quiet.deliveries.encode(), lines, body)

    assert [(reply.status, reply.error_code) for reply in replies] == [(400, "INT-400-INVALID-PAYLOAD")]
    assert quiet.facts() == before


NOT_HTTP = {
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a PROXY line": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a version in lower case": b"GET /healthz http/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method nobody knows": b"BREW /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path that is not ASCII": "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "a target with a space": b"GET /health z HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that names a host": b"GET http://other.test/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a fragment": b"GET /healthz#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long target": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without end": b"GET /" + b"a" * 700_000,
    "a header without end": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Note: " + b"n" * 700_000,
    "a header name without end": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"n" * 700_000,
    "headers without end": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 100_000,
    "CONNECT": b"CONNECT partner.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_not_http_is_answered_once_or_cut_off(service: Service, name: str) -> None:
    replies = []
    with suppress(ConnectionResetError):  # what was still on its way when we closed
        replies = every_reply(service.port, NOT_HTTP[name])

    assert [reply.status for reply in replies] in ([400], [] if len(NOT_HTTP[name]) > 500_000 else [400])
    assert service.nobody.get("/healthz").status == 200


def test_what_is_refused_is_told_in_words_and_under_an_id(service: Service) -> None:
    [reply] = send(service, b"/healthz", HOST + HOST, b"")

    assert (
        reply.json()["detail"]
        == "not a request we can read in one way only: it has 2 Host headers, and needs one"
    )
    assert reply.json()["request_id"] == reply.header("x-request-id")
    assert (reply.header("connection"), reply.header("cache-control")) == ("close", "no-store")


def test_a_call_that_asks_for_another_protocol_is_told_what_to_do(service: Service) -> None:
    lines, body = UNREADABLE["another protocol"]

    [reply] = send(service, b"/healthz", lines, body)

    assert reply.json()["detail"].endswith("ask for HTTP/1.1 alone")


def test_a_call_before_one_that_cannot_be_read_is_answered_first(service: Service, partner: Partner) -> None:
    good = a_request(
        "POST", partner.deliveries, BODY, (JSON, ("Authorization", f"Bearer {service.admin.token}"))
    )

    replies = every_reply(service.port, good + b"nonsense\r\n\r\n" + good)

    assert [reply.status for reply in replies] == [202]
    assert len(partner.items()) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_calls_before_one_whose_body_cannot_be_read_are_answered_all(
    service: Service, partner: Partner, count: int
) -> None:
    token = ("Authorization", f"Bearer {service.admin.token}")
    good = a_request("POST", partner.deliveries, BODY, (JSON, token))
    bad = a_request("POST", partner.deliveries, None, (JSON, token, ("Transfer-Encoding", "chunked")))

    replies = every_reply(service.port, good * count + bad + chunks(size=b"zz") + good)

    assert [reply.status for reply in replies] == [202] * count
    assert len(partner.items()) == count


def test_more_calls_than_may_wait_are_answered_as_far_as_they_may(service: Service) -> None:
    replies = every_reply(service.port, a_request("GET", "/healthz", None, ()) * 500)

    assert {reply.status for reply in replies} == {200}
    assert 1 <= len(replies) <= 1 + MAX_PIPELINED


def test_a_header_in_two_pieces_before_a_large_body_is_no_long_one(service: Service, quiet: Partner) -> None:
    body = b'{"event_type": "made", "payload": "' + b"x" * 200_000 + b'"}'
    request = a_request(
        "POST", quiet.deliveries, body, (JSON, ("Authorization", f"Bearer {service.admin.token}"))
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (request[:1], request[1:20], request[20:]):
            connection.sendall(piece)
            service.run(asyncio.sleep(0))  # so that it is read apart

        assert read_reply(connection).status == 202


def test_what_follows_a_call_that_asks_for_another_protocol_is_no_call(service: Service) -> None:
    headers = (("Connection", "Upgrade"), ("Upgrade", "h2c"))
    call = a_request("GET", "/healthz", None, headers) + a_request("GET", "/readyz", None, ())

    assert [reply.json()["status"] for reply in every_reply(service.port, call)] == ["ok"]


def test_trailers_are_no_headers(service: Service, quiet: Partner) -> None:
    call = a_request(
        "POST", quiet.deliveries, None, (JSON, ("Transfer-Encoding", "chunked"), ("Connection", "close"))
    )
    trailer = f"Authorization: Bearer {service.admin.token}\r\n".encode()

    [reply] = every_reply(service.port, call + chunks(rest=b"0\r\n" + trailer + b"\r\n"))

    assert reply.status == 401


@pytest.mark.parametrize(
    "begun", [b"0\r\nX-A: ", b"0\r\nX-A", b"24;x="], ids=["trailer", "its name", "chunk extension"]
)
def test_what_has_no_end_between_and_behind_chunks_is_cut_off(
    service: Service, quiet: Partner, begun: bytes
) -> None:
    token = ("Authorization", f"Bearer {service.admin.token}")
    call = a_request("POST", quiet.deliveries, None, (JSON, token, ("Transfer-Encoding", "chunked")))
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(call + chunks(rest=begun))

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(connection)


def send_without_end(connection: socket.socket) -> None:
    for _ in range(10_000):
        connection.sendall(b"a" * 10_000)


def test_a_caller_that_sends_no_more_is_answered(service: Service, partner: Partner) -> None:
    call = a_request(
        "POST", partner.deliveries, BODY, (JSON, ("Authorization", f"Bearer {service.admin.token}"))
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(call)
        connection.shutdown(socket.SHUT_WR)

        assert read_reply(connection).status == 202


def test_a_body_that_nobody_wants_ends_with_its_connection(service: Service, quiet: Partner) -> None:
    call = a_request("POST", quiet.deliveries, None, (JSON, ("Content-Length", "99999999999")))
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(call)
        refused = read_reply(connection)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(connection)

    assert refused.status == 401


def test_calls_one_right_behind_the_other_are_each_answered_in_turn(
    service: Service, partner: Partner
) -> None:
    token = ("Authorization", f"Bearer {service.admin.token}")
    calls = [a_request("POST", partner.deliveries, BODY, (JSON, token)) for _ in range(50)]
    calls.append(a_request("GET", "/healthz", None, (("Connection", "close"),)))

    replies = every_reply(service.port, b"".join(calls))

    assert [reply.status for reply in replies] == [202] * 50 + [200]
    assert len({reply.json().get("recovery_id") for reply in replies}) == 51


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.2"])
def test_another_protocol_is_not_switched_to(service: Service, protocol: str) -> None:
    headers = (("Connection", "Upgrade, close"), ("Upgrade", protocol), ("HTTP2-Settings", "AAMAAABk"))

    replies = every_reply(service.port, a_request("GET", "/healthz", None, headers))

    assert [reply.status for reply in replies] == [200]


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST", "TRACE"])
def test_no_other_origin_may_read_an_answer(service: Service, method: str) -> None:
    reply = service.admin.send(
        method,
        INTEGRATIONS,
        None,
        ("Origin", "https://evil.example"),
        ("Access-Control-Request-Method", "POST"),
    )

    assert reply.status == {"GET": 200, "POST": 400}.get(method, 405)
    assert [name for name, _ in reply.headers if name.lower().startswith("access-control-")] == []


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/openapi.json", "/nowhere", EVENTS])
def test_no_answer_is_a_page_that_does_anything(service: Service, path: str) -> None:
    reply = service.admin.get(path)

    assert reply.header("content-security-policy") == "default-src 'none'; frame-ancestors 'none'"
    assert reply.header("x-content-type-options") == "nosniff"
