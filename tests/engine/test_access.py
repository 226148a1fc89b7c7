"""Who calls: one look at a token for all who show it at once, and what wrong ones cost an address."""

import asyncio
import hashlib

import pytest

from redrive.domain.access import Permission
from redrive.domain.errors import RateLimited, Unauthenticated
from redrive.engine.access import Access
from redrive.store.tokens import Token
from tests.engine.conftest import Harness
from tests.factories import NOW

ADDRESS = "192.0.2.1"


class Door:
    """Access over a store that answers once its gate is open, with what it was asked."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.access = Access(harness.tools, failures_per_minute=3, calls_per_second=0)
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        find = harness.store.tokens.find

        async def find_late(digest: bytes) -> Token | None:
            self.asked.append(digest)
            await self.gate.wait()
            return await find(digest)

        monkeypatch.setattr(harness.store.tokens, "find", find_late)

    def show(self, token: str) -> asyncio.Task[object]:
        return asyncio.create_task(self.access.principal(token, ADDRESS))


@pytest.fixture
async def door(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Door:
    token = Token("tok_1", "shop", frozenset({Permission.VIEW}), NOW, None, None, None)
    await harness.store.tokens.add(token, hashlib.sha256(b"right").digest())
    return Door(harness, monkeypatch)


async def test_many_calls_at_once_with_a_token_that_is_new_here_are_believed_after_one_look(
    door: Door,
) -> None:
    calls = [door.show("right") for _ in range(10)]  # more than wrong ones would be allowed
    await asyncio.sleep(0)
    calls[0].cancel()  # whose question it was

    door.gate.set()
    found = await asyncio.gather(*calls[1:])

    assert {getattr(principal, "id", None) for principal in found} == {"shop"}
    assert len(door.asked) == 1


async def test_a_wrong_token_costs_once_however_many_show_it_at_once_and_whoever_goes_away(
    door: Door,
) -> None:
    door.gate.set()
    for guess in ("one", "two"):
        calls = [door.show(guess) for _ in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in told[1:]} == {Unauthenticated}
    with pytest.raises(Unauthenticated):
        await door.show("three")

    with pytest.raises(RateLimited):
        await door.show("four")
