"""What stands beside an integration's configuration and says what may be sent now: contained, released, throttled."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from redrive.domain.delivery import rfc3339

DEFAULT_CONTAINMENT: Final = timedelta(hours=4)
LONGEST_CONTAINMENT: Final = timedelta(days=30)


class Mode(StrEnum):
    """`hold` accepts deliveries and does not send them; `reject` refuses them."""

    HOLD = "hold"
    REJECT = "reject"


class Containment(Struct, frozen=True, omit_defaults=True):
    """Nothing is sent until it is released. `owner` answers for it; `by` is who did it, under `request_id`."""

    mode: Mode
    reason: str
    owner: str
    by: str
    since: datetime
    until: datetime
    request_id: str
    incident: str | None = None
    version: int = 0  # of the catalogue, by which every process has to follow it; the store says
    is_warned: bool = False  # that it is going to expire was told
    probes: int = 0  # that failed, since it expired
    probe_at: datetime | None = None  # when it is probed next; None: when it expires

    def state(self) -> dict[str, Any]:
        """What an audit event shows of it."""
        return {
            "mode": self.mode.value,
            "reason": self.reason,
            "owner": self.owner,
            "by": self.by,
            "since": rfc3339(self.since),
            "until": rfc3339(self.until),
            "incident": self.incident,
        }


class Release(Struct, frozen=True, omit_defaults=True):
    """What was due at `since`, when it was released, is sent at `rate_per_second`, and with it what came later.

    Until nothing of that is left: then it ends by itself.
    """

    rate_per_second: float
    since: datetime
    by: str
    reason: str

    def state(self) -> dict[str, Any]:
        """What an audit event shows of it."""
        return {
            "rate_per_second": self.rate_per_second,
            "since": rfc3339(self.since),
            "by": self.by,
            "reason": self.reason,
        }


class Traffic(Struct, frozen=True, omit_defaults=True):
    """All of it: written as a whole, by whoever read the version before."""

    containment: Containment | None = None
    release: Release | None = None
    # breaker: Breaker | None = None
    version: int = 0

    def state(self) -> dict[str, Any]:
        """What an audit event shows as before_state or after_state."""
        return {
            "containment": None if self.containment is None else self.containment.state(),
            "release": None if self.release is None else self.release.state(),
        }


FLOWING: Final = Traffic()
