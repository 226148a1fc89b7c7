"""Errors as RFC 9457 problems; the only place that picks status codes."""

from math import ceil
from typing import Any

from redrive.api.call import Reply, encode
from redrive.domain import errors
from redrive.domain.errors import RedriveError
from redrive.store.port import StoreInconsistent, StoreUnavailable

STATUS: dict[type[RedriveError], int] = {
    errors.InvalidPayload: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.PathNotFound: 404,
    errors.IntegrationNotFound: 404,
    errors.RecoveryNotFound: 404,
    errors.GroupNotFound: 404,
    errors.ReplayNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ReplayConflict: 409,
    errors.Conflict: 409,
    errors.Contained: 409,
    errors.TooLarge: 413,
    errors.IdempotencyKeyReused: 422,
    errors.RateLimited: 429,
    errors.DependencyUnavailable: 503,
}
RETRYABLE = (errors.RateLimited, errors.DependencyUnavailable)
UNCHANGED = "nothing was changed"
TYPE_BASE = "urn:redrive:problem:"  # a name, not an address: docs/reference/errors.md lists them


def as_error(error: Exception) -> RedriveError:
    """Any exception as one a caller can be told about; what is ours alone is not told."""
    if isinstance(error, RedriveError):
        return error
    if isinstance(error, StoreUnavailable):
        what = "it may have happened: look before you repeat it" if error.may_have_happened else UNCHANGED
        return errors.DependencyUnavailable("storage", f"{error}; {what}")
    if isinstance(error, StoreInconsistent):
        return errors.DependencyUnavailable("inconsistent record", f"{error}; {UNCHANGED}")
    return errors.DependencyUnavailable(
        "internal", "redrive failed at this and reported it; nothing was changed"
    )


def document(error: RedriveError, *, instance: str, request_id: str) -> dict[str, Any]:
    """The problem as a JSON object."""
    found: dict[str, Any] = {
        "type": f"{TYPE_BASE}{error.code.lower()}",
        "title": (type(error).__doc__ or "").strip(),
        "status": STATUS[type(error)],
        "detail": error.detail,
        "instance": instance,
        "error_code": error.code,
        "request_id": request_id,
        "retryable": isinstance(error, RETRYABLE),
    }
    if isinstance(error, errors.InvalidPayload):
        found["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults]
    if isinstance(error, errors.ReplayConflict):
        found["previous_status"] = error.previous_status
        found["requested_status"] = error.requested_status
    if isinstance(error, errors.Conflict) and error.difference is not None:
        found["difference"] = error.difference
    if isinstance(error, errors.DependencyUnavailable):
        found["degradation_reason"] = error.degradation_reason
    return found


def reply(error: RedriveError, *, instance: str, request_id: str) -> Reply:
    """The problem as a reply."""
    status = STATUS[type(error)]
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, errors.Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="redrive"'))
    if isinstance(error, errors.MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, RETRYABLE):
        headers.append((b"retry-after", b"%d" % ceil(error.after)))
    if isinstance(error, errors.TooLarge):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    body = encode(document(error, instance=instance, request_id=request_id))
    return Reply(status, body, b"application/problem+json", headers)
