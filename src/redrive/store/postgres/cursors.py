"""How far along its due index each lane was claimed: so that a claim does not pass over what is done with.

Dead entries stay in an index as long as an old snapshot may see them; a claim that begins behind them costs
what it claims. What becomes due before a cursor, because its commit came late, is found by the sweeps.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from redrive.domain.sharing import WHOLE, Share
from redrive.store.postgres.work import Place
from redrive.store.rows import to_ms

HELD_BACK_MS: Final = 250
SWEPT_BACK_MS: Final = 30_000
WHOLE_EVERY: Final = 30  # sweeps; one in so many looks at everything


class Cursors:
    """The due time, in milliseconds, up to which each integration was claimed by this process."""

    def __init__(self) -> None:
        self._reached: dict[int, int] = {}
        self._shares: Mapping[int, Share] = {}
        self._sweeps = 0

    @property
    def shares(self) -> Mapping[int, Share]:
        """What this process owns of each integration."""
        return self._shares

    def follow(self, shares: Mapping[int, Share]) -> None:
        """Take over what is owned now. What is new begins at the beginning: others claimed from it."""
        for number, share in shares.items():
            if self._shares.get(number) != share:
                self._reached.pop(number, None)
        self._shares = shares

    def place(self, number: int) -> Place:
        """Where the next claim begins."""
        return self._place(number, HELD_BACK_MS)

    def advance(
        self, places: Collection[Place], next_due: Mapping[int, datetime | None], now_ms: int
    ) -> None:
        """At *now_ms* nothing was left in *places* that is due before *next_due*.

        Unless the place is another by now: more of the integration may be ours, or something was put back.
        """
        for place in places:
            if self.place(place.integration) == place:
                due = next_due.get(place.integration)
                self._reached[place.integration] = now_ms if due is None else min(now_ms, to_ms(due))

    def put_back(self, number: int, due_ms: int) -> None:
        """Something is due at *due_ms*, whatever was claimed since."""
        if due_ms < self._reached.get(number, 0):
            self._reached[number] = due_ms

    def sweep(self) -> list[Place]:
        """Where to look for what the cursors may have passed: a little back, and now and then everywhere."""
        self._sweeps += 1
        if self._sweeps % WHOLE_EVERY == 1:
            self._reached.clear()
        return [self._place(number, SWEPT_BACK_MS) for number in self._shares]

    def _place(self, number: int, back_ms: int) -> Place:
        share = self._shares.get(number, WHOLE)
        since = max(0, self._reached.get(number, 0) - back_ms)
        return Place(number, since, share.shards, sum(1 << shard for shard in share.mine))
