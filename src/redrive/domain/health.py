"""Whether a receiver is well, from what came of recent attempts and probes: a verdict with its facts."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from redrive.domain.breaker import Breaker
from redrive.domain.delivery import rfc3339

WINDOWS: Final = (5, 15, 60)  # minutes
SHOWN_MINUTES: Final = WINDOWS[-1]
ENOUGH: Final = 5  # outcomes to judge by; a longer window is asked when there are fewer
DEGRADED_FROM: Final = 0.05
FAILING_FROM: Final = 0.5
PROBED_RECENTLY: Final = timedelta(minutes=15)
GONE_FOR: Final = timedelta(days=1)


class Verdict(StrEnum):
    """`degraded`: some attempts fail; `failing`: most do, or none is even made; `unknown`: nobody tried."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILING = "failing"
    UNKNOWN = "unknown"


class Tally(Struct, frozen=True):
    """What came of the attempts that were recorded in the minute from `at` on."""

    at: datetime
    succeeded: int
    failed: int
    duration: timedelta  # of all of them together

    @property
    def outcomes(self) -> int:
        """How many ended."""
        return self.succeeded + self.failed

    @property
    def failure_share(self) -> float | None:
        """None: nothing ended."""
        return self.failed / self.outcomes if self.outcomes else None

    @property
    def average(self) -> timedelta | None:
        """How long an attempt took; None: nothing ended."""
        return self.duration / self.outcomes if self.outcomes else None


class Tallies(Struct, frozen=True):
    """By the minute, the oldest first, but those in which nothing ended; and the last minute of each kind."""

    minutes: Sequence[Tally] = ()
    last_success: datetime | None = None
    last_failure: datetime | None = None

    def of_last(self, minutes: int, now: datetime) -> Tally:
        """All that was recorded in the last minutes, the one that is under way included, as one."""
        since = now - timedelta(minutes=minutes)
        recent = [tally for tally in self.minutes if tally.at > since]
        return Tally(
            since,
            sum(tally.succeeded for tally in recent),
            sum(tally.failed for tally in recent),
            sum((tally.duration for tally in recent), timedelta()),
        )


class Probe(Struct, frozen=True, omit_defaults=True):
    """What came of asking on purpose: the health URL, or by sending one item (`recovery_id`) as a trial.

    With neither success nor a `failure_code` nobody knows: `failure_detail` says why.
    """

    at: datetime
    by: str
    reason: str | None = None
    recovery_id: str | None = None
    succeeded: bool = False
    http_status: int | None = None
    failure_code: str | None = None
    failure_detail: str | None = None
    duration_ms: float = 0.0

    def state(self) -> dict[str, Any]:
        """What an audit event, or the API, shows of it."""
        is_known = self.succeeded or self.failure_code is not None
        return {
            "kind": "health_url" if self.recovery_id is None else "item",
            "at": rfc3339(self.at),
            "by": self.by,
            "reason": self.reason,
            "recovery_id": self.recovery_id,
            "outcome": "succeeded" if self.succeeded else "failed" if is_known else "unknown",
            "http_status": self.http_status,
            "failure_code": self.failure_code,
            "failure_detail": self.failure_detail,
            "duration_ms": self.duration_ms,
        }


class Facts(Struct, frozen=True):
    """All that a verdict is made from."""

    now: datetime
    tallies: Tallies
    breaker: Breaker
    throttled_until: datetime | None
    probe: Probe | None
    gone_at: datetime | None
    is_contained: bool

    @property
    def is_gone(self) -> bool:
        """Whether it answered 410 within a day, and has taken nothing since."""
        if self.gone_at is None or self.now - self.gone_at >= GONE_FOR:
            return False
        last = self.tallies.last_success
        return last is None or last <= self.gone_at

    @property
    def is_throttled(self) -> bool:
        """Whether it asked to be left alone until later."""
        return self.throttled_until is not None and self.throttled_until > self.now


class Diagnosis(Struct, frozen=True):
    """The verdict, and why, a sentence each."""

    verdict: Verdict
    reasons: tuple[str, ...]
    facts: Facts


def diagnosed(facts: Facts) -> Diagnosis:
    """Judge by the shortest time in which enough came back; a later probe is newer evidence than all of that.

    What is contained is judged all the same: whether to release it is what is asked.
    """
    verdict, why = _by_outcomes(facts)
    reasons = [why]
    probe = facts.probe
    if probe is not None and _decides(probe, facts):
        verdict = Verdict.HEALTHY if probe.succeeded else Verdict.FAILING
        reasons.insert(0, _of_probe(probe))
    if not facts.breaker.is_closed:
        verdict = Verdict.FAILING
        reasons.insert(
            0, f"the breaker is {facts.breaker.state.replace('_', ' ')}: nothing but a trial is sent"
        )
    if facts.is_gone:
        verdict = _worse(verdict, Verdict.DEGRADED)
        reasons.append("the receiver answered 410 (Gone): consider to contain or retire the integration")
    if facts.is_throttled:
        verdict = _worse(verdict, Verdict.DEGRADED)
        reasons.append("the receiver asked to be left alone for a while (Retry-After)")
    if facts.is_contained:
        reasons.append("it is contained: nothing is sent but probes")
    return Diagnosis(verdict, tuple(reasons), facts)


def _by_outcomes(facts: Facts) -> tuple[Verdict, str]:
    for minutes in WINDOWS:
        seen = facts.tallies.of_last(minutes, facts.now)
        if seen.outcomes >= ENOUGH or (minutes == WINDOWS[-1] and seen.outcomes):
            break
    else:
        return Verdict.UNKNOWN, f"no attempt ended in the last {WINDOWS[-1]} minutes"
    share = seen.failed / seen.outcomes
    why = f"{seen.failed} of {seen.outcomes} attempts failed in the last {minutes} minutes"
    if share >= FAILING_FROM:
        return Verdict.FAILING, why
    return (Verdict.DEGRADED if share >= DEGRADED_FROM else Verdict.HEALTHY), why


def _decides(probe: Probe, facts: Facts) -> bool:
    """A probe that failed outweighs fewer outcomes than enough; one that succeeded, failures before it."""
    is_known = probe.succeeded or probe.failure_code is not None
    if not is_known or facts.now - probe.at >= PROBED_RECENTLY:
        return False
    since = [tally for tally in facts.tallies.minutes if tally.at > probe.at]
    return sum(tally.outcomes for tally in since) < ENOUGH


def _of_probe(probe: Probe) -> str:
    what = "the health URL" if probe.recovery_id is None else f"a trial with {probe.recovery_id}"
    if probe.succeeded:
        return f"{what} succeeded, and little has ended since"
    return f"{what} failed ({probe.failure_code}), and little has ended since"


def _worse(one: Verdict, other: Verdict) -> Verdict:
    """Of *one* and *other*; what is unknown is as bad as the other."""
    order = (Verdict.UNKNOWN, Verdict.HEALTHY, Verdict.DEGRADED, Verdict.FAILING)
    return max(one, other, key=order.index)
