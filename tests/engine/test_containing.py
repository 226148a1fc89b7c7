"""Containment: what no longer starts, what is given back, and how it starts again."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from redrive.audit.record import AuditEvent, EventType
from redrive.delivery.port import Request
from redrive.domain.access import Call, Permission, Principal
from redrive.domain.errors import Conflict, Contained, Forbidden, InvalidPayload
from redrive.domain.item import Status
from redrive.domain.outcome import Outcome
from redrive.domain.sharing import whole
from redrive.domain.traffic import Mode, Standing
from redrive.engine import containing
from redrive.engine.acting import Order
from redrive.engine.containing import Released, Terms
from redrive.engine.once import Key, Told
from redrive.store.port import EventFilter, StoreUnavailable
from redrive.store.sqlite import SqliteStore
from redrive.telemetry.events import Operated, SendingSuspended
from tests.engine.conftest import TRACE, Harness, answered, eventually, in_silence
from tests.factories import NOW

TERMS = Terms("the vendor is down")


async def contain(harness: Harness, name: str, **fields: Any) -> str:
    """How it stands when that is answered."""
    states = []

    def render(found: containing.Contained) -> Told:
        states.append(found.state)
        return Told(202 if found.state == "containing" else 200, found.state.encode())

    terms = Terms(**{"reason": "the vendor is down"} | fields)
    told = await harness.engine.containing.contain(harness.call(), name, terms, render=render)
    assert states[-1] == told.body.decode()
    return states[-1]


async def release(
    harness: Harness, name: str, rate: float | None = None, *, dry_run: bool = False
) -> Released:
    done = []

    def render(found: Released) -> Told:
        done.append(found)
        return Told(200, b"")

    await harness.engine.containing.release(
        harness.call(), name, "it is back", rate_per_second=rate, dry_run=dry_run, render=render
    )
    return done[-1]


async def standing(harness: Harness, name: str) -> Standing | None:
    return (await harness.engine.containing.show(harness.call(), name)).standing


async def events(harness: Harness, kind: EventType) -> list[AuditEvent]:
    """Newest first."""
    return list((await harness.store.events(EventFilter(event_type=kind), limit=10, below=None)).rows)


def after(gate: asyncio.Event) -> Callable[[Request], Awaitable[Outcome]]:
    async def wait(_: Request) -> Outcome:
        await gate.wait()
        return answered(200)

    return wait


async def test_it_is_contained_before_what_waits_is_counted(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")
    count, was_contained = harness.store.standing, []

    async def standing(number: int) -> Standing:
        was_contained.append(harness.engine.catalogue.find("acme").traffic.containment is not None)
        return await count(number)

    monkeypatch.setattr(harness.store, "standing", standing)

    assert await contain(harness, "acme") == "contained"
    assert was_contained == [True]


async def test_what_is_contained_waits_and_goes_on_when_it_is_released(harness: Harness) -> None:
    await harness.integration("acme")

    assert await contain(harness, "acme") == "contained"

    [recovery_id] = await harness.deliver("acme")
    assert (await harness.item("acme", recovery_id)).status is Status.PENDING
    assert await standing(harness, "acme") == Standing(waiting=1, in_flight=0)
    await release(harness, "acme")
    await harness.status("acme", recovery_id, Status.SUCCEEDED)


async def test_what_is_in_flight_finishes_and_is_counted_until_then(harness: Harness) -> None:
    await harness.integration("acme")
    gate = asyncio.Event()
    harness.deliverer.scripts["/acme"] = after(gate)
    [recovery_id] = await harness.deliver("acme")
    await eventually(lambda: when(harness.deliverer.sent("/acme") == 1))

    assert await contain(harness, "acme") == "contained"

    assert await standing(harness, "acme") == Standing(waiting=0, in_flight=1)
    gate.set()
    await harness.status("acme", recovery_id, Status.SUCCEEDED)


async def test_what_had_not_left_is_given_back_with_its_count_before_it_is_answered(harness: Harness) -> None:
    await harness.integration("acme")
    harness.deliverer.connecting["/acme"] = after(asyncio.Event())
    [recovery_id] = await harness.deliver("acme")
    await eventually(lambda: when(harness.deliverer.under_way["/acme"] == 1))

    assert await contain(harness, "acme") == "contained"

    assert await standing(harness, "acme") == Standing(waiting=1, in_flight=0)
    assert (await harness.item("acme", recovery_id)).attempt_count == 0
    assert (harness.engine.worker.lanes.busy, harness.engine.worker.attempts.cut_off) == (0, [])
    harness.deliverer.connecting.clear()
    await release(harness, "acme")
    item = await harness.status("acme", recovery_id, Status.SUCCEEDED)
    assert item.attempt_count == 1


async def test_what_is_not_contained_is_not_cut_off(harness: Harness) -> None:
    await harness.integration("acme")
    await harness.integration("other")
    gate = asyncio.Event()
    harness.deliverer.connecting["/other"] = after(gate)
    [recovery_id] = await harness.deliver("other")
    await eventually(lambda: when(harness.deliverer.under_way["/other"] == 1))

    await contain(harness, "acme")

    assert harness.deliverer.under_way["/other"] == 1
    gate.set()
    await harness.status("other", recovery_id, Status.SUCCEEDED)


@pytest.mark.parametrize("verb", ["claim", "accept"])
async def test_what_was_just_being_claimed_is_given_back_when_it_comes(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    await harness.integration("acme", lifecycle_status="paused" if verb == "claim" else "active")
    if verb == "claim":
        await harness.deliver("acme")
    do, done, may_answer = getattr(harness.store, verb), asyncio.Event(), asyncio.Event()

    async def do_and_wait(*given: Any) -> Any:
        answer = await do(*given)
        done.set()
        await may_answer.wait()
        return answer

    monkeypatch.setattr(harness.store, verb, do_and_wait)
    if verb == "claim":
        await harness.change("acme", lifecycle_status="active")
        coming = None
    else:
        coming = asyncio.create_task(harness.deliver("acme"))
    await done.wait()
    assert await standing(harness, "acme") == Standing(waiting=0, in_flight=1)

    assert await contain(harness, "acme") == "contained"
    may_answer.set()

    await eventually(lambda: stands(harness, "acme", Standing(waiting=1, in_flight=0)))
    if coming is not None:
        await coming
    assert harness.deliverer.sent("/acme") == 0
    assert not [event for event in harness.events if isinstance(event, SendingSuspended)]


async def test_what_had_not_even_begun_is_given_back(harness: Harness) -> None:
    worker, number = harness.engine.worker, (await harness.integration("acme")).number
    worker.stopping = True  # so that it is accepted unclaimed
    await harness.deliver("acme")
    [claim] = (await harness.store.claim(worker.owner, {whole(number): 1})).claims
    await contain(harness, "acme")
    reserved = worker.lanes.pace(whole(number))
    worker.lanes.take(reserved)
    worker._arriving[reserved.lane] += 1

    worker.start(claim, reserved)
    await worker.hold_back()

    assert await standing(harness, "acme") == Standing(waiting=1, in_flight=0)
    assert (harness.deliverer.sent("/acme"), worker.lanes.busy) == (0, 0)


async def test_a_claim_is_given_back_although_the_store_fails_at_first(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")
    harness.deliverer.connecting["/acme"] = after(asyncio.Event())
    await harness.deliver("acme")
    await eventually(lambda: when(harness.deliverer.under_way["/acme"] == 1))
    failed = asyncio.Event()

    async def fail(*_: Any) -> None:
        failed.set()
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(harness.store, "give_back", fail)
    answering = asyncio.create_task(contain(harness, "acme"))
    await failed.wait()
    assert not answering.done()

    monkeypatch.undo()
    harness.clock.move(0.5)

    assert await answering == "contained"
    assert await standing(harness, "acme") == Standing(waiting=1, in_flight=0)


async def test_whoever_waits_too_long_is_told_that_not_all_have_confirmed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")

    async def is_followed(_: int) -> bool:
        return False

    monkeypatch.setattr(harness.store, "is_followed", is_followed)
    answering = asyncio.create_task(contain(harness, "acme"))
    await harness.in_time(lambda: when(answering.done()))

    assert await answering == "containing"
    monkeypatch.undo()
    shown = await harness.engine.containing.show(harness.call(), "acme")
    assert shown.state == "contained"


async def test_under_a_key_all_are_told_what_the_first_was(harness: Harness) -> None:
    await harness.integration("acme")
    key = Key(b"scope", b"body")

    def render(found: containing.Contained) -> Told:
        return Told(202 if found.state == "containing" else 200, found.state.encode())

    first, again = [
        await harness.engine.containing.contain(harness.call(), "acme", TERMS, render=render, key=key)
        for _ in range(2)
    ]

    assert (first.status, first.body, first.again) == (200, b"contained", False)
    assert (again.status, again.body, again.again) == (200, b"contained", True)
    assert len(await events(harness, EventType.CONTAINED)) == 1


async def test_it_leaves_who_why_and_until_when(harness: Harness) -> None:
    await harness.integration("acme")

    await contain(harness, "acme", owner="ada", seconds=7200.0, incident="4711")

    [event] = await events(harness, EventType.CONTAINED)
    assert (event.actor.id, event.target_type, event.target_id) == ("tester", "integration", "acme")
    assert event.before_state["containment"] is None
    assert event.after_state["containment"] == {
        "mode": "hold",
        "reason": "the vendor is down",
        "owner": "ada",
        "by": "tester",
        "since": "2026-01-02T03:04:05.000Z",
        "until": "2026-01-02T05:04:05.000Z",
        "incident": "4711",
    }
    assert event.metadata == {"reason": "the vendor is down", "incident": "4711"}
    assert harness.events[-1] == Operated(EventType.CONTAINED.value, "tester", "acme", "acme", "req-1")


async def test_who_does_not_say_more_answers_for_it_himself_for_four_hours(harness: Harness) -> None:
    await harness.integration("acme")

    await contain(harness, "acme")

    found = harness.engine.catalogue.find("acme").traffic.containment
    assert found is not None
    assert (found.owner, found.mode, found.until - found.since) == ("tester", Mode.HOLD, timedelta(hours=4))


async def test_contained_again_it_gets_another_end_and_another_mode(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    harness.clock.move(600)

    assert await contain(harness, "acme", mode=Mode.REJECT, seconds=60.0) == "contained"

    found = harness.engine.catalogue.find("acme").traffic.containment
    assert found is not None
    assert (found.since, found.until) == (NOW, harness.clock.now() + timedelta(seconds=60))
    with pytest.raises(Contained):
        await harness.deliver("acme")
    last, first = await events(harness, EventType.CONTAINED)
    assert last.before_state == first.after_state


@pytest.mark.parametrize(
    "fields",
    [
        {"until": NOW},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": 1e300},
        {"until": NOW + timedelta(days=30, seconds=1)},
        {"until": NOW + timedelta(hours=1), "seconds": 60.0},
    ],
)
async def test_an_end_is_ahead_and_not_too_far(harness: Harness, fields: dict[str, Any]) -> None:
    await harness.integration("acme")

    with pytest.raises(InvalidPayload):
        await contain(harness, "acme", **fields)

    assert harness.engine.catalogue.find("acme").sends


async def test_what_is_contained_is_not_replayed(harness: Harness) -> None:
    await harness.integration("acme")
    harness.deliverer.scripts["/acme"] = lambda _: answered(404)
    [recovery_id] = await harness.deliver("acme")
    await harness.status("acme", recovery_id, Status.FAILED)
    await contain(harness, "acme")

    with pytest.raises(Contained):
        await harness.engine.operate.replay(
            Order(harness.call("req-2"), "acme", recovery_id, "it is back"), in_silence
        )

    assert (await harness.item("acme", recovery_id)).status is Status.FAILED


async def test_what_was_never_contained_is_not_released(harness: Harness) -> None:
    await harness.integration("acme")

    with pytest.raises(Conflict):
        await release(harness, "acme")

    assert await events(harness, EventType.RELEASED) == []


async def test_a_dry_run_tells_what_a_release_would_mean_and_changes_nothing(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    await harness.deliver("acme", 10)

    done = await release(harness, "acme", 2.0, dry_run=True)

    assert done.simulation["backlog"] == 10
    assert done.simulation["rates"][0]["rate_per_second"] == 2.0
    assert await events(harness, EventType.RELEASED) == []
    assert harness.deliverer.sent("/acme") == 0


async def test_a_release_leaves_who_why_how_fast_and_what_was_expected(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")

    await release(harness, "acme", 20.0)

    [event] = await events(harness, EventType.RELEASED)
    assert event.before_state["containment"]["reason"] == "the vendor is down"
    assert event.after_state["containment"] is None
    assert event.after_state["release"]["rate_per_second"] == 20.0
    assert event.metadata["reason"] == "it is back"
    assert event.metadata["simulation"]["backlog"] == 0


async def test_what_waited_is_sent_at_the_rate_of_the_release_and_then_as_fast_as_before(
    harness: Harness,
) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    await harness.deliver("acme", 3)

    await release(harness, "acme", 1.0)
    pace = harness.engine.worker.lanes.pace(whole(harness.number("acme")))

    assert pace.rate_per_second == 1.0
    for sent in (1, 2, 3):
        await eventually(lambda: when(pace.refilled_at > 0))
        harness.clock.move(1.0)
        await eventually(lambda sent=sent: when(harness.deliverer.sent("/acme") == sent))  # type: ignore[misc]
    await eventually(lambda: when(pace.rate_per_second is None))
    await harness.in_time(lambda: when(harness.engine.catalogue.find("acme").traffic.release is None))
    await harness.deliver("acme", 3)
    await eventually(lambda: when(harness.deliverer.sent("/acme") == 6))


async def test_the_lanes_of_an_integration_share_the_rate_of_its_release(harness: Harness) -> None:
    await harness.integration("acme", shards=4)
    await contain(harness, "acme")
    await harness.deliver("acme", 3)

    await release(harness, "acme", 10.0)

    worker, number = harness.engine.worker, harness.number("acme")
    rates = [worker.lanes.pace(lane).rate_per_second for lane in worker.owned.lanes_of(number)]
    assert sum(rate for rate in rates if rate is not None) == 10.0
    assert len(rates) == (1 if isinstance(harness.store, SqliteStore) else 4)


async def test_a_process_that_takes_lanes_over_keeps_to_the_rate_of_their_release(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    await harness.deliver("acme", 3)
    await release(harness, "acme", 1.0)
    owned, lane = harness.engine.worker.owned, whole(harness.number("acme"))

    owned.follow(frozenset())
    owned.follow(frozenset({lane}))

    assert harness.engine.worker.lanes.pace(lane).rate_per_second == 1.0


async def test_a_release_that_drains_takes_another_rate(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    await harness.deliver("acme", 3)
    await release(harness, "acme", 1.0)
    since = harness.engine.catalogue.find("acme").traffic.release
    harness.clock.move(0.5)

    await release(harness, "acme", 50.0)

    found = harness.engine.catalogue.find("acme").traffic.release
    assert found is not None
    assert since is not None
    assert (found.rate_per_second, found.since) == (50.0, since.since)
    pace = harness.engine.worker.lanes.pace(whole(harness.number("acme")))
    assert pace.rate_per_second == 50.0


async def test_who_may_not_operate_neither_contains_nor_releases(harness: Harness) -> None:
    await harness.integration("acme")
    viewer = Call(Principal("eve", "token", "tok_2", frozenset({Permission.VIEW})), "req-9", TRACE)

    with pytest.raises(Forbidden):
        await harness.engine.containing.contain(viewer, "acme", TERMS, render=in_silence)
    with pytest.raises(Forbidden):
        await harness.engine.containing.release(viewer, "acme", "mine", render=in_silence)

    assert (await harness.engine.containing.show(viewer, "acme")).state == "none"


async def test_a_change_of_the_configuration_made_meanwhile_loses_no_containment(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")
    update = harness.store.update_integration

    async def contain_first(*given: Any) -> bool:
        monkeypatch.undo()
        await contain(harness, "acme")
        return await update(*given)

    monkeypatch.setattr(harness.store, "update_integration", contain_first)

    await harness.change("acme", name="Renamed")

    found = harness.engine.catalogue.find("acme")
    assert (found.name, found.sends) == ("Renamed", False)


async def test_two_who_contain_at_once_leave_an_event_each(harness: Harness) -> None:
    await harness.integration("acme")

    states = await asyncio.gather(*(contain(harness, "acme", reason=f"reason {n}") for n in range(5)))

    assert set(states) == {"contained"}
    changes = await events(harness, EventType.CONTAINED)
    assert [event.before_state for event in changes[:-1]] == [event.after_state for event in changes[1:]]


async def when(fact: bool) -> bool | None:  # noqa: FBT001 - what `eventually` looks for
    return fact or None


async def stands(harness: Harness, name: str, wanted: Standing) -> bool | None:
    return (await standing(harness, name) == wanted) or None
