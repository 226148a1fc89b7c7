"""Claim, record, give back, adopt: the fences around an attempt."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Attempt, Delivery
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Finish, RetryAt, Status
from redrive.domain.outcome import Answer, Failed, Reach, Succeeded
from redrive.domain.sharing import whole
from redrive.store.port import EventFilter, Result
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    OUTAGE,
    REFUSED,
    a_claim,
    a_delivery,
    a_result,
    an_attempt,
    an_event,
    an_id,
    an_intake,
    later,
)
from tests.store.under_test import (
    StoreUnderTest,
    accept,
    add_integration,
    attempts_of,
    changed,
    claim_all,
    finish,
    statuses,
)

EVERYTHING = EventFilter()


def as_kept(result: Result) -> Attempt:
    """With the group that its failure is of."""
    return replace(result.attempt, group=None if result.cause is None else result.cause.number)


@pytest.fixture
async def delivery(store: StoreUnderTest, number: int) -> Delivery:
    """Accepted, unclaimed, due."""
    delivery = a_delivery(number)
    await accept(store, delivery)
    return delivery


# claim


async def test_a_claim_is_the_delivery_and_its_attempt_already_counted(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    claims = await claim_all(store, owner, number)

    item = await store.item(number, delivery.id)
    assert claims == [a_claim(delivery, owner=owner)]
    assert item is not None
    assert (item.status, item.attempt_count) == (Status.PENDING, 1)


async def test_what_is_claimed_cannot_be_claimed_again(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    await claim_all(store, owner, number)

    assert await claim_all(store, owner, number) == []
    assert await claim_all(store, await store.join(), number) == []


async def test_the_oldest_due_are_claimed_first_and_no_more_than_wanted(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = [a_delivery(number) for _ in range(5)]
    await accept(store, *reversed(given))

    claims = await claim_all(store, owner, number, limit=3)

    assert [claim.delivery for claim in claims] == given[:3]


async def test_each_integration_gets_its_own_share(store: StoreUnderTest, number: int, owner: int) -> None:
    other, silent = await add_integration(store, "other"), await add_integration(store, "silent")
    await accept(store, *(a_delivery(n) for n in [number, other, silent] * 3))

    claimed = await store.claim(owner, {whole(number): 2, whole(other): 1})

    assert sorted(claim.delivery.integration for claim in claimed.claims) == [number, number, other]
    assert set(claimed.next_due) == {whole(number), whole(other)}


async def test_what_is_not_due_yet_is_not_claimed(store: StoreUnderTest, number: int, owner: int) -> None:
    future = a_delivery(number)
    await accept(store, future)
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, later(60))

    early = await store.claim(owner, {whole(number): 10})
    store.clock.move(60)
    on_time = await store.claim(owner, {whole(number): 10})

    assert (early.claims, early.next_due) == ([], {whole(number): NOW + timedelta(seconds=60)})
    assert [claim.delivery for claim in on_time.claims] == [future]
    assert on_time.next_due == {whole(number): None}


async def test_a_claim_tells_when_the_first_of_the_rest_is_due(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    first, second = a_delivery(number), a_delivery(number)
    await accept(store, second, first)

    claimed = await store.claim(owner, {whole(number): 1})

    assert claimed.next_due == {whole(number): second.created_at}


async def test_what_is_accepted_under_an_id_ahead_of_the_clock_is_due_at_once(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    ahead = a_delivery(number, id=an_id(NOW + timedelta(seconds=60)))
    await accept(store, ahead)

    claimed = await store.claim(owner, {whole(number): 1})

    assert [claim.delivery for claim in claimed.claims] == [ahead]


@pytest.mark.parametrize("lifecycle", [Lifecycle.DRAFT, Lifecycle.PAUSED, Lifecycle.RETIRED])
async def test_only_an_active_integration_is_claimed_from(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery, lifecycle: Lifecycle
) -> None:
    [active] = await store.integrations()
    stopped = changed(active, lifecycle_status=lifecycle)
    await store.update_integration(stopped, [])

    held = await claim_all(store, owner, number)
    await store.update_integration(changed(stopped, lifecycle_status=Lifecycle.ACTIVE), [])
    released = await claim_all(store, owner, number)

    assert held == []
    assert [claim.delivery for claim in released] == [delivery]


async def test_a_process_without_a_lease_claims_nothing(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    await store.expire(owner)

    claimed = await store.claim(owner, {whole(number): 1})

    assert (list(claimed.claims), claimed.next_due) == ([], {whole(number): None})


async def test_a_claim_of_nothing_gives_nothing(store: StoreUnderTest, owner: int) -> None:
    claimed = await store.claim(owner, {})

    assert (list(claimed.claims), dict(claimed.next_due)) == ([], {})


# record


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.DLQ])
async def test_a_finished_item_is_in_the_status_it_finished_in(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery, status: Status
) -> None:
    [claim] = await claim_all(store, owner, number)
    result = a_result(claim, Finish(status))

    recorded = await store.record(owner, [result])

    item = await store.item(number, delivery.id)
    assert list(recorded) == [True]
    assert item is not None
    assert (item.status, item.attempt_count, item.next_retry_at) == (status, 1, None)
    assert await attempts_of(store, number, delivery.id) == [as_kept(result)]
    assert await claim_all(store, owner, number) == []


async def test_a_retry_is_due_when_the_step_says(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)

    await finish(store, claim, later(10))

    item = await store.item(number, delivery.id)
    assert item is not None
    assert (item.status, item.attempt_count) == (Status.RETRYING, 1)
    assert item.next_retry_at == NOW + timedelta(seconds=10)
    assert await claim_all(store, owner, number) == []
    store.clock.move(10)
    assert [c.attempt for c in await claim_all(store, owner, number)] == [2]


async def test_an_item_under_way_has_no_next_retry(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, later(0))

    await claim_all(store, owner, number)

    item = await store.item(number, delivery.id)
    assert item is not None
    assert (item.status, item.next_retry_at) == (Status.RETRYING, None)


ANSWERED = Answer(503, (("Content-Type", "a/b"), ("X", "ü")), b"\x00\xff", truncated=True)


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(Answer(204, (), b"")),
        Succeeded(Answer(200, (("a", "1"), ("a", "2")), b"x" * 65_536, truncated=True)),
        Failed("HTTP_503", "it was down", Reach.ANSWERED, ANSWERED, timedelta(seconds=1.5)),
        Failed("HTTP_503", "", Reach.ANSWERED, ANSWERED, timedelta(0)),
        Failed("ECONNREFUSED", "nobody listens", Reach.NOT_SENT),
        Failed("RESPONSE_TIMEOUT", "silence", Reach.SENT),
    ],
)
async def test_an_attempt_comes_back_as_it_was_recorded(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery, outcome: Succeeded | Failed
) -> None:
    [claim] = await claim_all(store, owner, number)
    step = DONE if isinstance(outcome, Succeeded) else EXHAUSTED
    result = replace(a_result(claim, step), attempt=an_attempt(claim, outcome, started_at=NOW))

    await store.record(owner, [result])

    item = await store.item(number, delivery.id)
    assert await attempts_of(store, number, delivery.id) == [as_kept(result)]
    assert item is not None
    assert (item.last.answer, item.last.occurred_at) == (outcome.answer, NOW)
    assert item.last.failure_code == getattr(outcome, "code", None)
    assert item.last.retryable == result.attempt.retryable


async def test_attempts_come_oldest_first_over_all_cycles(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    for _ in range(3):
        [claim] = await claim_all(store, owner, number)
        await finish(store, claim, later(0))
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, REFUSED)

    found = await attempts_of(store, number, delivery.id)

    assert [(attempt.cycle, attempt.attempt) for attempt in found] == [(1, 1), (1, 2), (1, 3), (1, 4)]


async def test_an_item_and_its_attempts_are_of_the_same_moment(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = a_delivery(number, max_attempts=100)
    await accept(store, delivery)

    async def fail_all_attempts() -> None:
        for n in range(100):
            [claim] = await claim_all(store, owner, number)
            attempt = an_attempt(claim, OUTAGE, started_at=NOW + timedelta(seconds=n))
            await store.record(owner, [replace(a_result(claim, later(0)), attempt=attempt)])

    failing = asyncio.create_task(fail_all_attempts())
    seen = []
    while not failing.done():
        seen.append(await store.history(number, delivery.id))
    await failing

    for found in seen:
        assert found is not None
        item, attempts = found
        assert [item.last.occurred_at] == [attempt.started_at for attempt in attempts[-1:]] or not attempts
        assert item.attempt_count - len(attempts) in (0, 1)


async def test_events_are_written_with_their_attempt_or_not_at_all(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    failed, scheduled = an_event(EventType.REPROCESS_FAILED), an_event(EventType.RETRY_SCHEDULED)
    stale = replace(claim, attempt=2)
    before = await events_so_far(store)

    await store.record(owner, [a_result(stale, events=(an_event(),))])
    nothing = await events_so_far(store)
    await store.record(owner, [a_result(claim, later(), events=(failed, scheduled))])

    assert nothing == before
    assert await events_so_far(store) == [scheduled, failed, *before]


async def test_a_process_that_lost_its_claim_records_nothing(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [late] = await claim_all(store, owner, number)
    await store.expire(owner)
    other = await store.join()
    [fresh] = await store.rescue(other)

    lost = await store.record(owner, [a_result(late, events=(an_event(),))])
    kept = await store.record(other, [a_result(fresh, REFUSED)])

    item = await store.item(number, delivery.id)
    assert (list(lost), list(kept)) == ([False], [True])
    assert item is not None
    assert item.status is Status.FAILED
    assert len(await attempts_of(store, number, delivery.id)) == 1


async def test_a_process_whose_lease_is_gone_records_nothing_although_nobody_adopted_yet(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    await store.expire(owner)

    recorded = await store.record(owner, [a_result(claim)])

    assert list(recorded) == [False]
    assert await statuses(store, number, [delivery.id]) == [Status.PENDING]
    assert await attempts_of(store, number, delivery.id) == []


@pytest.mark.parametrize("step", [DONE, REFUSED, later()], ids=["finish", "bury", "retry"])
async def test_a_claim_of_another_attempt_records_nothing(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery, step: Finish | RetryAt
) -> None:
    [claim] = await claim_all(store, owner, number)
    strays = [replace(claim, attempt=2), replace(claim, attempt=0), replace(claim, cycle=2)]

    recorded = await store.record(owner, [a_result(stray, step) for stray in strays])

    assert list(recorded) == [False] * 3
    assert await statuses(store, number, [delivery.id]) == [Status.PENDING]


@pytest.mark.parametrize("step", [DONE, REFUSED, later()], ids=["finish", "bury", "retry"])
async def test_a_claim_of_somebody_else_records_nothing(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery, step: Finish | RetryAt
) -> None:
    [claim] = await claim_all(store, owner, number)
    other = await store.join()

    recorded = await store.record(other, [a_result(replace(claim, owner=other), step)])

    assert list(recorded) == [False]
    assert await statuses(store, number, [delivery.id]) == [Status.PENDING]


async def test_a_result_is_recorded_once(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    result = a_result(claim, later(0))

    first, again = await store.record(owner, [result]), await store.record(owner, [result])
    [second_claim] = await claim_all(store, owner, number)
    late = await store.record(owner, [result])

    assert (list(first), list(again), list(late)) == ([True], [False], [False])
    assert second_claim.attempt == 2


async def test_a_result_twice_in_a_batch_is_recorded_once(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)

    recorded = await store.record(owner, [a_result(claim), a_result(claim)])

    assert list(recorded) == [True, False]
    assert len(await attempts_of(store, number, delivery.id)) == 1


async def test_of_two_results_of_one_claim_in_a_batch_one_is_written(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)

    recorded = await store.record(owner, [a_result(claim, later()), a_result(claim, DONE)])

    [attempt] = await attempts_of(store, number, delivery.id)
    assert sorted(recorded) == [False, True]
    assert await statuses(store, number, [delivery.id]) == [Status.SUCCEEDED]
    assert isinstance(attempt.outcome, Succeeded)


async def test_a_stale_result_does_not_ride_on_a_fresh_one_of_its_batch(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [stale] = await claim_all(store, owner, number)
    await finish(store, stale, later(0))
    [fresh] = await claim_all(store, owner, number)
    stray = replace(stale, cycle=7)

    recorded = await store.record(owner, [a_result(stray, events=(an_event(),)), a_result(fresh)])

    assert list(recorded) == [False, True]
    assert [(a.cycle, a.attempt) for a in await attempts_of(store, number, delivery.id)] == [(1, 1), (1, 2)]


async def test_a_batch_records_what_stands_and_refuses_the_rest_in_order(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = [a_delivery(number) for _ in range(4)]
    await accept(store, *given)
    one, two, three, four = await claim_all(store, owner, number)

    recorded = await store.record(
        owner,
        [
            a_result(one, DONE),
            a_result(replace(two, attempt=9), DONE),
            a_result(three, REFUSED),
            a_result(four, later()),
        ],
    )

    assert list(recorded) == [True, False, True, True]
    assert await statuses(store, number, [d.id for d in given]) == [
        Status.SUCCEEDED,
        Status.PENDING,
        Status.FAILED,
        Status.RETRYING,
    ]


# give back


async def test_a_claim_given_back_was_never_made(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    before = await store.item(number, delivery.id)
    claims = await claim_all(store, owner, number)

    await store.give_back(owner, claims)

    assert await store.item(number, delivery.id) == before
    assert await store.next_due(owner) == {whole(number): delivery.created_at}
    assert await claim_all(store, owner, number) == claims


async def test_what_was_accepted_as_claimed_can_be_given_back(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = a_delivery(number)
    await store.accept([an_intake(given, owner=owner)])

    await store.give_back(owner, [a_claim(given, owner=owner)])

    assert await claim_all(store, owner, number) == [a_claim(given, owner=owner)]


async def test_a_claim_that_does_not_stand_gives_nothing_back(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    other = await store.join()

    await store.give_back(other, [replace(claim, owner=other)])
    await store.give_back(owner, [replace(claim, attempt=2), replace(claim, cycle=2)])

    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.attempt_count == 1
    assert await claim_all(store, owner, number) == []


async def test_giving_back_twice_undoes_one_claim(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, later(0))
    claims = await claim_all(store, owner, number)

    await store.give_back(owner, claims)
    await store.give_back(owner, claims)

    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.attempt_count == 1


async def test_a_process_whose_lease_is_gone_gives_nothing_back(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    claims = await claim_all(store, owner, number)
    await store.expire(owner)

    await store.give_back(owner, claims)

    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.attempt_count == 1


# what the dead leave


async def test_the_claims_of_the_dead_are_adopted_with_the_attempt_they_were_making(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    await store.expire(owner)
    other = await store.join()

    adopted = await store.rescue(other)

    assert [replace(one, orphaned_at=None) for one in adopted] == [replace(claim, owner=other)]
    assert await store.rescue(other) == []


async def test_what_a_process_that_left_was_doing_is_adopted(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    await store.leave(owner)

    adopted = await store.rescue(await store.enter())

    assert [(c.delivery, c.attempt) for c in adopted] == [(delivery, claim.attempt)]


async def test_only_the_claims_of_the_dead_are_adopted(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    of_the_dead, mine, retried, free = (a_delivery(number) for _ in range(4))
    await accept(store, of_the_dead, retried)
    claims = {claim.delivery: claim for claim in await claim_all(store, owner, number)}
    await finish(store, claims[retried], later(0))
    await store.expire(owner)
    other = await store.join()
    await store.accept([an_intake(mine, owner=other), an_intake(free)])

    adopted = await store.rescue(other)

    assert [claim.delivery for claim in adopted] == [of_the_dead]
    assert {claim.delivery for claim in await claim_all(store, other, number)} == {retried, free}


async def test_a_process_without_a_lease_adopts_nothing(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    await claim_all(store, owner, number)
    other = await store.join()
    await store.expire(owner)
    await store.expire(other)

    assert await store.rescue(other) == []


async def test_an_adopted_claim_can_be_recorded(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    await claim_all(store, owner, number)
    await store.expire(owner)
    other = await store.join()
    [claim] = await store.rescue(other)

    recorded = await store.record(other, [a_result(claim, later(0), OUTAGE)])

    assert list(recorded) == [True]
    assert [c.attempt for c in await claim_all(store, other, number)] == [2]


# what waits


async def test_next_due_names_the_earliest_unclaimed_item_of_each_integration(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other, idle = await add_integration(store, "other"), await add_integration(store, "idle")
    first, second, third = a_delivery(number), a_delivery(number), a_delivery(other)
    await accept(store, second, first, third)
    await claim_all(store, owner, number, limit=1)

    due = await store.next_due(owner)

    assert due == {whole(number): second.created_at, whole(other): third.created_at}
    assert whole(idle) not in due


async def test_the_backlog_is_what_is_due_and_unclaimed(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other = await add_integration(store, "other")
    first, second, third = a_delivery(number), a_delivery(other), a_delivery(number)
    await accept(store, a_delivery(number))
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, later(60))
    await accept(store, first, second, third)
    await claim_all(store, owner, number, limit=1)

    waiting = await store.backlog()

    assert (waiting.due, waiting.oldest_due_at) == (2, second.created_at)


async def test_the_backlog_of_an_empty_store_is_nothing(store: StoreUnderTest) -> None:
    waiting = await store.backlog()

    assert (waiting.due, waiting.oldest_due_at) == (0, None)


# leases


async def test_the_last_id_is_the_greatest_of_items_and_events(store: StoreUnderTest, number: int) -> None:
    delivery = a_delivery(number, id=an_id(NOW + timedelta(seconds=60)))
    assert await store.last_id() < delivery.id

    await accept(store, delivery)
    assert await store.last_id() == delivery.id

    await store.note([event := an_event(id=an_id(NOW + timedelta(seconds=90)))])
    assert await store.last_id() == event.id


async def test_incarnations_are_never_used_twice(store: StoreUnderTest) -> None:
    seen = []
    for _ in range(3):
        seen.append(await store.enter())
        await store.leave(seen[-1])

    assert len(set(seen)) == 3
    assert sorted(seen) == seen


async def test_a_lease_lasts_until_it_is_given_up(store: StoreUnderTest, owner: int) -> None:
    before = await store.renew(owner)
    await store.leave(owner)

    assert before
    assert await store.renew(owner) is None


async def test_a_lease_that_was_ended_is_told(store: StoreUnderTest, owner: int) -> None:
    await store.expire(owner)

    assert not await store.renew(owner)


async def events_so_far(store: StoreUnderTest) -> list[object]:
    return list((await store.events(EVERYTHING, limit=100, below=None)).rows)


async def test_what_another_living_process_claimed_is_not_ours_to_record(
    store: StoreUnderTest, number: int, owner: int, delivery: Delivery
) -> None:
    [claim] = await claim_all(store, owner, number)
    stranger = await store.join()

    recorded = await store.record(stranger, [a_result(replace(claim, owner=stranger))])

    assert list(recorded) == [False]
    assert await attempts_of(store, number, delivery.id) == []
