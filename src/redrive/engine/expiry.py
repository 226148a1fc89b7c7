"""What becomes of a containment that runs out, and of a release once its backlog is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.access import SYSTEM
from redrive.domain.integration import Integration
from redrive.domain.traffic import (
    Containment,
    Release,
    Traffic,
    after_probe,
    cautious_rate,
    is_expiring,
    is_to_be_probed,
)
from redrive.engine.audited import of_system
from redrive.engine.catalogue import Catalogue
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.telemetry.events import (
    AuditWritten,
    ContainmentEnded,
    ContainmentExpired,
    ContainmentExpiring,
    ReleaseDrained,
)

DUTY: Final = "containment"
TURNS: Final = 10
REASON: Final = "the containment ran out and the receiver was found healthy"


class Finding(Struct, frozen=True):
    """What a probe found, in a sentence."""

    is_healthy: bool
    detail: str


Probe = Callable[[Integration], Awaitable[Finding]]


class Expiry:
    """Looks after what is contained or draining. One process probes; what it finds is written guarded."""

    def __init__(self, tools: Tools, catalogue: Catalogue, worker: Worker, probe: Probe) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.worker = worker
        self.probe = probe

    async def look_after(self) -> None:
        """Everything whose time has come; one that fails keeps no other from it."""
        duties = [duty for one in self.catalogue if (duty := self._duty(one)) is not None]
        failures = await asyncio.gather(*duties, return_exceptions=True)
        for failure in failures:
            if failure is not None:
                raise failure

    def _duty(self, integration: Integration) -> Awaitable[None] | None:
        containment, release = integration.traffic.containment, integration.traffic.release
        now = self.clock.now()
        if containment is not None and is_to_be_probed(containment, now):
            return self._end(integration, containment)
        if containment is not None and is_expiring(containment, now):
            return self._warn(integration, containment)
        return None if release is None else self._forget(integration, release)

    async def _warn(self, integration: Integration, containment: Containment) -> None:
        warned = _with(integration, replace(containment, is_warned=True))
        if await self.catalogue.steer(integration, warned, []) is not None:
            self.announce(
                ContainmentExpiring(integration.integration_id, containment.owner, containment.until)
            )

    async def _end(self, integration: Integration, containment: Containment) -> None:
        """Probe once. Then release it gradually, or keep it contained and say so."""
        if not await self.store.is_elected(DUTY, self.worker.owner):
            return
        finding = await self.probe(integration)
        for _ in range(TURNS):
            latest = self.catalogue.numbered(integration.number)
            if latest.traffic.containment != containment:
                return  # a person was faster, and is right
            ends = self._release if finding.is_healthy else self._go_on
            if await ends(latest, containment, finding):
                return
            await self.catalogue.refresh()  # the probe was noted there, or the breaker moved

    async def _release(self, integration: Integration, containment: Containment, finding: Finding) -> bool:
        rate = cautious_rate(integration.rate_per_second)
        release = Release(rate, self.clock.now(), SYSTEM.id, REASON)
        traffic = replace(_with(integration, None), release=release)
        if not await self._written(integration, traffic, EventType.RELEASED, finding):
            return False
        self.announce(ContainmentEnded(integration.integration_id, containment.owner, rate))
        return True

    async def _go_on(self, integration: Integration, containment: Containment, finding: Finding) -> bool:
        now = self.clock.now()
        goes_on = after_probe(containment, now)
        kind = None if containment.probes else EventType.CONTAINMENT_EXPIRED  # told once
        if not await self._written(integration, _with(integration, goes_on), kind, finding):
            return False
        self.announce(
            ContainmentExpired(
                integration.integration_id,
                containment.owner,
                goes_on.probes,
                finding.detail,
                goes_on.probe_at or now,
            )
        )
        return True

    async def _forget(self, integration: Integration, release: Release) -> None:
        """A lane finds by itself that its part is gone; here it is for all lanes, and those to come."""
        if await self.store.has_backlog(integration.number, release.since):
            return
        drained = replace(integration.traffic, release=None, version=integration.traffic.version + 1)
        if await self.catalogue.steer(integration, drained, []) is not None:
            self.announce(ReleaseDrained(integration.integration_id))

    async def _written(
        self, integration: Integration, traffic: Traffic, kind: EventType | None, finding: Finding
    ) -> bool:
        """Unless its traffic has changed since it was read."""
        events = []
        if kind is not None:
            events.append(
                of_system(
                    self.next_id,
                    self.clock.now(),
                    kind,
                    integration_id=integration.integration_id,
                    before=integration.traffic.state(),
                    after=traffic.state(),
                    metadata={"probe": finding.detail, "is_healthy": finding.is_healthy},
                )
            )
        if await self.catalogue.steer(integration, traffic, events) is None:
            return False
        for event in events:
            self.announce(AuditWritten(event.event_type.value))
        return True


def _with(integration: Integration, containment: Containment | None) -> Traffic:
    traffic = integration.traffic
    return replace(traffic, containment=containment, version=traffic.version + 1)
