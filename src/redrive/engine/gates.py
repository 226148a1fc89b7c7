"""The gate of an integration: what its lanes in this process have in common, whether anything may start.

It is shut while the breaker is not closed, but for one trial, and while the receiver asked to be left alone.
Memory only.
"""

from collections import deque
from datetime import datetime
from enum import Enum, auto
from math import inf
from typing import Final

from redrive.domain.breaker import CLOSED, Breaker, Seen, Watch


class Trial(Enum):
    """Of a breaker that is not closed: where the one attempt stands that tries the receiver."""

    NONE = auto()
    ASKED_FOR = auto()  # the store is to say that it is ours
    GRANTED = auto()
    UNDER_WAY = auto()


class Recent:
    """The outcomes of the last seconds, counted by the second, and the failures since the last good one."""

    __slots__ = ("_again", "_began", "_ends", "_ill", "_past", "_run", "_seconds", "_sums", "_well")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._past: deque[tuple[float, int, int, int]] = deque()
        self._sums = (0, 0, 0)  # of those
        self._began = self._ends = 0.0
        self._well = self._ill = self._again = 0
        self._run = _NO_RUN

    def well(self, elapsed: float) -> None:
        """Count one that was well at *elapsed*, a monotonic second."""
        if elapsed >= self._ends:
            self._turn(elapsed)
        self._well += 1
        self._run = _NO_RUN

    def ill(self, elapsed: float, *, again: bool) -> None:
        """Count a failure, *again* of what had failed before."""
        if elapsed >= self._ends:
            self._turn(elapsed)
        self._ill += 1
        self._again += again
        since, count, counted_again = self._run
        self._run = (min(since, elapsed), count + 1, counted_again + again)

    def seen(self, elapsed: float) -> tuple[Seen, Seen]:
        """What was counted of the last seconds; and of the failures since the last good one, however long."""
        if elapsed >= self._ends:
            self._turn(elapsed)
        was_well, was_ill, was_again = self._sums
        well, ill, again = self._well + was_well, self._ill + was_ill, self._again + was_again
        first = self._past[0][0] if self._past else self._began
        since, count, counted_again = self._run
        return (
            Seen(well + ill, ill, again, elapsed - first),
            Seen(count, count, counted_again, elapsed - since if count else 0.0),
        )

    def _turn(self, elapsed: float) -> None:
        """A second is over: what it counted is kept for as long as it is recent."""
        if self._well or self._ill:
            self._past.append((self._began, self._well, self._ill, self._again))
        while self._past and self._past[0][0] < elapsed - self._seconds:
            self._past.popleft()
        self._sums = (
            sum(second[1] for second in self._past),
            sum(second[2] for second in self._past),
            sum(second[3] for second in self._past),
        )
        self._began, self._ends = elapsed, elapsed + 1.0
        self._well = self._ill = self._again = 0


_NO_RUN = (inf, 0, 0)

WATCH: Final = Watch()


class Gate:
    """`shut_until` is a second of the steady clock: before it nothing starts but a trial that was granted."""

    __slots__ = (
        "_try_at", "ahead", "breaker", "recent", "shut_until", "throttled_until", "trial", "trial_ends",
        "watch",
    )  # fmt: skip

    def __init__(self, watch: Watch = WATCH) -> None:
        self.watch = watch
        self.recent = Recent(watch.window_seconds)
        self.breaker = CLOSED
        self.shut_until = 0.0
        self.trial = Trial.NONE
        self.trial_ends = 0.0  # then others may try as well
        self.throttled_until = 0.0
        self.ahead = 0  # how much of what it turned to is not stored yet
        self._try_at = 0.0

    def is_throttled(self, elapsed: float) -> bool:
        """Whether its receiver asked to be left alone at *elapsed*."""
        return elapsed < self.throttled_until

    def room(self, elapsed: float) -> int:
        """How many attempts may start although it is shut: the trial."""
        may_try = self.trial is Trial.GRANTED and elapsed < self.trial_ends and not self.is_throttled(elapsed)
        return int(may_try)

    def wait_seconds(self, elapsed: float) -> float | None:
        """When to look again, while it is shut; None: something else than time is waited for."""
        if self.is_throttled(elapsed):
            return self.throttled_until - elapsed
        match self.trial:
            case Trial.NONE:
                return max(0.0, self._try_at - elapsed)
            case Trial.ASKED_FOR:
                return None
            case _:
                return max(0.0, self.trial_ends - elapsed)

    def wants_trial(self, elapsed: float) -> bool:
        """Whether it is time to ask for one, should something be due: also when ours came to nothing."""
        return (
            not self.breaker.is_closed
            and self.trial is not Trial.ASKED_FOR
            and elapsed >= (self._try_at if self.trial is Trial.NONE else self.trial_ends)
            and not self.is_throttled(elapsed)
        )

    def throttle(self, until: float) -> None:
        """Let nothing start before *until*; what was asked for before stands if that is later."""
        self.throttled_until = max(self.throttled_until, until)
        self._shut()

    def grant(self, until: float) -> None:
        """The next attempt that starts is the trial; it is ours until *until*."""
        self.trial, self.trial_ends = Trial.GRANTED, until

    def put_off(self, until: float) -> None:
        """No trial of ours before *until*: it could not be granted."""
        self.trial, self._try_at = Trial.NONE, until

    def heed(self, watch: Watch) -> None:
        """Open by *watch* from now on."""
        if watch != self.watch:
            self.watch, self.recent = watch, Recent(watch.window_seconds)

    def follow(
        self, breaker: Breaker, throttled_until: datetime | None, now: datetime, elapsed: float
    ) -> bool:
        """Take over what is stored, unless what we stored last is not there yet; whether that closed it."""
        if self.ahead:
            return False
        seconds = 0.0 if throttled_until is None else (throttled_until - now).total_seconds()
        self.throttled_until = elapsed + seconds if seconds > 0 else 0.0
        was = self.breaker
        if breaker != was:
            self.turn(breaker, now, elapsed)
        self._shut()
        return breaker.is_closed and not was.is_closed

    def turn(self, breaker: Breaker, now: datetime, elapsed: float) -> None:
        """Follow the breaker; what was counted before speaks of another time."""
        self.breaker, self.trial = breaker, Trial.NONE
        self._try_at = elapsed if breaker.until is None else elapsed + (breaker.until - now).total_seconds()
        self.recent.forget()
        self._shut()

    def _shut(self) -> None:
        self.shut_until = self.throttled_until if self.breaker.is_closed else inf
