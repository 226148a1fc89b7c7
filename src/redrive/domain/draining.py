"""What a release would do, from recorded figures: how long a backlog takes, how long what is new waits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from redrive.domain.health import DEGRADED_FROM, Tally

RATES: Final = (5.0, 20.0, 100.0)  # attempts a second that are shown besides what was asked for


class Arrivals(Struct, frozen=True):
    """How many deliveries were accepted from `since` on."""

    count: int
    since: datetime

    def per_second(self, now: datetime) -> float:
        """At what rate that is."""
        seconds = (now - self.since).total_seconds()
        return self.count / seconds if seconds > 0 else 0.0


class Drain(Struct, frozen=True):
    """One rate; `sends_per_second` is what the integration's own limits leave of it.

    `drain_seconds` is None when it would never end: as much arrives as is sent. `delay_seconds`: how long a
    delivery waits that arrives at the release; the longest wait if it ends, since it goes by age.
    `is_proven`: the receiver took as much before.
    """

    rate_per_second: float
    sends_per_second: float
    drain_seconds: float | None
    delay_seconds: float
    is_proven: bool


class Simulation(Struct, frozen=True):
    """A backlog, and how it would drain at several rates, the slowest first, if every attempt succeeds."""

    backlog: int
    arrivals_per_second: float
    healthy_per_second: float | None  # the most that the receiver took over a minute; None: none is recorded
    ceiling_per_second: float | None  # what the integration's own limits allow; None: nobody knows
    drains: tuple[Drain, ...]


def simulate(
    backlog: int,
    *,
    arrivals_per_second: float,
    healthy_per_second: float | None = None,
    ceiling_per_second: float | None = None,
    asked: float | None = None,
) -> Simulation:
    """How *backlog* drains at each of the usual rates, and at what was *asked*."""
    drains = []
    for rate in sorted({*RATES} if asked is None else {*RATES, asked}):
        sends = rate if ceiling_per_second is None else min(rate, ceiling_per_second)
        is_proven = healthy_per_second is not None and sends <= healthy_per_second
        drains.append(_drain(backlog, rate, sends, arrivals_per_second, is_proven=is_proven))
    return Simulation(backlog, arrivals_per_second, healthy_per_second, ceiling_per_second, tuple(drains))


def healthy_rate(minutes: Sequence[Tally]) -> float | None:
    """The most that succeeded a second, over a whole minute in which hardly anything failed."""
    well = [one.succeeded for one in minutes if one.succeeded and one.failed < DEGRADED_FROM * one.outcomes]
    return max(well) / 60 if well else None


def ceiling(concurrency: int, rate_per_second: float | None, average: timedelta | None) -> float | None:
    """What an integration's own limits allow a second; so many at once, and each takes *average*."""
    seconds = 0.0 if average is None else average.total_seconds()
    limits = [] if rate_per_second is None else [rate_per_second]
    return min([*limits, concurrency / seconds] if seconds else limits, default=None)


def _drain(backlog: int, rate: float, sends: float, arrivals: float, *, is_proven: bool) -> Drain:
    gained = sends - arrivals
    seconds = 0.0 if backlog == 0 else backlog / gained if gained > 0 else None
    return Drain(rate, sends, seconds, backlog / sends, is_proven)
