"""A containment that runs out: probed once, then released gradually, or kept and told. Never a stampede."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.delivery.port import Request
from redrive.domain.delivery import Claim
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Outcome
from redrive.domain.traffic import CAUTIOUS_RATE
from redrive.engine.expiry import Finding
from redrive.engine.probing import NOT_KNOWN
from redrive.store.port import Store
from redrive.telemetry.events import (
    ContainmentEnded,
    ContainmentExpired,
    ContainmentExpiring,
    Event,
    LoopFailed,
    ReleaseDrained,
)
from tests.engine.clock import StandingClock
from tests.engine.conftest import Harness, answered, eventually, in_silence
from tests.engine.test_containing import contain, events, release, when

HOUR = 3600.0


@dataclass
class Prober:
    """Finds what it was told to find."""

    is_healthy: bool = False
    asked: list[str] = field(default_factory=list)

    async def __call__(self, integration: Integration) -> Finding:
        self.asked.append(integration.integration_id)
        return Finding(self.is_healthy, "it answered 204" if self.is_healthy else "it answered 503")


@pytest.fixture
async def prober(harness: Harness) -> AsyncIterator[Prober]:
    """What the harness's engine probes with."""
    prober = Prober()
    harness.engine.expiry.probe = prober
    yield prober
    assert not told(harness, LoopFailed)


def told(harness: Harness, kind: type[Event]) -> list[Event]:
    return [event for event in harness.events if isinstance(event, kind)]


async def look_after(harness: Harness) -> None:
    """Everything whose time has come, to its end."""
    await harness.engine.expiry.look_after()
    while under_way := list(harness.engine.expiry._under_way.values()):
        await asyncio.wait(under_way)


async def an_hour_later(harness: Harness, prober: Prober, name: str = "acme") -> None:
    """Contained for an hour, which is over and was noticed."""
    await harness.integration(name)
    await contain(harness, name, seconds=HOUR, owner="ada")
    await harness.deliver(name)
    harness.clock.move(HOUR)
    await eventually(lambda: when(bool(prober.asked)))


async def last(harness: Harness, kind: EventType) -> AuditEvent:
    async def look() -> AuditEvent | None:
        found = await events(harness, kind)
        return found[0] if found else None

    return await eventually(look)


async def test_one_whose_receiver_is_well_is_released_at_a_cautious_rate(
    harness: Harness, prober: Prober
) -> None:
    prober.is_healthy = True

    await an_hour_later(harness, prober)

    event = await last(harness, EventType.RELEASED)
    assert (event.actor.type, event.request_id, event.target_id) == ("system", None, "acme")
    assert event.after_state["release"]["rate_per_second"] == CAUTIOUS_RATE
    assert event.metadata == {"probe": "it answered 204", "is_healthy": True}
    assert prober.asked == ["acme"]
    await eventually(lambda: when(bool(told(harness, ContainmentEnded))))
    assert told(harness, ContainmentEnded) == [ContainmentEnded("acme", "ada", CAUTIOUS_RATE)]
    await harness.in_time(lambda: when(harness.deliverer.sent("/acme") == 1))


async def test_nobody_is_sent_to_faster_than_the_integration_allows(harness: Harness, prober: Prober) -> None:
    prober.is_healthy = True
    await harness.integration("acme")
    await harness.change("acme", rate_per_second=0.5)
    await contain(harness, "acme", seconds=HOUR)

    harness.clock.move(HOUR)

    event = await last(harness, EventType.RELEASED)
    assert event.after_state["release"]["rate_per_second"] == 0.5


async def test_one_whose_receiver_is_not_well_stays_contained_and_that_is_told_once(
    harness: Harness, prober: Prober
) -> None:
    await an_hour_later(harness, prober)

    event = await last(harness, EventType.CONTAINMENT_EXPIRED)
    assert (event.actor.type, event.request_id) == ("system", None)
    assert event.metadata == {"probe": "it answered 503", "is_healthy": False}
    await eventually(lambda: when(bool(told(harness, ContainmentExpired))))
    for _ in range(30):
        harness.clock.move(1.0)
        await look_after(harness)
    assert prober.asked == ["acme"]
    assert len(await events(harness, EventType.CONTAINMENT_EXPIRED)) == 1
    assert not harness.engine.catalogue.find("acme").sends
    assert harness.deliverer.sent("/acme") == 0


