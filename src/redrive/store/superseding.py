"""What follows when a corrected copy ends: its place is free again, or what it stood in for is superseded."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Item
from redrive.domain.ids import EventId, ItemId
from redrive.domain.item import Finish, Status
from redrive.store.port import Result

Ids = Mapping[ItemId, EventId]  # of the events that are to be written, by what they are of


class Ended(Struct, frozen=True):
    """A corrected copy, of the item `of`, whose cycle ended. `event`: of each item that is superseded."""

    id: ItemId
    integration: int
    of: ItemId
    event: AuditEvent | None  # None: it failed


class IdsMissing(Exception):
    """What is superseded is not what it was when ids were drawn for the events of it."""


def ended_copies(results: Sequence[Result]) -> list[Ended]:
    """Those among *results* that are copies, and not to be retried. Most often there are none."""
    return [
        Ended(claim.delivery.id, claim.delivery.integration, claim.edit_of, _event_of(result))
        for result in results
        if (claim := result.claim).edit_of is not None and isinstance(result.step, Finish)
    ]


def superseded(copy: Ended, item: Item, ids: Ids) -> AuditEvent:
    """The event of an *item* that a copy succeeded for."""
    if item.delivery.id not in ids:
        raise IdsMissing
    assert copy.event is not None  # noqa: S101 - it succeeded
    return replace(
        copy.event,
        id=ids[item.delivery.id],
        source_request_id=item.delivery.request_id,
        target_id=item.recovery_id,
        before_state=item.state(),
        after_state=replace(item, superseded_by=copy.id, edited_as=None).state(),
    )


def _event_of(result: Result) -> AuditEvent | None:
    is_success = isinstance(result.step, Finish) and result.step.status is Status.SUCCEEDED
    return result.superseded if is_success else None
