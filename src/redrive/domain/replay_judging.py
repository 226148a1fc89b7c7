"""Whether an item is replayed, and if not why: when a plan is made, and again when its turn has come."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from redrive.domain.ids import EventId, ItemId
from redrive.domain.item import Status

LOOPED_CYCLE: Final = 4  # replayed three times, and dead again


class Skip(StrEnum):
    """Why an item is not replayed by a job."""

    NOT_FOUND = "not_found"  # never there, or purged
    ERASED = "erased"  # there is nothing left to send
    SUCCEEDED_SINCE = "succeeded_since"
    UNFINISHED = "unfinished"  # it is still, or again, being retried
    RESOLVED = "resolved"
    SUPERSEDED = "superseded"  # a corrected copy of it succeeded
    CORRECTED = "corrected"  # a corrected copy of it is under way
    COPY = "corrected_copy"  # it is one itself, which is replayed by itself
    LOOPED = "looped"
    DIED_SINCE = "died_since"  # after the moment that was planned for
    IN_ANOTHER_JOB = "in_another_job"
    CONTAINED = "contained"  # its integration does not send
    REPLAYED_SINCE = "replayed_since"
    SAME_REQUEST = "same_request_id"  # this call's request id opened an earlier cycle of it


class Kin(StrEnum):
    """How an item stands to a corrected copy."""

    SUPERSEDED = "superseded"
    CORRECTED = "corrected"
    COPY = "corrected_copy"


class Candidate(Struct, frozen=True, gc=False):
    """One item as it was found when a plan was made. `cycle` is 0 when it is not dead."""

    id: ItemId
    cycle: int
    risk: int
    died_at: datetime | None
    is_resolved: bool
    is_busy: bool  # waits in a job that runs
    event_type: str | None  # None: there is no such item
    size: int
    is_erased: bool = False
    is_open: bool = False
    kin: Kin | None = None


class Waiting(Struct, frozen=True):
    """The next item of a job, as it stands now.

    Unless it is dead, `status` and `failure_code` are None, `cycle` and `attempt` 0. `same_request`: the
    request id of the job opened an earlier cycle of it. `head`: its last audit event, and the digest of that.
    """

    item: ItemId
    planned_cycle: int
    status: Status | None
    cycle: int
    attempt: int
    failure_code: str | None
    is_resolved: bool
    is_open: bool
    is_erased: bool
    request_id: str | None  # of the delivery; None: there is no such item any more
    same_request: bool
    kin: Kin | None
    head: EventId | None
    head_digest: str | None


def judge(one: Candidate, *, as_of: datetime, sends: bool) -> Skip | None:
    """Why a plan skips an item; None: it is eligible."""
    if one.event_type is None:
        return Skip.NOT_FOUND
    if one.is_erased:
        return Skip.ERASED
    if one.is_open:
        return Skip.UNFINISHED
    if not one.cycle:
        return Skip.SUCCEEDED_SINCE
    if one.is_resolved:
        return Skip.RESOLVED
    if one.kin is not None:
        return Skip(one.kin)
    if one.cycle >= LOOPED_CYCLE:
        return Skip.LOOPED
    if one.died_at is None or one.died_at > as_of:
        return Skip.DIED_SINCE
    if one.is_busy:
        return Skip.IN_ANOTHER_JOB
    return None if sends else Skip.CONTAINED


def judge_again(one: Waiting) -> Skip | None:
    """Why an item that waited is not replayed after all; None: it is, and is dead."""
    if one.request_id is None:
        return Skip.NOT_FOUND
    if one.is_erased:
        return Skip.ERASED
    if one.is_open:
        return Skip.REPLAYED_SINCE
    if one.status is None:
        return Skip.SUCCEEDED_SINCE
    if one.cycle != one.planned_cycle:
        return Skip.REPLAYED_SINCE
    if one.is_resolved:
        return Skip.RESOLVED
    if one.kin is not None:
        return Skip(one.kin)
    return Skip.SAME_REQUEST if one.same_request else None
