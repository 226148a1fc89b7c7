"""Whether this process is short of CPU: then what waits leaves most of it to what arrives."""

from collections.abc import Callable

from redrive.clock import Clock

LOOK_SECONDS = 0.04  # most of a step of claims: a shorter look would see a burst
FULL = 0.8  # of one core: all that an interpreter can use, less what it waits for its disk
ARRIVALS_OF_CLAIMS = 0.25  # fewer than these would gain little from what claims would lose


class Load:
    """What of a core this process used since the last look, and what it was for.

    Its threads take turns at one interpreter, and little of them runs beside it. When that is full, whatever
    starts makes everything else later: a wave of retries would hold up the callers of what is new, and these
    would then have to be claimed as well.
    """

    def __init__(self, clock: Clock, cpu_seconds: Callable[[], float]) -> None:
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self.favours_arrivals = False
        self._arrived = self._claimed = 0
        self._looked_at, self._used = clock.elapsed(), cpu_seconds()

    def arrived(self) -> None:
        """A delivery is being accepted here, whoever is going to send it."""
        self._arrived += 1

    def claimed(self, count: int) -> None:
        """So many were claimed."""
        self._claimed += count

    def look(self) -> None:
        """Judge by what happened since the last look, unless that was just now."""
        elapsed = self._clock.elapsed()
        if elapsed - self._looked_at < LOOK_SECONDS:
            return
        used = self._cpu_seconds()
        is_full = used - self._used >= FULL * (elapsed - self._looked_at)
        self.favours_arrivals = is_full and self._arrived > ARRIVALS_OF_CLAIMS * self._claimed
        self._looked_at, self._used = elapsed, used
        self._arrived = self._claimed = 0
