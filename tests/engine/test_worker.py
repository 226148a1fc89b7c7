"""What happens to a delivery, and what a lane may take from others."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.delivery.failures import blocked
from redrive.delivery.port import OwnFault, Request
from redrive.domain.ids import recovery_id as recovery_id_of
from redrive.domain.integration import Defaults, SigningSecret
from redrive.domain.item import Status
from redrive.domain.outcome import Failed, Outcome, Reach
from redrive.domain.sharing import Lane, whole
from redrive.engine.acting import Order
from redrive.engine.attempts import SUSPENDED_SECONDS
from redrive.engine.blocked import NEWS_AFTER_SECONDS
from redrive.engine.lanes import LATE
from redrive.engine.worker import Worker
from redrive.store.port import Claimed, EventFilter, Store, StoreInconsistent, StoreUnavailable
from redrive.telemetry.events import (
    AttemptFinished,
    LeasesLost,
    LoopFailed,
    SendingSuspended,
    StoreFailed,
    StoreRecovered,
    TargetBlocked,
)
from tests.engine.clock import StandingClock
from tests.engine.conftest import DEADLINE_SECONDS, Harness, answered, eventually, in_silence
from tests.factories import NOW, a_delivery, an_intake


async def test_a_first_attempt_that_succeeds_leaves_its_record_and_no_audit_event(harness: Harness) -> None:
    await harness.integration("good")

    [recovery_id] = await harness.deliver("good")

    item = await harness.status("good", recovery_id, Status.SUCCEEDED)
    [attempt] = await harness.attempts(item)
    assert (attempt.cycle, attempt.attempt, item.attempt_count) == (1, 1, 1)
    assert not (await harness.store.events(EventFilter(target_id=recovery_id), limit=10, below=None)).rows


async def test_retryable_failures_end_in_dlq_after_max_attempts_sends(harness: Harness) -> None:
    await harness.integration("down", max_attempts=3, base_delay_seconds=10.0)
    harness.deliverer.scripts["/down"] = lambda _: answered(503)

    [recovery_id] = await harness.deliver("down")
    await harness.retry("down", recovery_id)
    await harness.retry("down", recovery_id)

    item = await harness.status("down", recovery_id, Status.DLQ)
    assert harness.deliverer.sent("/down") == 3
    attempts = await harness.attempts(item)
    assert [(a.attempt, (a.started_at - NOW).total_seconds()) for a in attempts] == [(1, 0), (2, 10), (3, 30)]
    events = (await harness.store.events(EventFilter(target_id=recovery_id), limit=10, below=None)).rows
    assert [event.event_type.rsplit(".", 1)[1] for event in reversed(events)] == [
        "reprocess_failed", "retry_scheduled", "reprocess_failed", "retry_scheduled",
        "reprocess_failed", "retry_exhausted",
    ]  # fmt: skip


async def test_retries_that_fall_due_within_a_step_are_claimed_together(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("good")
    await harness.integration("down", base_delay_seconds=10.0)
    harness.deliverer.scripts["/down"] = lambda _: answered(503)
    for _ in range(2):
        harness.clock.move(0.003)
        [recovery_id] = await harness.deliver("down")
        await harness.status("down", recovery_id, Status.RETRYING)
    claim, claimed = harness.store.claim, []

    async def claim_and_count(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        answer = await claim(owner, wants)
        claimed.append([c.delivery.id for c in answer.claims])
        return answer

    monkeypatch.setattr(harness.store, "claim", claim_and_count)

    # The poll comes at 10.002 s, before either is due; at 10.004 s the first has been for 1 ms.
    for seconds in (9.996, 0.002):
        harness.clock.move(seconds)
        [recovery_id] = await harness.deliver("good")
        await harness.status("good", recovery_id, Status.SUCCEEDED)  # by now a claim would have begun
    harness.clock.move(0.046)  # the step

    await eventually(lambda: _when(harness.deliverer.sent("/down") == 4))
    assert [len(ids) for ids in claimed] == [2]


async def test_what_arrives_while_a_lane_is_claimed_from_starts_beside_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("busy")
    claim, claiming, goes_on = harness.store.claim, asyncio.Event(), asyncio.Event()

    async def claim_late(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        claiming.set()
        await goes_on.wait()
        return await claim(owner, wants)

    monkeypatch.setattr(harness.store, "claim", claim_late)
    harness.engine.worker.hear([integration.number])
    await claiming.wait()

    try:
        [recovery_id] = await harness.deliver("busy")
        await harness.status("busy", recovery_id, Status.SUCCEEDED)
    finally:
        goes_on.set()  # or the harness could not close


async def test_a_lane_that_is_behind_keeps_no_room_for_what_arrives(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("behind", concurrency=16)
    gate, wanted = asyncio.Event(), _note_what_is_claimed(harness, monkeypatch)
    harness.deliverer.scripts["/behind"] = _after(gate)
    await harness.store.accept([an_intake(a_delivery(integration.number)) for _ in range(20)])
    harness.engine.worker.hear([integration.number])

    await eventually(lambda: _when(harness.deliverer.sent("/behind") == 16))
    assert wanted == [12, 4]
    gate.set()

    await eventually(
        lambda: _when(harness.deliverer.sent("/behind") == 20 and not harness.engine.worker.in_flight)
    )
    wanted.clear()
    [recovery_id] = await harness.deliver("behind")
    await harness.status("behind", recovery_id, Status.SUCCEEDED)
    assert wanted == [], "it is behind no more: what arrives starts at once"


async def test_a_lane_that_is_behind_starts_nothing_that_just_arrived(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("behind", concurrency=4)
    claim, claims, goes_on = harness.store.claim, 0, asyncio.Event()
    older = [a_delivery(integration.number) for _ in range(8)]
    await harness.store.accept([an_intake(delivery) for delivery in older])

    async def claim_late(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        nonlocal claims
        claims += 1
        if claims == 2:  # by now what was claimed first has gone, and made room
            await eventually(lambda: _when(harness.deliverer.sent("/behind") == 3))
            await goes_on.wait()
        return await claim(owner, wants)

    monkeypatch.setattr(harness.store, "claim", claim_late)
    harness.engine.worker.hear([integration.number])
    await eventually(lambda: _when(claims == 2))

    recovery_ids = await harness.deliver("behind", 4)
    goes_on.set()

    for recovery_id in recovery_ids:
        await harness.status("behind", recovery_id, Status.SUCCEEDED)
    sent = [request.headers for request in harness.deliverer.requests]
    order = [dict(headers)["webhook-id"] for headers in sent]
    assert set(order[:8]) == {recovery_id_of(delivery.id) for delivery in older}


async def test_while_cpu_is_short_what_waits_is_claimed_in_parts_and_what_arrives_starts_beside_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("busy", concurrency=48)
    wanted = _note_what_is_claimed(harness, monkeypatch)
    ids = [harness.store.ids.next(harness.clock.now()) for _ in range(24)]  # none waits for long yet
    waiting = [a_delivery(integration.number, id=number) for number in ids]
    await harness.store.accept([an_intake(delivery) for delivery in waiting])
    gate = asyncio.Event()
    harness.deliverer.scripts["/busy"] = _after(gate)
    harness.fill_core(arrivals=10)

    harness.engine.worker.hear([integration.number])
    await eventually(lambda: _when(harness.deliverer.sent("/busy") == 8))
    await harness.deliver("busy")  # not after the sixteen that are left

    await eventually(lambda: _when(harness.deliverer.sent("/busy") == 9))
    assert wanted == [8], "a quarter of the room, and no more before the step ends"
    harness.fill_core(arrivals=10)
    await eventually(lambda: _when(harness.deliverer.sent("/busy") == 17))
    assert wanted == [8, 8]
    gate.set()
    await eventually(lambda: _when(not harness.engine.worker.in_flight))
    harness.clock.move(0.1)  # and the core was idle
    await eventually(lambda: _when(harness.deliverer.sent("/busy") == 25))
    assert wanted == [8, 8, 32]
    await eventually(lambda: _when(not harness.engine.worker.in_flight))
    harness.fill_core(arrivals=1)  # of nine that were started: what waits is what fills it
    harness.engine.worker.hear([integration.number])
    await eventually(lambda: _when(len(wanted) == 4))
    assert wanted[3] == 24


@pytest.mark.parametrize(
    ("in_flight", "rate", "waited", "starts"),
    [
        (1, None, timedelta(), True),
        (2, None, LATE - timedelta(milliseconds=1), True),
        (3, None, timedelta(), False),
        (1, 1_000.0, timedelta(), False),
        (1, None, LATE, False),
    ],
)
async def test_while_cpu_is_short_a_lane_that_holds_itself_up_or_is_late_serves_what_waits_first(
    harness: Harness, in_flight: int, rate: float | None, waited: timedelta, *, starts: bool
) -> None:
    other = await harness.integration("other")
    integration = await harness.integration("small", concurrency=4)
    await harness.change("small", rate_per_second=rate)
    harness.deliverer.scripts["/small"] = _after(asyncio.Event())
    harness.clock.move(0.05)  # a rate begins with nothing saved up
    await harness.deliver("small", in_flight)
    worker = harness.engine.worker
    harness.fill_core(arrivals=0)  # but for what was delivered
    worker.hear([other.number])
    await eventually(lambda: _when(worker.load.favours_arrivals))

    worker.hear([integration.number])  # something waits
    [lane] = worker.owned.lanes_of(integration.number)
    worker.lanes.pace(lane).left(harness.clock.now() - waited)
    arriving = worker.reserve(integration.number, 1)

    assert (arriving is not None) is starts
    if arriving is not None:
        worker.cancel(arriving)


async def test_a_claim_that_found_just_what_was_due_leaves_its_lane_free(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("exact", concurrency=4, base_delay_seconds=60.0)
    harness.deliverer.scripts["/exact"] = lambda _: answered(503)
    [later] = await harness.deliver("exact")
    await harness.status("exact", later, Status.RETRYING)
    harness.deliverer.scripts["/exact"] = lambda _: answered(200)
    claim, found = harness.store.claim, []

    async def claim_and_count(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        answer = await claim(owner, wants)
        found.append((sum(wants.values()), len(answer.claims)))
        return answer

    monkeypatch.setattr(harness.store, "claim", claim_and_count)
    await harness.store.accept([an_intake(a_delivery(integration.number)) for _ in range(3)])
    harness.engine.worker.hear([integration.number])
    await eventually(lambda: _when(harness.deliverer.sent("/exact") == 4))

    [recovery_id] = await harness.deliver("exact")

    await harness.status("exact", recovery_id, Status.SUCCEEDED)
    assert found == [(3, 3)]


async def test_what_fell_due_while_all_that_was_due_was_claimed_waits_for_its_step(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("busy")
    claims, claim = [], harness.store.claim

    async def claim_slowly(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        claims.append(wants)
        await claim(owner, wants)
        due = dict.fromkeys(wants, harness.clock.now() + timedelta(milliseconds=1))
        harness.clock.move(0.002)
        return Claimed((), due if len(claims) == 1 else {})

    monkeypatch.setattr(harness.store, "claim", claim_slowly)
    harness.engine.worker.hear([integration.number])
    await eventually(lambda: _when(len(claims) == 1))
    [recovery_id] = await harness.deliver("busy")
    await harness.status("busy", recovery_id, Status.SUCCEEDED)  # by now another would have begun

    assert len(claims) == 1
    harness.clock.move(0.048)  # the step
    await eventually(lambda: _when(len(claims) == 2))


async def test_a_lane_that_waits_for_room_starts_when_others_turn_out_to_need_none(
    store: Store, clock: StandingClock
) -> None:
    harness = Harness(store, clock, slots=32)
    await harness.engine.start()
    lanes = [await harness.integration(f"lane-{n}", concurrency=16) for n in range(12)]

    for lane in lanes:  # each may have something due: much more room is asked for than there is
        harness.engine.worker.hear([lane.number])
    [recovery_id] = await harness.deliver("lane-11")

    await harness.status("lane-11", recovery_id, Status.SUCCEEDED)
    await harness.close()


async def test_while_the_lease_has_run_out_what_is_due_waits_in_peace(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("due")
    worker, turns = harness.engine.worker, []
    claim = worker._claim

    async def claim_and_count() -> None:
        turns.append(worker.owned.has_lapsed)
        await claim()

    monkeypatch.setattr(worker, "_claim", claim_and_count)
    worker.owned.lease_until = harness.clock.elapsed()

    worker.hear([integration.number])
    for _ in range(100):
        await asyncio.sleep(0)

    assert all(turns)
    assert len(turns) <= 2  # another when the loop was about to look just then


async def test_a_refusal_for_good_is_not_retried(harness: Harness) -> None:
    await harness.integration("gone")
    harness.deliverer.scripts["/gone"] = lambda _: answered(404)

    [recovery_id] = await harness.deliver("gone")

    item = await harness.status("gone", recovery_id, Status.FAILED)
    assert (item.last.failure_code, harness.deliverer.sent("/gone")) == ("HTTP_404", 1)


async def test_a_lane_never_has_more_under_way_than_its_concurrency(harness: Harness) -> None:
    await harness.integration("narrow", concurrency=3)
    gate = asyncio.Event()
    harness.deliverer.scripts["/narrow"] = _after(gate)
    recovery_ids = await harness.deliver("narrow", 20)
    await eventually(lambda: _when(harness.deliverer.under_way["/narrow"] == 3))

    gate.set()

    for recovery_id in recovery_ids:
        await harness.status("narrow", recovery_id, Status.SUCCEEDED)
    assert harness.deliverer.most_at_once["/narrow"] == 3
    assert harness.deliverer.sent("/narrow") == 20


async def test_slow_lanes_leave_room_for_a_small_one(store: Store, clock: StandingClock) -> None:
    harness = Harness(store, clock, slots=16)
    await harness.engine.start()
    gate = asyncio.Event()
    for name in ("slow-a", "slow-b"):
        await harness.integration(name, concurrency=100)
        harness.deliverer.scripts[f"/{name}"] = _after(gate)
        await harness.deliver(name, 50)
    await harness.integration("quick")

    [recovery_id] = await harness.deliver("quick")

    await harness.status("quick", recovery_id, Status.SUCCEEDED)
    assert not gate.is_set()
    assert harness.engine.worker.lanes.busy <= 16
    gate.set()
    await harness.close()


async def test_a_paused_integration_holds_and_goes_on_when_it_is_active_again(harness: Harness) -> None:
    await harness.integration("paused", lifecycle_status="paused")
    [recovery_id] = await harness.deliver("paused")
    assert (await harness.item("paused", recovery_id)).status is Status.PENDING

    await harness.change("paused", lifecycle_status="active")

    await harness.status("paused", recovery_id, Status.SUCCEEDED)


async def test_nothing_is_sent_while_an_integration_is_paused(harness: Harness) -> None:
    await harness.integration("held")
    await harness.integration("other")
    await harness.change("held", lifecycle_status="paused")
    [held] = await harness.deliver("held")

    [other] = await harness.deliver("other")

    await harness.status("other", other, Status.SUCCEEDED)
    assert harness.deliverer.sent("/held") == 0
    assert (await harness.item("held", held)).attempt_count == 0


async def test_work_that_is_held_starts_again_one_at_a_time(harness: Harness) -> None:
    await harness.integration("ramp", lifecycle_status="paused")
    await harness.deliver("ramp", 10)
    gate = asyncio.Event()
    harness.deliverer.scripts["/ramp"] = _after(gate)

    await harness.change("ramp", lifecycle_status="active")

    await eventually(lambda: _when(harness.deliverer.sent("/ramp") > 0))
    assert harness.deliverer.under_way["/ramp"] == 1
    gate.set()
    await eventually(lambda: _when(harness.deliverer.sent("/ramp") == 10))


async def test_a_fault_of_our_own_spends_no_attempt(harness: Harness) -> None:
    await harness.integration("faulty")
    harness.deliverer.connecting["/faulty"] = _without_file_handles

    [recovery_id] = await harness.deliver("faulty")

    await eventually(lambda: _when(_are_told(harness, "faulty")))
    item = await harness.item("faulty", recovery_id)
    assert (item.status, item.attempt_count) == (Status.PENDING, 0)


async def test_a_bug_before_anything_was_sent_is_a_fault_of_our_own(harness: Harness) -> None:
    integration = await harness.integration("faulty", max_attempts=1)
    no_secret = SigningSecret(harness.tools.vault.seal_secret("faulty", "not a secret at all"))
    broken = replace(integration, secrets=(no_secret,), version=integration.version + 1)
    harness.engine.catalogue._keep(broken)

    [recovery_id] = await harness.deliver("faulty")
    await eventually(lambda: _when(_are_told(harness, "faulty")))

    assert LoopFailed in map(type, harness.events)
    assert (await harness.item("faulty", recovery_id)).attempt_count == 0
    harness.engine.catalogue._keep(replace(integration, version=broken.version + 1))
    harness.clock.move(SUSPENDED_SECONDS)
    item = await harness.status("faulty", recovery_id, Status.SUCCEEDED)
    assert item.attempt_count == 1


async def test_a_bug_of_the_deliverer_before_a_byte_left_spends_no_attempt(harness: Harness) -> None:
    await harness.integration("buggy", max_attempts=1)

    async def crash(_: Request) -> None:
        raise ZeroDivisionError

    harness.deliverer.connecting["/buggy"] = crash

    [recovery_id] = await harness.deliver("buggy")

    await eventually(lambda: _when(_are_told(harness, "buggy")))
    assert (await harness.item("buggy", recovery_id)).attempt_count == 0


async def test_a_bug_while_sending_is_recorded_as_an_unknown_outcome(harness: Harness) -> None:
    await harness.integration("buggy", max_attempts=1)

    def crash(_: Request) -> Outcome:
        raise ZeroDivisionError

    harness.deliverer.scripts["/buggy"] = crash

    [recovery_id] = await harness.deliver("buggy")

    assert (await harness.status("buggy", recovery_id, Status.DLQ)).last.failure_code == "LEASE_EXPIRED"


async def test_an_outcome_that_cannot_be_written_does_not_take_others_with_it(harness: Harness) -> None:
    await harness.integration("odd", max_attempts=1)
    await harness.integration("good")
    harness.deliverer.scripts["/odd"] = lambda _: Failed("HTTP_503", "half a \ud800 pair", Reach.ANSWERED)

    [odd], [good] = await asyncio.gather(harness.deliver("odd"), harness.deliver("good"))

    assert (await harness.status("odd", odd, Status.DLQ)).last.failure_code == "LEASE_EXPIRED"
    item = await harness.status("good", good, Status.SUCCEEDED)
    assert (item.attempt_count, harness.deliverer.sent("/good")) == (1, 1)


async def test_what_is_known_of_an_attempt_is_kept_when_its_outcome_cannot_be_written(
    harness: Harness,
) -> None:
    await harness.integration("odd", max_attempts=1)

    def answer_late(_: Request) -> Outcome:
        harness.clock.move(3.0)
        return Failed("HTTP_503", "half a \ud800 pair", Reach.ANSWERED)

    harness.deliverer.scripts["/odd"] = answer_late

    [odd] = await harness.deliver("odd")

    [attempt] = await harness.attempts(await harness.status("odd", odd, Status.DLQ))
    [request] = harness.deliverer.requests
    assert (attempt.started_at, attempt.duration) == (NOW, timedelta(seconds=3))
    assert attempt.span_id in dict(request.headers)["traceparent"]


async def test_what_a_dead_process_left_is_recorded_and_retried(store: Store, clock: StandingClock) -> None:
    async with left_by_a_dead_process(store, clock) as (successor, recovery_id):
        item = await successor.status("left", recovery_id, Status.RETRYING)

        assert (item.last.failure_code, item.attempt_count) == ("LEASE_EXPIRED", 1)
        assert LeasesLost(1) in successor.events


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_where_nobody_knows_when_an_attempt_began_its_time_is_when_that_was_found(
    store: Store, clock: StandingClock
) -> None:
    async with left_by_a_dead_process(store, clock) as (successor, recovery_id):
        item = await successor.status("left", recovery_id, Status.RETRYING)

        [attempt] = await successor.attempts(item)
        assert attempt.started_at == NOW + timedelta(hours=1)
        assert "its time is when that was found" in (item.last.failure_detail or "")


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_where_it_is_known_when_an_attempt_was_claimed_that_is_its_time(
    store: Store, clock: StandingClock
) -> None:
    async with left_by_a_dead_process(store, clock) as (successor, recovery_id):
        item = await successor.status("left", recovery_id, Status.RETRYING)

        [attempt] = await successor.attempts(item)
        assert NOW <= attempt.started_at < NOW + timedelta(minutes=1)


@asynccontextmanager
async def left_by_a_dead_process(
    store: Store, clock: StandingClock, *, seconds: float = 3600.0
) -> AsyncIterator[tuple[Harness, str]]:
    """The successor of a process that died in the middle of an attempt, *seconds* ago, and the item of it."""
    dead, successor = Harness(store, clock), Harness(store, clock)
    await dead.engine.start()
    await dead.integration("left")
    dead.deliverer.scripts["/left"] = _after(asyncio.Event())
    [recovery_id] = await dead.deliver("left")
    await eventually(lambda: _when(dead.deliverer.under_way["/left"] == 1))
    await dead.die()
    clock.move(seconds)
    await successor.engine.start()
    yield successor, recovery_id
    await successor.close()


async def test_results_wait_for_a_store_that_fails(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    await harness.integration("kept")
    record, failures = harness.store.record, iter(range(3))

    async def fail_first(owner: int, results: object) -> object:
        if next(failures, None) is not None:
            raise StoreUnavailable("the disk is full")
        return await record(owner, results)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(harness.store, "record", fail_first)

    [recovery_id] = await harness.deliver("kept")

    await harness.in_time(lambda: _when(StoreRecovered in map(type, harness.events)))
    await harness.status("kept", recovery_id, Status.SUCCEEDED)
    assert harness.deliverer.sent("/kept") == 1
    assert [type(e) for e in harness.events if isinstance(e, StoreFailed | StoreRecovered)] == [
        StoreFailed,
        StoreRecovered,
    ]


async def test_a_claim_is_given_back_although_the_store_fails_at_first(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("faulty")
    harness.deliverer.connecting["/faulty"] = _without_file_handles
    give_back, failures = harness.store.give_back, iter(range(2))

    async def fail_first(*given: Any) -> None:
        if next(failures, None) is not None:
            raise StoreUnavailable("the disk is full")
        await give_back(*given)

    monkeypatch.setattr(harness.store, "give_back", fail_first)

    [recovery_id] = await harness.deliver("faulty")

    await harness.in_time(lambda: _when(_are_told(harness, "faulty")))
    assert next(failures, None) is None
    harness.deliverer.connecting.clear()
    item = await harness.in_time(lambda: harness.reached("faulty", recovery_id, Status.SUCCEEDED))
    assert item.attempt_count == 1


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # PostgreSQL tells all of them the time
async def test_a_process_whose_clock_lies_behind_still_makes_new_ids(
    store: Store, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Harness(store, clock)
    await before.engine.start()
    await before.integration("early")
    first = await before.deliver("early", 20)
    await before.die()

    behind = StandingClock(NOW - timedelta(hours=1))
    monkeypatch.setattr(store, "clock", behind)
    after = Harness(store, behind)
    await after.engine.start()
    second = await after.deliver("early", 20)

    assert max(first) < min(second)
    for recovery_id in second:
        await after.status("early", recovery_id, Status.SUCCEEDED)
    await after.close()


async def test_a_receiver_that_hangs_is_given_fewer_attempts_at_once(harness: Harness) -> None:
    await harness.integration("hangs", concurrency=8, max_attempts=1)
    harness.deliverer.scripts["/hangs"] = lambda _: Failed("RESPONSE_TIMEOUT", "no answer", Reach.SENT)

    recovery_ids = await harness.deliver("hangs", 8)

    for recovery_id in recovery_ids:
        await harness.status("hangs", recovery_id, Status.DLQ)
    assert harness.engine.worker.lanes.pace(whole(harness.number("hangs"))).window == 1.0


async def test_an_older_reading_does_not_undo_a_change(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("changed")
    older = await harness.store.integrations()
    await harness.change("changed", name="new")

    async def read_before() -> Any:
        return older

    monkeypatch.setattr(harness.store, "changed_integrations", read_before)
    await harness.engine.catalogue.refresh()

    assert harness.engine.catalogue.find("changed").name == "new"


async def test_a_change_of_what_the_store_has_forgotten_is_refused(harness: Harness) -> None:
    integration = await harness.integration("forgotten")
    harness.engine.catalogue._keep(replace(integration, version=integration.version + 1))

    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(StoreInconsistent, match="restart redrive"):
            await harness.change("forgotten", name="new")


async def test_a_drain_lets_what_is_in_flight_finish_and_claims_no_more(harness: Harness) -> None:
    await harness.integration("drained", concurrency=1)
    gate = asyncio.Event()
    harness.deliverer.scripts["/drained"] = _after(gate)
    first, second = await harness.deliver("drained", 2)
    await eventually(lambda: _when(harness.deliverer.under_way["/drained"] == 1))

    draining = asyncio.create_task(harness.engine.drain())
    await eventually(lambda: _when(harness.engine.worker.stopping))
    gate.set()

    assert await draining == 0
    statuses = {(await harness.item("drained", one)).status for one in (first, second)}
    assert statuses == {Status.SUCCEEDED, Status.PENDING}
    assert harness.deliverer.sent("/drained") == 1


@asynccontextmanager
async def draining_beside_an_orphan(
    store: Store, clock: StandingClock
) -> AsyncIterator[tuple[Worker, int, asyncio.Task[int]]]:
    """A worker with nothing of its own in flight, which holds the place of what a dead process sent."""
    async with left_by_a_dead_process(store, clock, seconds=1.0) as (successor, recovery_id):
        await successor.status("left", recovery_id, Status.RETRYING)
        worker = successor.engine.worker
        draining = asyncio.create_task(successor.engine.drain())
        await eventually(lambda: _when(worker.stopping and not worker.in_flight))
        yield worker, successor.number("left"), draining


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_drain_waits_while_a_receiver_may_be_at_what_a_dead_process_sent(
    store: Store, clock: StandingClock
) -> None:
    async with draining_beside_an_orphan(store, clock) as (worker, number, draining):
        assert worker.unsettled_lanes() == {whole(number)}, "whoever owns its lane next does not know of it"
        assert not draining.done()
        clock.move(Defaults().timeout_seconds)

        assert await draining == 0
        assert not worker.unsettled_lanes()


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_drain_cut_short_leaves_unsettled_where_a_receiver_may_be_at_what_a_dead_process_sent(
    store: Store, clock: StandingClock
) -> None:
    async with draining_beside_an_orphan(store, clock) as (worker, number, draining):
        worker.abort()

        assert await draining == 0, "what the dead process sent was recorded"
        assert worker.unsettled_lanes() == {whole(number)}


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_lane_with_an_attempt_in_doubt_is_let_go_of_only_by_leaving(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted, settled = await harness.integration("doubted"), await harness.integration("settled")
    harness.deliverer.scripts["/doubted"] = _after(asyncio.Event())
    await harness.deliver("doubted")
    [recovery_id] = await harness.deliver("settled")
    await harness.status("settled", recovery_id, Status.SUCCEEDED)
    await eventually(lambda: _when(harness.deliverer.under_way["/doubted"] == 1))

    released: list[Lane] = []

    async def release(_: int, lanes: Collection[Lane]) -> None:
        released.extend(lanes)

    monkeypatch.setattr(harness.store, "release", release)
    assert await harness.engine.drain(at_once=True) == 1
    await harness.engine.membership.leave()

    assert whole(settled.number) in released
    assert whole(doubted.number) not in released


@pytest.mark.parametrize("cut_short", ["by a second signal", "when its time is up"])
async def test_a_drain_cut_short_gives_back_what_was_surely_not_sent(
    harness: Harness, cut_short: str
) -> None:
    await harness.integration("connecting")
    await harness.integration("waiting")
    harness.deliverer.connecting["/connecting"] = _after(asyncio.Event())
    harness.deliverer.scripts["/waiting"] = _after(asyncio.Event())
    [unsent], [sent] = await harness.deliver("connecting"), await harness.deliver("waiting")
    await eventually(lambda: _when(sum(harness.deliverer.under_way.values()) == 2))

    draining = asyncio.create_task(harness.engine.drain())
    if cut_short == "by a second signal":
        await eventually(lambda: _when(harness.engine.worker.stopping))
        harness.engine.worker.abort()
    else:
        await harness.in_time(lambda: _when(draining.done()))

    assert await draining == 1, "only what was sent is in doubt"
    assert (await harness.item("connecting", unsent)).attempt_count == 0
    assert (await harness.item("waiting", sent)).attempt_count == 1
    assert (await harness.store.backlog()).due == 1, "it waits for whoever sends next"


async def test_what_was_just_being_claimed_when_a_drain_began_is_free_before_it_ends(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("hangs")
    number, worker = (await harness.integration("waits")).number, harness.engine.worker
    harness.deliverer.scripts["/hangs"] = _after(asyncio.Event())
    await harness.deliver("hangs")
    await eventually(lambda: _when(harness.deliverer.under_way["/hangs"] == 1))
    claim, claimed, may_answer = harness.store.claim, asyncio.Event(), asyncio.Event()

    async def claim_and_wait(*given: Any) -> Any:
        answer = await claim(*given)
        claimed.set()
        await may_answer.wait()
        return answer

    monkeypatch.setattr(harness.store, "claim", claim_and_wait)
    await harness.store.accept([an_intake(delivery := a_delivery(number))])
    worker.due(number, delivery.id, harness.clock.now())
    await claimed.wait()

    draining = asyncio.create_task(harness.engine.drain())
    await eventually(lambda: _when(worker.stopping))
    may_answer.set()

    await eventually(lambda: _due(harness, 1))
    assert not draining.done(), "another receiver hangs"
    worker.abort()
    assert await draining == 1


async def test_an_attempt_that_is_cut_off_before_it_begins_is_given_back(harness: Harness) -> None:
    worker, number = harness.engine.worker, (await harness.integration("good")).number
    worker.stopping = True  # so that it is accepted unclaimed
    [recovery_id] = await harness.deliver("good")
    [claim] = (await harness.store.claim(worker.owner, {whole(number): 1})).claims
    reserved = worker.lanes.pace(whole(number))
    worker.lanes.take(reserved)

    worker.start(claim, reserved)
    worker.abort()

    assert await harness.engine.drain() == 0
    assert (await harness.item("good", recovery_id)).attempt_count == 0
    assert harness.deliverer.sent("/good") == 0


async def test_what_a_stopping_process_cannot_give_back_is_in_doubt(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("connecting")
    harness.deliverer.connecting["/connecting"] = _after(asyncio.Event())
    [recovery_id] = await harness.deliver("connecting")
    await eventually(lambda: _when(harness.deliverer.under_way["/connecting"] == 1))

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(harness.store, "give_back", fail)

    assert await harness.engine.drain(at_once=True) == 1
    assert (await harness.item("connecting", recovery_id)).attempt_count == 1


async def test_what_was_just_being_claimed_when_a_drain_began_is_given_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("held", lifecycle_status="paused")
    [recovery_id] = await harness.deliver("held")
    claim, draining = harness.store.claim, asyncio.Event()

    async def claim_once_draining(*given: Any) -> Any:
        await draining.wait()
        return await claim(*given)

    monkeypatch.setattr(harness.store, "claim", claim_once_draining)
    await harness.change("held", lifecycle_status="active")
    await eventually(lambda: _when(harness.engine.worker._claiming.locked()))

    drained = asyncio.create_task(harness.engine.drain())
    await eventually(lambda: _when(harness.engine.worker.stopping))
    draining.set()

    assert await drained == 0
    assert (await harness.item("held", recovery_id)).attempt_count == 0
    assert (harness.deliverer.sent("/held"), harness.engine.worker.lanes.busy) == (0, 0)


async def test_every_recorded_attempt_is_announced_once(harness: Harness) -> None:
    await harness.integration("told", max_attempts=2)
    harness.deliverer.scripts["/told"] = lambda _: answered(500)

    [recovery_id] = await harness.deliver("told")
    await harness.retry("told", recovery_id)
    await harness.status("told", recovery_id, Status.DLQ)

    def told() -> list[tuple[int, bool]]:
        return [(e.claim.attempt, e.recorded) for e in harness.events if isinstance(e, AttemptFinished)]

    await eventually(lambda: _when(len(told()) >= 2))  # a moment after it became durable
    assert told() == [(1, True), (2, True)]


async def _without_file_handles(_: Request) -> None:
    raise OwnFault("no file handles")


def _note_what_is_claimed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how much each claim asks, from now on."""
    claim, wanted = harness.store.claim, []

    async def claim_and_note(owner: int, wants: Mapping[Lane, int]) -> Claimed:
        wanted.append(sum(wants.values()))
        return await claim(owner, wants)

    monkeypatch.setattr(harness.store, "claim", claim_and_note)
    return wanted


