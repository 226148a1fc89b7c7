"""The verdict on a receiver, where something depends on it."""

import pytest

from redrive.domain.errors import Conflict
from redrive.domain.health import Verdict
from redrive.domain.item import Status
from tests.engine.conftest import Harness, answered, in_silence
from tests.engine.test_replays import Operator


async def dead_items(harness: Harness, count: int) -> list[str]:
    """Of an integration whose receiver failed."""
    await harness.integration("acme", max_attempts=1, health_url="https://partner.example/alive")
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    ids = await harness.deliver("acme", count)
    for each in ids:
        await harness.status("acme", each, Status.DLQ)
    return ids


async def test_a_job_shows_the_verdict_on_its_receiver(harness: Harness) -> None:
    await dead_items(harness, 6)

    planned = await Operator(harness, "acme").plan()

    assert planned.verdict is Verdict.FAILING


async def test_a_job_that_needs_a_healthy_receiver_waits_for_none(harness: Harness) -> None:
    ids = await dead_items(harness, 6)
    operator = Operator(harness, "acme")
    planned = await operator.plan()

    with pytest.raises(Conflict, match="failing"):
        await operator.run(planned, require_healthy=True)

    assert {(await harness.item("acme", each)).status for each in ids} == {Status.DLQ}


async def test_a_probe_that_succeeds_lets_it_run(harness: Harness) -> None:
    ids = await dead_items(harness, 6)
    harness.deliverer.scripts["/acme"] = lambda _: answered(200)
    operator = Operator(harness, "acme")
    planned = await operator.plan()

    await harness.engine.probing.ask(harness.call("req-probe"), "acme", None, render=in_silence)
    await operator.until_over(await operator.run(planned, require_healthy=True))

    assert {(await harness.item("acme", each)).status for each in ids} == {Status.SUCCEEDED}


async def test_what_is_recorded_makes_the_verdict(harness: Harness) -> None:
    await harness.integration("good")
    for each in await harness.deliver("good", 5):
        await harness.status("good", each, Status.SUCCEEDED)

    _, found = await harness.engine.judging.show(harness.call(), "good")

    assert (found.verdict, found.reasons) == (
        Verdict.HEALTHY,
        ("0 of 5 attempts failed in the last 5 minutes",),
    )
    assert await harness.engine.judging.verdict_of(harness.engine.catalogue.find("good")) is Verdict.HEALTHY
