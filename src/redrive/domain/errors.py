"""One tree of errors a caller can meet; each class has one stable `code`.

`api/problems.py` alone turns them into HTTP statuses; the class docstring is the title a caller reads.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct


class Fault(Struct, frozen=True):
    """One thing that is wrong in an input: where (an RFC 6901 pointer, or a parameter's name), and what."""

    pointer: str
    detail: str


class RedriveError(Exception):
    """Something went wrong that the caller can be told about."""

    code: ClassVar[str]

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        super().__init__(self.detail)


class InvalidPayload(RedriveError):
    """The path, the query or the body is not valid."""

    code = "INT-400-INVALID-PAYLOAD"

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{f.pointer}: {f.detail}" if f.pointer else f.detail for f in faults))


class Unauthenticated(RedriveError):
    """A valid bearer token is needed: Authorization: Bearer <token>."""

    code = "AUTH-401-UNAUTHENTICATED"


class Forbidden(RedriveError):
    """The caller does not have the permission this needs."""

    code = "AUTH-403-FORBIDDEN"

    def __init__(self, permission: str) -> None:
        self.permission = permission
        super().__init__(f"this needs the permission {permission}")


class PathNotFound(RedriveError):
    """There is nothing at this path."""

    code = "INT-404-PATH-NOT-FOUND"


class IntegrationNotFound(RedriveError):
    """There is no such integration."""

    code = "INT-404-NOT-FOUND"


class RecoveryNotFound(RedriveError):
    """There is no such recovery item in this integration."""

    code = "INT-404-RECOVERY-NOT-FOUND"


class GroupNotFound(RedriveError):
    """There is no such group of failures in this integration."""

    code = "INT-404-GROUP-NOT-FOUND"


class ReplayNotFound(RedriveError):
    """There is no such replay in this integration."""

    code = "INT-404-REPLAY-NOT-FOUND"


class MethodNotAllowed(RedriveError):
    """This path does not answer to this method; the Allow header names those it does."""

    code = "INT-405-METHOD-NOT-ALLOWED"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        super().__init__(f"this path answers to {', '.join(allowed)}")


class ReplayConflict(RedriveError):
    """The item's status cannot be replayed."""

    code = "INT-409-RECOVERY-REPLAY-CONFLICT"

    def __init__(self, previous_status: str) -> None:
        self.previous_status = previous_status
        self.requested_status = "replayed"
        super().__init__(
            f"an item that is {previous_status} cannot be replayed; only failed and dlq items can"
        )


class Conflict(RedriveError):
    """The current state does not allow this."""

    code = "INT-409-CONFLICT"

    def __init__(self, detail: str = "", *, difference: Mapping[str, Any] | None = None) -> None:
        """*difference*: between what was planned for and what there is, for programs."""
        self.difference = difference
        super().__init__(detail)


class Contained(RedriveError):
    """The integration is contained: nothing of it is sent or replayed until it is released."""

    code = "INT-409-CONTAINED"


class TooLarge(RedriveError):
    """The request is larger than this service accepts."""

    code = "INT-413-TOO-LARGE"


class IdempotencyKeyReused(RedriveError):
    """This Idempotency-Key was used before with another body; use a new key for a new request."""

    code = "INT-422-IDEMPOTENCY-KEY-REUSED"


class RateLimited(RedriveError):
    """More is arriving than can be taken; try again after Retry-After seconds."""

    code = "INT-429-RATE-LIMITED"

    def __init__(self, detail: str = "", *, after: float = 1.0) -> None:
        """*after*: seconds."""
        self.after = after
        super().__init__(detail)


class DependencyUnavailable(RedriveError):
    """Storage, audit or key material is unavailable or inconsistent; the detail says what came of it."""

    code = "INT-503-DEPENDENCY-UNAVAILABLE"

    def __init__(self, degradation_reason: str, detail: str = "", *, after: float = 1.0) -> None:
        """*after*: seconds."""
        self.degradation_reason = degradation_reason
        self.after = after
        super().__init__(detail or f"{degradation_reason}: nothing was changed; try again")
