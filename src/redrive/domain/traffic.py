"""What stands beside an integration's configuration and says what may be sent now, and how."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from redrive.domain.breaker import CLOSED, Breaker
from redrive.domain.delivery import rfc3339
from redrive.domain.health import Probe

DEFAULT_CONTAINMENT: Final = timedelta(hours=4)
LONGEST_CONTAINMENT: Final = timedelta(days=30)
WARNED_AHEAD: Final = timedelta(minutes=15)
FIRST_PROBE_WAIT: Final = timedelta(minutes=1)
LONGEST_PROBE_WAIT: Final = timedelta(hours=1)
CAUTIOUS_RATE: Final = 5.0
NO_HEALTH_URL: Final = "give it a health_url, or decide: release it, or contain it for longer"


class Mode(StrEnum):
    """`hold` accepts deliveries and does not send them; `reject` refuses them."""

    HOLD = "hold"
    REJECT = "reject"


class Containment(Struct, frozen=True, omit_defaults=True):
    """Nothing is sent until it is released. `owner` answers for it; `by` did it, under `request_id`."""

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
    is_tried: bool = False  # an item was sent to probe it: no other is, whatever came of that

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
    """What was due at `since`, when it was released, is sent at `rate_per_second`; with it what came later.

    Until nothing of the former is left: then it ends by itself.
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
    breaker: Breaker = CLOSED
    throttled_until: datetime | None = None  # its receiver asked to be left alone
    gone_at: datetime | None = None  # its receiver answered 410
    probe: Probe | None = None  # the last one
    version: int = 0

    def state(self) -> dict[str, Any]:
        """What an audit event shows as before_state or after_state."""
        return {
            "containment": None if self.containment is None else self.containment.state(),
            "release": None if self.release is None else self.release.state(),
            "breaker": self.breaker.state_shown(),
        }


FLOWING: Final = Traffic()


class Standing(Struct, frozen=True):
    """The open items of an integration: those that wait, and those that a living process has claimed."""

    waiting: int
    in_flight: int


def is_expiring(containment: Containment, now: datetime) -> bool:
    """Whether its owner should be told that it ends soon: 15 minutes before, or a quarter of its time."""
    ahead = min(WARNED_AHEAD, (containment.until - containment.since) / 4)
    return not containment.is_warned and now >= containment.until - ahead


def is_to_be_probed(containment: Containment, now: datetime) -> bool:
    """Whether it has run out, and the receiver should be asked now whether it is well."""
    return now >= (containment.probe_at or containment.until)


def after_probe(containment: Containment, now: datetime) -> Containment:
    """It ran out and the receiver was not well: it goes on, and is probed again after a wait that doubles."""
    wait = min(LONGEST_PROBE_WAIT, FIRST_PROBE_WAIT * 2 ** min(containment.probes, 16))
    return replace(containment, probes=containment.probes + 1, probe_at=now + wait)


def still(traffic: Traffic, containment: Containment) -> Containment | None:
    """That very containment as it is by now; None: a person ended or changed it since, and is right."""
    found = traffic.containment
    is_same = found is not None and replace(found, is_tried=containment.is_tried) == containment
    return found if is_same else None


def cautious_rate(own_rate: float | None) -> float:
    """Of a release that nobody watches."""
    return CAUTIOUS_RATE if own_rate is None else min(own_rate, CAUTIOUS_RATE)
