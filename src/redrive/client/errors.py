"""What a call can end with instead of an answer."""

from collections.abc import Mapping
from typing import Any


class BadArgument(ValueError):
    """The arguments cannot make a call; nothing was sent."""


class ServiceUnreachable(Exception):
    """No answer came, or none of a redrive service.

    `maybe_sent`: the call may have taken effect; never so of one that only reads.
    """

    def __init__(self, reason: str, *, maybe_sent: bool) -> None:
        super().__init__(reason)
        self.maybe_sent = maybe_sent


class ProblemError(Exception):
    """The service answered with an error; `problem` is its whole document (RFC 9457).

    `error_code` and `request_id` are None when something in between answered in the service's place.
    `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.problem = dict(problem)
        self.error_code = _text(problem.get("error_code"))
        self.detail = _text(problem.get("detail")) or _text(problem.get("title")) or f"HTTP {status}"
        self.request_id = _text(problem.get("request_id")) or request_id
        self.errors = _faults(problem.get("errors"))
        self.retryable = problem.get("retryable") is True
        self.retry_after = retry_after
        super().__init__(f"{self.error_code or f'HTTP {status}'}: {self.detail}")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _faults(value: object) -> list[dict[str, Any]]:
    return [fault for fault in value if isinstance(fault, dict)] if isinstance(value, list) else []
