"""One connection's reading of answers, without a socket: however they are cut, whatever follows."""

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from redrive.delivery.exchange import MAX_ANSWER, Connection, ProtocolError

ANSWER = (
    b"HTTP/1.1 102 Processing\r\nX-Early: 1\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
)
STRAY = b"HTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n"


class Wire:
    """A transport that keeps what is written, and notes its end."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def exchanged(pieces: list[bytes], *, end: Exception | bool | None = None) -> tuple[Connection, Wire]:
    """A connection after one exchange in which *pieces* arrived; *end*: the connection was lost then."""
    kept: list[Connection] = []
    loop = asyncio.get_running_loop()
    connection, wire = Connection(loop, kept.append), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]  # as much of a transport as is used
    exchange = asyncio.create_task(connection.exchange(b"head ", b"body", loop.time() + 60))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    if end is not None:
        connection.connection_lost(end if isinstance(end, Exception) else None)
    await exchange
    assert bool(kept) is not wire.is_aborted  # kept or cut, never both, never neither
    return connection, wire


def cut(data: bytes, places: set[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(places=st.sets(st.integers(1, len(ANSWER) - 1)))
def test_an_answer_is_read_however_it_is_cut(places: set[int]) -> None:
    connection, wire = asyncio.run(exchanged(cut(ANSWER, places)))

    assert (connection.status, bytes(connection.body), connection.is_whole) == (201, b"hello", True)
    assert connection.headers == [(b"Content-Type", b"text/plain"), (b"Content-Length", b"5")]
    assert bytes(wire.written) == b"head body"
    assert not wire.is_aborted


@given(places=st.sets(st.integers(1, len(ANSWER + STRAY) - 1)))
def test_a_second_answer_is_never_the_answer_and_cuts_the_connection(places: set[int]) -> None:
    connection, wire = asyncio.run(exchanged(cut(ANSWER + STRAY, places)))
    connection.data_received(b"")

    assert (connection.status, bytes(connection.body)) == (201, b"hello")
    assert wire.is_aborted or not connection.is_open


@given(junk=st.lists(st.binary(min_size=1, max_size=200), max_size=8), places=st.sets(st.integers(1, 90)))
def test_whatever_arrives_the_exchange_ends_with_a_status_or_an_error(
    junk: list[bytes], places: set[int]
) -> None:
    pieces = [*cut(ANSWER[: max(places, default=0)], places), *junk]

    connection, _ = asyncio.run(exchanged(pieces, end=True))

    assert connection.status is not None or isinstance(connection.error, ProtocolError | OSError)
    assert len(connection.body) <= MAX_ANSWER + 1


@given(
    body=st.binary(max_size=300),
    after=st.sampled_from([b"zz\r\n", b"5\r\nab", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"\x00"]),
)
def test_a_complete_header_counts_although_its_body_is_broken(body: bytes, after: bytes) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""

    connection, wire = asyncio.run(exchanged([start + chunk + after], end=ConnectionResetError()))

    assert (connection.status, connection.is_whole) == (200, False)
    assert bytes(connection.body).startswith(body)
    assert wire.is_aborted
