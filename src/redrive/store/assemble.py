"""An item from the rows that tell of it. What they say must agree, or the item is reported and not served."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from redrive.domain.delivery import Attempt, Delivery, Evidence, Item, Resolution
from redrive.domain.ids import ItemId
from redrive.domain.item import Status
from redrive.domain.outcome import Failed, Risk, Succeeded
from redrive.store.port import StoreInconsistent
from redrive.store.rows import (
    Row,
    from_ms,
    to_attempt,
    to_choice,
    to_delivery,
    to_erasure,
    to_evidence,
    to_risk,
)


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of one item, each with the columns of the query of that name in `queries.sql`."""

    delivery: Row
    live: Row | None
    dead: Row | None
    cycles: Sequence[Row]
    last_attempt: Row | None
    erased: Row | None
    imported: Row | None
    head: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an item is, and what that place says of it."""

    integration: int
    status: Status
    cycle: int
    attempt: int
    max_attempts: int
    next_retry_at: datetime | None = None
    resolution: Resolution | None = None
    risk: Risk = Risk.NONE
    group: int | None = None
    edited_as: ItemId | None = None
    superseded_by: ItemId | None = None


def assemble(found: Found) -> Item:
    """The item: live, dead, or neither, which means it succeeded."""
    *columns, edit_of, payload_size = found.delivery
    delivery = to_delivery(tuple(columns))
    last, last_size = _last_attempt(found.last_attempt)
    place = _place(found, delivery, last)
    _check(delivery, place, last, found.cycles)
    touched = [(delivery.created_at, delivery.created_by)]
    touched += [(from_ms(opened_ms), opened_by) for _, _, _, opened_ms, opened_by in found.cycles]
    if last is not None:
        touched.append((last.started_at + last.duration, "redrive"))
    if place.resolution is not None:
        touched.append((place.resolution.resolved_at, place.resolution.resolved_by))
    erasure = None if found.erased is None else to_erasure(found.erased)
    if erasure is not None:
        touched.append((erasure.erased_at, erasure.erased_by))
    updated_at, updated_by = max(touched, key=lambda pair: pair[0])
    return Item(
        delivery=delivery,
        payload_size=payload_size,
        status=place.status,
        cycle=place.cycle,
        attempt_count=place.attempt,
        max_attempts=place.max_attempts,
        request_ids=(delivery.request_id, *(cycle[1] for cycle in found.cycles)),
        next_retry_at=place.next_retry_at,
        last=_known(found.imported) if last is None else _evidence(last, last_size),
        resolution=place.resolution,
        updated_by=updated_by,
        updated_at=updated_at,
        erasure=erasure,
        risk=place.risk,
        group=place.group,
        edit_of=edit_of,
        edited_as=place.edited_as,
        superseded_by=place.superseded_by,
        head=found.head,
    )


def _place(found: Found, delivery: Delivery, last: Attempt | None) -> _Place:
    if found.live and found.dead:
        raise StoreInconsistent(f"{delivery.id} is both unfinished and dead")
    if found.live:
        return _among_the_living(found.live)
    if found.dead:
        return _among_the_dead(found.dead, delivery)
    if last is None or isinstance(last.outcome, Failed):
        raise StoreInconsistent(f"{delivery.id} is neither unfinished nor dead, and did not succeed")
    max_attempts = found.cycles[-1][2] if found.cycles else delivery.max_attempts
    return _Place(delivery.integration, Status.SUCCEEDED, last.cycle, last.attempt, max_attempts)


def _among_the_living(row: Row) -> _Place:
    integration, text, cycle, attempt, max_attempts, due_ms, claimed_by, risk = row
    status = to_choice(Status, text)
    waits = status is Status.RETRYING and claimed_by is None
    due_at = from_ms(due_ms) if waits else None
    return _Place(integration, status, cycle, attempt, max_attempts, due_at, risk=to_risk(risk))


def _among_the_dead(row: Row, delivery: Delivery) -> _Place:
    integration, text, cycle, attempt, max_attempts, at, by, why, risk, group, edited_as, superseded_by = row
    resolution = None
    if at is not None:
        if by is None or why is None:
            raise StoreInconsistent(f"{delivery.id} was resolved by nobody, or for no reason")
        resolution = Resolution(from_ms(at), by, why)
    return _Place(
        integration,
        to_choice(Status, text),
        cycle,
        attempt,
        max_attempts,
        resolution=resolution,
        risk=to_risk(risk),
        group=group,
        edited_as=edited_as,
        superseded_by=superseded_by,
    )


def _check(delivery: Delivery, place: _Place, last: Attempt | None, cycles: Sequence[Row]) -> None:
    """What the tables say of one item must agree."""
    if place.integration != delivery.integration:
        raise StoreInconsistent(f"{delivery.id} is stored under two integrations")
    if [row[0] for row in cycles] != list(range(2, place.cycle + 1)):
        raise StoreInconsistent(f"{delivery.id} is in a cycle that was not opened")
    if last is None:
        return
    if (last.cycle, last.attempt) > (place.cycle, place.attempt):
        raise StoreInconsistent(f"{delivery.id} has more attempts than were counted")
    if isinstance(last.outcome, Succeeded) is not (place.status is Status.SUCCEEDED):
        raise StoreInconsistent(f"{delivery.id} is {place.status}, its last attempt says otherwise")


def _last_attempt(row: Row | None) -> tuple[Attempt | None, int]:
    if row is None:
        return None, 0
    *columns, size = row
    return to_attempt(tuple(columns)), size or 0


def _known(imported: Row | None) -> Evidence:
    return Evidence() if imported is None else to_evidence(imported)


def _evidence(last: Attempt, answer_size: int) -> Evidence:
    outcome = last.outcome
    answer = outcome.answer
    failed = outcome if isinstance(outcome, Failed) else None
    return Evidence(
        failure_code=None if failed is None else failed.code,
        failure_detail=None if failed is None else failed.detail,
        last_http_status=None if answer is None else answer.status,
        retryable=last.retryable,
        occurred_at=last.started_at,
        answer=answer,
        answer_size=answer_size,
    )
