"""A caller's connection: how long it may take for what, and how answers leave."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.incoming import PATIENCE, Gathering, Patience
from redrive.server import HttpServer
from tests.engine.conftest import eventually

DEADLINE = 10.0  # for facts that come at once; reached only by a broken test
SHORT = Patience(for_a_request=0.05, bytes_per_second=1e9, at_most=0.1, for_an_answer=0.05, looks_every=0.01)
LONG = Patience(for_a_request=1e6, at_most=1e6, for_an_answer=1e6, looks_every=1e6)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
MUCH = 64 * 1024 * 1024  # more than the system's buffers take


def answering(may_go_on: asyncio.Event) -> Any:
    """An application that takes the whole body and then answers; with much to a GET, late at /waits."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/waits":
            await may_go_on.wait()
        body = bytes(MUCH) if scope["method"] == "GET" else b"ok"
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return answer


@asynccontextmanager
async def serving(
    patience: Patience, may_go_on: asyncio.Event | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, HttpServer]]:
    """A connection to a real server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(answering(may_go_on or asyncio.Event()), listener, patience=patience)
    server.start()
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            yield reader, writer, server
            writer.close()
    finally:
        server.hurry()
        await server.close()


SLOW = {
    "nothing at all": b"",
    "empty lines": b"\r\n\r\n",
    "half a request line": b"POST /",
    "half a header": b"POST / HTTP/1.1\r\nHost: a\r\nX-Note",
    "no body": POST,
    "half a body": POST + b"half",
    "half a chunk": POST.replace(b"Content-Length: 9", b"Transfer-Encoding: chunked") + b"9\r\nhalf",
    "the next request": POST + b"123456789" + b"POST /",
    "the next body": POST + b"123456789" + POST,
}


@pytest.mark.parametrize("name", SLOW)
async def test_who_does_not_go_on_is_cut_off(name: str) -> None:
    async with serving(SHORT) as (reader, writer, _):
        writer.write(SLOW[name])
        try:
            answered = await reader.read()
        except ConnectionResetError:
            answered = b""

    assert answered.count(b"HTTP/1.1 200 OK") in ((0, 1) if name.startswith("the next") else (0,))


async def test_who_does_not_take_the_answer_is_cut_off() -> None:
    async with serving(SHORT) as (reader, writer, server):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        cast(asyncio.Transport, writer.transport).pause_reading()
        await eventually(lambda: _has_no_caller(server))


async def test_who_takes_some_of_the_answer_is_not_cut_off() -> None:
    async with serving(LONG) as (reader, writer, server):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        [connection], now = connections(server), 0.0
        for _ in range(10):
            connection.look(now)
            await reader.readexactly(4 * 1024 * 1024)
            now += 2 * LONG.for_an_answer
            await eventually(lambda: _has_taken_more(connection))
            connection.look(now)
        assert not connection.transport.is_closing()

        connection.look(now + 2 * LONG.for_an_answer)
        assert connection.transport.is_closing()


async def test_who_takes_its_time_within_what_is_allowed_is_answered() -> None:
    async with serving(LONG) as (reader, writer, _):
        for byte in POST + b"123456789":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        answered = await reader.readuntil(b"\r\n\r\n")

    assert answered.startswith(b"HTTP/1.1 200 OK")


async def test_a_request_that_waits_for_the_answer_before_it_is_not_slow() -> None:
    may_go_on = asyncio.Event()
    async with serving(LONG, may_go_on) as (reader, writer, server):
        writer.write(POST.replace(b" / ", b" /waits ") + b"123456789" + POST + b"half")
        [connection] = await eventually(lambda: _waiting(server))
        connection.look(1e12)
        may_go_on.set()
        writer.write(b"other")
        answered = [await reader.readuntil(b"\r\n\r\nok") for _ in range(2)]

    assert [answer.startswith(b"HTTP/1.1 200 OK") for answer in answered] == [True, True]


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", POST.replace(b"9", b"9, 9")], ids=["line", "header"])
async def test_what_cannot_be_read_takes_no_time_from_the_answer_before_it(bad: bytes) -> None:
    may_go_on = asyncio.Event()
    async with serving(LONG, may_go_on) as (reader, writer, server):
        writer.write(POST.replace(b" / ", b" /waits ") + b"123456789" + bad)
        [connection] = await eventually(lambda: _ending(server))
        connection.look(1e12)
        may_go_on.set()
        answered = await reader.read()

    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert answered.endswith(b"\r\n\r\nok")


@given(st.floats(0, 1e9), st.integers(0, 1 << 40), st.integers(0, 1 << 20))
def test_what_comes_gives_time_to_what_is_to_come_up_to_a_limit(
    since: float, received: int, more: int
) -> None:
    ends, later = PATIENCE.ends(since, received), PATIENCE.ends(since, received + more)

    assert since + PATIENCE.for_a_request <= ends <= later <= since + PATIENCE.at_most
    assert later - ends <= more / PATIENCE.bytes_per_second + 1e-6


def connections(server: HttpServer) -> list[Any]:
    return list(server._uvicorn.server_state.connections)


async def _ending(server: HttpServer) -> list[Any] | None:
    """The connections that end with the answer that is awaited on them."""
    return [one for one in connections(server) if one.cycle is not None and not one.cycle.keep_alive] or None


async def _waiting(server: HttpServer) -> list[Any] | None:
    """The connections on which a request waits for its turn."""
    return [one for one in connections(server) if one.pipeline] or None


async def _has_taken_more(connection: Any) -> bool | None:
    transport = connection.transport
    return transport.written - transport.get_write_buffer_size() > connection._taken or None


async def _has_no_caller(server: HttpServer) -> bool | None:
    return not connections(server) or None


class Recorded(asyncio.Transport):
    """Keeps what is sent through it, each piece apart."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 80)})
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


async def test_a_header_and_its_body_leave_in_one_piece_and_at_once() -> None:
    transport = Recorded()
    gathering = Gathering(transport, asyncio.get_running_loop())

    gathering.write(b"head, ")
    assert transport.sent == []
    gathering.write(b"body")
    assert transport.sent == [b"head, body"]
    await asyncio.sleep(0)
    gathering.write(b"alone")
    await asyncio.sleep(0)

    assert transport.sent == [b"head, body", b"alone"]


async def test_what_was_written_before_it_is_closed_leaves_first_and_once() -> None:
    transport = Recorded()
    gathering = Gathering(transport, asyncio.get_running_loop())

    gathering.write(b"the last")
    gathering.close()
    await asyncio.sleep(0)

    assert transport.is_closed
    assert transport.sent == [b"the last"]


async def test_nothing_is_sent_to_who_went_away_meanwhile() -> None:
    transport = Recorded()
    gathering = Gathering(transport, asyncio.get_running_loop())

    gathering.write(b"too late")
    transport.close()
    await asyncio.sleep(0)

    assert transport.sent == []


async def test_whatever_else_it_is_asked_the_transport_answers() -> None:
    gathering = Gathering(Recorded(), asyncio.get_running_loop())

    assert gathering.get_extra_info("peername") == ("192.0.2.1", 80)
