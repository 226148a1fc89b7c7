"""The duties of a process: none ends before the process does, and a drain begins by claiming no more."""

import asyncio
from typing import Any

import pytest

from redrive.domain.item import Status
from redrive.telemetry.events import LoopFailed
from tests.engine.conftest import Harness, eventually
from tests.engine.test_containing import contain, when

# What each asks the store for, turn by turn.
DUTIES = {
    "lease": "renew",
    "balance": "balance",
    "prune": "prune",
    "chains": "is_elected",
    "containment": "is_elected",
    "alerts": "is_elected",
    "replay": "replays.unsettled",
    "worker": "next_due",
}


@pytest.mark.parametrize("duty", DUTIES)
async def test_a_duty_goes_on_when_what_it_waits_for_is_cancelled(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, duty: str
) -> None:
    asked: list[str] = []
    await harness.integration("acme")
    await contain(harness, "acme", seconds=60.0)
    harness.engine.alerts.to = "acme"
    *owner, verb = DUTIES[duty].split(".")
    of = getattr(harness.store, owner[0]) if owner else harness.store
    ask = getattr(of, verb)

    async def cancelled_at_first(*given: Any, **more: Any) -> Any:
        if verb == "is_elected" and given[0] != duty:
            return await ask(*given, **more)
        asked.append(duty)
        if len(asked) == 1:
            raise asyncio.CancelledError
        return await ask(*given, **more)

    monkeypatch.setattr(of, verb, cancelled_at_first)

    async def asked_again() -> bool | None:
        harness.clock.move(60.0)
        return len(asked) > 1 or None

    await eventually(asked_again)
    failed = [event for event in harness.events if isinstance(event, LoopFailed)]
    assert [(event.loop, type(event.error)) for event in failed] == [(duty, asyncio.CancelledError)]


async def test_a_drain_claims_nothing_more_while_it_waits_for_a_step(harness: Harness) -> None:
    await harness.integration("acme")
    await contain(harness, "acme")
    [recovery_id] = await harness.deliver("acme")

    async with harness.engine.stepper._stepping:
        draining = asyncio.create_task(harness.engine.drain())
        await eventually(lambda: when(harness.engine.is_stopping))

        await eventually(lambda: when(harness.engine.worker.stopping))
        assert not draining.done()

    await draining
    assert (await harness.item("acme", recovery_id)).status is Status.PENDING
