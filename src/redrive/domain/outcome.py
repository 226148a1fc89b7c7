"""What came of one attempt, and what that means: every HTTP status and network error has one class."""

import re
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Final

from msgspec import Struct

ALWAYS_RETRYABLE: Final = frozenset({"RESPONSE_TIMEOUT", "DNS_NOT_FOUND", "LEASE_EXPIRED"})
NEVER_RETRYABLE: Final = frozenset({"TLS_ERROR", "PROTOCOL_ERROR", "BLOCKED_ADDRESS"})
RETRYABLE_NETWORK_CODES: Final = (
    "ECONNRESET",
    "ECONNREFUSED",
    "ECONNABORTED",
    "EPIPE",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ETIMEDOUT",
    "EAI_AGAIN",
)
_HTTP = re.compile(r"HTTP_([0-9]{3})", re.ASCII)


class Reach(StrEnum):
    """How far a request surely got: what a second sending would risk."""

    NOT_SENT = "not_sent"  # not a byte of it left: no duplicate is possible
    SENT = "sent"  # some of it left and no complete header came back: the receiver may have acted
    ANSWERED = "answered"  # a complete header came back


class Risk(IntEnum):
    """What sending an item again would risk, by how far the worst of its attempts so far got."""

    NONE = 0  # no attempt has failed
    NEVER_SENT = 1  # no connection, or no TLS: nobody can have acted on it
    REFUSED = 2  # a complete answer that says it was not acted on
    AMBIGUOUS = 3  # the receiver may have acted on it, and nobody knows


class Answer(Struct, frozen=True):
    """What a receiver answered. `body` holds at most the first 64 KiB, as it came, never inflated."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool = False  # more was announced or sent than `body` holds

    @property
    def content_type(self) -> str:
        """The Content-Type, or an empty string."""
        return next((v for k, v in self.headers if k.lower() == "content-type"), "")


class Succeeded(Struct, frozen=True):
    """The receiver answered 2xx."""

    answer: Answer

    reach = Reach.ANSWERED


class Failed(Struct, frozen=True):
    """Anything else. `code` is HTTP_<status> or a network code; `retry_after` is what was asked for.

    `verdict`: whether it is worth another attempt, where we know more than the code says.
    """

    code: str
    detail: str
    reach: Reach
    answer: Answer | None = None
    retry_after: timedelta | None = None
    verdict: bool | None = None

    def is_retryable(self, network_codes: frozenset[str]) -> bool:
        """Whether it is worth another attempt, given the integration's own codes."""
        return is_retryable(self.code, network_codes) if self.verdict is None else self.verdict


Outcome = Succeeded | Failed


def classify(answer: Answer, *, retry_after: timedelta | None = None) -> Outcome:
    """The outcome of a complete answer: 2xx succeeds, 100–599 otherwise fails under its own code."""
    status = answer.status
    if 200 <= status <= 299:
        return Succeeded(answer)
    if not 100 <= status <= 599:
        return Failed(
            "PROTOCOL_ERROR",
            f"the receiver answered with the status {status}",
            Reach.ANSWERED,
            answer,
        )
    asked = retry_after if is_retryable_status(status) else None
    return Failed(f"HTTP_{status}", _sentence(status), Reach.ANSWERED, answer, asked)


def is_retryable_status(status: int) -> bool:
    """408, 429 and every 5xx."""
    return status in (408, 429) or 500 <= status <= 599


def is_retryable(code: str, network_codes: frozenset[str]) -> bool:
    """Whether a failure under *code* is worth another attempt, given the integration's own codes."""
    if match := _HTTP.fullmatch(code):
        return is_retryable_status(int(match[1]))
    return code in ALWAYS_RETRYABLE or (code in network_codes and code not in NEVER_RETRYABLE)


def risk_of(failed: Failed) -> Risk:
    """What this failure adds: a 5xx other than 503 may have come after the work was done."""
    if failed.reach is Reach.NOT_SENT:
        return Risk.NEVER_SENT
    match = _HTTP.fullmatch(failed.code)
    if failed.reach is Reach.ANSWERED and match is not None:
        status = int(match[1])  # by the code: others may tell of an answer they do not show
        if 300 <= status <= 499 or status == 503:
            return Risk.REFUSED
    return Risk.AMBIGUOUS


def _sentence(status: int) -> str:
    if 300 <= status <= 399:
        return f"the receiver answered {status}; redirects are not followed"
    if is_retryable_status(status):
        return f"the receiver answered {status}, which is worth a retry"
    return f"the receiver answered {status}, which a retry would not change"
