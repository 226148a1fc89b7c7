"""When nothing more is sent to a receiver that fails, and when one attempt tries it again: the breaker.

Of an integration as a whole, shared by all processes; what each of them saw is its own.
"""

from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Any, Final, assert_never

from msgspec import Struct

from redrive.domain.delivery import rfc3339
from redrive.domain.outcome import RETRYABLE_NETWORK_CODES, Failed, Outcome

FIRST_SECONDS: Final = 10.0  # that it stays open; twice as long each time in a row
MOST_SECONDS: Final = 300.0
JITTER: Final = 0.2
MOST_THROTTLED: Final = timedelta(hours=1)
_ILL: Final = frozenset(RETRYABLE_NETWORK_CODES) | {
    "RESPONSE_TIMEOUT", "DNS_NOT_FOUND", "TLS_ERROR", "PROTOCOL_ERROR", "HTTP_408", "HTTP_429",
}  # fmt: skip
_MUTE: Final = frozenset({"LEASE_EXPIRED", "BLOCKED_ADDRESS"})  # of us, not of the receiver
_ASKING: Final = frozenset({"HTTP_429", "HTTP_503"})


class BreakerState(StrEnum):
    """`closed` is how it should be: everything may start. While it is `half_open` one attempt tries."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Sign(Enum):
    """What an outcome tells of the receiver's health: an answer that refuses is a sign of life."""

    WELL = auto()
    ILL = auto()
    NONE = auto()


class Watch(Struct, frozen=True):
    """What opens it: as many recent outcomes, and that share of them failures. A share of 0: nothing does."""

    failure_share: float = 0.8
    minimum: int = 20
    window_seconds: float = 30.0
    least_seconds: float = 5.0  # from the first of them on

    def is_outage(self, seen: "Seen") -> bool:
        """Whether the receiver is down rather than having a bad moment.

        What a retry cures is none: one of the failures must have been of what had failed before.
        """
        return (
            0 < self.failure_share * seen.outcomes <= seen.failures
            and seen.outcomes >= self.minimum
            and seen.seconds >= self.least_seconds
            and seen.again > 0
        )


class Seen(Struct, frozen=True):
    """Outcomes that speak of the receiver's health: `again` are failures of what had failed before."""

    outcomes: int
    failures: int
    again: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As an audit event tells them."""
        return {"outcomes": self.outcomes, "failures": self.failures, "seconds": round(self.seconds, 1)}


class Breaker(Struct, frozen=True, omit_defaults=True):
    """Its state since `changed_at`. It opened `trips` times in a row, first at `opened_at`.

    `until`: while it is open no trial begins before, and while one is under way no other.
    """

    state: BreakerState = BreakerState.CLOSED
    changed_at: datetime | None = None
    until: datetime | None = None
    opened_at: datetime | None = None
    trips: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether everything may start."""
        return self.state is BreakerState.CLOSED

    def may_try(self, now: datetime) -> bool:
        """Whether a trial may begin."""
        return not self.is_closed and (self.until is None or now >= self.until)

    def opened(self, now: datetime, *, chance: float) -> "Breaker":
        """Too many failed. For longer if it closed only a while ago; *chance*, from [0, 1), is the jitter."""
        again = self.changed_at is not None and now - self.changed_at < timedelta(seconds=MOST_SECONDS)
        return self._open(now, self.trips + 1 if again else 1, self.opened_at if again else None, chance)

    def trying(self, now: datetime, seconds: float) -> "Breaker":
        """One attempt begins, and surely has ended *seconds* later."""
        return Breaker(
            BreakerState.HALF_OPEN, now, now + timedelta(seconds=seconds), self.opened_at, self.trips
        )

    def after(self, trial: Sign, now: datetime, *, chance: float) -> "Breaker":
        """The trial ended. One that told nothing may be followed by another at once."""
        match trial:
            case Sign.WELL:
                return Breaker(BreakerState.CLOSED, now, None, self.opened_at, self.trips)
            case Sign.NONE:
                return Breaker(BreakerState.OPEN, now, now, self.opened_at, self.trips)
            case Sign.ILL:
                return self._open(now, self.trips + 1, self.opened_at, chance)
            case _:
                assert_never(trial)

    def state_shown(self) -> dict[str, Any]:
        """What an audit event, or the API, shows of it."""
        return {
            "state": self.state.value,
            "changed_at": None if self.changed_at is None else rfc3339(self.changed_at),
            "until": None if self.until is None else rfc3339(self.until),
            "opened_at": None if self.is_closed or self.opened_at is None else rfc3339(self.opened_at),
            "trips": 0 if self.is_closed else self.trips,
        }

    def _open(self, now: datetime, trips: int, first: datetime | None, chance: float) -> "Breaker":
        until = now + timedelta(seconds=open_seconds(trips, chance=chance))
        return Breaker(BreakerState.OPEN, now, until, first or now, trips)


CLOSED: Final = Breaker()


def open_seconds(trips: int, *, chance: float) -> float:
    """How long it stays open the *trips*-th time in a row."""
    seconds = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(trips - 1, 16))
    return seconds * (1 - JITTER + 2 * JITTER * chance)


def sign_of(outcome: Outcome) -> Sign:
    """What *outcome* tells."""
    if not isinstance(outcome, Failed):
        return Sign.WELL
    if outcome.code in _MUTE:
        return Sign.NONE
    return Sign.ILL if outcome.code in _ILL or outcome.code.startswith("HTTP_5") else Sign.WELL


def throttled_for(outcome: Failed) -> timedelta | None:
    """For how long a receiver that answers 429 or 503 wants to be left alone, at most an hour."""
    if outcome.retry_after is None or outcome.code not in _ASKING:
        return None
    return min(outcome.retry_after, MOST_THROTTLED)
