"""The spot check: what was written lately is looked at, once, and what is wrong is told."""

import asyncio
from datetime import timedelta

import pytest

from redrive.audit.record import EventType, chained
from redrive.domain.ids import EventId, first_id_at, recovery_id
from redrive.engine import verifying
from redrive.store.port import EventFilter
from redrive.telemetry.events import ChainBroken, ChainsSkipped
from tests.engine.conftest import Harness
from tests.factories import an_event, an_id


@pytest.fixture(autouse=True)
async def duties(harness: Harness) -> None:
    """None of the engine's own: the check looks when a test says so."""
    for loop in harness.engine._loops:
        loop.cancel()
    await asyncio.gather(*harness.engine._loops, return_exceptions=True)


async def pass_by(harness: Harness, seconds: float) -> None:
    """Let time pass, and look."""
    harness.clock.move(seconds)
    await harness.engine.spot_check.look()


async def write(harness: Harness, *, links: str | None = None, number: int | None = None) -> str:
    """Two records of an item, the second of which names *links* as the one before."""
    name, now = recovery_id(an_id()), harness.clock.now()
    events = [
        an_event(
            EventType.REPLAYED,
            id=EventId(harness.tools.next_id(now) if number is None else number + n),
            occurred_at=now,
            target_type="recovery_item",
            target_id=name,
            integration_id="shop",
        )
        for n in range(2)
    ]
    whole = chained(*events, after=None)
    if links is not None:
        whole = (whole[0], *chained(events[1], after=links))
    await harness.store.note(whole)
    return name


def told(harness: Harness) -> list[str]:
    return [event.target_id for event in harness.events if isinstance(event, ChainBroken)]


async def test_a_chain_that_broke_is_told_once(harness: Harness) -> None:
    await pass_by(harness, 120)
    await write(harness)
    broken = await write(harness, links="ab" * 32)

    await pass_by(harness, 120)
    await pass_by(harness, 120)

    assert told(harness) == [broken]
    page = await harness.store.events(EventFilter(event_type=EventType.CHAIN_BROKEN), limit=9, below=None)
    [event] = page.rows
    assert (event.integration_id, event.metadata["recovery_id"]) == ("shop", broken)
    assert event.metadata["finding"] == "missing"


async def test_what_was_just_written_is_looked_at_when_it_has_settled(harness: Harness) -> None:
    await pass_by(harness, 120)
    harness.clock.move(70)
    broken = await write(harness, links="ab" * 32)

    await pass_by(harness, 50)
    assert told(harness) == []

    await pass_by(harness, 120)
    assert told(harness) == [broken]


async def test_what_was_written_before_anybody_looked_is_left_to_a_verification(harness: Harness) -> None:
    number = first_id_at(harness.clock.now() - timedelta(hours=1))
    await write(harness, links="ab" * 32, number=number)

    await pass_by(harness, 120)
    await pass_by(harness, 120)

    assert told(harness) == []


async def test_what_one_turn_does_not_get_to_is_looked_at_in_the_next(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "MOST", 4)  # two items
    await pass_by(harness, 120)
    broken = [await write(harness, links="ab" * 32) for _ in range(3)]

    await pass_by(harness, 120)
    assert told(harness) == broken[:2]

    await pass_by(harness, 120)
    assert told(harness) == broken
    assert skipped(harness) == []


async def test_what_it_does_not_get_to_within_the_hour_is_skipped_and_told(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "MOST", 4)
    await pass_by(harness, 120)
    since = harness.clock.now()
    broken = [await write(harness, links="ab" * 32) for _ in range(3)]

    await pass_by(harness, 2 * 60 * 60 + 60)
    await pass_by(harness, 120)

    assert told(harness) == broken[:2]
    [event] = skipped(harness)
    assert (event.since, event.minutes) == (since, 120)


def skipped(harness: Harness) -> list[ChainsSkipped]:
    return [event for event in harness.events if isinstance(event, ChainsSkipped)]
