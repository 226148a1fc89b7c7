"""Group commit without a timer: whatever queued while the last batch was written is the next batch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from redrive.ending import is_to_end

Given = TypeVar("Given")
Got = TypeVar("Got")
PATIENCE_SECONDS: Final = 0.05


class Turn:
    """Lets batches of several kinds be written one after another: each is larger for having waited.

    What a batch costs is mostly the round trip and the commit. It waits for no other that takes long, though:
    the store may be away, and whoever asks must be told.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Begin once nobody else has the turn, or without it when they keep it."""
        if not await self._take():
            yield
            return
        try:
            yield
        finally:
            self._lock.release()

    async def _take(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._lock.acquire()
        except TimeoutError:
            return False


class Batcher(Generic[Given, Got]):
    """Turns many single submissions into few calls of *flush*, one at a time, in order.

    *flush* answers a batch with one result for each element; what it raises, every submitter gets.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Given]], Awaitable[Sequence[Got]]],
        turn: Turn | None = None,
        most: int = 512,
    ) -> None:
        self._flush = flush
        self._turn = turn or Turn()
        self._most = most
        self._waiting: list[tuple[Sequence[Given], asyncio.Future[Sequence[Got]]]] = []
        self._running: asyncio.Task[None] | None = None
        self.queued = 0

    async def submit(self, elements: Sequence[Given]) -> Sequence[Got]:
        """Have *elements* flushed together, and return their results once they are."""
        future: asyncio.Future[Sequence[Got]] = asyncio.get_running_loop().create_future()
        self._waiting.append((elements, future))
        self.queued += len(elements)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def idle(self) -> None:
        """Return once nothing is queued or being flushed."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def settle(self, seconds: float) -> None:
        """Return once nothing is queued or being flushed, or after *seconds*."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=seconds)

    async def close(self, seconds: float) -> None:
        """Return once nothing is queued or being flushed, or give up on it after *seconds*."""
        await self.settle(seconds)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._flush_next()
        finally:
            self._running = None
            self._give_up()

    async def _flush_next(self) -> None:
        async with self._turn.taken():
            await self._flush_some()

    def _give_up(self) -> None:
        """Let nobody wait for what no batch will take: there is some only when this was cut off."""
        for elements, future in self._waiting:
            future.cancel()
            self.queued -= len(elements)
        self._waiting.clear()

    async def _flush_some(self) -> None:
        batch: list[Given] = []
        taken = 0
        for elements, _ in self._waiting:
            if taken and len(batch) + len(elements) > self._most:
                break
            batch += elements
            taken += 1
        groups, self._waiting = self._waiting[:taken], self._waiting[taken:]
        try:
            results = await self._flush(batch)
        except Exception as error:  # noqa: BLE001 - handed on to every submitter
            for _, future in groups:
                if not future.done():
                    future.set_exception(error)
        except asyncio.CancelledError:  # nobody may wait for what is given up
            for _, future in groups:
                future.cancel()
            if is_to_end():
                raise
        else:
            _hand_out(groups, results)
        finally:
            self.queued -= len(batch)


class Questions(Batcher[Given, Got]):
    """As a Batcher, for what changes nothing: the next batch begins beside one that takes long.

    A session that hangs holds up those who asked in its batch, and nobody else. Who asked and has gone away
    costs nothing.
    """

    def __init__(self, ask: Callable[[Sequence[Given]], Awaitable[Sequence[Got]]], most: int = 512) -> None:
        super().__init__(ask, most=most)
        self._asking: set[asyncio.Task[None]] = set()

    async def _flush_next(self) -> None:
        asking = asyncio.create_task(self._flush_some())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
        self._forget_abandoned()

    def _forget_abandoned(self) -> None:
        for elements, future in self._waiting:
            if future.done():
                self.queued -= len(elements)
        self._waiting = [asked for asked in self._waiting if not asked[1].done()]


def _hand_out(
    groups: Sequence[tuple[Sequence[Given], asyncio.Future[Sequence[Got]]]], results: Sequence[Got]
) -> None:
    at = 0
    for elements, future in groups:
        if not future.done():  # its submitter may have gone away
            future.set_result(results[at : at + len(elements)])
        at += len(elements)
