"""What the engine does with deliveries, inside a write transaction: accept, claim, record, give back."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import apsw
import msgspec

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Claim, Item
from redrive.domain.ids import ItemId, parse_recovery_id, recovery_id
from redrive.domain.integration import ACCEPTING, Lifecycle
from redrive.domain.item import Finish, RetryAt, Status
from redrive.domain.sharing import Lane
from redrive.domain.traffic import Mode
from redrive.store.named import load_queries
from redrive.store.port import (
    Accepted,
    Claimed,
    Duplicate,
    Import,
    Intake,
    KeyReused,
    Refused,
    Result,
    StoreInconsistent,
    Verdict,
)
from redrive.store.results import Numbers, failures_of, one_each, tallies, told_to_job, which_are
from redrive.store.rows import (
    attempt_row,
    delivery_row,
    event_row,
    from_ms,
    imported_row,
    previous_of,
    to_choice,
    to_delivery,
    to_ms,
    to_risk,
)
from redrive.store.sqlite.connection import ask, insert

SQL = load_queries("redrive.store.sqlite")
SET_ASIDE = timedelta(hours=1)
_claims_of = msgspec.json.Decoder(set[Numbers]).decode


class Door(NamedTuple):
    """What an integration lets in and out."""

    lifecycle: Lifecycle
    containment: Mode | None

    @property
    def is_active(self) -> bool:
        """Whether single items may be sent, contained or not."""
        return self.lifecycle is Lifecycle.ACTIVE

    @property
    def sends(self) -> bool:
        """Whether items may be claimed and replayed."""
        return self.is_active and self.containment is None

    @property
    def is_open(self) -> bool:
        """Whether deliveries are accepted."""
        return self.lifecycle in ACCEPTING and self.containment is not Mode.REJECT


def accept(connection: apsw.Connection, intakes: Sequence[Intake], now: datetime) -> list[Verdict]:
    """One verdict each; what is accepted is due at once, also when its id runs ahead of the clock."""
    doors: dict[int, Door] = {}
    living: dict[int, bool] = {}
    verdicts: list[Verdict] = []
    deliveries, live = [], []
    for intake in intakes:
        delivery = intake.delivery
        number = delivery.integration
        if number not in doors:
            doors[number] = door(connection, number)
        refused = _refusal(connection, intake, doors[number])
        if refused is not None:
            verdicts.append(refused)
            continue
        owner = intake.owner if doors[number].sends else None
        if owner is not None:
            if owner not in living:
                living[owner] = is_alive(connection, owner)
            owner = owner if living[owner] else None
        verdicts.append(Accepted(claimed=owner is not None))
        deliveries.append(delivery_row(delivery))
        live.append(
            (
                delivery.id,
                number,
                int(owner is not None),
                delivery.max_attempts,
                to_ms(min(delivery.created_at, now)),
                owner,
            )
        )
    insert(connection, SQL["insert_delivery"], deliveries)
    insert(connection, SQL["insert_live"], live)
    return verdicts


def hand_over(connection: apsw.Connection, item: Import) -> Verdict:
    """A delivery that is dead from the start."""
    delivery = item.delivery
    intake = Intake(delivery, item.fingerprint, None)
    contained = door(connection, delivery.integration)
    refused = _refusal(
        connection, intake, contained._replace(containment=None)
    )  # it failed elsewhere already
    if refused is not None:
        return refused
    connection.execute(SQL["insert_delivery"], delivery_row(delivery))
    connection.execute(SQL["insert_imported"], imported_row(delivery.id, item.last))
    connection.execute(
        SQL["bury"],
        (
            delivery.id, delivery.integration, item.status, 1, item.attempt_count,
            delivery.max_attempts, item.last.failure_code, to_ms(delivery.created_at), item.risk,
            None if item.cause is None else item.cause.number,
        ),
    )  # fmt: skip
    write_events(connection, [item.event])
    return Accepted(claimed=False)


def claim(connection: apsw.Connection, owner: int, wants: Mapping[Lane, int], now: datetime) -> Claimed:
    """Claim and count; only integrations that send, and only while *owner* lives. No lane is split here."""
    if not is_alive(connection, owner):
        return Claimed((), dict.fromkeys(wants))
    due_ms = to_ms(now)
    ids: list[int] = []
    for lane, most in wants.items():
        if door(connection, lane.integration).sends:
            ids += [row[0] for row in ask(connection, SQL["due"], (lane.integration, due_ms, most))]
    connection.execute(SQL["stamp"], (owner, str(ids)))
    claims, set_aside = _claims(connection, owner, ids, now)
    return Claimed(claims, {lane: _next_due(connection, lane.integration) for lane in wants}, set_aside)


def record(connection: apsw.Connection, owner: int, results: Sequence[Result]) -> list[bool]:
    """Attempts, steps and events of those whose claim still stands; of the others, nothing."""
    chosen = one_each(results)
    claimed = _claimed_by(connection, owner, [item for item, _, _ in chosen])
    standing = [result for numbers, result in chosen.items() if numbers in claimed]
    finished = [r.claim.delivery.id for r in standing if isinstance(r.step, Finish)]
    retried = [
        [r.claim.delivery.id, to_ms(r.step.due_at), int(r.risk)]
        for r in standing
        if isinstance(r.step, RetryAt)
    ]
    connection.execute(SQL["finish"], (str(finished),))
    if retried:  # each statement lets go of the GIL
        connection.execute(SQL["retry"], (str(retried),))
    insert(connection, SQL["insert_attempt"], [_attempt(r) for r in standing])
    insert(connection, SQL["bury"], [_grave(r) for r in standing if _died(r)])
    connection.executemany(SQL["count_attempts"], tallies(owner, standing))
    if failures := failures_of(standing):
        connection.executemany(SQL["count_failures"], failures)
    if told := [told_to_job(r) for r in standing if r.claim.job is not None]:
        connection.executemany(SQL["tell_job"], told)
    write_events(connection, [event for r in standing for event in r.events])
    return which_are(standing, results)


def give_back(connection: apsw.Connection, owner: int, claims: Sequence[Claim]) -> None:
    """As if they had never been claimed."""
    if is_alive(connection, owner):
        guards = [(claim.delivery.id, owner, claim.cycle, claim.attempt) for claim in claims]
        connection.executemany(SQL["give_back"], guards)


def adopt(connection: apsw.Connection, owner: int, limit: int, now: datetime) -> Claimed:
    """Claims of dead owners become ours, with the attempt they were making."""
    if not is_alive(connection, owner):
        return Claimed((), {})
    ids = [row[0] for row in ask(connection, SQL["orphans"], (owner, limit))]
    connection.execute(SQL["adopt"], (owner, str(ids)))
    if len(ids) < limit:
        connection.execute(SQL["forget_dead_owners"], (owner,))
    claims, set_aside = _claims(connection, owner, ids, now)
    return Claimed(claims, {}, set_aside)


def follows(connection: apsw.Connection, event: AuditEvent) -> bool:
    """Whether the record that an event of an item names is still the last of that item."""
    if parse_recovery_id(event.target_id) is None:
        return True
    return head(connection, event.target_id) == previous_of(event)


def head(connection: apsw.Connection, target_id: str) -> bytes | None:
    """The digest of the last record of a target; None also when it has none."""
    rows = ask(connection, SQL["head"], (target_id,))
    return rows[0][0] if rows else None


def take(
    connection: apsw.Connection, owner: int, item: Item, *, cycle: int, attempt: int, now: datetime
) -> Claim | None:
    """Claim one item that waits for the attempt after *attempt* of *cycle*."""
    number, integration = item.delivery.id, item.delivery.integration
    if not is_alive(connection, owner) or not door(connection, integration).is_active:
        return None
    if not ask(connection, SQL["take"], (owner, number, integration, cycle, attempt)):
        return None
    claims, set_aside = _claims(connection, owner, [number], now)
    if set_aside:
        raise StoreInconsistent(set_aside[0])  # and nothing of it is written
    return claims[0]


def write_events(connection: apsw.Connection, events: Sequence[AuditEvent]) -> None:
    """Audit events, in the transaction of what they tell of."""
    insert(connection, SQL["insert_event"], [event_row(event) for event in events])


def is_alive(connection: apsw.Connection, owner: int) -> bool:
    """The fence: whether *owner* still has its lease."""
    return bool(ask(connection, SQL["alive"], (owner,)))


def renew(connection: apsw.Connection, owner: int, now: datetime) -> bool:
    """A real write, so that a disk that is full or read-only is noticed without traffic, and its recovery."""
    return bool(ask(connection, SQL["renew"], (to_ms(now), owner)))


def door(connection: apsw.Connection, number: int) -> Door:
    """That of an integration; one that is not there accepts nothing."""
    for lifecycle, containment in ask(connection, SQL["door"], (number,)):
        return Door(
            to_choice(Lifecycle, lifecycle), None if containment is None else to_choice(Mode, containment)
        )
    return Door(Lifecycle.RETIRED, None)


def _claimed_by(connection: apsw.Connection, owner: int, ids: Sequence[int]) -> set[Numbers]:
    """Which claims on these items are *owner*'s; none, unless it is alive."""
    [(rows,)] = ask(connection, SQL["claimed_by"], (str(ids), owner))
    return _claims_of(rows)


