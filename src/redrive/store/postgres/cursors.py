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
        self._owned: frozenset[Lane] = frozenset()
        self._lanes: dict[int, list[Lane]] = {}  # those with a cursor, by integration
        self._sweeps = 0

    def follow(self, owned: frozenset[Lane]) -> None:
        """Take over what is owned now. What is new begins at the beginning: others claimed from it."""
        for lane in owned ^ self._owned:
            self._forget(lane)
        self._owned = owned

    def place(self, lane: Lane) -> Place:
        """Where the next claim begins."""
        return self._place(lane, HELD_BACK_MS)

    def advance(
        self, places: Collection[Place], next_due: Mapping[Lane, datetime | None], now_ms: int
    ) -> None:
        """At *now_ms* nothing was left in *places* that is due before *next_due*.

        Unless the place is another by now: something was put back, or the lane came anew.
        """
        for place in places:
            if self.place(place.lane) == place:
                due = next_due.get(place.lane)
                self._reach(place.lane, now_ms if due is None else min(now_ms, to_ms(due)))

    def put_back(self, number: int, due_ms: int) -> None:
        """Something of an integration is due at *due_ms*, whatever was claimed since."""
        for lane in self._lanes.get(number, ()):
            self._reached[lane] = min(self._reached[lane], due_ms)

    def sweep(self) -> list[Place]:
        """Where to look for what the cursors may have passed: a little back, and now and then everywhere."""
        self._sweeps += 1
        if self._sweeps % WHOLE_EVERY == 1:
            self._reached.clear()
            self._lanes.clear()
        return [self._place(lane, SWEPT_BACK_MS) for lane in self._owned]

    def _place(self, lane: Lane, back_ms: int) -> Place:
        return Place(lane, max(0, self._reached.get(lane, 0) - back_ms))

    def _reach(self, lane: Lane, due_ms: int) -> None:
        if lane not in self._reached:
            self._lanes.setdefault(lane.integration, []).append(lane)
        self._reached[lane] = due_ms

    def _forget(self, lane: Lane) -> None:
        if self._reached.pop(lane, None) is not None:
            self._lanes[lane.integration].remove(lane)
