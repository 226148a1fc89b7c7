"""The values of a delivery on its way: accepted, claimed, attempted, and shown."""

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from redrive.domain.ids import ItemId, recovery_id
from redrive.domain.item import Place, Status
from redrive.domain.outcome import Answer, Outcome, Risk

Headers = tuple[tuple[str, str], ...]


class Delivery(Struct, frozen=True):
    """What was accepted, for good: inserted once, never changed. `integration` is its number."""

    id: ItemId
    integration: int
    event_type: str
    payload: bytes
    content_type: str
    headers: Headers
    request_id: str
    traceparent: str
    tracestate: str | None
    idempotency_key: str | None
    created_by: str
    created_at: datetime
    max_attempts: int


class Claim(Struct, frozen=True):
    """The right to make one attempt, already counted. It is void once its owner's lease is."""

    delivery: Delivery
    owner: int  # the incarnation of the process that holds it
    cycle: int
    attempt: int
    max_attempts: int
    request_id: str  # of the call that opened the cycle
    orphaned_at: datetime | None = None  # when a process that died had claimed it, if that is known
    risk: Risk = Risk.NONE  # of its attempts before this one
    head: str | None = None  # the digest of its last audit record, if it has one
    job: int | None = None  # the replay job that opened the cycle
    edit_of: ItemId | None = None  # the item that this is a corrected copy of

    @property
    def recovery_id(self) -> str:
        """The public name of the item."""
        return recovery_id(self.delivery.id)


class Attempt(Struct, frozen=True):
    """One HTTP exchange, or its failure, as it is kept.

    Of one whose process died, `started_at` is when it was claimed or, where the store keeps no such time,
    when that was found; and nobody has seen its span.
    """

    cycle: int
    attempt: int
    started_at: datetime
    duration: timedelta
    outcome: Outcome
    retryable: bool | None  # None: it succeeded
    span_id: str
    group: int | None = (
        None  # of failures of its cause; None: it succeeded, or failed before there were groups
    )


class Evidence(Struct, frozen=True):
    """What is known of the last attempt, made by us or, before an import, elsewhere."""

    failure_code: str | None = None
    failure_detail: str | None = None
    last_http_status: int | None = None
    retryable: bool | None = None
    occurred_at: datetime | None = None
    answer: Answer | None = None
    answer_size: int = 0  # a list leaves the answer's body empty
    is_told: bool = False  # by a caller, in whose words anything may be


class Resolution(Struct, frozen=True):
    """A person closed a failed or dlq item for good."""

    resolved_at: datetime
    resolved_by: str
    reason: str


class Erasure(Struct, frozen=True):
    """A person had what was delivered and answered erased; its size is left, in the audit log."""

    erased_at: datetime
    erased_by: str
    reason: str


class Item(Struct, frozen=True):
    """One delivery and where it stands."""

    delivery: Delivery
    payload_size: int  # a list leaves the payload itself empty
    status: Status
    cycle: int
    attempt_count: int
    max_attempts: int
    request_ids: tuple[str, ...]  # of the calls that opened its cycles, the oldest first
    next_retry_at: datetime | None
    last: Evidence
    resolution: Resolution | None
    updated_by: str
    updated_at: datetime
    erasure: Erasure | None = None
    risk: Risk = Risk.NONE
    group: int | None = None  # of failures, that a dead item waits in
    edit_of: ItemId | None = None  # the item that this is a corrected copy of; of a copy's copy, the first
    edited_as: ItemId | None = None  # its corrected copy that is under way
    superseded_by: ItemId | None = None  # the corrected copy that succeeded in its place
    head: str | None = None  # the digest of its last audit record, if it has one; a list leaves it out

    @property
    def recovery_id(self) -> str:
        """The public name of the item."""
        return recovery_id(self.delivery.id)

    @property
    def request_id(self) -> str:
        """Of the call that opened its last cycle."""
        return self.request_ids[-1]

    @property
    def is_done(self) -> bool:
        """Whether nothing more can come of it: it succeeded, or a copy of it, or a person resolved it."""
        return (
            self.status is Status.SUCCEEDED or self.resolution is not None or self.superseded_by is not None
        )

    @property
    def place(self) -> Place:
        """Who stands in for it."""
        return Place(
            None if self.edited_as is None else recovery_id(self.edited_as),
            None if self.superseded_by is None else recovery_id(self.superseded_by),
        )

    def state(self) -> dict[str, Any]:
        """What an audit event shows as before_state or after_state."""
        return item_state(
            self.status,
            cycle=self.cycle,
            attempt_count=self.attempt_count,
            next_retry_at=self.next_retry_at,
            failure_code=self.last.failure_code,
            resolved=self.resolution is not None,
            superseded_by=self.superseded_by,
        )


def item_state(
    status: Status,
    *,
    cycle: int,
    attempt_count: int,
    next_retry_at: datetime | None = None,
    failure_code: str | None = None,
    resolved: bool = False,
    superseded_by: ItemId | None = None,
) -> dict[str, Any]:
    """The state of an item as audit events show it: the same keys everywhere, never a secret.

    But for one that few have: by which copy it was superseded.
    """
    state = {
        "status": str(status),
        "cycle": cycle,
        "attempt_count": attempt_count,
        "next_retry_at": None if next_retry_at is None else rfc3339(next_retry_at),
        "failure_code": failure_code,
        "resolved": resolved,
    }
    return state if superseded_by is None else state | {"superseded_by": recovery_id(superseded_by)}


def rfc3339(instant: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every instant leaves us."""
    return f"{instant.isoformat(timespec='milliseconds')[:23]}Z"