async def test_it_is_probed_again_after_a_while_that_doubles_up_to_an_hour(
    harness: Harness, prober: Prober
) -> None:
    await an_hour_later(harness, prober)

    waits = []
    for probes in range(1, 9):
        await eventually(lambda probes=probes: when(len(told(harness, ContainmentExpired)) == probes))  # type: ignore[misc]
        event = told(harness, ContainmentExpired)[-1]
        assert isinstance(event, ContainmentExpired)
        waits.append((event.probe_at - harness.clock.now()).total_seconds() / 60)
        harness.clock.move_to(event.probe_at)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(await events(harness, EventType.CONTAINMENT_EXPIRED)) == 1


async def test_it_is_released_once_its_receiver_is_well_again(harness: Harness, prober: Prober) -> None:
    await an_hour_later(harness, prober)
    await last(harness, EventType.CONTAINMENT_EXPIRED)

    prober.is_healthy = True
    await harness.in_time(lambda: when(harness.engine.catalogue.find("acme").sends))

    assert prober.asked == ["acme", "acme"]
    [event] = await events(harness, EventType.RELEASED)
    assert event.before_state["containment"]["owner"] == "ada"


async def test_what_cannot_be_probed_is_not_taken_for_healthy(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)

    harness.clock.move(HOUR)

    await last(harness, EventType.CONTAINMENT_EXPIRED)
    assert not harness.engine.catalogue.find("acme").sends


@pytest.mark.parametrize(("seconds", "warned_at"), [(4 * HOUR, 3.75 * HOUR), (60.0, 45.0)])
async def test_its_owner_is_warned_once_before_it_ends(
    harness: Harness, prober: Prober, seconds: float, warned_at: float
) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=seconds, owner="ada")
    until = harness.clock.now() + timedelta(seconds=seconds)

    harness.clock.move(warned_at - 0.001)
    await look_after(harness)
    assert told(harness, ContainmentExpiring) == []
    harness.clock.move(0.001)
    for _ in range(5):
        await look_after(harness)

    assert told(harness, ContainmentExpiring) == [ContainmentExpiring("acme", "ada", until)]
    assert prober.asked == []


async def test_one_that_was_extended_does_not_end_and_warns_again(harness: Harness, prober: Prober) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)
    harness.clock.move(HOUR - 60)
    await look_after(harness)
    await contain(harness, "acme", seconds=HOUR)

    harness.clock.move(61.0)
    await look_after(harness)
    assert prober.asked == []
    harness.clock.move(HOUR - 62)
    await eventually(lambda: when(len(told(harness, ContainmentExpiring)) == 2))


async def test_whoever_has_not_the_duty_probes_nothing(
    harness: Harness, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_elected(_duty: str, _owner: int) -> bool:
        return False

    monkeypatch.setattr(harness.store, "is_elected", is_elected)
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)
    harness.clock.move(2 * HOUR)

    await look_after(harness)

    assert prober.asked == []


async def test_a_person_who_was_faster_than_the_probe_is_right(harness: Harness, prober: Prober) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)

    async def extend(integration: Integration) -> Finding:
        prober.asked.append(integration.integration_id)
        await contain(harness, "acme", seconds=HOUR, reason="not yet")
        return Finding(is_healthy=True, detail="it answered 200")

    harness.engine.expiry.probe = extend
    harness.clock.move(HOUR)
    await eventually(lambda: when(bool(prober.asked)))
    await look_after(harness)

    found = harness.engine.catalogue.find("acme").traffic.containment
    assert found is not None
    assert found.reason == "not yet"
    assert await events(harness, EventType.RELEASED) == []


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_what_else_changed_of_its_traffic_meanwhile_does_not_keep_it_from_ending(
    harness: Harness,
    is_healthy: bool,  # noqa: FBT001 - pytest names it
) -> None:
    asked = []
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)

    async def probe(integration: Integration) -> Finding:
        asked.append(integration.integration_id)
        noted = replace(integration.traffic, version=integration.traffic.version + 1)
        assert await harness.engine.catalogue.steer(integration, noted, [])
        return Finding(is_healthy, "it answered")

    harness.engine.expiry.probe = probe
    harness.clock.move(HOUR)

    await eventually(
        lambda: when(bool(told(harness, ContainmentEnded if is_healthy else ContainmentExpired)))
    )
    assert asked == ["acme"]
    assert harness.engine.catalogue.find("acme").sends == is_healthy


