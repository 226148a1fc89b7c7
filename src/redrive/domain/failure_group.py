"""A group of failures of one cause: what is known of it, and what people may say of it."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from redrive.domain.delivery import rfc3339
from redrive.domain.errors import Conflict, Fault, InvalidPayload
from redrive.domain.grouping import Cause, FailureClass
from redrive.domain.ids import ItemId, group_id
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.redaction import REDACTED

COUNTED_AT_MOST: Final = 10_000  # items of a group
LONGEST_COMMENT: Final = 2_000
RULES_FOLLOWED: Final = timedelta(seconds=10)  # until then some process may not know of a rule yet
_OF_ANSWERS: Final = (
    FailureClass.HTTP_3XX.value,
    FailureClass.HTTP_429.value,
    FailureClass.HTTP_4XX.value,
    FailureClass.HTTP_5XX.value,
    FailureClass.PROTOCOL.value,
)


class GroupState(StrEnum):
    """Whether somebody has to look at it, somebody does, or nobody needs to any more."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Judgement(Struct, frozen=True):
    """What a person said of a group last; nobody of one that was always open."""

    state: GroupState = GroupState.OPEN
    at: datetime | None = None
    by: str | None = None
    muted_until: datetime | None = None


class FailureGroup(Struct, frozen=True):
    """Failures of one cause, towards one integration. `items` wait for a person; not more are counted than
    COUNTED_AT_MOST.
    """

    integration: int
    cause: Cause
    failures: int
    first_seen_at: datetime
    last_seen_at: datetime
    sample: ItemId  # that failed so last
    judgement: Judgement
    items: int
    items_is_exact: bool

    @property
    def group_id(self) -> str:
        """The public name of the group."""
        return group_id(self.cause.number)

    @property
    def is_regressed(self) -> bool:
        """Whether it failed so again after a person had resolved it."""
        at = self.judgement.at
        return self.judgement.state is GroupState.RESOLVED and at is not None and self.last_seen_at > at

    @property
    def state(self) -> GroupState:
        """As it is now: one that failed again is open, whatever a person said before."""
        return GroupState.OPEN if self.is_regressed else self.judgement.state

    def facts(self) -> dict[str, Any]:
        """What an audit event shows as before_state or after_state."""
        judged, muted = self.judgement, self.judgement.muted_until
        return {
            "state": self.state.value,
            "regressed": self.is_regressed,
            "state_at": None if judged.at is None else rfc3339(judged.at),
            "state_by": judged.by,
            "muted_until": None if muted is None else rfc3339(muted),
        }


class Comment(Struct, frozen=True):
    """What a person wrote about a group, for good. Its id tells when."""

    id: int
    integration: int
    group: int
    written_by: str
    text: str


class DeadItem(Struct, frozen=True):
    """An item that waits for a person: as much of it as its audit events tell."""

    id: ItemId
    status: Status
    cycle: int
    attempt_count: int
    failure_code: str | None
    request_id: str  # of the call that delivered it
    head: str | None = None  # the digest of its last audit record


def acknowledged(group: FailureGroup, *, at: datetime, by: str) -> FailureGroup:
    """Somebody looks at it."""
    if group.state is not GroupState.OPEN:
        raise Conflict(f"the group is {group.state}; only an open one can be acknowledged")
    return _judged(group, GroupState.ACKNOWLEDGED, at, by)


def resolved(group: FailureGroup, *, at: datetime, by: str, is_begun: bool = False) -> FailureGroup:
    """Nobody needs to look at it any more, nor at its items: those that still wait are closed once more.

    *is_begun*: its items are closed already.
    """
    if not is_begun and group.state is GroupState.RESOLVED and group.items == 0:
        raise Conflict("the group is resolved already")
    return _judged(group, GroupState.RESOLVED, at, by)


def reopened(group: FailureGroup, *, at: datetime, by: str) -> FailureGroup:
    """Somebody has to look at it after all. Items that were resolved with it stay so."""
    if group.state is GroupState.OPEN:
        raise Conflict("the group is open already")
    return _judged(group, GroupState.OPEN, at, by)


def muted(group: FailureGroup, until: datetime | None, *, at: datetime) -> FailureGroup:
    """Nobody is alerted of it until then; None: from now on people are again."""
    if until is not None and until <= at:
        raise InvalidPayload(Fault("/until", "is past; null ends it"))
    return replace(group, judgement=replace(group.judgement, muted_until=until))


def shown(group: FailureGroup, integration: Integration) -> FailureGroup:
    """As people see it. What it says of an answer was read by the rules of when it was last seen: should
    more be hidden since, it says nothing until it fails so again.
    """
    since = integration.redacts_since
    is_of_answer = group.cause.failure_class.startswith(_OF_ANSWERS)
    if since is None or not is_of_answer or not integration.redact_pointers:
        return group
    if group.last_seen_at > since + RULES_FOLLOWED:
        return group
    return replace(group, cause=replace(group.cause, detail=REDACTED))


def is_comment(text: str) -> bool:
    """1 to 2,000 characters, of which some say something; lines may end, nothing else is controlled."""
    plain = text.replace("\n", " ").replace("\t", " ").replace("\u200d", " ")  # emoji are joined with U+200D
    return len(text) <= LONGEST_COMMENT and bool(text) and text == text.strip() and plain.isprintable()


def _judged(group: FailureGroup, state: GroupState, at: datetime, by: str) -> FailureGroup:
    return replace(group, judgement=replace(group.judgement, state=state, at=at, by=by))
