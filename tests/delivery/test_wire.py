"""What we rely on in aiohttp's inside; a new aiohttp that works otherwise fails here first."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from redrive.delivery.wire import Body, Receiver

ANSWER = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n"
)


class Wire(asyncio.Transport):
    """A transport that only knows whether it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def received(pieces: list[bytes]) -> tuple[list[int], BaseException | None, bool]:
    """The statuses that came of *pieces*, the body's error, and whether the connection was closed."""

    async def play() -> tuple[list[int], BaseException | None, bool]:
        receiver, wire = Receiver(asyncio.get_running_loop()), Wire()
        receiver.connection_made(wire)
        receiver.set_response_params()
        for piece in pieces:
            if not wire.closed:
                receiver.data_received(piece)
        answers = [await receiver.read() for _ in range(len(receiver._buffer))]
        return [message.code for message, _ in answers], answers[-1][1].exception(), wire.closed

    return asyncio.run(play())


@given(cuts=st.sets(st.integers(1, len(ANSWER) - 1)))
def test_a_header_counts_however_it_is_cut_and_whatever_follows(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(ANSWER)]

    statuses, error, closed = received([ANSWER[a:b] for a, b in pairwise(edges)])

    assert statuses == [100, 200]
    assert error is not None
    assert closed


def test_a_second_answer_closes_the_connection_and_is_dropped() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    assert received([one]) == ([200], None, False)
    assert received([one, one]) == ([200], None, True)
    assert received([one + one]) == ([200], None, True)


def test_a_body_is_consumed_by_its_first_writing() -> None:
    class Writer:
        async def write(self, data: bytes) -> None:
            assert body.consumed

    body = Body(b"{}")
    assert not body.consumed

    asyncio.run(body.write(Writer()))  # type: ignore[arg-type]  # all that is used of it

    assert (body.consumed, body.size) == (True, 2)
