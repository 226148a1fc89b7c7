"""Alerts through our own delivery path: each told once, whatever dies on the way, and none about itself."""

import asyncio
import json
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.alerting import Thresholds
from redrive.domain.delivery import Item
from redrive.domain.item import Status
from redrive.domain.traffic import Containment, Mode, Traffic
from redrive.engine.alerts import KEPT_AS, TOLD_EVERY_SECONDS, Alerting, Alerts
from redrive.store.port import QueueFilter
from redrive.telemetry.events import AlertFailed, AlertTold
from tests.engine.conftest import Harness, answered, eventually
from tests.factories import an_event

QUIET = timedelta(minutes=30)
THRESHOLDS = Thresholds(dead_letters=2, window=timedelta(minutes=5), quiet=QUIET)


def alerts_of(harness: Harness, to: str = "ops") -> Alerts:
    engine = harness.engine
    alerting = Alerting(to, THRESHOLDS)
    return Alerts(harness.tools, engine.catalogue, engine.ingest, engine.worker, alerting)


@pytest.fixture
async def alerts(harness: Harness) -> Alerts:
    """They have been looking for a while; one integration is for operators, one may fail."""
    await harness.integration("ops")
    await harness.integration("shop")
    alerts = alerts_of(harness)
    await alerts.look()
    return alerts


async def happened(harness: Harness, kind: EventType = EventType.REPLAY_HALTED, about: str = "shop") -> None:
    now = harness.clock.now()
    number = harness.tools.next_id(now)
    facts = {"halted_because": "5 of the last 20 failed", "list": [1]}
    await harness.store.note(
        [an_event(kind, id=number, occurred_at=now, integration_id=about, target_id="rpl_1", metadata=facts)]
    )


async def heard(harness: Harness, many: int) -> list[dict[str, Any]]:
    """What operators were told, once it is so much; later, and nothing more came."""

    async def arrived() -> bool | None:
        return harness.deliverer.sent("/ops") >= many or None

    await eventually(arrived)
    return [
        json.loads(request.body) for request in harness.deliverer.requests if request.target.path == "/ops"
    ]


async def test_what_happened_is_told_once_as_a_delivery(harness: Harness, alerts: Alerts) -> None:
    since = harness.clock.now()
    await happened(harness)

    for _ in range(3):
        await alerts.look()
        harness.clock.move(5)

    [told] = await heard(harness, 1)
    assert told | {"facts": None, "summary": None} == {
        "kind": "job_halted",
        "state": "raised",
        "severity": "warning",
        "integration": "shop",
        "summary": None,
        "since": since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "facts": None,
        "act": {
            "command": "redrive replay list shop",
            "path": "/platform/integrations/shop/recovery/replays",
        },
    }
    assert told["facts"]["halted_because"] == "5 of the last 20 failed"
    [request] = [each for each in harness.deliverer.requests if each.target.path == "/ops"]
    assert dict(request.headers)["webhook-id"].startswith("rec_")
    assert AlertTold("job_halted", "shop", is_over=False) in harness.events


async def test_what_came_before_anybody_wanted_to_know_is_not_told(harness: Harness) -> None:
    await harness.integration("ops")
    await harness.integration("shop")
    await happened(harness)
    harness.clock.move(3600)
    alerts = alerts_of(harness)

    for _ in range(2):
        await alerts.look()
    await happened(harness, about="shop")
    await alerts.look()

    assert len(await heard(harness, 1)) == 1


async def test_that_it_is_over_is_told_too(harness: Harness, alerts: Alerts) -> None:
    await happened(harness)
    await alerts.look()
    harness.clock.move(60)
    await happened(harness, EventType.REPLAY_COMPLETED)
    await alerts.look()

    told = await heard(harness, 2)
    assert sorted(each["state"] for each in told) == ["raised", "resolved"]


async def test_dead_letters_that_pile_up_are_told_and_that_they_do_no_more(
    harness: Harness, alerts: Alerts
) -> None:
    harness.deliverer.scripts["/shop"] = lambda _: answered(404)
    for name in await harness.deliver("shop", 3):
        await harness.status("shop", name, Status.FAILED)

    harness.clock.move(5)
    await alerts.look()
    harness.clock.move(600)
    await alerts.look()

    told = await heard(harness, 2)
    [raised] = [each for each in told if each["state"] == "raised"]
    assert (raised["kind"], raised["facts"]["dead_letters"]) == ("dlq_growth", 3)
    assert len(told) == 2


async def test_a_few_that_died_now_and_then_while_nobody_looked_are_no_growth(
    harness: Harness, alerts: Alerts
) -> None:
    await die(harness, *[3600] * 3)

    await alerts.look()

    assert harness.deliverer.sent("/ops") == 0
    assert not [event for event in harness.events if isinstance(event, AlertTold)]


async def test_what_piled_up_while_nobody_looked_is_told(harness: Harness, alerts: Alerts) -> None:
    began = harness.clock.now()
    await die(harness, 60, 60, 3600)

    await alerts.look()
    await alerts.look()

    told = await heard(harness, 2)
    [raised] = [each for each in told if each["state"] == "raised"]
    assert raised["facts"] == {"dead_letters": 3, "is_exact": True, "within_minutes": 5}
    assert datetime.fromisoformat(raised["since"]) - began <= 2 * THRESHOLDS.window


