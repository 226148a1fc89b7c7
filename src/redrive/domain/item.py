"""The state machine: statuses, what may follow what, and what an attempt or a person does to an item."""

from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct

from redrive.domain.errors import Conflict, ReplayConflict
from redrive.domain.outcome import Failed, Outcome, Succeeded
from redrive.domain.retry import RetryPolicy


class Status(StrEnum):
    """The six statuses of the contract; a lease is never a status."""

    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DLQ = "dlq"
    REPLAYED = "replayed"


OPEN: Final = frozenset({Status.PENDING, Status.RETRYING, Status.REPLAYED})
DEAD: Final = frozenset({Status.FAILED, Status.DLQ})
_AFTER_ATTEMPT: Final = frozenset({Status.SUCCEEDED, Status.RETRYING, Status.FAILED, Status.DLQ})
TRANSITIONS: Final = {
    Status.PENDING: _AFTER_ATTEMPT,
    Status.RETRYING: _AFTER_ATTEMPT,
    Status.REPLAYED: _AFTER_ATTEMPT,
    Status.FAILED: frozenset({Status.REPLAYED}),
    Status.DLQ: frozenset({Status.REPLAYED}),
    Status.SUCCEEDED: frozenset[Status](),
}


class Place(Struct, frozen=True):
    """Who stands in for an item: its corrected copy that is under way, or one that succeeded; by name."""

    edited_as: str | None = None
    superseded_by: str | None = None


FREE: Final = Place()


class Finish(Struct, frozen=True):
    """The cycle ends here, in `status`."""

    status: Status


class RetryAt(Struct, frozen=True):
    """Another attempt becomes due at `due_at`."""

    due_at: datetime

    status = Status.RETRYING


Step = Finish | RetryAt


def next_step(
    outcome: Outcome,
    attempt: int,
    max_attempts: int,
    policy: RetryPolicy,
    *,
    now: datetime,
    chance: float,
) -> Step:
    """Decide what happens to an item after *attempt* ended in *outcome*.

    *max_attempts* is the cycle's own, fixed when it opened; *chance*, from [0, 1), places the jitter.
    """
    match outcome:
        case Succeeded():
            return Finish(Status.SUCCEEDED)
        case Failed() if not outcome.is_retryable(policy.network_codes):
            return Finish(Status.FAILED)
        case Failed() if attempt >= max_attempts:
            return Finish(Status.DLQ)
        case Failed(retry_after=asked):
            delay = policy.delay(attempt, chance=chance)
            return RetryAt(now + (delay if asked is None else max(delay, asked)))
        case _:
            assert_never(outcome)


def open_status(*, cycle: int, attempts_finished: int) -> Status:
    """The status of unfinished work: what its history so far makes it."""
    if attempts_finished:
        return Status.RETRYING
    return Status.PENDING if cycle == 1 else Status.REPLAYED


def check_replay(status: Status, *, resolved: bool = False, place: Place = FREE) -> None:
    """Raise unless a person may replay an item that is in *status* now."""
    if Status.REPLAYED not in TRANSITIONS[status]:
        raise ReplayConflict(status)
    if resolved:
        raise Conflict("the item was resolved for good and cannot be replayed")
    _check_place(place)


def check_edit(status: Status, *, resolved: bool, place: Place) -> None:
    """Raise unless a corrected copy may be sent of an item that is in *status* now."""
    if status not in DEAD:
        raise Conflict(f"an item that is {status} cannot be corrected; only failed and dlq items can")
    if resolved:
        raise Conflict("the item was resolved for good and cannot be corrected")
    _check_place(place)


def _check_place(place: Place) -> None:
    if place.superseded_by is not None:
        raise Conflict(
            f"the item was superseded by its corrected copy {place.superseded_by}, which succeeded"
        )
    if place.edited_as is not None:
        raise Conflict(f"a corrected copy of the item is under way: {place.edited_as}")


def check_original(status: Status, *, resolved: bool, place: Place) -> None:
    """Raise unless a copy may be sent in the place of such an item: closed is closed for its copies too."""
    if status not in DEAD:
        raise Conflict(f"the item that this is a corrected copy of is {status}")
    if resolved:
        raise Conflict("the item that this is a corrected copy of was resolved for good")
    _check_place(place)


def check_resolve(status: Status, *, resolved: bool, place: Place = FREE) -> None:
    """Raise unless a person may close an item that is in *status* now."""
    if status not in DEAD:
        raise Conflict(f"an item that is {status} cannot be resolved; only failed and dlq items can")
    if resolved:
        raise Conflict("the item is resolved already")
    if place.superseded_by is not None:
        raise Conflict("the item is closed already: a corrected copy of it succeeded")
    _check_place(place)


def check_erase(status: Status, *, erased: bool) -> None:
    """Raise unless what an item that is in *status* now was delivered with may be erased."""
    if status in OPEN:
        raise Conflict(f"an item that is {status} is still to be sent; it can be erased once that has ended")
    if erased:
        raise Conflict("the item is erased already")
