"""The alert when the address guard refused a target: each time, and as news once a minute at most."""

from typing import Final

from redrive.domain.outcome import Failed, Outcome
from redrive.engine.tools import Tools
from redrive.telemetry.events import TargetBlocked

NEWS_AFTER_SECONDS: Final = 60.0


class BlockedTargets:
    """Looks at outcomes, and remembers of each integration when it was news last."""

    def __init__(self, tools: Tools) -> None:
        self.clock = tools.clock
        self.announce = tools.announce
        self._news_at: dict[str, float] = {}

    def see(self, integration_id: str, outcome: Outcome) -> None:
        """Announce it if it is one."""
        if not isinstance(outcome, Failed) or outcome.code != "BLOCKED_ADDRESS":
            return
        now, last = self.clock.elapsed(), self._news_at.get(integration_id)
        again = last is not None and now - last < NEWS_AFTER_SECONDS
        if not again:
            self._news_at[integration_id] = now
        self.announce(TargetBlocked(integration_id, outcome.detail, again))
