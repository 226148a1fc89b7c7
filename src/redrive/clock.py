"""Time and chance: the only module that asks the machine for either."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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


def random_bytes(count: int) -> bytes:
    """Bytes nobody can guess: tokens, secrets."""
    return os.urandom(count)


# Ids need to be unique, not secret; these do not let go of the GIL for a system call, and so cost a
# tenth beside a busy writer thread. The generator is seeded by the system, anew in a forked child.
unique_bytes: Callable[[int], bytes] = random.randbytes
chance: Chance = random.random
