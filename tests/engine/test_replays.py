"""Plans and jobs, from an operator's call to every outcome, over both stores."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from redrive.audit.record import EventType
from redrive.delivery.port import Request
from redrive.domain.access import Call, Permission, Principal
from redrive.domain.errors import (
    Conflict,
    DependencyUnavailable,
    Forbidden,
    IdempotencyKeyReused,
    ReplayNotFound,
)
from redrive.domain.ids import ItemId, parse_recovery_id, recovery_id
from redrive.domain.item import Status
from redrive.domain.outcome import Outcome
from redrive.domain.replay import (
    OVER,
    PLAN_LASTS,
    Canary,
    HaltIf,
    ItemState,
    Options,
    ReplayState,
    Wanted,
)
from redrive.domain.replay_judging import Candidate
from redrive.engine.acting import Order
from redrive.engine.once import Key, Told
from redrive.engine.seeing import SeenJob
from redrive.store.port import EventFilter
from tests.engine.conftest import TRACE, Harness, answered, in_silence
from tests.engine.test_breaking import steer
from tests.engine.test_containing import contain, release

NO_CANARY = Canary(0)


class Operator:
    """Plans and runs as a person does, and sees what is told."""

    def __init__(self, harness: Harness, integration_id: str) -> None:
        self.harness = harness
        self.integration_id = integration_id
        self.seen: list[SeenJob] = []

    def render(self, seen: SeenJob) -> Told:
        self.seen.append(seen)
        return Told(200, b"{}")

    async def plan(self, wanted: Wanted | None = None, **call: Any) -> SeenJob:
        await self.harness.engine.planning.plan(
            self.harness.call(call.pop("request_id", "req-plan")),
            self.integration_id,
            wanted or Wanted(),
            render=self.render,
            **call,
        )
        return self.seen[-1]

    async def run(self, seen: SeenJob, request_id: str = "req-run", **options: Any) -> SeenJob:
        assert seen.job.plan is not None
        values: dict[str, Any] = {"reason": "the partner is back", "canary": NO_CANARY}
        given = Options(**values | options)
        await self.harness.engine.replays.run(
            self.harness.call(request_id),
            self.integration_id,
            seen.job.plan.digest,
            given,
            render=self.render,
        )
        return self.seen[-1]

    async def steer(self, verb: str, seen: SeenJob, *args: Any) -> SeenJob:
        call = self.harness.call(f"req-{verb}")
        await getattr(self.harness.engine.replays, verb)(
            call, self.integration_id, seen.job.replay_id, *args, render=self.render
        )
        return self.seen[-1]

    async def show(self, seen: SeenJob) -> SeenJob:
        return await self.harness.engine.replays.show(
            self.harness.call(), self.integration_id, seen.job.replay_id
        )

    async def until(self, seen: SeenJob, reached: Callable[[SeenJob], bool]) -> SeenJob:
        """The job, once it is as wanted; time passes until then."""

        async def look() -> SeenJob | None:
            now = await self.show(seen)
            counts = now.progress
            assert counts.total == seen.progress.total, "the counts always sum to the total"
            return now if reached(now) else None

        return await self.harness.in_time(look)

    async def until_over(self, seen: SeenJob) -> SeenJob:
        return await self.until(seen, lambda now: now.job.state in OVER and not now.progress.in_flight)

    async def items(self, seen: SeenJob, state: ItemState | None = None) -> dict[str, str | None]:
        """The reason of each item."""
        _, rows, _ = await self.harness.engine.replays.items(
            self.harness.call(), self.integration_id, seen.job.replay_id, state, limit=200, cursor=None
        )
        return {recovery_id(row.item): row.reason for row in rows}


async def dead_items(harness: Harness, count: int, **fields: Any) -> tuple[Operator, list[str]]:
    """Items of an integration whose receiver was down, and is back."""
    await harness.integration("acme", max_attempts=1, **fields)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    ids = await harness.deliver("acme", count)
    for one in ids:
        await harness.status("acme", one, Status.DLQ)
    harness.deliverer.requests.clear()
    harness.deliverer.most_at_once.clear()
    del harness.deliverer.scripts["/acme"]
    return Operator(harness, "acme"), ids


async def job_events(harness: Harness, seen: SeenJob) -> list[str]:
    wanted = EventFilter(target_id=seen.job.replay_id)
    rows = (await harness.store.events(wanted, limit=50, below=None)).rows
    return [event.event_type.rpartition(".")[2] for event in rows[::-1]]


def waiting(ids: list[str]) -> tuple[ItemId, ...]:
    numbers = [parse_recovery_id(one) for one in ids]
    return tuple(number for number in numbers if number is not None)


# planning


async def test_a_plan_counts_what_is_eligible_and_replays_nothing(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 5)

    seen = await operator.plan()

    assert seen.job.plan is not None
    assert (seen.job.state, seen.job.plan.eligible, seen.job.plan.skipped) == (ReplayState.PLANNED, 5, {})
    assert seen.job.plan.risks == {2: 5}
    assert sorted(seen.job.plan.canary) == sorted(waiting(ids))
    assert seen.job.plan.oldest == min(waiting(ids))
    assert harness.deliverer.sent("/acme") == 0
    assert await job_events(harness, seen) == ["planned"]


async def test_new_arrivals_never_join_a_plan(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 2)
    seen = await operator.plan()
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    [late] = await harness.deliver("acme")
    await harness.status("acme", late, Status.DLQ)
    del harness.deliverer.scripts["/acme"]

    job = await operator.until_over(await operator.run(seen))

    assert (job.progress.succeeded, job.progress.total) == (2, 2)
    assert (await harness.item("acme", late)).status is Status.DLQ


async def test_a_plan_of_a_contained_integration_skips_everything_and_cannot_be_run(
    harness: Harness,
) -> None:
    operator, _ = await dead_items(harness, 2)
    await harness.change("acme", lifecycle_status="paused")

    seen = await operator.plan()

    assert seen.job.plan is not None
    assert (seen.job.plan.eligible, seen.job.plan.skipped) == (0, {"contained": 2})
    with pytest.raises(Conflict, match="holds nothing"):
        await operator.run(seen)


async def test_items_that_are_named_are_planned_once_each(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 2)
    [fine] = await harness.deliver("acme")
    await harness.status("acme", fine, Status.SUCCEEDED)

    seen = await operator.plan(Wanted(recovery_ids=waiting([*ids, fine, ids[0]])))

    assert seen.job.plan is not None
    assert (seen.job.plan.eligible, seen.job.plan.skipped) == (2, {"succeeded_since": 1})
    assert seen.job.named == 3
    assert await operator.items(seen, ItemState.SKIPPED) == {fine: "succeeded_since"}


async def test_two_plans_of_the_same_have_digests_of_their_own(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)

    first, second = await operator.plan(), await operator.plan()

    assert first.job.plan is not None
    assert second.job.plan is not None
    assert first.job.plan.digest != second.job.plan.digest


async def test_a_plan_expires_and_leaves_no_items(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 2)
    seen = await operator.plan()
    harness.clock.move(PLAN_LASTS.total_seconds())

    with pytest.raises(Conflict, match="expired"):
        await operator.run(seen)

    over = await operator.until(seen, lambda now: now.job.settled)
    assert over.job.state is ReplayState.EXPIRED
    assert await operator.items(seen) == {}


async def test_a_plan_that_was_never_finished_cannot_be_run_and_is_cleaned_away(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await dead_items(harness, 2)

    async def die(*_: object) -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(type(harness.store.replays), "change_job", die)
    with pytest.raises(asyncio.CancelledError):
        await operator.plan()
    monkeypatch.undo()
    [seen], _ = await harness.engine.replays.list(harness.call(), "acme", limit=10, cursor=None)
    assert seen.job.state is ReplayState.PLANNING
    assert len(await operator.items(seen)) == 2
    harness.clock.move(PLAN_LASTS.total_seconds())

    over = await operator.until(seen, lambda now: now.job.settled)

    assert over.job.state is ReplayState.EXPIRED
    assert await operator.items(seen) == {}


# running


async def test_a_job_replays_each_item_once_under_the_call_that_ran_it(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 5)

    job = await operator.until_over(await operator.run(await operator.plan()))

    assert job.job.state is ReplayState.COMPLETED
    assert (job.progress.succeeded, job.progress.total) == (5, 5)
    assert sorted(_header(r, "webhook-id") for r in harness.deliverer.requests) == sorted(ids)
    assert {_header(request, "X-Request-Id") for request in harness.deliverer.requests} == {"req-run"}
    for one in ids:
        item = await harness.item("acme", one)
        assert (item.status, item.cycle, item.request_id) == (Status.SUCCEEDED, 2, "req-run")
    assert await job_events(harness, job) == ["planned", "started", "completed"]


async def test_the_events_of_an_item_that_a_job_replayed_are_those_of_a_single_replay(
    harness: Harness,
) -> None:
    operator, [one] = await dead_items(harness, 1)

    job = await operator.until_over(await operator.run(await operator.plan(), incident="INC-442"))

    rows = (await harness.store.events(EventFilter(target_id=one), limit=50, below=None)).rows
    [replayed] = [event for event in rows if event.event_type is EventType.REPLAYED]
    assert (replayed.actor.id, replayed.request_id) == ("tester", "req-run")
    assert replayed.before_state["status"] == "dlq"
    assert (replayed.after_state["status"], replayed.after_state["cycle"]) == ("replayed", 2)
    assert replayed.metadata == {
        "reason": "the partner is back",
        "replay_id": job.job.replay_id,
        "incident": "INC-442",
    }
    assert replayed.previous is not None


async def test_what_fails_again_is_told_with_its_reason_and_can_be_planned_anew(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 3)
    bad = ids[0]
    harness.deliverer.scripts["/acme"] = _failing_for(bad)

    job = await operator.until_over(await operator.run(await operator.plan()))

    assert job.job.state is ReplayState.COMPLETED_WITH_FAILURES
    assert (job.progress.succeeded, job.progress.failed) == (2, 1)
    assert await operator.items(job, ItemState.FAILED) == {bad: "HTTP_503"}
    del harness.deliverer.scripts["/acme"]
    again = await operator.plan(Wanted(failures_of=job.job.id))
    assert again.progress.waiting == 1
    over = await operator.until_over(await operator.run(again, "req-run-2"))
    assert (over.job.state, over.progress.succeeded) == (ReplayState.COMPLETED, 1)


async def test_what_moved_on_is_skipped_with_a_reason(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 30)
    seen = await operator.plan()
    await _resolve(harness, ids[0])

    job = await operator.until_over(await operator.run(seen))

    assert (job.progress.succeeded, job.progress.skipped) == (29, 1)
    assert await operator.items(job, ItemState.SKIPPED) == {ids[0]: "resolved"}


async def test_a_plan_of_which_too_much_moved_on_is_refused_with_the_difference(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 10)
    seen = await operator.plan()
    await _resolve(harness, ids[0])

    with pytest.raises(Conflict, match="1 of 10 items have moved on") as refused:
        await operator.run(seen)

    assert refused.value.difference == {"eligible": 10, "moved_on": {"resolved": 1}, "changed": []}
    assert harness.deliverer.sent("/acme") == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("url", "https://partner.example/elsewhere"), ("max_attempts", 7), ("lifecycle_status", "paused")],
)
async def test_a_plan_for_an_integration_that_changed_is_refused_with_the_difference(
    harness: Harness, field: str, value: Any
) -> None:
    operator, _ = await dead_items(harness, 1)
    seen = await operator.plan()
    await harness.change("acme", **{field: value})

    with pytest.raises(Conflict, match=field) as refused:
        await operator.run(seen)

    assert refused.value.difference is not None
    assert refused.value.difference["changed"][0]["field"] == field
    assert refused.value.difference["changed"][0]["now"] == value


async def test_a_plan_made_before_a_containment_is_refused_with_the_difference(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)
    seen = await operator.plan()
    await contain(harness, "acme")

    with pytest.raises(Conflict, match="containment changed") as refused:
        await operator.run(seen)

    assert refused.value.difference is not None
    [changed] = refused.value.difference["changed"]
    assert changed == {"field": "containment", "planned": None, "now": "hold"}
    assert harness.deliverer.sent("/acme") == 0


async def test_a_change_that_has_nothing_to_do_with_sending_does_not_matter(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)
    seen = await operator.plan()
    await harness.change("acme", name="Another name")

    job = await operator.until_over(await operator.run(seen))

    assert job.progress.succeeded == 1


async def test_a_plan_is_run_once(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 2)
    seen = await operator.plan()

    told = await asyncio.gather(operator.run(seen), operator.run(seen), return_exceptions=True)

    [refusal] = [one for one in told if isinstance(one, Exception)]
    assert isinstance(refusal, Conflict)
    assert "was run already" in str(refusal)
    await operator.until_over(seen)
    assert harness.deliverer.sent("/acme") == 2


async def test_a_double_click_is_one_job(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 2)
    seen = await operator.plan()
    assert seen.job.plan is not None
    digest, options, key = seen.job.plan.digest, Options(reason="again"), Key(b"scope", b"body")

    async def click(key: Key = key) -> Told:
        return await harness.engine.replays.run(
            harness.call("req-click"), "acme", digest, options, render=operator.render, key=key
        )

    told = await asyncio.gather(*(click() for _ in range(4)))

    assert sorted(one.again for one in told) == [False, True, True, True]
    with pytest.raises(IdempotencyKeyReused):
        await click(Key(b"scope", b"another"))
    await operator.until_over(seen)
    assert harness.deliverer.sent("/acme") == 2


async def test_the_request_id_of_an_earlier_cycle_opens_no_other(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 1)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    await operator.until_over(await operator.run(await operator.plan(), "req-first"))

    job = await operator.until_over(await operator.run(await operator.plan(), "req-first"))

    assert await operator.items(job, ItemState.SKIPPED) == {ids[0]: "same_request_id"}
    assert harness.deliverer.sent("/acme") == 1


async def test_what_was_replayed_three_times_is_not_planned_again(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    for at in range(3):
        await operator.until_over(await operator.run(await operator.plan(), f"req-again-{at}"))

    seen = await operator.plan()

    assert seen.job.plan is not None
    assert seen.job.plan.skipped == {"looped": 1}


# canary


async def test_only_the_canary_is_replayed_until_all_of_it_is_known(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 10)
    gate = asyncio.Event()
    harness.deliverer.scripts["/acme"] = _waiting_for(gate)

    seen = await operator.run(await operator.plan(), canary=Canary(3))

    await operator.until(seen, lambda now: now.progress.in_flight == 3)
    await turns(harness)
    held = await operator.show(seen)
    assert (held.job.state, held.progress.in_flight, held.progress.waiting) == (ReplayState.CANARY, 3, 7)
    gate.set()
    job = await operator.until_over(seen)
    assert (job.job.state, job.progress.succeeded) == (ReplayState.COMPLETED, 10)
    assert await job_events(harness, job) == ["planned", "started", "canary_passed", "completed"]


async def test_a_canary_that_fails_halts_the_job_and_nothing_else_is_sent(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 10)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)

    job = await operator.until_over(await operator.run(await operator.plan(), canary=Canary(3)))

    assert job.job.state is ReplayState.HALTED
    assert harness.deliverer.sent("/acme") == 3
    assert (job.progress.failed, job.progress.cancelled) == (3, 7)
    settled = await operator.until(job, lambda now: now.job.settled)
    assert settled.job.final == job.progress
    assert await job_events(harness, job) == ["planned", "started", "halted"]
    statuses = [(await harness.item("acme", one)).status for one in ids]
    assert statuses == [Status.DLQ] * 10


async def test_a_share_of_the_canary_may_be_enough(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 6)
    seen = await operator.plan()
    assert seen.job.plan is not None
    first = seen.job.plan.canary[0]
    harness.deliverer.scripts["/acme"] = _failing_for(recovery_id(first))

    job = await operator.until_over(await operator.run(seen, canary=Canary(4, share=0.75)))

    assert (job.job.state, job.progress.succeeded) == (ReplayState.COMPLETED_WITH_FAILURES, 5)


# pace


async def test_a_job_halts_when_too_many_of_the_latest_fail(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 60)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)

    seen = await operator.run(await operator.plan(), concurrency=4, halt_if=HaltIf(0.5, 10))
    job = await operator.until_over(seen)

    assert job.job.state is ReplayState.HALTED
    assert 10 <= job.progress.failed <= 14
    assert job.progress.failed == harness.deliverer.sent("/acme")
    assert job.progress.cancelled == 60 - job.progress.failed


async def test_no_more_than_its_concurrency_is_in_flight(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 20)
    seen = await operator.run(await operator.plan(), concurrency=3)

    job = await operator.until_over(seen)

    assert job.progress.succeeded == 20
    assert harness.deliverer.most_at_once["/acme"] <= 3


async def test_no_more_than_its_rate_is_released(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 30)
    seen = await operator.plan()
    began = harness.clock.elapsed()
    await operator.run(seen, rate=2.0)

    def is_over(now: SeenJob) -> bool:
        released = now.progress.total - now.progress.waiting
        assert released <= 2 * (harness.clock.elapsed() - began) + 1
        return now.job.state in OVER

    over = await operator.until(seen, is_over)
    assert over.progress.succeeded == 30
    assert harness.clock.elapsed() - began >= 29 / 2


async def test_a_paused_job_releases_nothing_and_goes_on_when_it_is_resumed(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 40)
    seen = await operator.run(await operator.plan(), rate=4.0)
    await operator.until(seen, lambda now: now.progress.succeeded > 0)

    await operator.steer("pause", seen)

    paused = await operator.show(seen)
    sent = paused.progress.succeeded + paused.progress.in_flight
    await turns(harness)
    held = await operator.until(seen, lambda now: not now.progress.in_flight)
    assert harness.engine.stepper.under_way["paused"] == 1
    assert held.progress.succeeded == sent == harness.deliverer.sent("/acme")
    await operator.steer("resume", seen)
    await operator.steer("set_rate", seen, None)
    job = await operator.until_over(seen)
    assert (job.job.state, job.progress.succeeded) == (ReplayState.COMPLETED, 40)
    assert await job_events(harness, job) == [
        "planned",
        "started",
        "paused",
        "resumed",
        "rate_changed",
        "completed",
    ]


async def test_cancel_undoes_nothing_and_leaves_the_rest_as_it_was(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 40)
    seen = await operator.run(await operator.plan(), rate=4.0)
    await operator.until(seen, lambda now: now.progress.succeeded > 0)

    await operator.steer("cancel", seen)

    job = await operator.until_over(seen)
    sent = harness.deliverer.sent("/acme")
    assert job.job.state is ReplayState.CANCELLED
    assert (job.progress.succeeded, job.progress.cancelled) == (sent, 40 - sent)
    statuses = [(await harness.item("acme", one)).status for one in ids]
    assert statuses.count(Status.SUCCEEDED) == sent
    assert statuses.count(Status.DLQ) == 40 - sent
    for verb in ("pause", "resume", "cancel"):
        with pytest.raises(Conflict):
            await operator.steer(verb, seen)
    assert len(await operator.items(seen, ItemState.CANCELLED)) == 40 - sent


async def test_a_job_waits_while_its_integration_does_not_send(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 20)
    seen = await operator.run(await operator.plan(), rate=4.0)
    await operator.until(seen, lambda now: now.progress.succeeded > 0)
    await harness.change("acme", lifecycle_status="paused")
    left = (await operator.show(seen)).progress.waiting

    await turns(harness)

    held = await operator.show(seen)
    assert (held.waits_for, held.progress.waiting) == ("lifecycle", left)
    await harness.change("acme", lifecycle_status="active")
    assert (await operator.until_over(seen)).progress.succeeded == 20


async def test_a_job_puts_one_item_at_a_time_before_an_open_breaker(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 20)
    seen = await operator.plan()
    integration = harness.engine.catalogue.find("acme")
    await steer(harness, integration, integration.traffic.breaker.opened(harness.clock.now(), chance=0.5))

    seen = await operator.run(seen)
    assert seen.waits_for == "breaker"
    seen = await operator.until(seen, lambda now: now.progress.in_flight > 0)
    await turns(harness, seconds=0.5)

    now = await operator.show(seen)
    assert (now.waits_for, now.progress.in_flight, harness.deliverer.sent("/acme")) == ("breaker", 1, 0)
    over = await operator.until_over(seen)  # its first item was the trial
    assert (over.progress.succeeded, over.waits_for) == (20, None)


# what waits costs little


async def test_a_job_that_is_contained_is_looked_at_once_a_second_and_goes_on_when_it_is_released(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await dead_items(harness, 3)
    seen = await operator.run(await operator.plan(), canary=Canary(2), rate=0.5)
    await contain(harness, "acme")
    asked = counted(harness, monkeypatch, "elect", "figures")

    await turns(harness, seconds=0.025, count=400)

    assert 5 <= asked["figures"] <= asked["elect"] <= 11
    await release(harness, "acme")
    assert (await operator.until_over(seen)).progress.succeeded == 3


async def test_a_job_that_waits_is_not_looked_at_more_often_because_another_runs(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await dead_items(harness, 2)
    await operator.run(await operator.plan())
    await contain(harness, "acme")
    other = await operator.plan()
    asked = counted(harness, monkeypatch, "figures")

    for _ in range(20):
        harness.engine.stepper.wake()
        await turns(harness, seconds=0.025, count=2)

    assert other.job.state is ReplayState.PLANNED
    assert asked["figures"] <= 2


async def test_a_job_that_is_over_is_counted_once_when_nothing_of_it_is_in_flight_any_more(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await dead_items(harness, 5, base_delay_seconds=3600.0, max_delay_seconds=3600.0)
    await harness.change("acme", max_attempts=5)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    seen = await operator.run(await operator.plan(), concurrency=1, halt_if=HaltIf(1.0, 20))
    await operator.until(seen, lambda now: now.progress.in_flight > 0)
    await operator.steer("cancel", seen)
    asked = counted(harness, monkeypatch, "progress", "elect")

    await turns(harness, seconds=0.1, count=200)

    assert asked["progress"] == 0
    assert asked["elect"] <= 2 + 3 + 20 / 2
    del harness.deliverer.scripts["/acme"]
    harness.clock.move(3600.0)
    over = await operator.until(seen, lambda now: now.job.settled)
    assert (over.progress.succeeded, over.progress.cancelled) == (1, 4)
    assert asked["progress"] == 1


async def test_a_page_of_jobs_is_counted_at_once_and_of_plans_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, ids = await dead_items(harness, 4)
    await operator.plan()
    asked = counted(harness, monkeypatch, "progress", "progresses")
    await harness.engine.replays.list(harness.call(), "acme", limit=10, cursor=None)
    assert not asked
    over = await operator.until_over(
        await operator.run(await operator.plan(Wanted(recovery_ids=waiting(ids[:1]))))
    )
    await operator.until(over, lambda now: now.job.settled)
    for one in ids[1:3]:
        running = await operator.run(await operator.plan(Wanted(recovery_ids=waiting([one]))), rate=0.001)
        await operator.steer("pause", running)
    await operator.plan(Wanted(recovery_ids=waiting(ids)))
    asked.clear()

    page, _ = await harness.engine.replays.list(harness.call(), "acme", limit=10, cursor=None)

    assert [seen.progress.total for seen in page] == [4, 1, 1, 1, 4]
    assert [seen.progress.waiting for seen in page] == [1, 1, 1, 0, 4]
    assert asked == {"progresses": 1}


async def test_what_a_plan_was_read_from_is_closed_when_it_cannot_be_made(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, _ = await dead_items(harness, 2)
    closed: list[str] = []

    async def endless(*_: object) -> AsyncGenerator[list[Candidate], None]:
        try:
            while True:
                yield []
                await asyncio.sleep(0)
        finally:
            closed.append("closed")

    async def refused(*_: object) -> bool:
        return False

    monkeypatch.setattr(harness.engine.planning, "_candidates", endless)
    monkeypatch.setattr(harness.store.replays, "freeze", refused)

    with pytest.raises(DependencyUnavailable):
        await operator.plan()

    assert closed


# who excludes whom


async def test_a_single_replay_of_what_waits_in_a_job_is_refused(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 2)
    seen = await operator.run(await operator.plan(), rate=0.001)
    await operator.steer("pause", seen)
    number = waiting(ids)[0]

    assert await harness.store.replays.waits_in(harness.number("acme"), number) == seen.job.id
    with pytest.raises(Conflict, match=seen.job.replay_id):
        await _replay_once(harness, ids[0])

    await operator.steer("cancel", seen)
    await _replay_once(harness, ids[0])
    await harness.status("acme", ids[0], Status.SUCCEEDED)


async def test_what_waits_in_a_job_is_skipped_by_the_next_plan(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 3)
    await operator.steer("pause", await operator.run(await operator.plan(), rate=0.001))

    seen = await operator.plan()

    assert seen.job.plan is not None
    assert seen.job.plan.skipped == {"in_another_job": 3}


async def test_of_two_jobs_on_the_same_items_each_is_sent_once(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 20)
    first, second = await operator.plan(), await operator.plan()
    await operator.run(first, "req-first")

    with pytest.raises(Conflict, match="moved on"):
        await operator.run(second, "req-second")

    await operator.until_over(first)
    assert harness.deliverer.sent("/acme") == 20


# what survives


async def test_a_job_goes_on_after_its_process_died(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 30)
    seen = await operator.run(await operator.plan(), rate=4.0)
    await operator.until(seen, lambda now: now.progress.succeeded > 2)
    await harness.die()

    again = Harness(harness.store, harness.clock)
    await again.engine.start()
    try:
        after = Operator(again, "acme")
        await after.steer("set_rate", seen, None)
        job = await after.until_over(seen)
    finally:
        await again.engine.close()

    assert job.progress.succeeded + job.progress.failed == 30
    requests = harness.deliverer.requests + again.deliverer.requests
    unsent = set(ids) - {_header(request, "webhook-id") for request in requests}
    failed = await operator.items(job, ItemState.FAILED)
    assert all(failed[one] == "LEASE_EXPIRED" for one in unsent)  # claimed, and its process died


async def test_a_process_that_drains_releases_nothing_more(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 20)
    seen = await operator.run(await operator.plan(), rate=4.0)
    await operator.until(seen, lambda now: now.progress.succeeded > 0)

    await harness.engine.drain()

    left = (await operator.show(seen)).progress
    await turns(harness)
    assert (await operator.show(seen)).progress == left
    assert left.waiting > 0


# who may


async def test_only_an_operator_plans_runs_and_steers_and_only_a_viewer_sees(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)
    seen = await operator.plan()
    assert seen.job.plan is not None
    replays, name, digest = harness.engine.replays, seen.job.replay_id, seen.job.plan.digest
    options = Options(reason="why")
    viewer = _only(Permission.VIEW)
    deliverer = _only(Permission.DELIVER, Permission.OPERATE)

    for verb in (
        harness.engine.planning.plan(viewer, "acme", Wanted(), render=in_silence),
        replays.run(viewer, "acme", digest, options, render=in_silence),
        replays.pause(viewer, "acme", name, render=in_silence),
        replays.resume(viewer, "acme", name, render=in_silence),
        replays.cancel(viewer, "acme", name, render=in_silence),
        replays.set_rate(viewer, "acme", name, 1.0, render=in_silence),
        replays.show(deliverer, "acme", name),
        replays.list(deliverer, "acme", limit=1, cursor=None),
        replays.items(deliverer, "acme", name, None, limit=1, cursor=None),
    ):
        with pytest.raises(Forbidden):
            await verb


async def test_what_is_not_there_is_not_found(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 1)
    seen = await operator.plan()
    await harness.integration("other")
    elsewhere = Operator(harness, "other")

    with pytest.raises(ReplayNotFound):
        await elsewhere.show(seen)
    with pytest.raises(ReplayNotFound):
        await elsewhere.run(seen)
    with pytest.raises(ReplayNotFound):
        await elsewhere.plan(Wanted(failures_of=seen.job.id))


async def test_jobs_and_items_are_listed_page_by_page(harness: Harness) -> None:
    operator, ids = await dead_items(harness, 3)
    names = [(await operator.plan()).job.replay_id for _ in range(3)]
    replays, call = harness.engine.replays, harness.call()

    first, cursor = await replays.list(call, "acme", limit=2, cursor=None)
    rest, end = await replays.list(call, "acme", limit=2, cursor=cursor)
    _, page, further = await replays.items(call, "acme", names[0], None, limit=2, cursor=None)
    _, last, none = await replays.items(call, "acme", names[0], None, limit=2, cursor=further)

    assert [seen.job.replay_id for seen in [*first, *rest]] == names[::-1]
    assert [row.item for row in [*page, *last]] == sorted(waiting(ids))
    assert (end, none) == (None, None)


async def turns(harness: Harness, *, seconds: float = 1.0, count: int = 5) -> None:
    """Every so many *seconds* each job takes a step, if it has one to take."""
    for _ in range(count):
        harness.clock.move(seconds)
        async with harness.engine.stepper._stepping:
            await harness.engine.stepper.turn()


def counted(harness: Harness, monkeypatch: pytest.MonkeyPatch, *verbs: str) -> Counter[str]:
    """How often each verb of the store is asked from now on."""
    asked: Counter[str] = Counter()

    def counting(verb: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            asked[verb] += 1
            return await real(*args, **kwargs)

        return ask

    for verb in verbs:
        monkeypatch.setattr(harness.store.replays, verb, counting(verb, getattr(harness.store.replays, verb)))
    return asked


def _failing_for(one: str) -> Callable[[Request], Outcome]:
    return lambda request: answered(503 if _header(request, "webhook-id") == one else 200)


def _waiting_for(gate: asyncio.Event) -> Callable[[Request], Awaitable[Outcome]]:
    async def script(_: Request) -> Outcome:
        await gate.wait()
        return answered(200)

    return script


def _header(request: Request, name: str) -> str:
    return dict(request.headers)[name]


async def _resolve(harness: Harness, one: str) -> None:
    order = Order(harness.call("req-resolve"), "acme", one, "handled by phone")
    await harness.engine.operate.resolve(order, in_silence)


async def _replay_once(harness: Harness, one: str) -> None:
    order = Order(harness.call("req-once"), "acme", one, "just this one")
    await harness.engine.operate.replay(order, in_silence)


def _only(*permissions: Permission) -> Call:
    return Call(Principal("someone", "token", "tok_2", frozenset(permissions)), "req-9", TRACE)