def _after(gate: asyncio.Event):  # type: ignore[no-untyped-def]  # a script, see Deliverer
    async def script(_: Request) -> Outcome:
        await gate.wait()
        return answered(200)

    return script


async def _due(harness: Harness, count: int) -> bool | None:
    """Whether so much is due and in nobody's hands."""
    return (await harness.store.backlog()).due == count or None


async def _when(fact: bool) -> bool | None:  # noqa: FBT001 - the fact itself
    return fact or None


def _are_told(harness: Harness, integration_id: str) -> bool:
    """Whether operators know that sending to an integration is suspended."""
    return any(
        isinstance(event, SendingSuspended) and event.integration_id == integration_id
        for event in harness.events
    )


async def test_the_one_whose_a_replayed_item_is_to_send_is_told_of_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = (await harness.integration("gone")).number
    harness.deliverer.scripts["/gone"] = lambda _: answered(404)
    [name] = await harness.deliver("gone")
    told: list[int] = []
    monkeypatch.setattr(harness.store, "hint", told.append)

    await harness.status("gone", name, Status.FAILED)
    await _replay(harness, "gone", name, "replay-1")
    await harness.status("gone", name, Status.FAILED)
    told_while_it_was_ours = list(told)
    harness.engine.worker.owned.follow(frozenset())
    await _replay(harness, "gone", name, "replay-2")

    assert (told_while_it_was_ours, told) == ([], [number])


