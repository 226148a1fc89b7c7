"""What becomes of a containment that runs out, and of a release once its backlog is gone."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

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
    still,
)
from redrive.ending import is_to_end
from redrive.engine.catalogue import Catalogue, untold
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import StoreUnavailable
from redrive.telemetry.events import (
    ContainmentEnded,
    ContainmentExpired,
    ContainmentExpiring,
    LoopFailed,
    ReleaseDrained,
)

DUTY: Final = "containment"
REASON: Final = "the containment ran out and the receiver was found healthy"


class Finding(Struct, frozen=True):
    """What a probe found, in a sentence."""

    is_healthy: bool
    detail: str


Probe = Callable[[Integration], Awaitable[Finding | None]]  # None: it is not ours to find out now


class Expiry:
    """Looks after what is contained or draining. One process probes; what it finds is written guarded."""

    def __init__(self, tools: Tools, catalogue: Catalogue, worker: Worker, probe: Probe) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.announce = tools.announce
        self.catalogue = catalogue
        self.worker = worker
        self.probe = probe
        self.is_stopping = False
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def look_after(self) -> None:
        """Begin all whose time has come, each by itself: one that hangs or fails keeps no other from it."""
        if self.is_stopping:
            return
        for integration in self.catalogue:
            if integration.number not in self._under_way:
                self._look_at(integration)

    async def close(self, seconds: float) -> None:
        """Begin nothing more, and give what is under way *seconds* to end."""
        self.is_stopping = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way.values(), timeout=seconds)
            for task in late:
                task.cancel()

    def _look_at(self, integration: Integration) -> None:
        containment, release = integration.traffic.containment, integration.traffic.release
        now = self.clock.now()
        if containment is not None and is_to_be_probed(containment, now):
            self._begin(integration.number, self._end(integration, containment))
        elif containment is not None and is_expiring(containment, now):
            self._begin(integration.number, self._warn(integration, containment))
        elif release is not None:
            self._begin(integration.number, self._forget(integration, release))

    def _begin(self, number: int, duty: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._safely(duty))
        self._under_way[number] = task
        task.add_done_callback(lambda _: self._under_way.pop(number))

    async def _safely(self, duty: Coroutine[Any, Any, None]) -> None:
        """Whatever comes of it: its turn comes again."""
        try:
            await duty
        except StoreUnavailable as error:
            self.worker.health.failed(DUTY, error)
        except (Exception, asyncio.CancelledError) as error:  # our bug: told
            if is_to_end():
                raise
            self.announce(LoopFailed(DUTY, error))

    async def _warn(self, integration: Integration, containment: Containment) -> None:
        warned = _with(integration, replace(containment, is_warned=True))
        if await self.catalogue.steer(integration, warned, []) is not None:
            self.announce(
                ContainmentExpiring(integration.integration_id, containment.owner, containment.until)
            )

    async def _end(self, integration: Integration, containment: Containment) -> None:
        """Probe once. Then release it gradually, or keep it contained and say so."""
        if self.worker.stopping:  # it drains, or never sends: that is for a process that does
            return
        if not await self.store.is_elected(DUTY, self.worker.owner):
            return
        if (finding := await self.probe(integration)) is None:
            return
        if finding.is_healthy:
            await self._release(integration, containment, finding)
        else:
            await self._go_on(integration, containment, finding)

    async def _release(self, integration: Integration, containment: Containment, finding: Finding) -> None:
        rate = cautious_rate(self.catalogue.numbered(integration.number).rate_per_second)
        release = Release(rate, self.clock.now(), SYSTEM.id, REASON)

        def released(traffic: Traffic) -> Traffic | None:
            is_over = still(traffic, containment) is not None
            return replace(traffic, containment=None, release=release) if is_over else None

        tell = self.catalogue.by_itself(EventType.RELEASED, _facts(finding))
        if await self.catalogue.change_traffic(integration.number, released, tell) is not None:
            self.announce(ContainmentEnded(integration.integration_id, containment.owner, rate))

    async def _go_on(self, integration: Integration, containment: Containment, finding: Finding) -> None:
        now = self.clock.now()
        next_one = after_probe(containment, now)

        def goes_on(traffic: Traffic) -> Traffic | None:
            found = still(traffic, containment)
            return None if found is None else replace(traffic, containment=after_probe(found, now))

        expired = self.catalogue.by_itself(EventType.CONTAINMENT_EXPIRED, _facts(finding))
        tell = untold if containment.probes else expired  # once
        if await self.catalogue.change_traffic(integration.number, goes_on, tell) is not None:
            self.announce(
                ContainmentExpired(
                    integration.integration_id,
                    containment.owner,
                    next_one.probes,
                    finding.detail,
                    next_one.probe_at or now,
                )
            )

    async def _forget(self, integration: Integration, release: Release) -> None:
        """A lane finds by itself that its part is gone; here it is for all lanes, and those to come."""
        if await self.store.has_backlog(integration.number, release.since):
            return
        drained = replace(integration.traffic, release=None, version=integration.traffic.version + 1)
        if await self.catalogue.steer(integration, drained, []) is not None:
            self.announce(ReleaseDrained(integration.integration_id))


def _facts(finding: Finding) -> dict[str, Any]:
    return {"probe": finding.detail, "is_healthy": finding.is_healthy}


def _with(integration: Integration, containment: Containment | None) -> Traffic:
    traffic = integration.traffic
    return replace(traffic, containment=containment, version=traffic.version + 1)
