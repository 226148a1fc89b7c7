"""What the engine does with deliveries: accept, claim, record, give back; a statement each."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from msgspec import structs

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Claim, Item
from redrive.domain.ids import ItemId, parse_recovery_id, recovery_id
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Finish, RetryAt, Status
from redrive.domain.sharing import Lane
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
from redrive.store.postgres.connection import Connection
from redrive.store.results import Numbers, OutOfOrder
from redrive.store.rows import (
    Row,
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

SQL: Final = load_queries("redrive.store.postgres")
SET_ASIDE_MS: Final = 60 * 60 * 1000
Standing = tuple[int, int, int]  # a claim: integration, item, when it was claimed


class Place(NamedTuple):
    """Which lane is asked about, and from which due time (a millisecond) on."""

    lane: Lane
    since: int = 0


async def accept(
    connection: Connection, intakes: Sequence[Intake], owner: int | None, claimed_at: int
) -> list[Verdict]:
    """One verdict each. What is claimed is claimed by *owner*, at *claimed_at*."""
    columns = _columns([(*delivery_row(i.delivery), i.fingerprint, i.owner is not None) for i in intakes], 14)
    rows = await connection.fetch(SQL["accept"], owner, claimed_at, *columns)
    return await _verdicts(connection, intakes, dict(rows))


async def accepted(
    connection: Connection, intakes: Sequence[Intake], owner: int | None, claimed_at: int
) -> list[Verdict] | None:
    """What became of each by a call that nobody answered for; None: nothing is there, it did not happen."""
    where = [i.delivery.integration for i in intakes], [i.delivery.id for i in intakes]
    rows = await connection.fetch(SQL["accepted"], owner, claimed_at, *where)
    return await _verdicts(connection, intakes, dict(rows)) if rows else None


async def hand_over(connection: Connection, item: Import) -> Verdict:
    """A delivery that is dead from the start, inside a transaction."""
    delivery = item.delivery
    intake = Intake(delivery, item.fingerprint, None)
    lifecycle = to_choice(
        Lifecycle, await connection.fetchval(SQL["lifecycle"], delivery.integration) or Lifecycle.RETIRED
    )
    key = (delivery.integration, delivery.idempotency_key)
    if lifecycle in (Lifecycle.DRAFT, Lifecycle.RETIRED) or (
        delivery.idempotency_key is not None
        and not await connection.fetch(SQL["take_key"], *key, delivery.id, item.fingerprint)
    ):
        [verdict] = await _verdicts(connection, [intake], {})
        return verdict
    await connection.execute(SQL["insert_delivery"], *delivery_row(delivery))
    await connection.execute(
        SQL["insert_imported"], delivery.integration, *imported_row(delivery.id, item.last)
    )
    await connection.execute(
        SQL["bury"],
        delivery.id, delivery.integration, item.status, 1, item.attempt_count, delivery.max_attempts,
        item.last.failure_code, to_ms(delivery.created_at), item.risk,
        None if item.cause is None else item.cause.number,
    )  # fmt: skip
    await write_events(connection, [item.event])
    return Accepted(claimed=False)


async def claim(connection: Connection, owner: int, wants: Mapping[Place, int], claimed_at: int) -> list[Row]:
    """Claim and count; only of integrations that send, and only while *owner* lives."""
    columns = _columns([(*place.lane, place.since, most) for place, most in wants.items()], 5)
    rows: list[Row] = await connection.fetch(SQL["claim"], owner, claimed_at, *columns)
    return rows


async def claimed(connection: Connection, owner: int, places: Iterable[Place], claimed_at: int) -> list[Row]:
    """What `claim` took at *claimed_at*, should nobody have answered."""
    rows: list[Row] = await connection.fetch(SQL["claimed"], owner, claimed_at, *_where(places))
    return rows


async def undo_call(connection: Connection, owner: int, places: Iterable[Place], claimed_at: int) -> None:
    """As if `claim` had taken nothing at *claimed_at*."""
    await connection.execute(SQL["undo_call"], owner, claimed_at, *_where(places))


async def read_claims(
    connection: Connection, owner: int, rows: Sequence[Row], claimed_at: int
) -> tuple[Claimed, int]:
    """The claims behind what `claim` took, in the order they were due; damaged records are set aside.

    With the greatest id of any of them and their events.
    """
    columns = _columns([(row[0], row[1], row[3], recovery_id(row[1]), row[4]) for row in rows], 5)
    found = (
        {row[0]: row for row in await connection.fetch(SQL["claimed_deliveries"], *columns)} if rows else {}
    )
    claims: list[Claim] = []
    orphans: list[Claim] = []
    set_aside: list[str] = []
    for row in sorted(rows, key=lambda row: (row[2], row[1])):
        try:
            claim = _claim(owner, row, found.get(row[1]))
            (claims if claim.orphaned_at is None else orphans).append(claim)
        except StoreInconsistent as error:
            await connection.execute(SQL["set_aside"], row[0], row[1], owner, claimed_at, SET_ASIDE_MS)
            set_aside.append(str(error))
    last_id = max((row[-1] or row[0] for row in found.values()), default=0)
    return Claimed(claims, {}, set_aside, orphans), last_id


async def take(
    connection: Connection, owner: int, item: Item, *, cycle: int, attempt: int, claimed_at: int
) -> Row | None:
    """Claim one item that waits for the attempt after *attempt* of *cycle*."""
    row: Row | None = await connection.fetchrow(
        SQL["take"], owner, claimed_at, item.delivery.integration, item.delivery.id, cycle, attempt
    )
    return row


async def taken(connection: Connection, owner: int, item: Item, claimed_at: int) -> Row | None:
    """What `take` got at *claimed_at*."""
    values = (item.delivery.integration, item.delivery.id, owner, claimed_at)
    row: Row | None = await connection.fetchrow(SQL["taken"], *values)
    return row


async def next_due(
    connection: Connection, owner: int | None, places: Iterable[Place]
) -> dict[Lane, datetime | None]:
    """When the first unclaimed item of each place is due; never, for an *owner* that is no more."""
    rows = await connection.fetch(SQL["next_due_of"], *_where(places), owner)
    return {Lane(*lane): None if due is None else from_ms(due) for *lane, due in rows}


async def record(connection: Connection, owner: int, results: Sequence[Result]) -> set[Numbers]:
    """Attempts, steps and events of those whose claim still stands; which these are."""
    columns = _columns([_result_row(result) for result in results], 22)
    events = [
        (result.claim.delivery.id, result.claim.delivery.integration, *event_row(event))
        for result in results
        for event in result.events
    ]
    causes = {
        (result.claim.delivery.integration, result.cause.number): result.cause
        for result in results
        if result.cause is not None
    }
    told = [(number, *structs.astuple(cause)) for (number, _), cause in causes.items()]
    rows = await connection.fetch(SQL["record"], owner, *columns, *_columns(events, 10), *_columns(told, 6))
    return {tuple(row) for row in rows}


async def recorded(connection: Connection, results: Sequence[Result]) -> set[Numbers]:
    """Which of these attempts are written, by us."""
    keys = [
        (r.claim.delivery.integration, r.claim.delivery.id, r.claim.cycle, r.claim.attempt, r.attempt.span_id)
        for r in results
    ]
    return {tuple(row) for row in await connection.fetch(SQL["recorded"], *_columns(keys, 5))}


async def claims_to_give_back(
    connection: Connection, owner: int, claims: Sequence[Claim]
) -> dict[Numbers, Standing]:
    """Those that stand."""
    keys = [(c.delivery.integration, c.delivery.id, c.cycle, c.attempt) for c in claims]
    rows = await connection.fetch(SQL["claims_to_give_back"], owner, *_columns(keys, 4))
    return {
        (item, cycle, attempt): (number, item, claimed_at)
        for number, item, cycle, attempt, claimed_at in rows
    }


async def give_back(connection: Connection, owner: int, claims: Sequence[Standing]) -> None:
    """As if they had never been claimed."""
    await connection.execute(SQL["give_back"], owner, *_columns(claims, 3))


async def write_events(connection: Connection, events: Sequence[AuditEvent]) -> Sequence[int]:
    """Audit events, in the transaction of what they tell of; what of their targets would stand after them."""
    columns = _columns([event_row(event) for event in events], 8)
    return [row[0] for row in await connection.fetch(SQL["insert_events"], *columns)] if events else []


async def follows(connection: Connection, event: AuditEvent) -> bool:
    """Whether the record that an event of an item names is still its last; the item is held."""
    if parse_recovery_id(event.target_id) is None:
        return True
    return bool(await connection.fetchval(SQL["head"], event.target_id) == previous_of(event))


async def write_last_events(connection: Connection, events: Sequence[AuditEvent]) -> None:
    """Events that are the last of their targets, so far; OutOfOrder when one is not.

    For a transaction that holds what they are about: whoever writes the next has to wait for it.
    """
    if later := await write_events(connection, events):
        raise OutOfOrder(max(later))


def _columns(rows: Sequence[Row], width: int) -> list[list[Any]]:
    """Rows as the arrays that `unnest` puts together again."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _where(places: Iterable[Place]) -> list[list[Any]]:
    return _columns([(*place.lane, place.since) for place in places], 4)


