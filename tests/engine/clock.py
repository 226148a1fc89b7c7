"""Time as the engine's tests have it: it passes when a test says so."""

import asyncio
from datetime import datetime, timedelta

from tests.factories import NOW


class StandingClock:
    """Stands at *start* until it is moved; whoever sleeps wakes when the time has come."""

    def __init__(self, start: datetime = NOW) -> None:
        self._start = start
        self._passed = timedelta()
        self._sleepers: list[tuple[timedelta, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._start + self._passed

    def elapsed(self) -> float:
        return 1_000.0 + self._passed.total_seconds()  # as on a machine that has been up for a while

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._passed + timedelta(seconds=seconds), woken))
        await woken

    def move(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._passed += timedelta(seconds=seconds)
        sleepers, self._sleepers = self._sleepers, []
        for until, woken in sleepers:
            if until > self._passed:
                self._sleepers.append((until, woken))
            elif not woken.done():  # else it was cancelled
                woken.set_result(None)

    def move_to(self, instant: datetime) -> None:
        """Let time pass until *instant*."""
        self.move((instant - self.now()).total_seconds())
