"""A receiver is asked on purpose: at its health URL, or with one item, also while everything else is held."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.delivery.port import OwnFault, Request
from redrive.domain.breaker import CLOSED
from redrive.domain.errors import Conflict, DependencyUnavailable, Forbidden, RecoveryNotFound, ReplayConflict
from redrive.domain.health import Verdict
from redrive.domain.item import Status
from redrive.domain.outcome import Outcome
from redrive.engine import acting
from redrive.engine.containing import Terms
from redrive.engine.once import Key, Told
from redrive.engine.probing import Probed
from redrive.store.port import EventFilter, Once, StoreUnavailable
from redrive.telemetry.events import BreakerClosed
from tests.engine.conftest import Harness, answered, eventually, in_silence
from tests.engine.test_containing import when

REASON = "is the vendor back?"


def shown(done: Probed) -> Told:
    return Told(200, msgspec.json.encode(done.probe.state()))


async def sent(harness: Harness, name: str, recovery_id: str, **more: Any) -> dict[str, Any]:
    """What a probe with an item told."""
    call = harness.call(more.pop("request_id", "req-probe"))
    told = await harness.engine.probing.send(call, name, recovery_id, REASON, render=shown, **more)
    found: dict[str, Any] = msgspec.json.decode(told.body)
    return found


async def asked(harness: Harness, name: str, **more: Any) -> dict[str, Any]:
    """What a probe of the health URL told."""
    told = await harness.engine.probing.ask(harness.call("req-probe"), name, REASON, render=shown, **more)
    found: dict[str, Any] = msgspec.json.decode(told.body)
    return found


async def contained(harness: Harness, name: str) -> None:
    order = Terms("an outage", until=harness.clock.now() + timedelta(hours=1))
    containing = asyncio.create_task(
        harness.engine.containing.contain(harness.call(), name, order, render=in_silence)
    )

    async def is_done() -> bool | None:
        return containing.done() or None

    await harness.in_time(is_done)  # other processes are waited for, for a while
    await containing


async def told_of(harness: Harness, kind: EventType) -> list[AuditEvent]:
    page = await harness.store.events(EventFilter(event_type=kind), limit=50, below=None)
    return list(reversed(page.rows))


async def a_dead_item(harness: Harness, name: str) -> str:
    """An item in dlq, after one attempt."""
    await harness.integration(name, max_attempts=1)
    harness.deliverer.scripts[f"/{name}"] = lambda _: answered(503)
    [recovery_id] = await harness.deliver(name)
    await harness.status(name, recovery_id, Status.DLQ)
    return recovery_id


# the health URL


async def test_the_health_url_is_asked_once_without_credentials_or_signature(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive", auth_mode="bearer",
                              credentials={"token": "secret"})  # fmt: skip

    found = await asked(harness, "acme")

    [request] = harness.deliverer.requests
    assert (request.method, request.target.path, request.body) == ("GET", "/alive", b"")
    assert request.integration_id == "acme"
    assert {name for name, _ in request.headers} == {"Accept", "traceparent", "User-Agent", "X-Request-Id"}
    assert (found["kind"], found["outcome"], found["http_status"]) == ("health_url", "succeeded", 200)


async def test_what_it_answered_is_evidence(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive")
    harness.deliverer.scripts["/alive"] = lambda _: answered(503)

    found = await asked(harness, "acme")

    [event] = await told_of(harness, EventType.PROBED)
    assert event.metadata == {"probe": found, "reason": REASON}
    assert (event.request_id, event.actor.id, event.target_id) == ("req-probe", "tester", "acme")
    assert (found["outcome"], found["failure_code"], found["by"]) == ("failed", "HTTP_503", "tester")
    _, judgement = await harness.engine.judging.show(harness.call(), "acme")
    assert judgement.facts.probe is not None
    assert judgement.facts.probe.state() == found
    assert judgement.verdict is Verdict.FAILING


async def test_an_integration_without_a_health_url_has_none_to_ask(harness: Harness) -> None:
    await harness.integration("acme")

    with pytest.raises(Conflict, match="health_url"):
        await asked(harness, "acme")


async def test_under_a_key_it_is_asked_once(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive")
    key = Key(b"scope", b"body")

    first = await asked(harness, "acme", key=key)
    again = await asked(harness, "acme", key=key)

    assert first == again
    assert harness.deliverer.sent("/alive") == 1
    assert len(await told_of(harness, EventType.PROBED)) == 1


async def test_a_fault_of_our_own_is_no_evidence(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive")

    async def no_handles(_: object) -> None:
        raise OwnFault("no file handles")

    harness.deliverer.connecting["/alive"] = no_handles

    with pytest.raises(DependencyUnavailable):
        await asked(harness, "acme")
    assert await told_of(harness, EventType.PROBED) == []


async def test_a_health_url_that_answers_does_not_close_a_breaker(harness: Harness) -> None:
    integration = await harness.integration("acme", health_url="https://partner.example/alive")
    await _opened(harness, integration.integration_id)

    await asked(harness, "acme")

    assert not harness.engine.catalogue.find("acme").traffic.breaker.is_closed


async def test_only_who_may_operate_probes(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive")
    call = harness.call()
    nobody = replace(call, principal=replace(call.principal, permissions=frozenset()))

    with pytest.raises(Forbidden):
        await harness.engine.probing.ask(nobody, "acme", None, render=shown)
    with pytest.raises(Forbidden):
        await harness.engine.probing.send(nobody, "acme", "rec_1", REASON, render=shown)
    with pytest.raises(Forbidden):
        await harness.engine.judging.show(nobody, "acme")


# one item


async def test_a_dead_item_is_sent_in_a_new_cycle_of_one_attempt(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")

    found = await sent(harness, "down", recovery_id)

    item = await harness.item("down", recovery_id)
    assert (item.status, item.cycle, item.attempt_count, item.max_attempts) == (Status.DLQ, 2, 1, 1)
    assert (found["outcome"], found["recovery_id"], found["http_status"]) == ("failed", recovery_id, 503)
    assert len(await harness.attempts(item)) == 2
    [replayed] = await told_of(harness, EventType.REPLAYED)
    assert replayed.metadata == {"reason": REASON, "trial": True}
    [probed] = await told_of(harness, EventType.PROBED)
    assert probed.metadata["probe"] == found


async def test_one_that_arrives_has_succeeded_for_good(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    harness.deliverer.scripts["/down"] = lambda _: answered(200)

    found = await sent(harness, "down", recovery_id)

    assert (await harness.item("down", recovery_id)).status is Status.SUCCEEDED
    assert found["outcome"] == "succeeded"
    with pytest.raises(Conflict):
        await sent(harness, "down", recovery_id, request_id="req-another")


async def test_a_held_item_is_sent_with_its_next_attempt_while_the_rest_stays_held(harness: Harness) -> None:
    await harness.integration("held")
    await contained(harness, "held")
    one, other = await harness.deliver("held", 2)

    found = await sent(harness, "held", one)

    assert found["outcome"] == "succeeded"
    assert (await harness.item("held", one)).status is Status.SUCCEEDED
    assert (await harness.item("held", other)).status is Status.PENDING
    assert harness.deliverer.sent("/held") == 1
    assert await told_of(harness, EventType.REPLAYED) == []


async def test_one_that_succeeds_closes_an_open_breaker(harness: Harness) -> None:
    await harness.integration("down")
    await _opened(harness, "down")
    one, other = await harness.deliver("down", 2)

    await sent(harness, "down", one)

    assert harness.engine.catalogue.find("down").traffic.breaker.is_closed
    await harness.status("down", other, Status.SUCCEEDED)
    assert [event for event in harness.events if isinstance(event, BreakerClosed)]
    [closed] = await told_of(harness, EventType.BREAKER_CLOSED)
    assert closed.metadata["probe"]["recovery_id"] == one


async def test_one_that_fails_leaves_it_open(harness: Harness) -> None:
    await harness.integration("down")
    await _opened(harness, "down")
    harness.deliverer.scripts["/down"] = lambda _: answered(500)
    [one] = await harness.deliver("down")

    found = await sent(harness, "down", one)

    assert found["failure_code"] == "HTTP_500"
    assert not harness.engine.catalogue.find("down").traffic.breaker.is_closed


async def test_one_that_succeeds_ends_a_throttle(harness: Harness) -> None:
    integration = await harness.integration("busy")
    until = harness.clock.now() + timedelta(hours=1)
    traffic = replace(integration.traffic, throttled_until=until, version=integration.traffic.version + 1)
    await harness.engine.catalogue.steer(integration, traffic, [])
    one, other = await harness.deliver("busy", 2)

    await sent(harness, "busy", one)

    await harness.status("busy", other, Status.SUCCEEDED)


async def test_under_a_key_it_is_sent_once(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    key = Key(b"scope", b"body")

    first = await sent(harness, "down", recovery_id, key=key)
    again = await sent(harness, "down", recovery_id, key=key)

    assert first == again
    assert harness.deliverer.sent("/down") == 2
    assert (await harness.item("down", recovery_id)).cycle == 2


async def test_of_one_that_was_cut_short_its_key_tells_that_nobody_knows(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    going, never = asyncio.Event(), asyncio.Event()

    async def hang(_: Request) -> Outcome:
        going.set()
        await never.wait()
        return answered(200)

    harness.deliverer.scripts["/down"] = hang
    key = Key(b"scope", b"body")
    probing = asyncio.create_task(sent(harness, "down", recovery_id, key=key))
    await going.wait()
    harness.engine.worker.attempts.cut()

    found = await probing

    again = await sent(harness, "down", recovery_id, key=key)
    assert (again["outcome"], again["recovery_id"]) == ("unknown", recovery_id)
    assert again == found
    assert harness.deliverer.sent("/down") == 2


async def test_who_asked_may_leave_and_the_evidence_is_written(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    going, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Outcome:
        going.set()
        await goes_on.wait()
        return answered(200)

    harness.deliverer.scripts["/down"] = slow
    probing = asyncio.create_task(sent(harness, "down", recovery_id))
    await going.wait()
    probing.cancel()
    goes_on.set()

    async def written() -> list[AuditEvent] | None:
        return await told_of(harness, EventType.PROBED) or None

    [event] = await eventually(written)
    assert event.metadata["probe"]["outcome"] == "succeeded"


@pytest.mark.parametrize(
    ("store", "is_written"),
    [("sqlite", False), ("postgres", False), ("postgres", True)],  # SQLite always learns what it has written
    indirect=["store"],
)
async def test_what_came_of_it_is_told_without_a_store_and_written_once_that_is_back(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    is_written: bool,  # noqa: FBT001 - pytest names it
) -> None:
    recovery_id = await a_dead_item(harness, "down")
    harness.deliverer.scripts["/down"] = lambda _: answered(200)
    steer = harness.store.steer
    failed: list[object] = []

    async def fails(*given: Any) -> Any:
        if len(failed) < 3:
            if is_written and not failed:
                await steer(*given)
            failed.append(given)
            raise StoreUnavailable("the disk is full")
        return await steer(*given)

    monkeypatch.setattr(harness.store, "steer", fails)

    found = await sent(harness, "down", recovery_id, key=Key(b"scope", b"body"))

    async def noted() -> dict[str, Any] | None:
        probe = harness.engine.catalogue.find("down").traffic.probe
        return None if probe is None else probe.state()

    assert found["outcome"] == "succeeded"
    assert await harness.in_time(noted) == found
    await harness.in_time(lambda: when(not harness.engine.probing._under_way))
    assert len(await told_of(harness, EventType.PROBED)) == 1
    assert await sent(harness, "down", recovery_id, key=Key(b"scope", b"body")) == found


async def test_under_a_key_what_came_of_it_is_told_once_the_store_is_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery_id = await a_dead_item(harness, "down")
    harness.deliverer.scripts["/down"] = lambda _: answered(200)
    amend = harness.store.amend
    failed: list[object] = []

    async def fails_once(once: Once) -> None:
        if not failed:
            failed.append(once)
            raise StoreUnavailable("the disk is full")
        await amend(once)

    monkeypatch.setattr(harness.store, "amend", fails_once)
    key = Key(b"scope", b"body")

    found = await sent(harness, "down", recovery_id, key=key)

    async def again() -> dict[str, Any] | None:
        told = await sent(harness, "down", recovery_id, key=key)
        return None if told["outcome"] == "unknown" else told

    assert found["outcome"] == "succeeded"
    assert await harness.in_time(again) == found


async def test_what_is_being_attempted_is_not_sent_beside_that(harness: Harness) -> None:
    await harness.integration("slow")
    never = asyncio.Event()

    async def hang(_: Request) -> Outcome:
        await never.wait()
        return answered(200)

    harness.deliverer.scripts["/slow"] = hang
    [recovery_id] = await harness.deliver("slow")

    with pytest.raises(Conflict, match="being attempted"):
        await sent(harness, "slow", recovery_id)
    never.set()


async def test_only_an_active_integration_is_sent_to(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    await harness.change("down", lifecycle_status="paused")

    with pytest.raises(Conflict, match="paused"):
        await sent(harness, "down", recovery_id)


async def test_what_cannot_be_replayed_or_is_not_there_is_not_sent(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    order = acting.Order(harness.call(), "down", recovery_id, "by phone")
    await harness.engine.operate.resolve(order, in_silence)

    with pytest.raises((Conflict, ReplayConflict)):
        await sent(harness, "down", recovery_id)
    with pytest.raises(RecoveryNotFound):
        await sent(harness, "down", "rec_0000000000000")
    assert harness.deliverer.sent("/down") == 1


async def test_one_that_a_fault_of_our_own_kept_back_is_told_as_not_sent(harness: Harness) -> None:
    recovery_id = await a_dead_item(harness, "down")
    faults = ["no file handles"]

    async def no_handles(_: object) -> None:
        if faults:
            raise OwnFault(faults.pop())

    harness.deliverer.connecting["/down"] = no_handles
    harness.deliverer.scripts["/down"] = lambda _: answered(200)

    found = await sent(harness, "down", recovery_id)

    assert (found["outcome"], found["http_status"]) == ("unknown", None)
    assert "was not sent" in found["failure_detail"] or "kept it" in found["failure_detail"]
    await harness.in_time(lambda: harness.reached("down", recovery_id, Status.SUCCEEDED))


# where a containment ends


async def test_a_containment_that_ends_is_probed_at_the_health_url(harness: Harness) -> None:
    await harness.integration("acme", health_url="https://partner.example/alive")
    await contained(harness, "acme")

    found = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))

    assert found is not None
    assert found.is_healthy
    [event] = await told_of(harness, EventType.PROBED)
    assert (event.request_id, event.actor.id) == (None, "redrive")


async def test_without_a_health_url_it_is_probed_with_an_item_that_waits(harness: Harness) -> None:
    await harness.integration("acme")
    await contained(harness, "acme")
    nothing = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))
    ids = await harness.deliver("acme", 3)

    found = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))

    assert nothing is not None
    assert found is not None
    assert (nothing.is_healthy, found.is_healthy) == (False, True)
    statuses = [(await harness.item("acme", each)).status for each in ids]
    assert sorted(statuses) == [Status.PENDING, Status.PENDING, Status.SUCCEEDED]


async def test_the_items_receiver_is_not_well_when_it_fails(harness: Harness) -> None:
    await harness.integration("acme")
    await contained(harness, "acme")
    await harness.deliver("acme", 1)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)

    found = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))

    assert found is not None
    assert not found.is_healthy
    assert "503" in found.detail


async def test_it_is_not_probed_with_the_last_attempt_of_an_item(harness: Harness) -> None:
    await harness.integration("acme", max_attempts=1)
    await contained(harness, "acme")
    [last] = await harness.deliver("acme")

    found = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))

    assert found is not None
    assert not found.is_healthy
    assert "give it a health_url" in found.detail
    assert (await harness.item("acme", last)).status is Status.PENDING


async def test_an_older_item_is_sent_where_the_newest_has_no_attempt_to_spare(harness: Harness) -> None:
    await harness.integration("acme", max_attempts=2)
    await contained(harness, "acme")
    [older] = await harness.deliver("acme")
    await harness.change("acme", max_attempts=1)
    await harness.deliver("acme")

    found = await harness.engine.probing.find(harness.engine.catalogue.find("acme"))

    assert found is not None
    assert found.is_healthy
    assert (await harness.item("acme", older)).status is Status.SUCCEEDED


# what a release would do


async def test_a_release_is_simulated_from_recorded_figures(harness: Harness) -> None:
    await harness.integration("acme")
    await contained(harness, "acme")
    await harness.change("acme", rate_per_second=50.0)
    await harness.deliver("acme", 30)
    harness.clock.move(10.0)

    found = await harness.engine.judging.simulate(harness.engine.catalogue.find("acme"), 2.0)

    assert found["backlog"] == 30
    assert found["arrivals_per_second"] == round(30 / 900, 3)
    at = {rate["rate_per_second"]: rate for rate in found["rates"]}
    assert at[2.0]["drain_seconds"] == round(30 / (2 - 30 / 900), 3)
    assert (at[100.0]["sends_per_second"], at[100.0]["is_proven"]) == (50.0, False)


async def _opened(harness: Harness, name: str) -> None:
    integration = harness.engine.catalogue.find(name)
    breaker = CLOSED.opened(harness.clock.now() + timedelta(hours=1), chance=0.5)
    assert isinstance(breaker.until, datetime)
    traffic = replace(integration.traffic, breaker=breaker, version=integration.traffic.version + 1)
    assert await harness.engine.catalogue.steer(integration, traffic, []) is not None