async def _verdicts(
    connection: Connection, intakes: Sequence[Intake], stored: Mapping[int, bool]
) -> list[Verdict]:
    """What became of each, given which were stored (and whether claimed)."""
    others = [i.delivery for i in intakes if i.delivery.id not in stored]
    taken, lifecycles = {}, {}
    if others:
        keyed = [d for d in others if d.idempotency_key is not None]
        keys = await connection.fetch(
            SQL["keys"], [d.integration for d in keyed], [d.idempotency_key for d in keyed]
        )
        taken = {(number, key): (item, fingerprint) for number, key, item, fingerprint in keys}
        numbers = sorted({d.integration for d in others})
        lifecycles = dict(await connection.fetch(SQL["lifecycles"], numbers))
    return [_verdict(intake, stored, taken, lifecycles) for intake in intakes]


def _verdict(
    intake: Intake,
    stored: Mapping[int, bool],
    taken: Mapping[tuple[int, str | None], tuple[int, bytes]],
    lifecycles: Mapping[int, str],
) -> Verdict:
    delivery = intake.delivery
    if delivery.id in stored:
        return Accepted(claimed=stored[delivery.id])
    if (first := taken.get((delivery.integration, delivery.idempotency_key))) is not None:
        item, fingerprint = first
        return Duplicate(ItemId(item)) if fingerprint == intake.fingerprint else KeyReused()
    return Refused(to_choice(Lifecycle, lifecycles.get(delivery.integration, Lifecycle.RETIRED)))