async def test_a_release_is_forgotten_once_what_waited_is_sent(harness: Harness, prober: Prober) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    [recovery_id] = await harness.deliver("acme")
    await release(harness, "acme", 1.0)

    await look_after(harness)
    assert harness.engine.catalogue.find("acme").traffic.release is not None
    await harness.in_time(lambda: harness.reached("acme", recovery_id, Status.SUCCEEDED))

    await harness.in_time(lambda: when(harness.engine.catalogue.find("acme").traffic.release is None))
    assert told(harness, ReleaseDrained) == [ReleaseDrained("acme")]


async def test_one_probe_that_hangs_keeps_no_other_from_its_turn_and_is_not_made_twice(
    harness: Harness,
) -> None:
    asked, never = [], asyncio.Event()
    for name in ("acme", "other"):
        await harness.integration(name)
        await contain(harness, name, seconds=HOUR if name == "acme" else HOUR + 60)

    async def probe(integration: Integration) -> Finding:
        asked.append(integration.integration_id)
        if integration.integration_id == "acme":
            await never.wait()
        return Finding(is_healthy=True, detail="it answered 200")

    harness.engine.expiry.probe = probe
    harness.clock.move(HOUR)
    await eventually(lambda: when(bool(asked)))
    harness.clock.move(60)

    await harness.in_time(lambda: when(harness.engine.catalogue.find("other").sends))
    assert asked == ["acme", "other"]
    never.set()
    await eventually(lambda: when(harness.engine.catalogue.find("acme").sends))


async def test_a_probe_that_is_cut_off_tells_that_nobody_knows_and_the_next_one_is_made(
    harness: Harness,
) -> None:
    going, gate = asyncio.Event(), asyncio.Event()

    async def hang(_: Request) -> Outcome:
        going.set()
        await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/acme"] = hang
    for name in ("acme", "other"):
        await harness.integration(name)
        await contain(harness, name, seconds=HOUR if name == "acme" else 2 * HOUR)
        await harness.deliver(name)
    harness.clock.move(HOUR)
    await eventually(lambda: when(going.is_set()))

    harness.engine.worker.cut()  # as when the lease may have ended

    event = await last(harness, EventType.CONTAINMENT_EXPIRED)
    assert NOT_KNOWN in event.metadata["probe"]
    assert event.metadata["is_healthy"] is False
    harness.clock.move(HOUR)
    await harness.in_time(lambda: when(harness.engine.catalogue.find("other").sends))
    assert told(harness, LoopFailed) == []


async def test_one_item_is_sent_at_the_end_and_no_other_however_long_it_is_forgotten(
    harness: Harness,
) -> None:
    await harness.integration("acme", max_attempts=5)
    await contain(harness, "acme", seconds=HOUR, owner="ada")
    [recovery_id] = await harness.deliver("acme")
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    harness.clock.move(HOUR)
    await last(harness, EventType.CONTAINMENT_EXPIRED)

    for probes in range(2, 9):
        event = told(harness, ContainmentExpired)[-1]
        assert isinstance(event, ContainmentExpired)
        harness.clock.move_to(event.probe_at)
        await eventually(lambda probes=probes: when(len(told(harness, ContainmentExpired)) == probes))  # type: ignore[misc]

    item = await harness.item("acme", recovery_id)
    assert (item.status, item.attempt_count) == (Status.RETRYING, 1)
    assert not harness.engine.catalogue.find("acme").sends
    details = [event.detail for event in told(harness, ContainmentExpired) if hasattr(event, "detail")]
    assert all("give it a health_url" in detail for detail in details)
    assert len(await events(harness, EventType.PROBED)) == 1


async def test_one_that_was_extended_may_be_tried_with_an_item_again(harness: Harness) -> None:
    await harness.integration("acme", max_attempts=5)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    await contain(harness, "acme", seconds=HOUR)
    await harness.deliver("acme")
    harness.clock.move(HOUR)
    await last(harness, EventType.CONTAINMENT_EXPIRED)
    await contain(harness, "acme", seconds=HOUR)
    harness.deliverer.scripts["/acme"] = lambda _: answered(200)

    harness.clock.move(HOUR)

    await harness.in_time(lambda: when(harness.engine.catalogue.find("acme").sends))
    assert harness.deliverer.sent("/acme") == 2


