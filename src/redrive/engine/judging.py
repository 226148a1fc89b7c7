"""Whether an integration is well, from what is recorded of it; and what a release would do."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from redrive.domain.access import Call, Permission
from redrive.domain.draining import Simulation, ceiling, healthy_rate, simulate
from redrive.domain.health import SHOWN_MINUTES, Diagnosis, Facts, Tally, Verdict, diagnosed
from redrive.domain.integration import Integration
from redrive.engine.catalogue import Catalogue
from redrive.engine.tools import Tools

RECORDED: Final = timedelta(days=7)  # of which the most that a receiver took is looked for
ARRIVING: Final = timedelta(minutes=15)


class Judging:
    """Asks the store for figures and has them judged."""

    def __init__(self, tools: Tools, catalogue: Catalogue) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.catalogue = catalogue

    async def show(self, call: Call, integration_id: str) -> tuple[Integration, Diagnosis]:
        """The judgement, for whoever may view."""
        call.require(Permission.VIEW)
        integration = await self.catalogue.current(call, integration_id)
        return integration, await self.judge(integration)

    async def judge(self, integration: Integration) -> Diagnosis:
        """What is to be thought of an integration now, with the facts behind it."""
        now, traffic = self.clock.now(), integration.traffic
        since = now - timedelta(minutes=SHOWN_MINUTES)
        return diagnosed(
            Facts(
                now=now,
                tallies=await self.store.tallies(integration.number, since),
                breaker=self.catalogue.defaults.breaker(integration),
                throttled_until=traffic.throttled_until,
                probe=traffic.probe,
                gone_at=traffic.gone_at,
                is_contained=traffic.containment is not None,
            )
        )

    async def verdict_of(self, integration: Integration) -> Verdict:
        """The verdict alone."""
        return (await self.judge(integration)).verdict

    async def simulate(self, integration: Integration, rate_per_second: float | None) -> dict[str, Any]:
        """What a release would do now, at the usual rates and at the one given, as it is shown."""
        now, number = self.clock.now(), integration.number
        standing = await self.store.standing(number)
        recorded = (await self.store.tallies(number, now - RECORDED)).minutes
        arrivals = await self.store.arrivals(number, now - ARRIVING)
        concurrency: int = self.catalogue.defaults.of(integration, "concurrency")
        found = simulate(
            standing.waiting,
            arrivals_per_second=arrivals.per_second(now),
            healthy_per_second=healthy_rate(recorded),
            ceiling_per_second=ceiling(concurrency, integration.rate_per_second, _average(recorded)),
            asked=rate_per_second,
        )
        return shown(found)


def shown(found: Simulation) -> dict[str, Any]:
    """A simulation as the API and the audit show it."""
    return {
        "backlog": found.backlog,
        "arrivals_per_second": round(found.arrivals_per_second, 3),
        "healthy_per_second": _rounded(found.healthy_per_second),
        "ceiling_per_second": _rounded(found.ceiling_per_second),
        "rates": [
            {
                "rate_per_second": drain.rate_per_second,
                "sends_per_second": round(drain.sends_per_second, 3),
                "drain_seconds": _rounded(drain.drain_seconds),
                "new_traffic_delay_seconds": round(drain.delay_seconds, 1),
                "is_proven": drain.is_proven,
            }
            for drain in found.drains
        ],
    }


def _average(minutes: Sequence[Tally]) -> timedelta | None:
    """How long an attempt took that was recorded in a minute in which most succeeded."""
    well = [tally for tally in minutes if tally.succeeded > tally.failed]
    outcomes = sum(tally.outcomes for tally in well)
    return sum((tally.duration for tally in well), timedelta()) / outcomes if outcomes else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
