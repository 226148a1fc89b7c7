"""Time and chance: the only module that asks the machine for either."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DRIFT = 1e-4  # how far two clocks may come apart, seconds a second
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
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1_000, UTC)

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
        self._error = inf  # seconds that it may be wrong by, as it was at the second _told_at
        self._told_at = 0.0

    def follow(self, instant: datetime, after: float, before: float) -> None:
        """It was *instant* there between two seconds of the steady clock here.

        The narrower that is, the surer: of two answers that agree the surer one is kept, until it has aged.
        """
        ahead = (instant - _EPOCH) - timedelta(seconds=(after + before) / 2)
        error = (before - after) / 2
        aged = self._error + _DRIFT * (before - self._told_at)
        if error <= aged or abs((ahead - self._ahead).total_seconds()) > error + aged:
            self._ahead, self._error, self._told_at = ahead, error, before

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
# tenth beside a busy writer thread. The generator is ours, which nobody else seeds; the system does, and
# anew in a forked child.
_generator = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_generator.seed)
unique_bytes: Callable[[int], bytes] = _generator.randbytes
cpu_seconds: Callable[[], float] = time.process_time  # that this process has used, all its threads together
chance: Chance = _generator.random


def timed_bytes() -> bytes:
    """16 bytes: the millisecond since 1970 in six of them, then ten of chance (as in a UUID of version 7).

    What an index holds by them is written side by side, not a page for each.
    """
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + unique_bytes(10)
