"""When to try again: exponential backoff with jitter, and a strict Retry-After (RFC 9110 §10.2.3)."""

import re
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from redrive.domain.outcome import RETRYABLE_NETWORK_CODES

MAX_RETRY_AFTER = timedelta(hours=24)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "|".join(_MONTHS)
_TIME = r"(?P<H>[0-9]{2}):(?P<M>[0-9]{2}):(?P<S>[0-9]{2})"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = r"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_HTTP_DATES = (
    re.compile(rf"{_DAY}, (?P<d>[0-9]{{2}}) (?P<m>{_MONTH}) (?P<y>[0-9]{{4}}) {_TIME} GMT", re.ASCII),
    re.compile(rf"{_LONG_DAY}, (?P<d>[0-9]{{2}})-(?P<m>{_MONTH})-(?P<y>[0-9]{{2}}) {_TIME} GMT", re.ASCII),
    re.compile(rf"{_DAY} (?P<m>{_MONTH}) (?P<d>[ 0-9][0-9]) {_TIME} (?P<y>[0-9]{{4}})", re.ASCII),
)
_SECONDS = re.compile(r"[0-9]{1,1000}", re.ASCII)  # int() refuses far longer ones


class RetryPolicy(Struct, frozen=True):
    """How an integration is retried. Delays are seconds; `jitter` is the share of a delay, 0 to 1."""

    max_attempts: int = 5
    base_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.2
    network_codes: frozenset[str] = frozenset(RETRYABLE_NETWORK_CODES)

    def delay(self, attempt: int, *, chance: float) -> timedelta:
        """The wait after *attempt* (1 is the first); *chance*, drawn from [0, 1), places the jitter."""
        doublings = min(attempt - 1, 64)  # 2^64 seconds is past any max_delay
        seconds = min(self.max_delay_seconds, self.base_delay_seconds * 2.0**doublings)
        return timedelta(seconds=seconds * (1 - self.jitter + 2 * self.jitter * chance))


def parse_retry_after(text: str, now: datetime) -> timedelta | None:
    """What a Retry-After asks for, at most 24 hours; None when its grammar is broken or it lies back.

    Seconds are ASCII digits and nothing else; a date is one of the three HTTP-dates of RFC 9110.
    """
    if _SECONDS.fullmatch(text):
        return min(timedelta(seconds=min(int(text), 86_400)), MAX_RETRY_AFTER)
    instant = _http_date(text, now)
    if instant is None or instant <= now:
        return None
    return min(instant - now, MAX_RETRY_AFTER)


def _http_date(text: str, now: datetime) -> datetime | None:
    match = next((m for pattern in _HTTP_DATES if (m := pattern.fullmatch(text))), None)
    if match is None:
        return None
    year = int(match["y"])
    if len(match["y"]) == 2:  # RFC 850: the latest year of that name that is at most 50 years ahead
        latest = now.year + 50
        year = latest - (latest - year) % 100
    second = int(match["S"])
    try:
        return datetime(
            year, _MONTHS.index(match["m"]) + 1, int(match["d"]),
            int(match["H"]), int(match["M"]), 59 if second == 60 else second, tzinfo=UTC,
        )  # fmt: skip
    except ValueError:  # 31 February, hour 25; second 60 is a leap second
        return None