def _refusal(connection: apsw.Connection, intake: Intake, door: Door) -> Verdict | None:
    delivery = intake.delivery
    key = (delivery.integration, delivery.idempotency_key)
    if delivery.idempotency_key is not None:
        taken = ask(connection, SQL["key"], key)
        if taken:
            item, fingerprint = taken[0]
            return Duplicate(ItemId(item)) if fingerprint == intake.fingerprint else KeyReused()
    if not door.is_open:
        return Refused(door.lifecycle)
    if delivery.idempotency_key is not None:
        connection.execute(SQL["take_key"], (*key, delivery.id, intake.fingerprint))
    return None


def _claims(
    connection: apsw.Connection, owner: int, ids: Sequence[int], now: datetime
) -> tuple[list[Claim], list[str]]:
    """The claims, and why some were set aside: one damaged record must not stop all the others."""
    named = msgspec.json.encode([(number, recovery_id(number)) for number in ids]).decode()
    found = {row[8]: row for row in ask(connection, SQL["claimed"], (named,))}
    claims: list[Claim] = []
    set_aside: list[str] = []
    for number in ids:
        try:
            claims.append(_claim(owner, number, found.get(number)))
        except StoreInconsistent as error:
            connection.execute(SQL["set_aside"], (to_ms(now + SET_ASIDE), number))
            set_aside.append(str(error))
    return claims, set_aside


