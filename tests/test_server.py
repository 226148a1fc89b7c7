"""How answers leave: a server's transport, written to as uvicorn writes to it."""

import asyncio

from redrive.server import Gathering


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