async def test_a_process_that_drains_sends_nothing_to_probe_with(harness: Harness) -> None:
    going, gate = asyncio.Event(), asyncio.Event()

    async def hang(_: Request) -> Outcome:
        going.set()
        await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/slow"] = hang
    for name in ("acme", "slow"):
        await harness.integration(name)
    await contain(harness, "acme", seconds=HOUR)
    await harness.deliver("acme")
    await harness.deliver("slow")
    await going.wait()

    draining = asyncio.create_task(harness.engine.drain())
    await eventually(lambda: when(harness.engine.worker.stopping))
    harness.clock.move(HOUR)
    await look_after(harness)
    gate.set()
    await draining

    assert harness.deliverer.sent("/acme") == 0
    assert await events(harness, EventType.CONTAINMENT_EXPIRED) == []


async def test_nothing_is_begun_after_a_drain(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)
    await harness.engine.drain()

    harness.clock.move(HOUR - 60)
    await look_after(harness)

    assert told(harness, ContainmentExpiring) == []


async def test_what_is_probed_when_a_drain_begins_is_written_down_before_it_ends(harness: Harness) -> None:
    going, gate = asyncio.Event(), asyncio.Event()

    async def hang(_: Request) -> Outcome:
        going.set()
        await gate.wait()
        return answered(503)

    harness.deliverer.scripts["/acme"] = hang
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)
    await harness.deliver("acme")
    harness.clock.move(HOUR)
    await eventually(lambda: when(going.is_set()))

    draining = asyncio.create_task(harness.engine.drain())
    await eventually(lambda: when(harness.engine.worker.stopping))
    gate.set()
    assert await draining == 0

    assert len(await events(harness, EventType.PROBED)) == 1
    assert len(await events(harness, EventType.CONTAINMENT_EXPIRED)) == 1


async def test_what_was_just_being_taken_when_a_drain_began_is_given_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")
    await contain(harness, "acme", seconds=HOUR)
    [recovery_id] = await harness.deliver("acme")
    take, draining = harness.store.take, []

    async def late(*given: Any) -> Claim | None:
        claim = await take(*given)
        draining.append(asyncio.create_task(harness.engine.drain()))
        await eventually(lambda: when(harness.engine.worker.stopping))
        return claim

    monkeypatch.setattr(harness.store, "take", late)
    harness.clock.move(HOUR)
    await eventually(lambda: when(bool(draining)))
    assert await draining[0] == 0

    item = await harness.item("acme", recovery_id)
    assert (item.status, item.attempt_count) == (Status.PENDING, 0)
    assert harness.deliverer.sent("/acme") == 0


async def test_a_process_that_sends_nothing_leaves_an_end_to_one_that_does(
    store: Store, clock: StandingClock
) -> None:
    harness = Harness(store, clock, sends=False)
    await harness.engine.start()
    try:
        fields = {"integration_id": "acme", "name": "acme", "url": "https://partner.example/acme",
                  "health_url": "https://partner.example/alive"}  # fmt: skip
        await harness.engine.catalogue.create(harness.call(), fields, render=in_silence)
        await contain(harness, "acme", seconds=HOUR)
        await harness.deliver("acme")
        harness.clock.move(HOUR)
        await look_after(harness)

        assert harness.deliverer.requests == []
        assert await events(harness, EventType.RELEASED) == []
    finally:
        await harness.close()


async def test_one_probe_that_fails_keeps_no_other_from_its_turn(harness: Harness) -> None:
    for name in ("acme", "other"):
        await harness.integration(name)
        await contain(harness, name, seconds=HOUR)

    async def probe(integration: Integration) -> Finding:
        if integration.integration_id == "acme":
            raise RuntimeError("a bug")
        return Finding(is_healthy=True, detail="it answered 200")

    harness.engine.expiry.probe = probe
    harness.clock.move(HOUR)

    await eventually(lambda: when(harness.engine.catalogue.find("other").sends))
    await eventually(lambda: when(bool(told(harness, LoopFailed))))
    assert not harness.engine.catalogue.find("acme").sends
