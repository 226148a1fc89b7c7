"""Receivers that mean harm or are broken: each row is one, with what its delivery comes to.

After each of them the deliverer is as good as before: the receiver's connection is cut, or kept and clean;
the next delivery to it gets its own answer, and never a byte of what came before; others are served.
"""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

import pytest
import trustme

from redrive.delivery import names as names_module
from redrive.delivery.exchange import MAX_ANSWER, MAX_INTERIM
from redrive.delivery.http import MAX_KEPT_HEADERS, MAX_TRIED, HttpDeliverer
from redrive.delivery.names import SystemResolver
from redrive.domain.outcome import Outcome, Reach, Succeeded
from tests.delivery.receivers import (
    NOW,
    OK,
    PATIENCE,
    SHORT,
    Call,
    Names,
    Script,
    a_deliverer,
    a_guard,
    a_request,
    answering,
    playing,
)

ANSWERED, SENT, NOT_SENT = Reach.ANSWERED, Reach.SENT, Reach.NOT_SENT
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STRAY = b"HTTP/1.1 500 Stray\r\n" + EMPTY
FRESH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh"
BOMB = gzip.compress(bytes(20_000_000), compresslevel=1)  # 87 KB
MOST_SENT = 24 << 20  # what a flood gets rid of: a few MiB wait in the buffers of the sockets


# --- what receivers do ------------------------------------------------------------------------


async def recovering(call: Call) -> None:
    """Answer what is asked from now on, until left."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await answering(FRESH)(call)
    await call.is_left()


def saying(*pieces: bytes, turns: int = 0) -> Script:
    """Answer with *pieces*, that many turns of the loop after each other; whoever asks again is served."""

    async def script(call: Call) -> None:
        await call.request()
        for piece in pieces:
            await call.send(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        await recovering(call)

    return script


def closing(said: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)

    return script


def ending(said: bytes) -> Script:
    """Close one's own half, and wait for the other."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)
        await call.end()

    return script


def resetting(said: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)
        call.reset()

    return script


def dripping(said: bytes, drip: bytes) -> Script:
    """Send *drip* over and over, a byte at a time, until left."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)
        leaving, sent = asyncio.ensure_future(call.is_left()), 0
        with suppress(ConnectionError):
            while not leaving.done():
                await call.send(drip[sent % len(drip) :][:1])
                sent += 1
                await asyncio.wait([leaving], timeout=0.01)
        await leaving

    return script


def flooding(said: bytes, piece: bytes) -> Script:
    """Send *piece* over and over, as fast as it goes, until left: which has to be soon."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)
        leaving, sent = asyncio.ensure_future(call.is_left()), 0
        with suppress(ConnectionError):
            while not leaving.done():
                await call.send(piece)
                sent += len(piece)
                assert sent < MOST_SENT, "nobody stopped reading"
        await leaving

    return script


def not_reading(said: bytes, *, closes: bool = False) -> Script:
    """Answer before the request was read, which never is."""

    async def script(call: Call) -> None:
        await call.reader.readexactly(1)
        await call.send(said)
        if not closes:
            await call.is_left()

    return script


# --- the table --------------------------------------------------------------------------------


class Row(NamedTuple):
    """A receiver, and what a delivery to it comes to; `keeps`: its connection may serve the next one."""

    name: str
    script: Script
    code: str
    reach: Reach
    keeps: bool = False
    body: bytes | None = None
    seconds: float = 60.0  # longer than a test may take: who needs the timeout of a request says so
    size: int = 2  # of what is delivered to it


def cut_off(name: str, said: bytes, code: str, reach: Reach) -> list[Row]:
    """One that stops after *said*, in every way there is."""
    late = "RESPONSE_TIMEOUT" if reach is SENT else code
    return [
        Row(f"{name}, then it closes", closing(said), code, reach),
        Row(f"{name}, then it ends its half", ending(said), code, reach),
        Row(f"{name}, then it resets", resetting(said), code, reach),
        Row(f"{name}, then silence", saying(said), late, reach, seconds=SHORT),
    ]


def malformed(name: str, answer: bytes) -> Row:
    return Row(name, saying(answer), "PROTOCOL_ERROR", SENT)


