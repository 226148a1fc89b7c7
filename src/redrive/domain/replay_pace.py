"""What a running job may do next: how many to release now, whether its canary passed, whether to halt."""

from math import ceil, inf
from typing import Final

from msgspec import Struct

from redrive.domain.ids import ItemId
from redrive.domain.replay import ItemState, Job, ReplayState

MOST_AT_ONCE: Final = 500  # of one transaction
RAMP_SECONDS: Final = 3.0
RAMP_FROM: Final = 8.0  # the share of the rate, from one, that a ramp begins with
BUSY_SECONDS: Final = 0.025
STEADY_SECONDS: Final = 0.1
RUNNING_SECONDS: Final = 0.25
RELEASED_SECONDS: Final = 1.0  # nobody wakes a job when its integration sends again
IDLE_SECONDS: Final = 2.0


class Tried(Struct, frozen=True):
    """A candidate for the canary. `is_told`: its first attempt ended; `stumbled`: that failed."""

    id: ItemId
    state: ItemState
    is_told: bool
    stumbled: bool

    @property
    def has_failed(self) -> bool:
        """It counts by its first attempt, unless a later one succeeded meanwhile."""
        return self.state is ItemState.FAILED or (self.stumbled and self.state is not ItemState.SUCCEEDED)


class Figures(Struct, frozen=True):
    """Where a job stands. `untold`: in flight, no attempt ended; `last`: whether the latest stumbled."""

    has_waiting: bool
    in_flight: int
    untold: int
    told_in_last_second: int
    last: tuple[bool, ...]
    canary: tuple[Tried, ...]
    sends: bool  # its integration does


class Release(Struct, frozen=True):
    """Replay up to `count` items now; of the canary those named, else the next in order."""

    count: int
    items: tuple[ItemId, ...] | None = None


class Become(Struct, frozen=True):
    """The job comes into another state, for a reason."""

    state: ReplayState
    because: str


class Wait(Struct, frozen=True):
    """Nothing can be done for now. Each time it is so again it is for twice as long, up to `longest`."""

    seconds: float
    longest: float = 0.0  # less: always the same

    def after(self, last: "tuple[Wait, float] | None") -> float:
        """How long now, after the *last* wait and how long that was."""
        if last is None or last[0] != self:
            return self.seconds
        return max(self.seconds, min(self.longest, 2 * last[1]))


Decision = Release | Become | Wait


def decide(job: Job, figures: Figures, *, saved: float, limit: int, tries: bool = False) -> Decision:
    """What *job* does next. *saved*: what its rate allows now; *limit*: the integration's own concurrency.

    *tries*: the integration's breaker is not closed. Then one item at a time goes before it, to be its trial.
    """
    room = _room(job, figures, saved=saved, limit=limit)
    if tries:
        room = min(room, 0 if figures.in_flight else 1)
    turn = _until_its_turn(job, figures, saved=saved, tries=tries)
    if job.state is ReplayState.CANARY:
        return _decide_canary(job, figures, room=room, turn=turn)
    failures, known = sum(figures.last), len(figures.last)
    halt_if = job.chosen.halt_if
    if known >= halt_if.last and failures > halt_if.share * known:
        return Become(ReplayState.HALTED, f"{failures} of the last {known} outcomes were failures")
    if not figures.has_waiting:
        if figures.in_flight:
            return Wait(STEADY_SECONDS, IDLE_SECONDS)
        return Become(ReplayState.COMPLETED, "every item of it has its outcome")
    if not figures.sends or room < 1:
        return turn
    return Release(min(room, MOST_AT_ONCE))


def _until_its_turn(job: Job, figures: Figures, *, saved: float, tries: bool) -> Wait:
    """How long to wait if nothing can be released: by what stands in the way."""
    if not figures.sends:
        return Wait(RELEASED_SECONDS)
    if tries:
        return Wait(BUSY_SECONDS, RELEASED_SECONDS)
    rate = job.chosen.rate
    if rate is not None and saved < 1:
        return Wait(min(RUNNING_SECONDS, max(BUSY_SECONDS, (1 - saved) / rate)))
    return Wait(BUSY_SECONDS)


def _decide_canary(job: Job, figures: Figures, *, room: int, turn: Wait) -> Decision:
    tried = [one for one in figures.canary if one.state not in (ItemState.WAITING, ItemState.SKIPPED)]
    left = [one.id for one in figures.canary if one.state is ItemState.WAITING]
    size = min(job.chosen.canary.size, len(tried) + len(left))
    if not size:
        return Become(ReplayState.HALTED, "no item that was chosen for the canary can be replayed any more")
    must = ceil(job.chosen.canary.share * size)
    failed = sum(one.has_failed for one in tried)
    if failed > size - must:
        return Become(
            ReplayState.HALTED,
            f"{failed} of {size} items of the canary failed; {must} had to succeed",
        )
    missing = min(size - len(tried), room if figures.sends else 0)
    if missing > 0:
        return Release(missing, tuple(left[:missing]))
    if len(tried) >= size and all(one.is_told for one in tried):
        return Become(ReplayState.RUNNING, f"{size - failed} of {size} items of the canary succeeded")
    is_all_of_it = len(tried) >= size and figures.sends
    return Wait(BUSY_SECONDS, RUNNING_SECONDS) if is_all_of_it else turn


def _room(job: Job, figures: Figures, *, saved: float, limit: int) -> int:
    """How many may be released now.

    Without a concurrency of its own a job keeps as many before the integration as that sends at once, twice,
    and what it told in the last second: a queue that is never empty, and never longer than about a second.
    """
    if job.chosen.concurrency is not None:
        window = job.chosen.concurrency - figures.in_flight
    else:
        window = 2 * limit + figures.told_in_last_second - figures.untold
    return max(0, min(window, MOST_AT_ONCE if saved == inf else int(saved)))


def refill(saved: float, rate: float | None, *, seconds: float, running_for: float) -> float:
    """What a job may release after *seconds* more, at a rate that ramps up from when it began to run."""
    if rate is None:
        return inf
    ramp: float = 2.0 ** (running_for * 3 / RAMP_SECONDS) / RAMP_FROM
    now = rate * min(1.0, ramp)
    burst = max(1.0, now / 4)
    return min(burst, (0.0 if saved == inf else saved) + seconds * now)
