"""Answers of unknown length: what fails on the way has no end, and who hung up is sent no more."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from redrive.api.app import Api
from redrive.api.call import Asked, Reply, Route
from redrive.store.port import StoreUnavailable
from tests.api.service import Service

SCOPE = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "headers": [], "query_string": b""}


async def pieces(
    *, fails: bool = False, many: int = 3, closed: list[str] | None = None
) -> AsyncGenerator[bytes, None]:
    """*closed* notes that it was, or came to its end."""
    try:
        for number in range(many):
            yield b"%d\n" % number
            await asyncio.sleep(0)
        if fails:
            raise StoreUnavailable("it is away")
    finally:
        if closed is not None:
            closed.append("closed")


async def sent(service: Service, stream: AsyncGenerator[bytes, None], *, hangs_up: bool = False) -> list[Any]:
    """What leaves a server that is asked for *stream*."""

    async def answer(_: Asked) -> Reply:
        return Reply(200, b"", stream=stream)

    async def receive() -> dict[str, Any]:
        if not hangs_up:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    messages: list[Any] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    try:
        await Api(service.engine, [Route("GET", "/x", None, answer, "")])(SCOPE, receive, send)
    except StoreUnavailable as error:
        messages.append(error)
    return messages


def test_a_stream_leaves_piece_by_piece(service: Service) -> None:
    start, *rest = service.run(sent(service, pieces()))

    assert b"content-length" not in dict(start["headers"])
    assert [(one["body"], one.get("more_body", False)) for one in rest] == [
        (b"0\n", True), (b"1\n", True), (b"2\n", True), (b"", False),
    ]  # fmt: skip


def test_a_stream_that_fails_has_no_end(service: Service) -> None:
    *messages, last = service.run(sent(service, pieces(fails=True)))
    service.engine.health.worked()  # the store is not away for the tests that follow

    assert isinstance(last, StoreUnavailable)
    assert all(one["more_body"] for one in messages[1:])


@pytest.mark.parametrize("many", [1_000])
def test_a_stream_ends_when_nobody_takes_it(service: Service, many: int) -> None:
    closed: list[str] = []
    stream = pieces(many=many, closed=closed)

    messages = service.run(sent(service, stream, hangs_up=True))

    assert len(messages) < 10
    assert closed
