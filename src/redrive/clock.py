"""Time and chance: the only module that asks the machine for either."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
Chance = Callable[[], float]  # a number in [0, 1)


class Clock(Protocol):
    """What the engine asks about time."""

    def now(self) -> datetime:
        """The present instant: aware, UTC, to the millisecond."""
        ...

    def elapsed(self) -> float:
        """Seconds on a clock that never steps, for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present instant: aware, UTC, to the millisecond."""
        return _EPOCH + timedelta(milliseconds=time.time_ns() // 1_000_000)

    def elapsed(self) -> float:
        """Seconds on a clock that never steps, for durations."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        await asyncio.sleep(seconds)


class FollowedClock:
    """Another machine's wall clock, as last told, carried on by this one's steady clock."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._ahead = (base.now() - _EPOCH) - timedelta(seconds=base.elapsed())

    def follow(self, instant: datetime, elapsed: float) -> None:
        """It was *instant* there at the second *elapsed* of the steady clock here."""
        self._ahead = (instant - _EPOCH) - timedelta(seconds=elapsed)

    def now(self) -> datetime:
        """The present instant there: aware, UTC, to the millisecond."""
        since = self._ahead + timedelta(seconds=self._base.elapsed())
        return _EPOCH + since // _MILLISECOND * _MILLISECOND

    def elapsed(self) -> float:
        """Seconds on a clock that never steps, for durations."""
        return self._base.elapsed()

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        await self._base.sleep(seconds)


def random_bytes(count: int) -> bytes:
    """Bytes nobody can guess: tokens, secrets."""
    return os.urandom(count)


# Ids need to be unique, not secret; these do not let go of the GIL for a system call, and so cost a
# tenth beside a busy writer thread. The generator is seeded by the system, anew in a forked child.
unique_bytes: Callable[[int], bytes] = random.randbytes
chance: Chance = random.random
