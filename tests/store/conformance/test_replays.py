"""Plans and jobs: what is frozen, what a job releases, and what excludes what."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Delivery, Erasure, Resolution
from redrive.domain.ids import EventId, ItemId, JobId, recovery_id
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Status
from redrive.domain.replay import (
    ItemState,
    Job,
    Plan,
    Progress,
    ReplayState,
    Wanted,
)
from redrive.domain.replay_judging import Candidate, Kin, Skip, judge
from redrive.domain.replay_plan import Frozen
from redrive.store.port import AlreadyAnswered, EventFilter
from redrive.store.replays import Batch, Left, Next
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    a_delivery,
    a_job,
    a_once,
    a_replay,
    a_result,
    an_edit,
    an_event,
    an_id,
    run,
)
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    accept,
    add_integration,
    changed,
    claim_all,
    events_of,
    finish,
    statuses,
)

RUN_ID = "req-of-the-run"


def a_change(job: Job, **fields: Any) -> Job:
    return replace(job, version=job.version + 1, **fields)


async def planned(store: StoreUnderTest, number: int, deliveries: Sequence[Delivery]) -> Job:
    """A plan of these."""
    job = a_job(number)
    await store.replays.add_job(job)
    rows = [Frozen(one.id, 1, 2, None) for one in deliveries]
    assert await store.replays.freeze(job, rows)
    plan = Plan(f"digest of {job.id}", {}, {2: len(rows)}, None, None, ())
    job = a_change(job, state=ReplayState.PLANNED, plan=plan)
    assert await store.replays.change_job(job, [])
    return job


async def running(store: StoreUnderTest, number: int, deliveries: Sequence[Delivery]) -> Job:
    """A job on these that runs without a canary."""
    job = run(await planned(store, number, deliveries))
    assert await store.replays.change_job(job, [])
    return job


async def dead(store: StoreUnderTest, owner: int, number: int, count: int, **fields: Any) -> list[Delivery]:
    return [await a_dead_item(store, owner, number, **fields) for _ in range(count)]


async def a_batch(store: StoreUnderTest, job: Job, items: Sequence[ItemId] | None = None) -> Batch:
    """All that waits, as it stands now."""
    assert job.options is not None
    found = await store.replays.next_waiting(job, job.options.order, items, 100)
    following = []
    for one in found:
        if one.status is not None and not one.is_resolved:
            event = an_event(EventType.REPLAYED, target_id=recovery_id(one.item), target_type="recovery_item")
            event = replace(event, id=EventId(max(event.id, (one.head or 0) + 1)), previous=one.head_digest)
            following.append(Next(one.item, one.status, one.cycle, one.head, event))
    return Batch(job, 7, NOW, following, ())


async def progress(store: StoreUnderTest, job: Job) -> dict[str, int]:
    counted = await store.replays.progress(job)
    return {name: count for name in Progress.__struct_fields__ if (count := getattr(counted, name))}


# planning


async def candidates(store: StoreUnderTest, number: int, **wanted: Any) -> list[Candidate]:
    given = Wanted(**{"status": Status.DLQ} | wanted)
    return list(await store.replays.candidates(number, given, as_of=NOW, after=-1, limit=100))


async def test_candidates_are_the_dead_of_one_status_by_id_as_they_stand(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    first, second = await dead(store, owner, number, 2, payload=b'{"order": 1234}')
    await a_dead_item(store, owner, number, Status.FAILED)
    await accept(store, a_delivery(number))

    found = await candidates(store, number)

    assert [one.id for one in found] == [first.id, second.id]
    assert [(one.cycle, one.died_at, one.size, one.event_type) for one in found] == [
        (1, NOW, 15, "order.paid")
    ] * 2
    assert not any(one.is_resolved or one.is_busy or one.is_erased or one.is_open for one in found)


@pytest.mark.parametrize("failure_code", [None, "HTTP_503"])
async def test_candidates_go_on_above_the_last_that_was_seen(
    store: StoreUnderTest, owner: int, number: int, failure_code: str | None
) -> None:
    items = await dead(store, owner, number, 5)
    wanted = Wanted(status=Status.DLQ, failure_code=failure_code)

    first = await store.replays.candidates(number, wanted, as_of=NOW, after=-1, limit=3)
    rest = await store.replays.candidates(number, wanted, as_of=NOW, after=first[-1].id, limit=3)

    assert [one.id for one in [*first, *rest]] == [item.id for item in items]


@pytest.mark.parametrize(
    "wanted",
    [
        {"event_type": "order.paid"},
        {"failure_code": "HTTP_503"},
        {"duplicate_risk": 2},
        {"cycle": 1},
        {"since": NOW - timedelta(days=2)},
        {"until": NOW},
        {"failure_code": "HTTP_503", "event_type": "order.paid", "cycle": 1},
    ],
)
async def test_candidates_match_every_filter(
    store: StoreUnderTest, owner: int, number: int, wanted: dict[str, Any]
) -> None:
    [item] = await dead(store, owner, number, 1)

    assert [one.id for one in await candidates(store, number, **wanted)] == [item.id]


@pytest.mark.parametrize(
    "wanted",
    [
        {"event_type": "order.shipped"},
        {"failure_code": "HTTP_404"},
        {"duplicate_risk": 1},
        {"cycle": 2},
        {"group": 42},
        {"since": NOW},
        {"until": NOW - timedelta(days=2)},
    ],
)
async def test_candidates_that_do_not_match_are_left_out(
    store: StoreUnderTest, owner: int, number: int, wanted: dict[str, Any]
) -> None:
    await dead(store, owner, number, 1)

    assert await candidates(store, number, **wanted) == []


async def test_what_died_after_the_moment_that_is_planned_for_never_joins(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    await dead(store, owner, number, 1)

    earlier = NOW - timedelta(milliseconds=1)
    found = await store.replays.candidates(
        number, Wanted(status=Status.DLQ), as_of=earlier, after=-1, limit=10
    )

    assert list(found) == []


async def test_items_that_are_named_are_found_wherever_they_are(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [died] = await dead(store, owner, number, 1)
    [resolved] = await dead(store, owner, number, 1)
    await _resolve(store, number, resolved)
    [erased] = await dead(store, owner, number, 1)
    await _erase(store, number, erased)
    waiting = a_delivery(number)
    await accept(store, waiting)
    elsewhere = await a_dead_item(store, owner, await add_integration(store, "other"))
    named = [died.id, resolved.id, erased.id, waiting.id, an_id(), elsewhere.id]

    found = await store.replays.named(number, named)

    assert [one.id for one in found] == named
    assert [judge(one, as_of=NOW, sends=True) for one in found] == [
        None,
        Skip.RESOLVED,
        Skip.ERASED,
        Skip.UNFINISHED,
        Skip.NOT_FOUND,
        Skip.NOT_FOUND,
    ]


async def test_what_succeeded_is_found_to_have_succeeded(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, DONE)

    [found] = await store.replays.named(number, [delivery.id])

    assert judge(found, as_of=NOW, sends=True) is Skip.SUCCEEDED_SINCE


@pytest.mark.parametrize("state", [ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.CANARY])
async def test_what_waits_in_a_job_that_runs_is_busy(
    store: StoreUnderTest, owner: int, number: int, state: ReplayState
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    assert await store.replays.change_job(a_change(job, state=state), [])

    assert [one.is_busy for one in await candidates(store, number)] == [True]
    assert [one.is_busy for one in await store.replays.named(number, [item.id])] == [True]
    assert await store.replays.waits_in(number, item.id) == job.id


async def test_what_waits_in_a_mere_plan_is_not_busy(store: StoreUnderTest, owner: int, number: int) -> None:
    [item] = await dead(store, owner, number, 1)
    await planned(store, number, [item])

    assert [one.is_busy for one in await candidates(store, number)] == [False]
    assert await store.replays.waits_in(number, item.id) is None


async def test_nothing_is_added_to_a_plan_once_it_is_made(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 2)
    job = await planned(store, number, items[:1])

    assert not await store.replays.freeze(job, [Frozen(items[1].id, 1, 2, None)])

    assert await progress(store, job) == {"waiting": 1}


async def test_a_part_that_is_written_twice_stands_once(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = a_job(number)
    await store.replays.add_job(job)

    for _ in range(2):
        assert await store.replays.freeze(job, [Frozen(item.id, 1, 2, None), Frozen(an_id(NOW), 0, 0, "x")])

    assert await progress(store, job) == {"waiting": 1, "skipped": 1}


# jobs


async def test_a_job_comes_back_as_it_was_written(store: StoreUnderTest, number: int) -> None:
    job = await running(store, number, [])

    assert job.plan is not None
    assert await store.replays.job(number, job.id) == job
    assert await store.replays.job_of_digest(number, job.plan.digest) == job
    assert await store.replays.job(number + 1, job.id) is None
    assert await store.replays.job_of_digest(number + 1, job.plan.digest) is None
    assert list(await store.replays.unsettled()) == [job]


async def test_a_job_is_changed_with_its_events_and_its_reply_by_whoever_read_it_last(
    store: StoreUnderTest, number: int
) -> None:
    job = await running(store, number, [])
    event = an_event(EventType.REPLAY_PAUSED, target_id=job.replay_id)
    paused = a_change(job, state=ReplayState.PAUSED)

    assert await store.replays.change_job(paused, [event], a_once())
    assert not await store.replays.change_job(a_change(job), [an_event()])

    assert await store.replays.job(number, job.id) == paused
    assert await events_of(store, EventFilter(target_id=job.replay_id)) == [event]
    assert await store.recall(b"scope") == a_once()
    with pytest.raises(AlreadyAnswered):
        await store.replays.change_job(a_change(paused), [], a_once())
    assert await store.replays.job(number, job.id) == paused


async def test_two_that_change_one_job_at_once_do_not_both_succeed(
    store: StoreUnderTest, number: int
) -> None:
    job = await planned(store, number, [])
    runs = [a_change(job, state=ReplayState.RUNNING, changed_by=name) for name in ("alice", "bob")]

    changed = await asyncio.gather(*(store.replays.change_job(run, []) for run in runs))

    assert sorted(changed) == [False, True]
    assert await store.replays.job(number, job.id) == runs[changed.index(True)]


async def test_jobs_are_listed_newest_first_and_go_on_below_the_last(
    store: StoreUnderTest, number: int
) -> None:
    jobs = [await planned(store, number, []) for _ in range(3)]
    await planned(store, await add_integration(store, "other"), [])

    first = await store.replays.jobs(number, limit=2, below=None)
    rest = await store.replays.jobs(number, limit=2, below=first[-1].id)

    assert [*first, *rest] == jobs[::-1]


# releasing


async def test_what_is_released_is_replayed_as_by_a_person(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    batch = await a_batch(store, job)

    released = await store.replays.release(owner, batch)

    assert released == frozenset({item.id})
    found = await store.item(number, item.id)
    assert found is not None
    assert (found.status, found.cycle, found.attempt_count, found.max_attempts) == (Status.REPLAYED, 2, 0, 7)
    assert found.request_ids == (item.request_id, RUN_ID)
    assert await events_of(store, EventFilter(event_type=EventType.REPLAYED)) == [batch.items[0].event]
    assert await progress(store, job) == {"in_flight": 1}
    [claim] = await claim_all(store, owner, number)
    assert (claim.cycle, claim.attempt, claim.request_id) == (2, 1, RUN_ID)


async def test_an_item_is_released_once_however_often_it_is_tried(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 20)
    job = await running(store, number, items)
    batch = await a_batch(store, job)

    released = await asyncio.gather(*(store.replays.release(owner, batch) for _ in range(4)))

    assert sorted(item for one in released for item in one or ()) == [item.id for item in items]
    assert await progress(store, job) == {"in_flight": 20}
    assert len(await events_of(store, EventFilter(event_type=EventType.REPLAYED))) == 20


async def test_of_two_jobs_on_one_item_one_replays_it(store: StoreUnderTest, owner: int, number: int) -> None:
    items = await dead(store, owner, number, 5)
    jobs = [await running(store, number, items) for _ in range(2)]
    batches = [await a_batch(store, job) for job in jobs]

    released = await asyncio.gather(*(store.replays.release(owner, batch) for batch in batches))

    assert sorted(item for one in released for item in one or ()) == [item.id for item in items]
    assert len(await claim_all(store, owner, number)) == 5


@pytest.mark.parametrize("state", [ReplayState.PAUSED, ReplayState.CANCELLED, ReplayState.HALTED])
async def test_a_job_that_was_stopped_releases_nothing_that_was_decided_before(
    store: StoreUnderTest, owner: int, number: int, state: ReplayState
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    batch = await a_batch(store, job)
    await store.replays.change_job(a_change(job, state=state), [])

    assert await store.replays.release(owner, batch) is None

    assert await statuses(store, number, [item.id]) == [Status.DLQ]
    assert await progress(store, job) == {"waiting": 1}


async def test_a_job_whose_rate_was_changed_releases_nothing_that_was_decided_before(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    batch = await a_batch(store, job)
    await store.replays.change_job(a_change(job), [])

    assert await store.replays.release(owner, batch) is None


async def test_a_process_that_lost_its_lease_releases_nothing(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    batch = await a_batch(store, await running(store, number, [item]))
    await store.expire(owner)

    assert await store.replays.release(owner, batch) is None

    assert await statuses(store, number, [item.id]) == [Status.DLQ]


@pytest.mark.parametrize("lifecycle", [Lifecycle.PAUSED, Lifecycle.RETIRED])
async def test_nothing_is_released_to_an_integration_that_does_not_send(
    store: StoreUnderTest, owner: int, number: int, lifecycle: Lifecycle
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    batch = await a_batch(store, job)
    [integration] = await store.integrations()
    await store.update_integration(changed(integration, lifecycle_status=lifecycle), [an_event()])

    assert await store.replays.release(owner, batch) is None

    figures = await store.replays.figures(job, NOW)
    assert figures is not None
    assert not figures.sends


async def test_nothing_is_released_to_an_integration_that_is_contained(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    batch = await a_batch(store, await running(store, number, [item]))
    await store.meddle("UPDATE integration SET containment = 'hold' WHERE number = ?", number)

    assert await store.replays.release(owner, batch) is None


async def test_what_a_person_replayed_meanwhile_is_not_released(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 2)
    job = run(await planned(store, number, items))
    batch = await a_batch(store, job)
    await _replay_once(store, items[0])
    assert await store.replays.change_job(job, [])

    released = await store.replays.release(owner, batch)

    assert released == frozenset({items[1].id})
    [moved_on] = await store.replays.next_waiting(batch.job, "oldest", None, 10)
    assert (moved_on.item, moved_on.is_open) == (items[0].id, True)


async def test_what_was_replayed_and_died_again_is_another_cycle(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = run(await planned(store, number, [item]))
    batch = await a_batch(store, job)
    await _replay_once(store, item)
    assert await store.replays.change_job(job, [])
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, EXHAUSTED)

    assert await store.replays.release(owner, batch) == frozenset()

    [moved_on] = await store.replays.next_waiting(job, "oldest", None, 10)
    assert (moved_on.cycle, moved_on.planned_cycle) == (2, 1)


async def test_what_was_resolved_meanwhile_is_not_released(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    batch = await a_batch(store, await running(store, number, [item]))
    await _resolve(store, number, item)

    assert await store.replays.release(owner, batch) == frozenset()

    assert await statuses(store, number, [item.id]) == [Status.DLQ]


async def test_an_event_that_would_stand_before_another_of_its_item_is_not_written(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [item] = await dead(store, owner, number, 1)
    batch = await a_batch(store, await running(store, number, [item]))
    later_event = EventId(batch.items[0].event.id + 1)
    await store.note([an_event(id=later_event, target_id=recovery_id(item.id))])

    assert await store.replays.release(owner, batch) == frozenset()

    assert await statuses(store, number, [item.id]) == [Status.DLQ]


async def test_what_is_skipped_is_skipped_for_its_reason_and_only_if_it_still_waits(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 2)
    job = await running(store, number, items)
    batch = await a_batch(store, job, [items[0].id])
    await store.replays.release(owner, batch)

    skipped = [(item.id, Skip.ERASED.value) for item in items]
    await store.replays.release(owner, replace(batch, items=(), skipped=skipped))

    rows = await store.replays.items(job, None, limit=10, after=-1)
    assert [(row.item, row.state, row.reason) for row in rows] == [
        (items[0].id, ItemState.IN_FLIGHT, None),
        (items[1].id, ItemState.SKIPPED, "erased"),
    ]


@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_what_waits_comes_in_its_order_with_what_it_is_judged_by(
    store: StoreUnderTest, owner: int, number: int, order: Any
) -> None:
    items = await dead(store, owner, number, 3)
    job = await running(store, number, items)
    event = an_event(target_id=recovery_id(items[0].id))
    await store.note([event])

    found = await store.replays.next_waiting(job, order, None, 2)

    wanted = items[:2] if order == "oldest" else items[:0:-1]
    assert [one.item for one in found] == [item.id for item in wanted]
    [one] = await store.replays.next_waiting(job, order, [items[0].id], 2)
    assert (one.status, one.cycle, one.attempt, one.failure_code) == (Status.DLQ, 1, 1, "HTTP_503")
    assert (one.head, one.request_id, one.same_request) == (event.id, items[0].request_id, False)


async def test_a_request_id_that_opened_an_earlier_cycle_is_seen(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [first] = await dead(store, owner, number, 1, request_id=RUN_ID)
    [second] = await dead(store, owner, number, 1)
    await _replay_once(store, second, request_id=RUN_ID)
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, EXHAUSTED)
    job = await running(store, number, [first, second])

    found = await store.replays.next_waiting(job, "oldest", None, 10)

    assert [one.same_request for one in found] == [True, True]


async def test_a_plan_tells_what_of_it_moved_on(store: StoreUnderTest, owner: int, number: int) -> None:
    items = await dead(store, owner, number, 4)
    job = await planned(store, number, items)
    await _replay_once(store, items[0])
    await _resolve(store, number, items[1])
    await running(store, number, [items[2]])

    moved = await store.replays.moved_on(job)

    assert moved == {"replayed_since": 1, "resolved": 1, "in_another_job": 1}


@pytest.mark.parametrize("state", [ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.CANARY])
async def test_what_waits_in_a_job_that_runs_is_replayed_by_nobody_else(
    store: StoreUnderTest, owner: int, number: int, state: ReplayState
) -> None:
    [item] = await dead(store, owner, number, 1)
    job = await running(store, number, [item])
    assert await store.replays.change_job(a_change(job, state=state), [])

    assert not await store.replay(a_replay(item), None)

    assert await statuses(store, number, [item.id]) == [Status.DLQ]


async def test_what_a_corrected_copy_stands_for_is_not_released(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 3)
    job = await running(store, number, items)
    batch = await a_batch(store, job)
    await store.meddle("UPDATE dead SET edited_as = 1 WHERE id = ?", items[0].id)
    await store.meddle("UPDATE dead SET superseded_by = 1 WHERE id = ?", items[1].id)
    await store.meddle(
        "INSERT INTO edit (integration, item, original) VALUES (?, ?, ?)", number, items[2].id, items[0].id
    )

    assert await store.replays.release(owner, batch) == frozenset()

    found = await store.replays.next_waiting(job, "oldest", None, 10)
    assert [one.kin for one in found] == [Kin.CORRECTED, Kin.SUPERSEDED, Kin.COPY]
    assert [one.kin for one in await store.replays.named(number, [item.id for item in items])] == [
        Kin.CORRECTED,
        Kin.SUPERSEDED,
        Kin.COPY,
    ]
    assert [one.kin for one in await candidates(store, number)] == [Kin.CORRECTED, Kin.SUPERSEDED, Kin.COPY]


# after the end


async def test_what_waits_in_a_cancelled_job_is_swept_a_little_at_a_time(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 5)
    job = await running(store, number, items)
    await store.replays.release(owner, await a_batch(store, job, [items[0].id]))
    job = a_change(job, state=ReplayState.CANCELLED)
    await store.replays.change_job(job, [])

    swept = [await store.replays.sweep(job, 3) for _ in range(3)]

    assert swept == [3, 1, 0]
    assert await progress(store, job) == {"in_flight": 1, "cancelled": 4}


async def test_what_is_left_of_a_job_is_what_waits_and_what_is_in_flight(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 2)
    job = await running(store, number, items)

    before = await store.replays.left(job)
    await store.replays.release(owner, await a_batch(store, job, [items[0].id]))
    meanwhile = await store.replays.left(job)
    job = a_change(job, state=ReplayState.CANCELLED)
    await store.replays.change_job(job, [])
    await store.replays.sweep(job, 10)

    assert (before, meanwhile) == (Left(True, False), Left(True, True))
    assert await store.replays.left(job) == Left(False, True)


async def test_several_jobs_are_counted_at_once(store: StoreUnderTest, owner: int, number: int) -> None:
    items = await dead(store, owner, number, 3)
    jobs = [await running(store, number, items[:count]) for count in (3, 2, 1)]
    await store.replays.release(owner, await a_batch(store, jobs[1], [items[0].id]))
    wanted = [*(job.id for job in jobs[:2]), JobId(1)]

    counted = await store.replays.progresses(number, wanted)

    assert counted == {
        jobs[0].id: Progress(waiting=3),
        jobs[1].id: Progress(waiting=1, in_flight=1),
    }
    assert await store.replays.progresses(number, []) == {}


async def test_nothing_of_a_job_that_runs_is_swept(store: StoreUnderTest, owner: int, number: int) -> None:
    job = await running(store, number, await dead(store, owner, number, 1))

    assert await store.replays.sweep(job, 10) == 0

    assert await progress(store, job) == {"waiting": 1}


async def test_old_jobs_are_forgotten_with_their_items_once_nothing_comes_of_them(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 3)
    over = await running(store, number, items)
    over = a_change(over, state=ReplayState.CANCELLED, settled=True)
    await store.replays.change_job(over, [])
    kept = await running(store, number, items)

    gone = await store.replays.forget(NOW)

    assert gone == 3
    assert await store.replays.jobs(number, limit=10, below=None) == [kept]
    assert await progress(store, over) == {}
    assert await progress(store, kept) == {"waiting": 3}


async def test_a_job_that_is_young_is_not_forgotten(store: StoreUnderTest, number: int) -> None:
    job = await planned(store, number, [])
    await store.replays.change_job(a_change(job, state=ReplayState.EXPIRED, settled=True), [])

    await store.replays.forget(NOW - timedelta(days=1))

    assert len(await store.replays.jobs(number, limit=10, below=None)) == 1


async def _replay_once(store: StoreUnderTest, item: Delivery, **fields: Any) -> None:
    event = an_event(EventType.REPLAYED, target_id=recovery_id(item.id))
    assert await store.replay(a_replay(item, event=event, **fields), None)


async def _resolve(store: StoreUnderTest, number: int, delivery: Delivery) -> None:
    item = await store.item(number, delivery.id)
    assert item is not None
    event = an_event(EventType.RESOLVED, target_id=item.recovery_id)
    assert await store.resolve(item, Resolution(NOW, "ops", "handled"), event, None)


async def _erase(store: StoreUnderTest, number: int, delivery: Delivery) -> None:
    item = await store.item(number, delivery.id)
    assert item is not None
    assert await store.erase(item, Erasure(NOW, "ops", "asked for"), an_event(), None)


# corrected copies


async def test_what_a_corrected_copy_stands_in_for_is_skipped_and_so_is_the_copy(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    original, corrected, plain = await dead(store, owner, number, 3)
    for delivery in (original, corrected):
        item = await store.item(number, delivery.id)
        assert item is not None
        await store.edit(an_edit(item), None)
    done, failed = await claim_all(store, owner, number)
    event = an_event(EventType.SUPERSEDED)
    await store.record(owner, [replace(a_result(done, DONE), superseded=event), a_result(failed, EXHAUSTED)])

    found = {one.id: judge(one, as_of=NOW, sends=True) for one in await candidates(store, number)}

    assert done.edit_of == original.id
    assert found == {
        original.id: Skip.SUPERSEDED,
        corrected.id: None,
        plain.id: None,
        failed.delivery.id: Skip.COPY,
    }


async def test_a_job_does_not_replay_what_was_corrected_after_it_was_planned(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    items = await dead(store, owner, number, 2)
    job = await running(store, number, items)
    batch = await a_batch(store, job)
    item = await store.item(number, items[0].id)
    assert item is not None
    assert await store.edit(an_edit(item), None)

    await store.replays.release(owner, batch)

    waiting = {one.item: one.kin for one in await store.replays.next_waiting(job, "oldest", None, 10)}
    assert await statuses(store, number, [one.id for one in items]) == [Status.DLQ, Status.REPLAYED]
    assert waiting == {items[0].id: Kin.CORRECTED}


async def test_what_was_judged_before_a_copy_that_failed_meanwhile_is_not_released(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    [original] = await dead(store, owner, number, 1)
    job = await running(store, number, [original])
    before = await a_batch(store, job)
    item = await store.item(number, original.id)
    assert item is not None
    assert await store.edit(an_edit(item), None)
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, EXHAUSTED)  # nothing stands in its place any more
    later = replace(before.items[0].event, id=EventId(an_id()))
    before = replace(before, items=[replace(before.items[0], event=later)])

    assert await store.replays.release(owner, before) == frozenset()

    assert await progress(store, job) == {"waiting": 1}
    assert await store.replays.release(owner, await a_batch(store, job)) == frozenset({original.id})
