"""A receiver that fails is left alone, tried with one attempt, and sent to again, gently, once it is well."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.delivery.port import OwnFault, Request
from redrive.domain.breaker import Breaker, BreakerState, Sign
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Answer, Outcome, classify
from redrive.domain.traffic import Traffic
from redrive.engine.breaking import GONE_AGAIN_SECONDS
from redrive.engine.gates import Gate
from redrive.store.port import EventFilter, StoreUnavailable
from redrive.telemetry.events import BreakerClosed, BreakerOpened, ReceiverGone, SendingThrottled
from tests.engine.clock import StandingClock
from tests.engine.conftest import Harness, answered, eventually

COUNT = 12
OPENS_AFTER = 7.0  # attempts end at 0, 1, 3 and 7 seconds: the last are in the 5 seconds that are asked for


def asked_to_wait(status: int, seconds: int) -> Outcome:
    return classify(Answer(status, (), b""), retry_after=timedelta(seconds=seconds))


async def failing(harness: Harness, name: str = "down", status: int = 503, **fields: object) -> list[str]:
    """An integration whose receiver fails, until its breaker is open; what was delivered to it."""
    await harness.integration(name, base_delay_seconds=1.0, jitter=0.0, max_attempts=20, **fields)
    harness.deliverer.scripts[f"/{name}"] = lambda _: answered(status)
    ids = await harness.deliver(name, COUNT)
    for seconds, least in ((0.0, 12), (1.05, 24), (2.05, 36), (4.05, 37)):
        harness.clock.move(seconds)
        await idle(harness, name, least)
    return ids


async def idle(harness: Harness, name: str, least: int) -> None:
    """Wait until that many requests went out, at least, and nothing of them is in hand any more."""

    async def is_idle() -> bool | None:
        return (harness.deliverer.sent(f"/{name}") >= least and not harness.engine.worker.in_flight) or None

    await eventually(is_idle)


def gate_of(harness: Harness, name: str = "down") -> Gate:
    return harness.engine.worker.lanes.gate(harness.number(name))


async def stored(harness: Harness, state: BreakerState, name: str = "down") -> Integration:
    """The integration, once its breaker is stored in that state."""

    async def look() -> Integration | None:
        found = {one.integration_id: one for one in await harness.store.integrations()}[name]
        return found if found.traffic.breaker.state is state else None

    return await eventually(look)


async def told(harness: Harness, kind: EventType) -> list[AuditEvent]:
    page = await harness.store.events(EventFilter(event_type=kind), limit=50, below=None)
    return list(reversed(page.rows))


async def test_a_receiver_that_fails_is_left_alone_and_no_attempt_is_spent(harness: Harness) -> None:
    ids = await failing(harness)

    await stored(harness, BreakerState.OPEN)
    sent = harness.deliverer.sent("/down")
    harness.clock.move(9.0)
    [late] = await harness.deliver("down")

    assert harness.deliverer.sent("/down") == sent < 4 * COUNT  # what was claimed and not sent was given back
    assert (await harness.item("down", late)).status is Status.PENDING
    assert sum([(await harness.item("down", each)).attempt_count for each in ids]) == sent


async def test_its_opening_is_announced_and_audited_with_what_decided(harness: Harness) -> None:
    await failing(harness)
    await stored(harness, BreakerState.OPEN)

    [opened] = await told(harness, EventType.BREAKER_OPENED)
    [announced] = [event for event in harness.events if isinstance(event, BreakerOpened)]

    assert (announced.integration_id, announced.trips) == ("down", 1)
    assert (opened.request_id, opened.actor.id, opened.target_id) == (None, "redrive", "down")
    assert opened.before_state["breaker"]["state"] == "closed"
    assert opened.after_state["breaker"]["state"] == "open"
    assert opened.metadata["failures"] == opened.metadata["outcomes"] >= 20


async def test_one_attempt_tries_it_and_success_closes_it_with_a_ramp(harness: Harness) -> None:
    ids = await failing(harness)
    await stored(harness, BreakerState.OPEN)
    sent = harness.deliverer.sent("/down")
    gate, going = asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> Outcome:
        going.set()
        await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/down"] = hold
    await harness.in_time(lambda: _when(going.is_set()))
    half_open = await stored(harness, BreakerState.HALF_OPEN)
    harness.clock.move(1.0)
    assert harness.deliverer.sent("/down") == sent + 1

    harness.deliverer.scripts["/down"] = lambda _: answered(200)
    harness.deliverer.most_at_once["/down"] = 0
    gate.set()

    assert half_open.traffic.breaker.trips == 1
    await harness.in_time(lambda: _all(harness, "down", ids, Status.SUCCEEDED))
    closed = await stored(harness, BreakerState.CLOSED)
    assert closed.traffic.breaker.until is None
    assert gate_of(harness).breaker.is_closed
    assert [type(event) for event in harness.events if isinstance(event, BreakerClosed)] == [BreakerClosed]
    [event] = await told(harness, EventType.BREAKER_CLOSED)
    assert event.before_state["breaker"]["state"] == "half_open"
    assert harness.deliverer.sent("/down") == sent + COUNT  # each item once more, the trial's too


async def test_after_it_closed_one_attempt_at_a_time_is_made_at_first(harness: Harness) -> None:
    await failing(harness)
    opened = await stored(harness, BreakerState.OPEN)
    pace = harness.engine.worker.lanes.pace(harness.engine.worker.owned.lanes_of(opened.number)[0])
    assert pace.window == 16
    now = harness.clock.now()
    closed = opened.traffic.breaker.after(Sign.WELL, now, chance=0.5)

    await steer(harness, opened, closed)

    assert (pace.window, gate_of(harness).breaker) == (1, closed)


async def test_after_its_own_trial_a_process_begins_with_one_attempt(harness: Harness) -> None:
    await failing(harness)
    await stored(harness, BreakerState.OPEN)
    await harness.integration("well")
    gate, sent = asyncio.Event(), harness.deliverer.sent("/down")

    async def all_but_the_first_hang(_: object) -> Outcome:
        if harness.deliverer.sent("/down") > sent + 1:
            await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/down"] = all_but_the_first_hang
    harness.deliverer.most_at_once["/down"] = 0
    await harness.in_time(lambda: _when(harness.deliverer.sent("/down") == sent + 2))
    [meanwhile] = await harness.deliver("well")
    await harness.status("well", meanwhile, Status.SUCCEEDED)

    assert harness.deliverer.most_at_once["/down"] == 1
    gate.set()


async def test_a_trial_that_fails_opens_it_for_longer(harness: Harness) -> None:
    await failing(harness)
    first = (await stored(harness, BreakerState.OPEN)).traffic.breaker
    sent = harness.deliverer.sent("/down")

    async def again() -> Integration | None:
        found = await stored(harness, BreakerState.OPEN)
        return found if found.traffic.breaker.trips == 2 else None

    second = (await harness.in_time(again)).traffic.breaker

    assert harness.deliverer.sent("/down") == sent + 1
    assert _seconds(second) == 2 * _seconds(first)
    assert second.opened_at == first.opened_at == first.changed_at


async def test_what_a_retry_cures_opens_nothing(harness: Harness) -> None:
    await harness.integration("moody", base_delay_seconds=1.0, jitter=0.0)
    seen: set[str] = set()

    def once_refused(request: Request) -> Outcome:
        name = dict(request.headers)["webhook-id"]
        is_known = name in seen
        seen.add(name)
        return answered(200 if is_known else 503)

    harness.deliverer.scripts["/moody"] = once_refused
    ids = []
    for _ in range(8):
        ids += await harness.deliver("moody", 10)
        harness.clock.move(
            0.9
        )  # before the first of them is retried there are 10 failures, then as many each

    await harness.in_time(lambda: _all(harness, "moody", ids, Status.SUCCEEDED))
    assert not [event for event in harness.events if isinstance(event, BreakerOpened)]


async def test_refusals_open_nothing(harness: Harness) -> None:
    await harness.integration("strict")
    harness.deliverer.scripts["/strict"] = lambda _: answered(404)

    for _ in range(8):
        for each in await harness.deliver("strict", 10):
            await harness.status("strict", each, Status.FAILED)
        harness.clock.move(1.0)

    assert gate_of(harness, "strict").breaker.is_closed


async def test_an_integration_can_do_without_it(harness: Harness) -> None:
    await failing(harness, breaker_failure_share=0.0)

    assert gate_of(harness).breaker.is_closed


async def test_who_turns_it_off_has_everything_sent_again(harness: Harness) -> None:
    ids = await failing(harness)
    await stored(harness, BreakerState.OPEN)
    harness.deliverer.scripts["/down"] = lambda _: answered(200)

    await harness.change("down", breaker_failure_share=0.0)
    harness.clock.move(8.05)  # as the retries are due

    await eventually(lambda: _all(harness, "down", ids, Status.SUCCEEDED))


async def test_others_are_sent_to_meanwhile(harness: Harness) -> None:
    await failing(harness)
    await harness.integration("well")

    [fine] = await harness.deliver("well")

    await harness.status("well", fine, Status.SUCCEEDED)


async def test_a_hanging_receiver_opens_it_although_few_attempts_end(harness: Harness) -> None:
    await harness.integration("hung", base_delay_seconds=1.0, jitter=0.0, max_attempts=20, concurrency=1)
    harness.deliverer.scripts["/hung"] = lambda _: answered(504)
    [only] = await harness.deliver("hung")

    for _ in range(19):  # a minute apart, most of them
        await harness.retry("hung", only)

    await stored(harness, BreakerState.OPEN, "hung")


# throttling


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_has_the_whole_integration_wait(harness: Harness, status: int) -> None:
    await harness.integration("busy", base_delay_seconds=1.0, jitter=0.0)
    harness.deliverer.scripts["/busy"] = lambda _: asked_to_wait(status, 30)
    [first] = await harness.deliver("busy")
    await harness.status("busy", first, Status.RETRYING)
    harness.deliverer.scripts["/busy"] = lambda _: answered(200)

    [other] = await harness.deliver("busy")
    harness.clock.move(29.0)
    assert (await harness.item("busy", other)).status is Status.PENDING
    assert harness.deliverer.sent("/busy") == 1
    harness.clock.move(1.1)

    await eventually(lambda: _all(harness, "busy", [first, other], Status.SUCCEEDED))
    [announced] = [event for event in harness.events if isinstance(event, SendingThrottled)]
    assert announced.seconds == 30


async def test_a_retry_after_on_another_answer_is_its_items_alone(harness: Harness) -> None:
    await harness.integration("odd", base_delay_seconds=1.0, jitter=0.0)
    harness.deliverer.scripts["/odd"] = lambda _: asked_to_wait(500, 30)
    [first] = await harness.deliver("odd")
    await harness.status("odd", first, Status.RETRYING)
    harness.deliverer.scripts["/odd"] = lambda _: answered(200)

    [other] = await harness.deliver("odd")

    await harness.status("odd", other, Status.SUCCEEDED)


async def test_a_throttle_is_stored_for_others(harness: Harness) -> None:
    await harness.integration("busy")
    harness.deliverer.scripts["/busy"] = lambda _: asked_to_wait(429, 86_000)

    [first] = await harness.deliver("busy")
    await harness.status("busy", first, Status.RETRYING)

    async def known() -> Integration | None:
        [found] = await harness.store.integrations()
        return found if found.traffic.throttled_until is not None else None

    found = await eventually(known)
    assert found.traffic.throttled_until == harness.clock.now() + timedelta(hours=1)
    item = await harness.item("busy", first)
    assert item.next_retry_at == harness.clock.now() + timedelta(seconds=86_000)


# gone


async def test_a_receiver_that_is_gone_is_told_of_once_an_hour_and_nothing_is_done(harness: Harness) -> None:
    await harness.integration("gone")
    harness.deliverer.scripts["/gone"] = lambda _: answered(410)

    for _ in range(3):
        [each] = await harness.deliver("gone")
        await harness.status("gone", each, Status.FAILED)
    harness.clock.move(GONE_AGAIN_SECONDS)
    [each] = await harness.deliver("gone")
    await harness.status("gone", each, Status.FAILED)

    async def proposed() -> list[AuditEvent] | None:
        found = await told(harness, EventType.CONTAINMENT_PROPOSED)
        return found if len(found) == 2 else None

    events = await eventually(proposed)
    assert [event.target_id for event in events] == ["gone", "gone"]
    assert len([event for event in harness.events if isinstance(event, ReceiverGone)]) == 2
    assert harness.engine.catalogue.find("gone").sends


# across processes and their ends


async def test_what_another_process_opened_is_shut_here(harness: Harness) -> None:
    integration = await harness.integration("shared")
    opened = integration.traffic.breaker.opened(harness.clock.now(), chance=0.5)

    await steer(harness, integration, opened)
    [waits] = await harness.deliver("shared")

    assert gate_of(harness, "shared").breaker == opened
    assert (await harness.item("shared", waits)).status is Status.PENDING
    await harness.in_time(lambda: harness.reached("shared", waits, Status.SUCCEEDED))  # the trial


async def test_a_trial_of_a_process_that_died_is_made_by_another_when_it_surely_ended(
    harness: Harness,
) -> None:
    integration = await harness.integration("shared")
    breaker = integration.traffic.breaker.opened(harness.clock.now(), chance=0.5)
    trying = breaker.trying(harness.clock.now(), 25.0)

    await steer(harness, integration, trying)
    [waits] = await harness.deliver("shared")
    harness.clock.move(24.0)
    assert (await harness.item("shared", waits)).status is Status.PENDING

    await harness.in_time(lambda: harness.reached("shared", waits, Status.SUCCEEDED))


async def test_of_two_processes_that_ask_for_the_trial_one_makes_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("shared")
    await steer(harness, integration, integration.traffic.breaker.opened(harness.clock.now(), chance=0.5))
    [waits] = await harness.deliver("shared")
    store_steers = harness.store.steer
    asked = asyncio.Event()

    async def too_late(*given: Any) -> Traffic | None:
        if not asked.is_set():  # the other process is faster
            asked.set()
            now = harness.engine.catalogue.find("shared")
            await steer(harness, now, now.traffic.breaker.trying(harness.clock.now(), 60.0))
        return await store_steers(*given)

    monkeypatch.setattr(harness.store, "steer", too_late)
    await harness.in_time(lambda: _when(asked.is_set()))
    theirs = await stored(harness, BreakerState.HALF_OPEN, "shared")

    await eventually(lambda: _when(gate_of(harness, "shared").breaker == theirs.traffic.breaker))
    harness.clock.move(50.0)
    assert (await harness.item("shared", waits)).status is Status.PENDING
    assert harness.deliverer.sent("/shared") == 0
    await harness.in_time(lambda: harness.reached("shared", waits, Status.SUCCEEDED))


async def test_it_is_open_after_a_restart(harness: Harness, clock: StandingClock) -> None:
    ids = await failing(harness)
    await stored(harness, BreakerState.OPEN)
    await harness.engine.close()

    again = Harness(harness.store, clock)
    await again.engine.start()
    try:
        [late] = await again.deliver("down")
        assert not gate_of(again).breaker.is_closed
        assert (await again.item("down", late)).status is Status.PENDING
        assert again.deliverer.requests == []
        await again.in_time(lambda: _all(again, "down", ids, Status.SUCCEEDED))
    finally:
        await again.engine.close()


async def test_a_trial_that_could_not_be_asked_for_is_asked_for_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("shared")
    await steer(harness, integration, integration.traffic.breaker.opened(harness.clock.now(), chance=0.5))
    [waits] = await harness.deliver("shared")
    store_steers = harness.store.steer
    failed: list[object] = []

    async def fails_once(*given: Any) -> Traffic | None:
        if not failed:
            failed.append(given)
            raise RuntimeError("a mistake of ours")
        return await store_steers(*given)

    monkeypatch.setattr(harness.store, "steer", fails_once)

    await harness.in_time(lambda: harness.reached("shared", waits, Status.SUCCEEDED))
    assert failed


async def test_without_a_store_it_is_open_and_told_of_later(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_steers = harness.store.steer
    refused: list[object] = []

    async def fails_at_first(*given: Any) -> Traffic | None:
        if len(refused) < 3:
            refused.append(given)
            raise StoreUnavailable("the disk is full")
        return await store_steers(*given)

    monkeypatch.setattr(harness.store, "steer", fails_at_first)
    await failing(harness)
    assert not gate_of(harness).breaker.is_closed

    async def is_told() -> bool | None:
        harness.clock.move(0.5)
        return bool(await told(harness, EventType.BREAKER_OPENED)) or None

    await eventually(is_told)
    assert len(refused) == 3


async def test_a_trial_that_a_fault_of_our_own_prevented_is_made_later(harness: Harness) -> None:
    ids = await failing(harness)
    await stored(harness, BreakerState.OPEN)
    harness.deliverer.scripts["/down"] = lambda _: answered(200)
    broken = {"left": 1}

    async def no_handles(_: object) -> None:
        if broken["left"]:
            broken["left"] -= 1
            raise OwnFault("no file handles")

    harness.deliverer.connecting["/down"] = no_handles

    await harness.in_time(lambda: _all(harness, "down", ids, Status.SUCCEEDED))
    assert broken["left"] == 0


def _seconds(breaker: Breaker) -> float:
    """For how long it opened."""
    assert breaker.until is not None
    assert breaker.changed_at is not None
    return (breaker.until - breaker.changed_at).total_seconds()


async def steer(harness: Harness, integration: Integration, breaker: Breaker) -> None:
    """As another process does, and we hear of it."""
    traffic = replace(integration.traffic, breaker=breaker, version=integration.traffic.version + 1)
    assert await harness.engine.catalogue.steer(integration, traffic, []) is not None


async def _when(fact: object) -> bool | None:
    return bool(fact) or None


async def _all(harness: Harness, name: str, ids: list[str], status: Status) -> bool | None:
    found = [(await harness.item(name, each)).status for each in ids]
    return (set(found) == {status}) or None
