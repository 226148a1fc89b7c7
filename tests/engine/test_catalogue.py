"""Traffic is changed over whatever others made of it meanwhile."""

from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.traffic import Traffic
from redrive.store.port import EventFilter, StoreInconsistent
from redrive.telemetry.events import AuditWritten
from tests.engine.conftest import Harness
from tests.factories import NOW

KIND = EventType.CONTAINMENT_PROPOSED


def gone(traffic: Traffic) -> Traffic | None:
    return None if traffic.gone_at is not None else replace(traffic, gone_at=NOW)


async def test_a_change_is_made_of_what_another_process_wrote_meanwhile(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = harness.engine.catalogue
    integration = await harness.integration("acme")
    another = Traffic(throttled_until=NOW, version=1)
    steer = harness.store.steer

    async def after_another(*given: Any) -> Traffic | None:
        monkeypatch.setattr(harness.store, "steer", steer)
        await catalogue.steer(integration, another, [])
        return await steer(*given)

    monkeypatch.setattr(harness.store, "steer", after_another)
    tell = catalogue.by_itself(KIND, {"failure_code": "HTTP_410"})

    old = await catalogue.change_traffic(integration.number, gone, tell)

    assert old is not None
    assert old.traffic == another
    assert catalogue.find("acme").traffic == Traffic(throttled_until=NOW, gone_at=NOW, version=2)
    [event] = (await harness.store.events(EventFilter(event_type=KIND), limit=9, below=None)).rows
    assert event.metadata == {"failure_code": "HTTP_410"}
    assert harness.events.count(AuditWritten(KIND.value)) == 1


async def test_nothing_is_written_where_a_change_makes_nothing_of_it(harness: Harness) -> None:
    catalogue = harness.engine.catalogue
    integration = await harness.integration("acme")
    await catalogue.change_traffic(integration.number, gone)

    assert await catalogue.change_traffic(integration.number, gone) is None
    assert catalogue.find("acme").traffic.version == 1


async def test_traffic_that_is_another_than_was_read_is_not_written_over_for_ever(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = await harness.integration("acme")

    async def refuses(*_: Any) -> None:
        return None

    monkeypatch.setattr(harness.store, "steer", refuses)

    with pytest.raises(StoreInconsistent, match="restart redrive"):
        await harness.engine.catalogue.change_traffic(integration.number, gone)
