"""What is written beside an attempt, in its transaction: cause, risk, tally, chain, what a job is told."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType, chained, digest_of, record_of
from redrive.domain.delivery import Claim
from redrive.domain.failure_group import GroupState
from redrive.domain.grouping import cause_of
from redrive.domain.item import Step
from redrive.domain.outcome import Failed, Outcome, Reach, Risk
from redrive.store.port import EventFilter
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    OUTAGE,
    REFUSAL,
    SUCCESS,
    TIMEOUT,
    a_delivery,
    a_replay,
    a_result,
    an_event,
    an_id,
    an_intake,
    an_integration,
    later,
)
from tests.store.under_test import StoreUnderTest, accept, claim_all, events_of

UNREACHED = Failed("ECONNREFUSED", "nobody listens", Reach.NOT_SENT)
MINUTE = int(NOW.timestamp()) // 60


async def failing(store: StoreUnderTest, owner: int, number: int, outcome: Outcome, step: Step) -> Claim:
    """The next attempt on the only item that is due ends so."""
    [claim] = await claim_all(store, owner, number)
    assert list(await store.record(owner, [a_result(claim, step, outcome)])) == [True]
    return claim


async def test_failures_of_one_cause_are_counted_once_each(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    deliveries = [a_delivery(number) for _ in range(3)]
    await store.accept([an_intake(delivery) for delivery in deliveries])
    claims = await claim_all(store, owner, number)
    outcomes = dict(zip((d.id for d in deliveries), (OUTAGE, OUTAGE, REFUSAL), strict=True))
    results = [a_result(claim, EXHAUSTED, outcomes[claim.delivery.id]) for claim in claims]

    await store.record(owner, results)
    await store.record(owner, results)  # told again: nothing stands any more

    page = await store.groups.page(number, None, limit=5, below=None)
    found = {group.cause.number: group for group in page.rows}
    refused, out = (cause_of(an_integration(), outcome).number for outcome in (REFUSAL, OUTAGE))
    assert {name: group.failures for name, group in found.items()} == {refused: 1, out: 2}
    assert (found[refused].sample, found[out].sample) == (deliveries[2].id, deliveries[1].id)
    assert {group.judgement.state for group in found.values()} == {GroupState.OPEN}
    dead = await store.peek("SELECT id, failure_group, risk FROM dead ORDER BY id")
    assert dead == [(deliveries[0].id, out, 2), (deliveries[1].id, out, 2), (deliveries[2].id, refused, 2)]
    assert await store.peek("SELECT failure_group FROM attempt ORDER BY item") == [(out,), (out,), (refused,)]


async def test_a_group_knows_when_it_was_seen_first_and_last(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    for seconds in (5, 0, 9):
        await accept(store, a_delivery(number))
        [claim] = await claim_all(store, owner, number)
        at = NOW + timedelta(seconds=seconds)
        await store.record(owner, [a_result(claim, EXHAUSTED, OUTAGE, finished_at=at)])

    [group] = (await store.groups.page(number, None, limit=5, below=None)).rows
    first, last = group.first_seen_at - NOW, group.last_seen_at - NOW
    assert (first.total_seconds(), last.total_seconds(), group.failures) == (5, 9, 3)


@pytest.mark.parametrize(
    ("outcomes", "risk"),
    [
        ((UNREACHED,), Risk.NEVER_SENT),
        ((UNREACHED, OUTAGE), Risk.REFUSED),
        ((TIMEOUT, UNREACHED), Risk.AMBIGUOUS),
        ((OUTAGE, UNREACHED, OUTAGE), Risk.REFUSED),
    ],
)
async def test_an_item_keeps_the_worst_risk_of_all_its_attempts(
    store: StoreUnderTest, owner: int, number: int, outcomes: tuple[Failed, ...], risk: Risk
) -> None:
    await accept(store, a_delivery(number))
    for outcome in outcomes[:-1]:
        await failing(store, owner, number, outcome, later(0))
    await failing(store, owner, number, outcomes[-1], EXHAUSTED)

    assert await store.peek("SELECT risk FROM dead") == [(risk,)]


async def test_a_replay_takes_the_risk_with_it(store: StoreUnderTest, owner: int, number: int) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    await failing(store, owner, number, TIMEOUT, EXHAUSTED)
    assert await store.replay(a_replay(delivery), None)

    [claim] = await claim_all(store, owner, number)

    assert claim.risk is Risk.AMBIGUOUS


async def test_outcomes_are_tallied_by_the_minute(store: StoreUnderTest, owner: int, number: int) -> None:
    await store.accept([an_intake(a_delivery(number)) for _ in range(5)])
    claims = await claim_all(store, owner, number)
    results = [a_result(claim, DONE, SUCCESS) for claim in claims[:3]]
    results.append(a_result(claims[3], EXHAUSTED, OUTAGE))
    results.append(a_result(claims[4], DONE, SUCCESS, finished_at=NOW + timedelta(minutes=1)))

    await store.record(owner, results[:2])
    await store.record(owner, results[2:])

    found = await store.peek(
        "SELECT minute, owner, succeeded, failed, duration_us FROM tally ORDER BY minute"
    )
    each = results[0].attempt.duration // timedelta(microseconds=1)
    assert found == [(MINUTE, owner, 3, 1, 4 * each), (MINUTE + 1, owner, 1, 0, each)]


async def test_the_next_claim_knows_the_digest_of_the_last_record(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    [claim] = await claim_all(store, owner, number)
    assert claim.head is None
    about = {"target_id": claim.recovery_id, "integration_id": "acme"}
    events = chained(
        an_event(EventType.REPROCESS_FAILED, id=an_id(), **about),
        an_event(EventType.RETRY_SCHEDULED, id=an_id(), **about),
        after=claim.head,
    )

    await store.record(owner, [a_result(claim, later(0), OUTAGE, events=events)])

    [again] = await claim_all(store, owner, number)
    assert again.head == digest_of(record_of(events[-1])).hex()
    stored = await events_of(store, EventFilter(target_id=claim.recovery_id))
    assert [event.previous for event in reversed(stored)] == [None, digest_of(record_of(events[0])).hex()]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (DONE, ("succeeded", None, 0)),
        (later(0), ("in_flight", "HTTP_503", 1)),
        (EXHAUSTED, ("failed", "HTTP_503", 1)),
    ],
)
async def test_a_job_is_told_what_came_of_what_it_replayed(
    store: StoreUnderTest, owner: int, number: int, step: Step, told: tuple[str, str, int]
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    await failing(store, owner, number, OUTAGE, EXHAUSTED)
    assert await store.replay(a_replay(delivery), None)
    await store.meddle("UPDATE cycle SET job = 7")
    for job in (6, 7):
        await store.meddle(
            "INSERT INTO replay_item (integration, job, item, cycle, risk, state)"
            " VALUES (?, ?, ?, 1, 2, 'in_flight')",
            number,
            job,
            delivery.id,
        )

    claim = await failing(store, owner, number, SUCCESS if step is DONE else OUTAGE, step)

    assert claim.job == 7
    found = await store.peek("SELECT job, state, reason, stumbled, told_at FROM replay_item ORDER BY job")
    state, reason, stumbled = told
    assert found == [
        (6, "in_flight", None, 0, None),
        (7, state, reason, stumbled, int(NOW.timestamp() * 1000)),
    ]


async def test_a_job_remembers_when_it_was_told_first_and_that_it_stumbled(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    await failing(store, owner, number, OUTAGE, EXHAUSTED)
    assert await store.replay(a_replay(delivery), None)
    await store.meddle("UPDATE cycle SET job = 7")
    await store.meddle(
        "INSERT INTO replay_item (integration, job, item, cycle, risk, state)"
        " VALUES (?, 7, ?, 1, 2, 'in_flight')",
        number,
        delivery.id,
    )
    await failing(store, owner, number, OUTAGE, later(0))
    [claim] = await claim_all(store, owner, number)
    at = NOW + timedelta(seconds=3)

    await store.record(owner, [replace(a_result(claim, DONE, SUCCESS), finished_at=at)])

    found = await store.peek("SELECT state, reason, stumbled, told_at FROM replay_item")
    assert found == [("succeeded", None, 1, int(NOW.timestamp() * 1000))]