def flood(name: str, said: bytes, piece: bytes) -> Row:
    outcome = ("SUCCEEDED", ANSWERED) if b"\r\n\r\n" in said else ("PROTOCOL_ERROR", SENT)
    return Row(f"endless: {name}", flooding(said, piece), *outcome)


def succeeds(name: str, answer: bytes, *, body: bytes | None = None, keeps: bool = False) -> Row:
    return Row(name, saying(answer), "SUCCEEDED", ANSWERED, keeps, body)


def header(lines: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n" + body


def status(line: bytes, rest: bytes = EMPTY) -> bytes:
    return line + b"\r\n" + rest


ROWS = [
    # it stops somewhere
    *cut_off("not a byte", b"", "ECONNRESET", SENT),
    *cut_off("half a status line", b"HTTP/1.1 20", "ECONNRESET", SENT),
    *cut_off("a status line", b"HTTP/1.1 200 OK\r\n", "ECONNRESET", SENT),
    *cut_off("half a header", b"HTTP/1.1 200 OK\r\nContent-Le", "ECONNRESET", SENT),
    *cut_off("half a header's end", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", "ECONNRESET", SENT),
    *cut_off("an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n", "ECONNRESET", SENT),
    *cut_off("a header without its body", header(b"Content-Length: 2"), "SUCCEEDED", ANSWERED),
    *cut_off("half a body", header(b"Content-Length: 2", b"o"), "SUCCEEDED", ANSWERED),
    *cut_off("half a body of no length", header(b"X: 1", b"o"), "SUCCEEDED", ANSWERED),
    *cut_off("half a chunk's size", CHUNKED + b"2\r\nok\r\n1", "SUCCEEDED", ANSWERED),
    *cut_off("half a failure", b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nn", "HTTP_503", ANSWERED),
    # it drips
    Row(
        "drips its status line",
        dripping(b"", b"HTTP/1.1 200 " + b"O" * 999),
        "RESPONSE_TIMEOUT",
        SENT,
        seconds=SHORT,
    ),
    Row("drips a header", dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "RESPONSE_TIMEOUT", SENT, seconds=SHORT),
    Row("drips a body", dripping(header(b"Content-Length: 999"), b"x"), "SUCCEEDED", ANSWERED, seconds=SHORT),
    Row("drips chunks", dripping(CHUNKED, b"1\r\nx\r\n"), "SUCCEEDED", ANSWERED, seconds=SHORT),
    Row("drips a 500", dripping(STRAY[:-5] + b"999\r\n\r\n", b"x"), "HTTP_500", ANSWERED, seconds=SHORT),
    # it never stops
    flood("line breaks before an answer", b"", b"\r\n" * 2000),
    flood("interim answers", b"", b"HTTP/1.1 102 Wait\r\n\r\n" * 200),
    flood("reason", b"HTTP/1.1 200 ", b"x" * 4096),
    flood("name of a header", b"HTTP/1.1 200 OK\r\n", b"x" * 4096),
    flood("header line", b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
    flood("headers", b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 700),
    flood("announced body", header(b"Content-Length: 9223372036854775807"), b"x" * 4096),
    flood("body of no length", header(b"X: 1"), b"x" * 4096),
    flood("chunks", CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    flood("one chunk", CHUNKED + b"7FFFFFFFFFFFFFFF\r\n", b"x" * 4096),
    flood("tiny chunks with extensions", CHUNKED, b"1;e=" + b"x" * 4096 + b"\r\nx\r\n"),
    flood("extension of a chunk", CHUNKED + b"1;e=", b"x" * 4096),
    flood("size of a chunk", CHUNKED, b"0" * 4096),
    flood("trailers", CHUNKED + b"0\r\n", b"X: 1\r\n" * 700),
    flood("trailer line", CHUNKED + b"0\r\nX: ", b"x" * 4096),
    flood("name of a trailer", CHUNKED + b"0\r\n", b"x" * 4096),
    flood("answers", OK, OK * 100),
    malformed("a header of 1 MB", header(b"X: " + b"x" * 1_000_000 + b"\r\nContent-Length: 0")),
    malformed("101 headers", header(b"X: 1\r\n" * 100 + b"Content-Length: 0")),
    succeeds("100 headers", header(b"X: 1\r\n" * 99 + b"Content-Length: 0"), keeps=True),
    succeeds("60 KiB of headers", header((b"X: " + b"x" * 3000 + b"\r\n") * 20 + EMPTY[:-4]), keeps=True),
    succeeds(
        "15 KiB that are not UTF-8", header(b"X: " + b"\xff" * 15_000 + b"\r\n" + EMPTY[:-4]), keeps=True
    ),
    # its status line is not one
    malformed("status 0", status(b"HTTP/1.1 0 Odd")),
    malformed("status 99", status(b"HTTP/1.1 99 Odd")),
    malformed("status 2000", status(b"HTTP/1.1 2000 OK")),
    malformed("status 2OO", status(b"HTTP/1.1 2OO OK")),
    malformed("status -200", status(b"HTTP/1.1 -200 OK")),
    malformed("no status", status(b"HTTP/1.1")),
    malformed("two spaces", status(b"HTTP/1.1  200 OK")),
    malformed("a tab", status(b"HTTP/1.1\t200 OK")),
    malformed("a space first", b" " + OK),
    malformed("a byte order mark first", b"\xef\xbb\xbf" + OK),
    malformed("lower case", status(b"http/1.1 200 OK")),
    malformed("HTTP/0.9", b"<html>200 OK</html>\r\n"),
    malformed("HTTP/0.9 as a version", status(b"HTTP/0.9 200 OK")),
    malformed("HTTP/1.2", status(b"HTTP/1.2 200 OK")),
    malformed("HTTP/2", status(b"HTTP/2 200 ")),
    malformed("HTTP/2.0", status(b"HTTP/2.0 200 OK")),
    malformed("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    malformed("HTTP/2's settings", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    malformed("RTSP", status(b"RTSP/1.0 200 OK")),
    malformed("ICE", status(b"ICE/1.0 200 OK")),
    malformed("ICY", status(b"ICY 200 OK")),
    malformed("a request", b"POST / HTTP/1.1\r\nHost: you\r\n" + EMPTY),
    malformed("the banner of SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
    malformed("the banner of SMTP", b"220 mail.example ESMTP\r\n"),
    Row("status 000", saying(status(b"HTTP/1.1 000 Odd")), "PROTOCOL_ERROR", ANSWERED, keeps=True),
    Row("status 600", saying(status(b"HTTP/1.1 600 Odd")), "PROTOCOL_ERROR", ANSWERED, keeps=True),
    Row("status 999", saying(status(b"HTTP/1.1 999 Odd")), "PROTOCOL_ERROR", ANSWERED, keeps=True),
    succeeds("no reason", status(b"HTTP/1.1 200"), keeps=True),
    succeeds("HTTP/1.0", status(b"HTTP/1.0 200 OK")),
    # its header is not one
    malformed("line feeds only", OK.replace(b"\r", b"")),
    malformed("one line feed", header(b"X: 1\nContent-Length: 0")),
    malformed("a line feed at its end", header(b"Content-Length: 0")[:-2] + b"\n"),
    malformed("carriage returns only", OK.replace(b"\n", b"")),
    malformed("a carriage return in the reason", status(b"HTTP/1.1 200 O\rK")),
    malformed("a carriage return in a value", header(b"X: a\rb\r\nContent-Length: 0")),
    malformed("NUL in a value", header(b"X: a\0b\r\nContent-Length: 0")),
    malformed("NUL in a name", header(b"X\0: a\r\nContent-Length: 0")),
    malformed("a folded line", header(b"X: a\r\n b\r\nContent-Length: 0")),
    malformed("a folded first line", header(b" X: a\r\nContent-Length: 0")),
    malformed("a space before the colon", header(b"X : a\r\nContent-Length: 0")),
    malformed("a name of nothing", header(b": a\r\nContent-Length: 0")),
    malformed("a name that is not ASCII", header(b"X\xe9: a\r\nContent-Length: 0")),
    malformed("no colon", header(b"X\r\nContent-Length: 0")),
    # what it says of its length
    *(
        malformed(f"length {length.decode()!r}", header(b"Content-Length: " + length, b"ok"))
        for length in (b"-2", b"+2", b"2 2", b"2_0", b"0x2", b"2, 2", b"2,3", b"", b"two", b"9" * 20)
    ),
    malformed("two lengths", header(b"Content-Length: 2\r\nContent-Length: 3", b"oks")),
    malformed("a length twice", header(b"Content-Length: 2\r\nContent-Length: 2", b"ok")),
    malformed(
        "a length, then chunks", header(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")
    ),
    malformed(
        "chunks, then a length", header(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n")
    ),
    malformed("identity and a length", header(b"Transfer-Encoding: identity\r\nContent-Length: 2", b"ok")),
    succeeds("a length that is too short", header(b"Content-Length: 1", b"ok"), body=b"o"),
    Row(
        "identity",
        closing(header(b"Transfer-Encoding: identity", b"ok")),
        "SUCCEEDED",
        ANSWERED,
        body=b"ok",
    ),
    succeeds(
        "gzip, chunked",
        header(b"Transfer-Encoding: gzip, chunked", b"2\r\nok\r\n0\r\n\r\n"),
        body=b"ok",
        keeps=True,
    ),
    Row(
        "chunked, gzip",
        closing(header(b"Transfer-Encoding: chunked, gzip", b"2\r\nok\r\n0\r\n\r\n")),
        "SUCCEEDED",
        ANSWERED,
        body=b"2\r\nok\r\n0\r\n\r\n",
    ),
    # what it does to a body
    *(
        succeeds(f"a chunk of {size.decode()}", CHUNKED + b"1\r\no\r\n" + size + b"\r\nk", body=b"o")
        for size in (b"zz", b"-1", b"0x1", b" 1", b"FFFFFFFFFFFFFFFFF")
    ),
    succeeds("a chunk that is too long", CHUNKED + b"1\r\nok\r\n0\r\n\r\n", body=b"o"),
    succeeds("a chunk with line feeds only", CHUNKED + b"2\nok\n0\n\n", body=b""),
    succeeds("a trailer", CHUNKED + b"2\r\nok\r\n0\r\nX: 1\r\n\r\n", body=b"ok", keeps=True),
    succeeds("a trailer with a length", CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", body=b"ok"),
    succeeds("a bomb", header(b"Content-Encoding: gzip\r\nContent-Length: %d" % len(BOMB), BOMB)),
    succeeds(
        "what is no brotli",
        header(b"Content-Encoding: br\r\nContent-Length: 2", b"ok"),
        body=b"ok",
        keeps=True,
    ),
    succeeds("more than is kept, then silence", header(b"Content-Length: 999999", bytes(MAX_ANSWER + 1))),
    succeeds("204 with a body", status(b"HTTP/1.1 204 No", b"Content-Length: 2\r\n\r\nok"), body=b""),
    succeeds(
        "204 with a chunk", status(b"HTTP/1.1 204 No", CHUNKED[17:] + b"2\r\nok\r\n0\r\n\r\n"), body=b""
    ),
    Row(
        "304 with a body",
        saying(status(b"HTTP/1.1 304 Same", b"Content-Length: 2\r\n\r\nok")),
        "HTTP_304",
        ANSWERED,
        body=b"",
    ),
    # what comes before and after its answer
    succeeds("100, then 200", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, body=b"ok", keeps=True),
    succeeds("103, then 200", b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" + OK, body=b"ok", keeps=True),
    succeeds("as many interim ones as may be", b"HTTP/1.1 100 C\r\n\r\n" * MAX_INTERIM + OK, keeps=True),
    malformed("one interim answer too many", b"HTTP/1.1 100 C\r\n\r\n" * (MAX_INTERIM + 1) + OK),
    malformed(
        "an interim answer with a body", status(b"HTTP/1.1 100 C", b"Content-Length: 2\r\n\r\nok") + OK
    ),
    *(
        Row(f"switches protocols, {how.decode()!r}", saying(answer + b"\x81\x02ok"), "HTTP_101", ANSWERED)
        for how in (b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Content-Length: 0\r\n")
        for answer in [b"HTTP/1.1 101 Switching\r\n" + how + b"\r\n"]
    ),
    succeeds(
        "an upgrade nobody wants", header(b"Connection: upgrade\r\nUpgrade: h2c\r\n" + EMPTY[:-4]), keeps=True
    ),
    succeeds("a line break after it", OK + b"\r\n", body=b"ok", keeps=True),
    succeeds("a byte after it", OK + b"x", body=b"ok"),
    succeeds("an answer after it", OK + STRAY, body=b"ok"),
    succeeds("half an answer after it", OK + STRAY[:20], body=b"ok"),
    succeeds("an answer after the last chunk", CHUNKED + b"0\r\n\r\n" + STRAY, body=b""),
    succeeds(
        "an answer after the last word", header(b"Connection: close\r\nContent-Length: 2", b"ok" + STRAY)
    ),
    *(
        Row(f"an answer {turns} turns after it", saying(OK, STRAY, turns=turns), "SUCCEEDED", ANSWERED)
        for turns in range(1, 6)
    ),
    # what it wants us to do
    Row("early 413", not_reading(status(b"HTTP/1.1 413 No")), "HTTP_413", ANSWERED, size=8 << 20),
    Row(
        "early 413, then it closes",
        not_reading(status(b"HTTP/1.1 413 No"), closes=True),
        "HTTP_413",
        ANSWERED,
        size=8 << 20,
    ),
    Row("reads nothing", not_reading(b""), "RESPONSE_TIMEOUT", SENT, seconds=SHORT, size=8 << 20),
    Row(
        "to go round in circles",
        saying(status(b"HTTP/1.1 302 Here", b"Location: /hooks\r\n" + EMPTY)),
        "HTTP_302",
        ANSWERED,
        keeps=True,
    ),
    Row(
        "a password",
        saying(status(b"HTTP/1.1 401 Who", b"WWW-Authenticate: Basic\r\n" + EMPTY)),
        "HTTP_401",
        ANSWERED,
        keeps=True,
    ),
    succeeds("to close", header(b"Connection: close\r\nContent-Length: 2", b"ok"), body=b"ok"),
    succeeds("to close and to keep", header(b"Connection: close, keep-alive\r\nContent-Length: 2", b"ok")),
    succeeds("to keep for no time", header(b"Keep-Alive: timeout=0\r\nContent-Length: 2", b"ok"), keeps=True),
    Row(
        "to keep for no time, then it closes",
        closing(header(b"Keep-Alive: timeout=0\r\nContent-Length: 2", b"ok")),
        "SUCCEEDED",
        ANSWERED,
    ),
]


def at_first(script: Script, over: asyncio.Event) -> Script:
    """*script* on the first connection, and tell its end; every later one is served."""
    is_first = True

    async def choosing(call: Call) -> None:
        nonlocal is_first
        if not is_first:
            return await recovering(call)
        is_first = False
        try:
            await script(call)
        finally:
            over.set()

    return choosing


def told(outcome: Outcome) -> tuple[str, Reach]:
    return ("SUCCEEDED" if isinstance(outcome, Succeeded) else outcome.code), outcome.reach


def assert_bounded(outcome: Outcome) -> None:
    if (answer := outcome.answer) is not None:
        assert len(answer.body) <= MAX_ANSWER
        assert sum(len(name) + len(value) for name, value in answer.headers) <= MAX_KEPT_HEADERS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_hostile_receiver_gets_its_outcome_and_hurts_nobody(
    deliverer: HttpDeliverer, row: Row
) -> None:
    over = asyncio.Event()

    async with (
        playing(at_first(row.script, over)) as partner,
        playing(answering(OK)) as other,
        asyncio.timeout(PATIENCE),
    ):
        outcome = await deliverer.send(
            a_request(partner.port, timeout_seconds=row.seconds, body=b"y" * row.size)
        )
        others = await deliverer.send(a_request(other.port))
        if not row.keeps:
            await over.wait()
        following = await deliverer.send(a_request(partner.port))

    assert told(outcome) == (row.code, row.reach)
    assert row.body is None or (outcome.answer and outcome.answer.body) == row.body
    assert_bounded(outcome)
    assert isinstance(others, Succeeded)
    assert isinstance(following, Succeeded)
    assert following.answer.body == b"fresh"
    assert partner.connections == (1 if row.keeps else 2)


def test_a_receiver_is_named_once() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 45


@pytest.mark.parametrize("said", [STRAY, STRAY[:9], b"\r\n", b"x"], ids=repr)
async def test_what_lies_unread_on_a_kept_connection_is_not_the_next_answer(
    deliverer: HttpDeliverer, said: bytes
) -> None:
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        await recovering(call)

    async with playing(script) as partner:
        await deliverer.send(a_request(partner.port))
        calls[0]._writer.write(said)  # it is there at once, and the loop has no turn to read it
        outcome = await deliverer.send(a_request(partner.port))

    assert isinstance(outcome, Succeeded)
    assert outcome.answer.body == b"fresh"
    assert partner.connections == 2


async def test_receivers_that_drip_do_not_keep_others_waiting(deliverer: HttpDeliverer) -> None:
    asked = asyncio.Semaphore(0)

    def telling(script: Script) -> Script:
        async def told(call: Call) -> None:
            asked.release()
            await script(call)

        return told

    in_header, in_body = dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), dripping(CHUNKED, b"1\r\nx\r\n")
    async with (
        playing(telling(in_header)) as first,
        playing(telling(in_body)) as second,
        playing(answering(OK)) as other,
        asyncio.timeout(PATIENCE),
    ):
        slow = [
            asyncio.create_task(deliverer.send(a_request(partner.port, timeout_seconds=60)))
            for partner in (first, second)
            for _ in range(100)
        ]
        for _ in slow:
            await asked.acquire()
        outcomes = [await deliverer.send(a_request(other.port)) for _ in range(50)]
        are_waiting = not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert are_waiting


# --- TLS --------------------------------------------------------------------------------------


AUTHORITY = trustme.CA()


def served_with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


GOOD = served_with(AUTHORITY.issue_cert("partner.test"))


class TlsByHand:
    """A partner's TLS on a plain connection, which may so send what is not TLS as well."""

    def __init__(self, call: Call, context: ssl.SSLContext) -> None:
        self._call = call
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def request(self) -> None:
        """Shake hands, and take what is asked."""
        asked = b""
        while not asked.endswith(b"\r\n\r\n{}"):
            try:
                asked += self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._call.reader.read(65536) or b"\0 the other side left")

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def notify_close(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._call.send(data)


def handshaking(*pieces: bytes) -> Script:
    """Answer the first flight of TLS with *pieces*."""

    async def script(call: Call) -> None:
        await call.reader.read(65536)
        for piece in pieces:
            await call.send(piece)
        await call.is_left()

    return script


def serving(context: ssl.SSLContext) -> Script:
    async def script(call: Call) -> None:
        with suppress(ssl.SSLError):
            await TlsByHand(call, context).request()
        await call.is_left()

    return script


def breaking(said: bytes, raw: bytes = b"", *, notifies: bool = False) -> Script:
    """Say *said* in TLS, then break it: by *raw*, or by its end."""

    async def script(call: Call) -> None:
        tls = TlsByHand(call, GOOD)
        await tls.request()
        await tls.send(said)
        for _ in range(5):  # in one packet with what cannot be read, asyncio and uvloop lose it
            await asyncio.sleep(0)
        if notifies:
            await tls.notify_close()
        await call.send(raw)
        if raw or notifies:
            await call.is_left()

    return script


class TlsRow(NamedTuple):
    name: str
    script: Script
    code: str
    reach: Reach
    seconds: float = 60.0


TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"
HALF = header(b"Content-Length: 9", b"half")
DAY = timedelta(days=1)
OLD = AUTHORITY.issue_cert("partner.test", not_before=NOW - 900 * DAY, not_after=NOW - 899 * DAY)

TLS_ROWS = [
    TlsRow("no TLS but HTTP", handshaking(OK), "TLS_ERROR", NOT_SENT),
    TlsRow("no TLS but SSH", handshaking(b"SSH-2.0-OpenSSH_9.2\r\n"), "TLS_ERROR", NOT_SENT),
    TlsRow("an alert", handshaking(TLS_ALERT), "TLS_ERROR", NOT_SENT),
    TlsRow(
        "a server's greeting of garbage", handshaking(SERVER_HELLO + b"\xff" * 0x76), "TLS_ERROR", NOT_SENT
    ),
    TlsRow("half a greeting", handshaking(SERVER_HELLO), "ETIMEDOUT", NOT_SENT, SHORT),
    TlsRow(
        "a record that is too long",
        handshaking(b"\x16\x03\x03\xff\xff" + bytes(70_000)),
        "TLS_ERROR",
        NOT_SENT,
    ),
    TlsRow(
        "a message that is too long",
        handshaking(b"\x16\x03\x03\x00\x04\x02\xff\xff\xff"),
        "TLS_ERROR",
        NOT_SENT,
    ),
    TlsRow(
        "warnings without end", handshaking(b"\x15\x03\x03\x00\x02\x01\x5a" * 9_999), "TLS_ERROR", NOT_SENT
    ),
    TlsRow("records of nothing", handshaking(b"\x16\x03\x03\x00\x00" * 9_999), "TLS_ERROR", NOT_SENT),
    TlsRow(
        "an unknown authority",
        serving(served_with(trustme.CA().issue_cert("partner.test"))),
        "TLS_ERROR",
        NOT_SENT,
    ),
    TlsRow("a certificate that is over", serving(served_with(OLD)), "TLS_ERROR", NOT_SENT),
    TlsRow(
        "another's certificate",
        serving(served_with(AUTHORITY.issue_cert("else.test"))),
        "TLS_ERROR",
        NOT_SENT,
    ),
    TlsRow("an alert for an answer", breaking(b"", TLS_ALERT), "TLS_ERROR", SENT),
    TlsRow("plain HTTP for an answer", breaking(b"", OK), "TLS_ERROR", SENT),
    TlsRow(
        "a record of garbage for an answer",
        breaking(b"", b"\x17\x03\x03\x00\x20" + bytes(32)),
        "TLS_ERROR",
        SENT,
    ),
    TlsRow("a farewell for an answer", breaking(b"", notifies=True), "ECONNRESET", SENT),
    TlsRow("half a header, then an end", breaking(HALF[:20]), "ECONNRESET", SENT),
    TlsRow("half a body, then an end", breaking(HALF), "SUCCEEDED", ANSWERED),
    TlsRow("half a body, then a farewell", breaking(HALF, notifies=True), "SUCCEEDED", ANSWERED),
    TlsRow("half a body, then an alert", breaking(HALF, TLS_ALERT), "SUCCEEDED", ANSWERED),
    TlsRow("half a body, then plain HTTP", breaking(HALF, OK), "SUCCEEDED", ANSWERED),
    TlsRow("an answer, then plain HTTP", breaking(OK, OK), "SUCCEEDED", ANSWERED),
    TlsRow("an answer, then another", breaking(OK + STRAY, STRAY), "SUCCEEDED", ANSWERED),
]


@asynccontextmanager
async def a_trusting_deliverer(names: Names) -> AsyncIterator[HttpDeliverer]:
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    async with a_deliverer(names, tls=trust) as deliverer:
        yield deliverer


@pytest.mark.parametrize("row", TLS_ROWS, ids=lambda row: row.name)
async def test_a_receiver_with_hostile_tls_gets_its_outcome_and_hurts_nobody(
    names: Names, row: TlsRow
) -> None:
    over = asyncio.Event()

    async with (
        playing(at_first(row.script, over)) as partner,
        playing(answering(OK), tls=GOOD) as other,
        a_trusting_deliverer(names) as deliverer,
        asyncio.timeout(PATIENCE),
    ):
        outcome = await deliverer.send(
            a_request(partner.port, scheme="https", host="partner.test", timeout_seconds=row.seconds)
        )
        others = await deliverer.send(a_request(other.port, scheme="https", host="partner.test"))
        await over.wait()

    assert told(outcome) == (row.code, row.reach)
    assert isinstance(others, Succeeded)
    assert (partner.connections, partner.requests) == (1, [])


# --- names ------------------------------------------------------------------------------------


def many(count: int, *last: str) -> list[str]:
    """Addresses that refuse, and *last*."""
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count - len(last))] + [*last]


class NameRow(NamedTuple):
    """A name that leads to *found*."""

    name: str
    found: Sequence[str] | Exception
    code: str
    reach: Reach = NOT_SENT


NAME_ROWS = [
    NameRow("not there", socket.gaierror(socket.EAI_NONAME, "NXDOMAIN"), "DNS_NOT_FOUND"),
    NameRow("its server fails", socket.gaierror(socket.EAI_AGAIN, "SERVFAIL"), "EAI_AGAIN"),
    NameRow("its server fails for good", socket.gaierror(socket.EAI_FAIL, "SERVFAIL"), "EAI_AGAIN"),
    NameRow("no address", [], "DNS_NOT_FOUND"),
    NameRow("not an address", ["<script>"], "BLOCKED_ADDRESS"),
    NameRow("an empty address", [""], "BLOCKED_ADDRESS"),
    NameRow("another name", ["127.0.0.1", "partner.test"], "BLOCKED_ADDRESS"),
    NameRow("an address in another writing", ["127.0.0.1", "0x7f.1"], "BLOCKED_ADDRESS"),
    NameRow("an address and a port", ["127.0.0.1:80"], "BLOCKED_ADDRESS"),
    NameRow("an address of one interface", ["fe80::1%lo"], "BLOCKED_ADDRESS"),
    NameRow("1,000 that refuse", many(1000), "ECONNREFUSED"),
    NameRow("1,000, the last denied", many(1000, "10.0.0.1"), "BLOCKED_ADDRESS"),
    NameRow("1,000, the last is right", many(1000, "127.0.0.1"), "ECONNREFUSED"),
    NameRow("1,000, the first is right", many(1000, "127.0.0.1")[::-1], "SUCCEEDED", ANSWERED),
    NameRow("the last that is tried is right", many(MAX_TRIED, "127.0.0.1"), "SUCCEEDED", ANSWERED),
    NameRow("the first that is not tried is right", many(MAX_TRIED + 1, "127.0.0.1"), "ECONNREFUSED"),
]


@pytest.mark.parametrize("row", NAME_ROWS, ids=lambda row: row.name)
async def test_a_hostile_name_gets_its_outcome_and_hurts_nobody(
    deliverer: HttpDeliverer, names: Names, row: NameRow
) -> None:
    names.known["hostile.test"] = row.found

    async with playing(answering(OK)) as partner:
        outcome = await deliverer.send(a_request(partner.port, host="hostile.test"))
        others = await deliverer.send(a_request(partner.port, host="partner.test"))

    assert told(outcome) == (row.code, row.reach)
    assert isinstance(others, Succeeded)
    assert names.asked == ["hostile.test", "partner.test"]


async def test_a_name_that_changes_its_mind_is_asked_once_for_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names_module, "KEPT_SECONDS", 0.0)
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def rebinding(host: str) -> Sequence[str]:
        return next(answers)

    closing_each = saying(header(b"Connection: close\r\nContent-Length: 0"))
    async with playing(closing_each) as partner, a_deliverer(rebinding, a_guard("127.0.0.1/32")) as deliverer:
        first, second = [await deliverer.send(a_request(partner.port, host="partner.test")) for _ in range(2)]

    assert told(first) == ("SUCCEEDED", ANSWERED)
    assert told(second) == ("BLOCKED_ADDRESS", NOT_SENT)
    assert partner.connections == 1


async def test_a_name_that_hangs_does_not_keep_others_waiting(names: Names) -> None:
    asked = asyncio.Event()

    async def resolver(host: str) -> Sequence[str]:
        if host == "hanging.test":
            asked.set()
            await asyncio.Event().wait()
        return await names(host)

    async with (
        playing(answering(OK)) as partner,
        a_deliverer(resolver) as deliverer,
        asyncio.timeout(PATIENCE),
    ):
        hanging = asyncio.create_task(
            deliverer.send(a_request(partner.port, host="hanging.test", timeout_seconds=SHORT))
        )
        await asked.wait()
        others = await deliverer.send(a_request(partner.port, host="partner.test"))

        assert told(await hanging) == ("ETIMEDOUT", NOT_SENT)
        assert isinstance(others, Succeeded)


async def test_a_name_that_hangs_takes_one_thread_however_often_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up, may_end = list[bytes](), threading.Event()

    def hanging(host: bytes, *_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        if host == b"hanging.test":
            may_end.wait(PATIENCE)
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    resolver = SystemResolver()
    for _ in range(40):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await resolver("hanging.test")
    other = await resolver("partner.test")
    may_end.set()
    late = await resolver("hanging.test")
    resolver.close()

    assert other == late == ["127.0.0.1"]
    assert looked_up.count(b"hanging.test") == 1