async def die(harness: Harness, *pauses: int) -> None:
    """One item dies before each pause, in seconds."""
    harness.deliverer.scripts["/shop"] = lambda _: answered(404)
    for seconds in pauses:
        [name] = await harness.deliver("shop")
        await harness.status("shop", name, Status.FAILED)
        harness.clock.move(seconds)


@pytest.mark.parametrize("kind", ["event", "dead letters", "containment"])
async def test_nothing_is_told_about_the_integration_that_is_told(
    harness: Harness, alerts: Alerts, kind: str
) -> None:
    if kind == "event":
        await happened(harness, about="ops")
    elif kind == "containment":
        now = harness.clock.now()
        expiring = Containment(
            Mode.HOLD, "an outage", "ada", "ada", now, now + timedelta(hours=1), "req-1", is_warned=True
        )
        ops = harness.engine.catalogue.find("ops")
        assert await harness.engine.catalogue.steer(ops, Traffic(expiring, version=1), [])
    else:
        harness.deliverer.scripts["/ops"] = lambda _: answered(404)
        for name in await harness.deliver("ops", 5):
            await harness.status("ops", name, Status.FAILED)
    harness.deliverer.requests.clear()

    await alerts.look()

    assert harness.deliverer.requests == []
    assert not [event for event in harness.events if isinstance(event, AlertTold)]


async def test_what_cannot_be_handed_over_waits_until_it_can(harness: Harness, alerts: Alerts) -> None:
    await harness.change("ops", lifecycle_status="retired")
    await happened(harness)

    await alerts.look()
    await alerts.look()
    harness.clock.move(TOLD_EVERY_SECONDS)
    await alerts.look()
    failed = [event for event in harness.events if isinstance(event, AlertFailed)]
    await harness.change("ops", lifecycle_status="active")
    await alerts.look()

    assert len(failed) == 2
    assert len(await heard(harness, 1)) == 1


async def test_that_there_is_nobody_to_tell_is_said_before_anything_happens(harness: Harness) -> None:
    alerts = alerts_of(harness, "nosuch")
    for _ in range(3):
        await alerts.look()

    [failed] = [event for event in harness.events if isinstance(event, AlertFailed)]
    assert (failed.to, "no integration 'nosuch'" in failed.reason) == ("nosuch", True)


async def test_what_is_to_go_to_nowhere_is_told_once_there_is_somewhere(harness: Harness) -> None:
    await harness.integration("shop")
    alerts = alerts_of(harness)
    await alerts.look()
    await happened(harness)

    await alerts.look()
    await harness.integration("ops")
    await alerts.look()

    assert any(isinstance(event, AlertFailed) for event in harness.events)
    assert len(await heard(harness, 1)) == 1


@pytest.mark.parametrize("moment", ["it is kept", "it is handed over", "that is written down"])
async def test_a_process_that_dies_before_loses_nothing_and_tells_nothing_twice(
    harness: Harness, alerts: Alerts, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    await happened(harness)
    exchange, left = harness.store.exchange, count(1)

    async def die(*args: Any) -> Any:
        if moment != "that is written down" or next(left) == 2:
            raise asyncio.CancelledError
        return await exchange(*args)

    with monkeypatch.context() as dying:
        if moment == "it is handed over":
            dying.setattr(harness.engine.ingest, "accept", die)
        else:
            dying.setattr(harness.store, "exchange", die)
        with pytest.raises(asyncio.CancelledError):
            await alerts.look()
    for _ in range(2):
        await alerts_of(harness).look()

    [number] = {item.delivery.id for item in await deliveries_to(harness, "ops")}
    assert number
    assert len(await heard(harness, 1)) == 1


async def deliveries_to(harness: Harness, integration_id: str) -> list[Item]:
    number = harness.number(integration_id)
    return list((await harness.store.queue(number, QueueFilter(), limit=100, below=None)).rows)


async def test_what_was_looked_at_is_no_news_when_it_is_seen_again(harness: Harness, alerts: Alerts) -> None:
    impatient = Alerting("ops", replace(THRESHOLDS, quiet=timedelta(minutes=1)))
    engine = harness.engine
    again = Alerts(harness.tools, engine.catalogue, engine.ingest, engine.worker, impatient)
    await happened(harness)

    for _ in range(3):
        await again.look()
        harness.clock.move(70)

    assert len(await heard(harness, 1)) == 1


async def test_two_that_look_at_once_tell_it_once(harness: Harness, alerts: Alerts) -> None:
    await happened(harness)

    await asyncio.gather(alerts.look(), alerts_of(harness).look(), alerts_of(harness).look())
    await alerts.look()

    assert len(await heard(harness, 1)) == 1


async def test_nobody_who_is_not_to_be_told_is_looked_for(harness: Harness) -> None:
    await alerts_of(harness, to="").look()

    assert await harness.store.kept(KEPT_AS) is None
