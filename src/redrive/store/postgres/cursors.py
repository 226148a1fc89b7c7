"""How far along the due index each lane was claimed: so that a claim does not pass over what is done with.

Dead entries stay in an index as long as an old snapshot may see them; a claim that begins behind them costs
what it claims. What becomes due before a cursor, because its commit came late, is found by the sweeps.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from redrive.domain.sharing import Lane
from redrive.store.postgres.work import Place
from redrive.store.rows import to_ms

HELD_BACK_MS: Final = 250
SWEPT_BACK_MS: Final = 30_000
WHOLE_EVERY: Final = 30  # sweeps; one in so many looks at everything


class Cursors:
    """The due time, in milliseconds, up to which each lane was claimed by this process."""

    def __init__(self) -> None:
        self._reached: dict[Lane, int] = {}
        self._put_back: dict[Lane, int] = {}  # the earliest due time, since its cursor was moved last
        self._owned: frozenset[Lane] = frozenset()
        self._lanes: dict[int, list[Lane]] = {}  # what is owned, by integration
        self._sweeps = 0

    def follow(self, owned: frozenset[Lane]) -> None:
        """Take over what is owned now. What is new begins at the beginning: others claimed from it."""
        if owned == self._owned:
            return
        for lane in owned ^ self._owned:
            self._reached.pop(lane, None)
            self._put_back.pop(lane, None)
        self._owned, self._lanes = owned, {}
        for lane in owned:
            self._lanes.setdefault(lane.integration, []).append(lane)

    def place(self, lane: Lane) -> Place:
        """Where the next claim begins."""
        return self._place(lane, HELD_BACK_MS)

    def advance(
        self, places: Collection[Place], next_due: Mapping[Lane, datetime | None], now_ms: int
    ) -> None:
        """At *now_ms* nothing was left in *places* that is due before *next_due*.

        Unless the place is another by now: something was put back, or the lane went or came anew. What was
        put back later than there may have come while that was looked at: nothing moves past it.
        """
        for place in places:
            lane, due = place.lane, next_due.get(place.lane)
            if lane in self._owned and self.place(lane) == place:
                reached = now_ms if due is None else min(now_ms, to_ms(due))
                self._reached[lane] = min(reached, self._put_back.pop(lane, reached))

    def put_back(self, number: int, due_ms: int) -> None:
        """Something of an integration is due at *due_ms*, whatever was claimed since."""
        for lane in self._lanes.get(number, ()):
            self._put_back[lane] = min(due_ms, self._put_back.get(lane, due_ms))
            self._reached[lane] = min(due_ms, self._reached.get(lane, 0))

    def sweep(self) -> list[Place]:
        """Where to look for what the cursors may have passed: a little back, and now and then everywhere."""
        self._sweeps += 1
        if self._sweeps % WHOLE_EVERY == 1:
            self._reached.clear()
        return [self._place(lane, SWEPT_BACK_MS) for lane in self._owned]

    def _place(self, lane: Lane, back_ms: int) -> Place:
        return Place(lane, max(0, self._reached.get(lane, 0) - back_ms))