def _claim(owner: int, row: Row, found: Row | None) -> Claim:
    _, number, _, cycle, attempt, max_attempts, risk, orphaned_ms = row
    if found is None:
        raise StoreInconsistent(f"item {number} is unfinished but was never stored")
    *columns, request_id, job, original, head, _ = found
    if cycle > 1 and request_id is None:
        raise StoreInconsistent(f"item {number} is in cycle {cycle}, which nobody opened")
    delivery = to_delivery(tuple(columns))
    orphaned_at = None if orphaned_ms is None else from_ms(orphaned_ms)
    return Claim(
        delivery,
        owner,
        cycle,
        attempt,
        max_attempts,
        request_id or delivery.request_id,
        orphaned_at,
        risk=to_risk(risk),
        head=head,
        job=job,
        edit_of=original,
    )


def _result_row(result: Result) -> Row:
    claim, step = result.claim, result.step
    due_ms = to_ms(step.due_at) if isinstance(step, RetryAt) else None
    grave = step.status if isinstance(step, Finish) and step.status is not Status.SUCCEEDED else None
    cause = None if result.cause is None else result.cause.number
    _, _, _, *rest = attempt_row(claim.delivery.id, result.attempt, cause)
    return (
        claim.delivery.integration, claim.delivery.id, claim.cycle, claim.attempt, due_ms, grave,
        to_ms(result.finished_at), *rest, result.risk, claim.job,
    )  # fmt: skip
