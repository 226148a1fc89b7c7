"""NOTIFY as a hint: debounced, and outside the transactions that write, whose commits it would serialise."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, Final

import asyncpg

from redrive.clock import Clock
from redrive.store.port import StoreUnavailable
from redrive.store.postgres.connection import Connection, Database, connect

CHANNEL: Final = "redrive_due"
DEBOUNCE_SECONDS: Final = 0.02
AGAIN_SECONDS: Final = 1.0
MOST_NAMED: Final = 500  # a payload holds 8,000 bytes; more than that is told as "any"
Hear = Callable[[Collection[int]], None]


class Hints:
    """Tells other processes of what became due for them, and hears what they tell."""

    def __init__(self, database: Database, url: str, clock: Clock) -> None:
        self._database = database
        self._url = url
        self._clock = clock
        self._waiting: set[int] = set()
        self._teller: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    def tell(self, number: int) -> None:
        """Tell of an integration, together with whatever else comes up in a moment."""
        self._waiting.add(number)
        if self._teller is None:
            self._teller = asyncio.create_task(self._tell())

    def listen(self, hear: Hear) -> None:
        """Begin to hear, on a connection of its own that is opened again whenever it is lost."""
        self._listener = asyncio.create_task(self._listen(hear))

    async def close(self) -> None:
        """Say no more and hear no more."""
        tasks = [task for task in (self._teller, self._listener) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(DEBOUNCE_SECONDS)
                numbers, self._waiting = self._waiting, set()
                await self._database.run(partial(_notify, numbers=numbers))
        except StoreUnavailable:
            self._waiting.clear()  # it was a hint
        finally:
            self._teller = None

    async def _listen(self, hear: Hear) -> None:
        while True:
            with suppress(StoreUnavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._listen_once(hear)  # when it ends, polling goes on, and so do we
            await self._clock.sleep(AGAIN_SECONDS)

    async def _listen_once(self, hear: Hear) -> None:
        lost = asyncio.Event()
        connection = await connect(self._url)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *args: hear(_numbers(args[-1])))
            hear(())  # whatever was told while nobody listened
            await lost.wait()
        finally:
            connection.terminate()


async def _notify(connection: Connection, *, numbers: Collection[int]) -> None:
    """In one round trip: several statements in one text are one transaction."""
    text = " ".join(map(str, numbers)) if len(numbers) <= MOST_NAMED else ""
    await connection.execute(f"SET LOCAL synchronous_commit = off; SELECT pg_notify('{CHANNEL}', '{text}')")


def _numbers(payload: Any) -> Collection[int]:
    """What a hint names; a hint that makes no sense names nothing, which means any."""
    words = str(payload).split()
    return [int(word) for word in words] if all(word.isdecimal() and word.isascii() for word in words) else ()
