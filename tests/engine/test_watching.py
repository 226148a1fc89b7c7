"""What Prometheus is told of an integration's trouble, with nobody whom webhooks would go to."""

import json
import re
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from redrive.domain.breaker import BreakerState
from redrive.domain.replay import Canary, ReplayState
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import ChainBroken, ContainmentExpired, Event
from redrive.telemetry.log import log_to
from redrive.telemetry.metrics import Metrics, Polled
from tests.engine.conftest import Harness, answered
from tests.engine.test_breaking import failing, stored
from tests.engine.test_containing import contain, when
from tests.engine.test_replays import dead_items
from tests.engine.test_verifying import write

RULES = Path(__file__).parents[2] / "deploy" / "monitoring" / "rules.yaml"


async def a_breaker_opens(harness: Harness) -> None:
    await failing(harness)
    await stored(harness, BreakerState.OPEN)


async def a_containment_expires(harness: Harness) -> None:
    await harness.integration("acme")
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    await contain(harness, "acme", seconds=3600.0)
    await harness.deliver("acme")
    harness.clock.move(3600.0)
    await happened(harness, ContainmentExpired)


async def a_job_halts(harness: Harness) -> None:
    operator, _ = await dead_items(harness, 3)
    harness.deliverer.scripts["/acme"] = lambda _: answered(503)
    seen = await operator.run(await operator.plan(), canary=Canary(1))
    await operator.until(seen, lambda now: now.job.state is ReplayState.HALTED)


async def a_chain_breaks(harness: Harness) -> None:
    await harness.engine.spot_check.look()
    await write(harness, links="ab" * 32)
    await happened(harness, ChainBroken)


async def happened(harness: Harness, kind: type[Event]) -> None:
    await harness.in_time(lambda: when(any(isinstance(event, kind) for event in harness.events)))


def asked(rule: str) -> str:
    """The one series of a rule."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    [expression] = [one["expr"] for group in groups for one in group["rules"] if one["alert"] == rule]
    [series] = re.findall(r"\bredrive_\w+", expression)
    return str(series)


def scraped(events: list[Event], series: str) -> float | None:
    bus, metrics = Bus(), Metrics()
    metrics.listen(bus)
    for event in events:
        bus(event)
    families = text_string_to_metric_families(metrics.render(Polled())[0].decode())
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    return samples.get(series)


def logged(events: list[Event]) -> dict[str, str]:
    """The level of each line, by its name."""
    bus, stream = Bus(), StringIO()
    log_to(bus, stream, form="json")
    for event in events:
        bus(event)
    lines = map(json.loads, stream.getvalue().splitlines())
    return {line["event"]: line["level"] for line in lines}


@pytest.mark.parametrize(
    ("fact", "rule", "line", "level"),
    [
        (a_breaker_opens, "RedriveBreakerOpened", "breaker_opened", "warning"),
        (a_containment_expires, "RedriveContainmentExpired", "containment_expired", "error"),
        (a_job_halts, "RedriveJobHalted", "job_halted", "warning"),
        (a_chain_breaks, "RedriveChainBroken", "chain_broken", "error"),
    ],
)
async def test_a_fact_moves_the_series_of_its_rule_and_has_its_line(
    harness: Harness, fact: Callable[[Harness], Awaitable[None]], rule: str, line: str, level: str
) -> None:
    assert not harness.engine.alerts.to
    assert scraped(harness.events, asked(rule)) == 0  # or a rate would not see the first

    await fact(harness)

    assert scraped(harness.events, asked(rule)) == 1
    assert logged(harness.events)[line] == level
