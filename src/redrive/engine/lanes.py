"""Lanes: who may start how many attempts now. Memory only; one process owns a lane, so it is exact.

What is due waits in `ready` (served round-robin), what is due later in a heap.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from redrive.domain.sharing import Lane
from redrive.engine.gates import Gate

RAMP_FROM = 1
LATE = timedelta(seconds=2)  # after which nothing that arrives passes what waits


@dataclass(frozen=True, slots=True)
class Draining:
    """A release: what was due at `since` is sent at no more than a lane's part of its rate."""

    since: datetime
    rate_per_second: float


@dataclass(slots=True, eq=False)
class Pace:
    """What a lane may do. `window` is what it may have in flight: its concurrency, or less on a ramp."""

    lane: Lane
    gate: Gate = field(default_factory=Gate)
    concurrency: int = 1
    rate_per_second: float | None = None
    sends: bool = True
    in_flight: int = 0
    window: float = 1.0
    tokens: float = 0.0
    refilled_at: float = 0.0
    suspended_until: float = 0.0
    next_due: datetime | None = field(default=None)
    is_behind: bool = False  # the last claim left something that was due
    left_since: datetime | None = None  # when what the last claim left was due first
    own_rate: float | None = None
    release: Draining | None = None  # it is held to that rate, until its backlog is gone
    drained: Draining | None = None  # the release whose backlog was gone

    def configure(
        self,
        concurrency: int,
        rate_per_second: float | None,
        *,
        sends: bool,
        release: Draining | None = None,
    ) -> None:
        """Take over what the integration says now; one that starts to send again ramps up from one.

        A rate begins with nothing saved up.
        """
        if sends and not self.sends:
            self.window = RAMP_FROM
        elif self.window >= self.concurrency or concurrency < self.window:
            self.window = concurrency
        self.concurrency, self.sends = concurrency, sends
        self.own_rate, self.release = rate_per_second, release
        self._keep_to_rate()

    def left(self, next_due: datetime | None) -> None:
        """The earliest that is left is due at *next_due*: a release ends with what was due when it began."""
        self.left_since = next_due
        if self.release is not None and (next_due is None or next_due > self.release.since):
            self.drained = self.release
            self._keep_to_rate()

    def room(self, elapsed: float) -> int:
        """How many attempts the lane itself allows to start at *elapsed* (a monotonic second)."""
        if not self.sends or elapsed < self.suspended_until:
            return 0
        if elapsed < self.gate.shut_until:
            return self.gate.room(elapsed)
        room = int(self.window) - self.in_flight
        if self.rate_per_second is not None:
            self._refill(elapsed)
            room = min(room, int(self.tokens))
        return max(0, room)

    @property
    def has_ample_room(self) -> bool:
        """Whether the lane itself holds nothing up: it has no rate, and half of its window is free."""
        return self.rate_per_second is None and 2 * self.in_flight <= self.window

    def is_late(self, now: datetime) -> bool:
        """Whether something of it has waited so long that nothing more may pass it."""
        waits_since = [since for since in (self.left_since, self.next_due) if since is not None]
        return bool(waits_since) and now - min(waits_since) >= LATE

    def wait_seconds(self, elapsed: float) -> float | None:
        """When to look again although nothing happens: None unless time alone makes room."""
        if not self.sends:
            return None
        if elapsed < self.suspended_until:
            return self.suspended_until - elapsed
        if elapsed < self.gate.shut_until:
            return self.gate.wait_seconds(elapsed)
        if self.rate_per_second is not None and self.in_flight < int(self.window):
            missing = 1.0 - self.tokens
            return missing / self.rate_per_second if missing > 0 else None  # else slots are missing, not time
        return None

    def widen(self) -> None:
        """An attempt ended: a ramp grows by one, which doubles it each round, up to the concurrency."""
        self.window = min(float(self.concurrency), self.window + 1)

    def narrow(self) -> None:
        """An attempt timed out: halve what may be in flight, so that hanging receivers hold few slots."""
        self.window = max(1.0, self.window // 2)

    def forget(self) -> None:
        """Nothing is saved up, and no backlog is known to be gone: others may have been here."""
        self.tokens = self.refilled_at = 0.0
        self.drained = self.left_since = None
        self._keep_to_rate()

    def _keep_to_rate(self) -> None:
        rate = self.own_rate
        if self.release is not None and self.release != self.drained:
            rate = self.release.rate_per_second if rate is None else min(rate, self.release.rate_per_second)
        if rate != self.rate_per_second:
            self.rate_per_second = rate
            self.tokens = self.refilled_at = 0.0

    def _refill(self, elapsed: float) -> None:
        assert self.rate_per_second is not None  # noqa: S101 - asked by room()
        burst = max(1.0, self.rate_per_second / 10)  # what a tenth of a second allows, however long idle
        if self.refilled_at == 0.0:
            self.refilled_at = elapsed  # empty at first: a restart must not allow more than the rate
        gained = (elapsed - self.refilled_at) * self.rate_per_second
        self.tokens, self.refilled_at = min(burst, self.tokens + gained), elapsed


class Lanes:
    """The pace of every lane of the process, and the slots they share."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.busy = 0  # claims that are not recorded yet; at most `slots`
        self._in_flight: Counter[int] = Counter()  # of an integration, all its lanes here together
        self._gates: dict[int, Gate] = {}
        self._paces: dict[Lane, Pace] = {}
        self._ready: OrderedDict[Lane, Pace] = OrderedDict()
        self._later: list[tuple[datetime, Lane]] = []  # stale entries included: at most two a lane

    def pace(self, lane: Lane) -> Pace:
        """The pace of a lane, made when first asked for."""
        pace = self._paces.get(lane)
        if pace is None:
            pace = self._paces[lane] = Pace(lane, self.gate(lane.integration))
        return pace

    def gate(self, integration: int) -> Gate:
        """The gate that the lanes of an integration share, made when first asked for."""
        gate = self._gates.get(integration)
        if gate is None:
            gate = self._gates[integration] = Gate()
        return gate

    def ramp(self, integration: int) -> None:
        """Have the lanes of an integration begin with one attempt each."""
        for pace in self._paces.values():
            if pace.lane.integration == integration:
                pace.window = RAMP_FROM

    def keep(self, owned: Collection[Lane]) -> None:
        """Start nothing for other lanes, and forget those of which nothing is in flight."""
        for lane, pace in list(self._paces.items()):
            if lane not in owned:
                self.served(pace)
                if not pace.in_flight:
                    del self._paces[lane]
        ours = {lane.integration for lane in self._paces}
        for integration in self._gates.keys() - ours:
            del self._gates[integration]

    @property
    def is_waiting(self) -> bool:
        """Whether a lane has due work that found no room."""
        return bool(self._ready)

    @property
    def in_flight(self) -> int:
        """HTTP exchanges that are under way."""
        return self._in_flight.total()

    def allowance(self, pace: Pace, elapsed: float) -> int:
        """How many attempts a lane may start now: an integration never gets to hold more than it leaves free.

        That rule (a dynamic threshold, Choudhury and Hahne 1998) needs no list of who wants what: with
        n greedy lanes each settles at a share of 1/(n+1), and as much stays free for whoever comes next.
        """
        free = self.slots - self.busy
        fair = (free - self._in_flight[pace.lane.integration] + 1) // 2
        return max(0, min(pace.room(elapsed), fair))

    def take(self, pace: Pace, count: int = 1) -> None:
        """Reserve *count* of the allowance."""
        pace.in_flight += count
        self._in_flight[pace.lane.integration] += count
        pace.tokens -= count if pace.rate_per_second is not None else 0
        self.busy += count

    def refund(self, pace: Pace, count: int) -> None:
        """Undo a reservation that was not used."""
        self.sent(pace, count)
        pace.tokens += count if pace.rate_per_second is not None else 0
        self.busy -= count

    def sent(self, pace: Pace, count: int = 1) -> None:
        """The exchange is over: the receiver sees one less. The slot stays taken until `recorded`."""
        pace.in_flight -= count
        self._in_flight[pace.lane.integration] -= count

    def recorded(self, count: int = 1) -> None:
        """The result is durable (or given back): the slots are free."""
        self.busy -= count

    def due(self, lane: Lane, at: datetime) -> bool:
        """Something of this lane is due at *at*: remember the earliest. True when that moved it forward."""
        pace = self.pace(lane)
        if pace.next_due is not None and at >= pace.next_due:
            return False
        pace.next_due = at
        heapq.heappush(self._later, (at, lane))
        if len(self._later) > 2 * len(self._paces):
            self._forget_stale()
        return True

    def collect(self, now: datetime) -> Iterator[Pace]:
        """Lanes with due work, the longest unserved first. Those that get something go to the back."""
        while self._later and self._later[0][0] <= now:
            at, lane = heapq.heappop(self._later)
            pace = self._paces.get(lane)
            if pace is not None and pace.next_due == at:  # else it was served, or pushed again
                self._ready[lane] = pace
        yield from list(self._ready.values())

    def served(self, pace: Pace) -> None:
        """The lane's due work was asked for; what remains is told again through `due`."""
        self._ready.pop(pace.lane, None)
        pace.next_due = None

    def seconds_to_next(self, now: datetime, elapsed: float) -> float | None:
        """How long until time alone makes something possible; None: never."""
        waits = [wait for pace in self._ready.values() if (wait := pace.wait_seconds(elapsed)) is not None]
        if self._later:
            waits.append((self._later[0][0] - now).total_seconds())
        return max(0.0, min(waits)) if waits else None

    def _forget_stale(self) -> None:
        """One entry a lane: a far-off retry leaves another each time a busy lane is served."""
        paces = self._paces.values()
        self._later = [(pace.next_due, pace.lane) for pace in paces if pace.next_due is not None]
        heapq.heapify(self._later)