def _claim(owner: int, number: int, found: tuple[Any, ...] | None) -> Claim:
    if found is None:
        raise StoreInconsistent(f"item {number} is unfinished but was never stored")
    cycle, attempt, max_attempts, request_id, risk, job, original, head, *columns = found
    if cycle > 1 and request_id is None:
        raise StoreInconsistent(f"item {number} is in cycle {cycle}, which nobody opened")
    delivery = to_delivery(tuple(columns))
    return Claim(
        delivery,
        owner,
        cycle,
        attempt,
        max_attempts,
        request_id or delivery.request_id,
        risk=to_risk(risk),
        head=head,
        job=job,
        edit_of=original,
    )


def _next_due(connection: apsw.Connection, number: int) -> datetime | None:
    rows = ask(connection, SQL["next_due_of"], (number,))
    return from_ms(rows[0][0]) if rows else None


def _died(result: Result) -> bool:
    return isinstance(result.step, Finish) and result.step.status is not Status.SUCCEEDED


def _grave(result: Result) -> tuple[object, ...]:
    claim, step, outcome = result.claim, result.step, result.attempt.outcome
    assert isinstance(step, Finish)  # noqa: S101 - _died chose it
    return (
        claim.delivery.id, claim.delivery.integration, step.status, claim.cycle, claim.attempt,
        claim.max_attempts, getattr(outcome, "code", None), to_ms(result.finished_at), result.risk,
        None if result.cause is None else result.cause.number,
    )  # fmt: skip


def _attempt(result: Result) -> tuple[object, ...]:
    cause = None if result.cause is None else result.cause.number
    return attempt_row(result.claim.delivery.id, result.attempt, cause)
