"""Whether the store works: one place that knows, says so once, and paces how often it is tried again."""

from redrive.clock import Clock
from redrive.store.port import StoreUnavailable
from redrive.telemetry.events import Announce, StoreFailed, StoreRecovered

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)


class Health:
    """Fed by everyone who talks to the store."""

    def __init__(self, clock: Clock, announce: Announce) -> None:
        self.clock = clock
        self.announce = announce
        self.reason: str | None = None
        self.fatal: str | None = None
        self._since = 0.0
        self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last thing that was tried failed."""
        return self.reason is not None

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next try: longer each time, up to two seconds."""
        return PAUSES[min(max(self._failures, 1), len(PAUSES)) - 1]

    def failed(self, verb: str, error: StoreUnavailable) -> None:
        """The store could not do *verb*; the first failure in a row is announced."""
        self._failures += 1
        if error.fatal:
            self.fatal = error.reason
        if self.reason is None:
            self._since = self.clock.elapsed()
            self.announce(StoreFailed(verb, error.reason))
        self.reason = error.reason

    def worked(self) -> None:
        """The store did something."""
        if self.reason is not None and self.fatal is None:
            self.announce(StoreRecovered(self.clock.elapsed() - self._since))
            self.reason, self._failures = None, 0
