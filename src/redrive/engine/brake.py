"""Token buckets: how often something may happen for each of many, so that one cannot wear out all."""

MOST_KEPT = 10_000


class Buckets:
    """One for each key, full at first: *burst* at once, and *per_second* more. Of this process alone."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left: dict[str, tuple[float, float]] = {}  # what was left, and when

    def seconds_to_next(self, key: str, now: float) -> float:
        """How long until *key* has one; 0.0 when it has one at *now*, a monotonic second."""
        return max(0.0, 1.0 - self._now(key, now)) / self._per_second

    def take(self, key: str, now: float) -> None:
        """Take one of *key*'s, or what is left of it."""
        self._keep(key, max(0.0, self._now(key, now) - 1.0), now)

    def give_back(self, key: str, now: float) -> None:
        """Undo a `take`."""
        self._keep(key, min(self._burst, self._now(key, now) + 1.0), now)

    def _keep(self, key: str, left: float, now: float) -> None:
        self._left.pop(key, None)  # the order is that of the last use
        self._left[key] = (left, now)
        if len(self._left) > MOST_KEPT:
            del self._left[next(iter(self._left))]

    def _now(self, key: str, now: float) -> float:
        if (kept := self._left.get(key)) is None:
            return self._burst
        left, at = kept
        return min(self._burst, left + (now - at) * self._per_second)
