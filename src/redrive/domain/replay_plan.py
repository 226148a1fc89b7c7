"""Planning a replay of many: what is frozen of each item, what all of it counts, which few go first."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from redrive.domain.ids import ItemId
from redrive.domain.replay import MOST_CANARY, Plan
from redrive.domain.replay_judging import Candidate, judge


class Frozen(Struct, frozen=True, gc=False):
    """A row of the set that a plan freezes."""

    item: ItemId
    cycle: int
    risk: int
    reason: str | None  # why it is skipped


class Drafting:
    """A plan in the making: what was frozen so far, counted, digested, and with the extremes of each kind."""

    def __init__(self, head: bytes, *, as_of: datetime, sends: bool) -> None:
        """*head*: what else the digest stands for."""
        self._digest = hashlib.sha256(head)
        self._as_of = as_of
        self._sends = sends
        self._skipped: Counter[str] = Counter()
        self._risks: Counter[int] = Counter()
        self._kinds: dict[str, _Extremes] = {}
        self._some: list[ItemId] = []
        self._oldest: ItemId | None = None

    def add(self, candidates: Iterable[Candidate]) -> list[Frozen]:
        """Judge them; the rows to freeze."""
        rows = [self._add(one) for one in candidates]
        self._digest.update("".join(f"{r.item} {r.cycle} {r.reason or ''}\n" for r in rows).encode())
        return rows

    def finish(self, estimated_seconds: float | None) -> Plan:
        """The plan of all that was added."""
        return Plan(
            digest=self._digest.hexdigest(),
            skipped=dict(self._skipped),
            risks=dict(self._risks),
            oldest=self._oldest,
            estimated_seconds=estimated_seconds,
            canary=tuple(self._canary()),
        )

    @property
    def eligible(self) -> int:
        """How many are to be replayed, so far."""
        return self._risks.total()

    def _add(self, one: Candidate) -> Frozen:
        skip = judge(one, as_of=self._as_of, sends=self._sends)
        if skip is not None:
            self._skipped[skip.value] += 1
            return Frozen(one.id, one.cycle, one.risk, skip.value)
        self._risks[one.risk] += 1
        self._oldest = one.id if self._oldest is None else min(self._oldest, one.id)
        kind = one.event_type or ""
        if (extremes := self._kinds.get(kind)) is None:
            extremes = self._kinds[kind] = _Extremes(one)
        extremes.add(one)
        if len(self._some) < MOST_CANARY:
            self._some.append(one.id)
        return Frozen(one.id, one.cycle, one.risk, None)

    def _canary(self) -> Sequence[ItemId]:
        """Of each kind, the most frequent first, one extreme after another; then any others."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        turns = range(len(_Extremes.NAMES))
        picked = (kind.nth(turn + at) for turn in turns for at, kind in enumerate(kinds))
        return list(dict.fromkeys([*picked, *self._some]))[:MOST_CANARY]


class _Extremes:
    """The largest, oldest, smallest and newest item of one event type."""

    NAMES: Final = ("largest", "oldest", "smallest", "newest")
    __slots__ = ("count", "largest", "newest", "oldest", "smallest")

    def __init__(self, one: Candidate) -> None:
        self.count = 0
        self.largest = self.oldest = self.smallest = self.newest = one

    def add(self, one: Candidate) -> None:
        self.count += 1
        if one.size > self.largest.size:
            self.largest = one
        elif one.size < self.smallest.size:
            self.smallest = one
        if one.id < self.oldest.id:
            self.oldest = one
        elif one.id > self.newest.id:
            self.newest = one

    def nth(self, turn: int) -> ItemId:
        extreme: Candidate = getattr(self, self.NAMES[turn % len(self.NAMES)])
        return extreme.id


def estimate_seconds(
    eligible: int, *, rate: float | None, concurrency: int, mean_seconds: float | None
) -> float | None:
    """How long a replay takes at the integration's own limits; None when nothing limits or tells it."""
    limits = [limit for limit in (rate, concurrency / mean_seconds if mean_seconds else None) if limit]
    return eligible / min(limits) if limits else None


def head_of(replay_id: str, integration_id: str, as_of: datetime, setting: str) -> bytes:
    """What the digest of a plan stands for beside its items."""
    return f"{replay_id} {integration_id} {as_of.isoformat()} {setting}\n".encode()