async def _replay(harness: Harness, integration_id: str, recovery_id: str, request_id: str) -> None:
    order = Order(harness.call(request_id), integration_id, recovery_id, "well again")
    await harness.engine.operate.replay(order, in_silence)


async def test_a_blocked_target_is_announced_each_time_and_is_news_once_a_minute(harness: Harness) -> None:
    for name in ("inside", "metadata"):
        await harness.integration(name)
        harness.deliverer.scripts[f"/{name}"] = lambda _: blocked("it is private")

    async def fail(name: str) -> None:
        [recovery_id] = await harness.deliver(name)
        await harness.status(name, recovery_id, Status.FAILED)

    await fail("inside")
    await fail("inside")
    await fail("metadata")
    harness.clock.move(NEWS_AFTER_SECONDS)
    await fail("inside")

    assert [event for event in harness.events if isinstance(event, TargetBlocked)] == [
        TargetBlocked("inside", "it is private", again=False),
        TargetBlocked("inside", "it is private", again=True),
        TargetBlocked("metadata", "it is private", again=False),
        TargetBlocked("inside", "it is private", again=False),
    ]


async def test_another_failure_is_not_a_blocked_target(harness: Harness) -> None:
    await harness.integration("gone")
    harness.deliverer.scripts["/gone"] = lambda _: answered(404)

    [recovery_id] = await harness.deliver("gone")
    await harness.status("gone", recovery_id, Status.FAILED)

    assert not [event for event in harness.events if isinstance(event, TargetBlocked)]
