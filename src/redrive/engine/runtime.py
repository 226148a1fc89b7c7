"""The engine as a whole: start, ready, drain, stop; and the duties that run beside the work."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from redrive.delivery.port import Deliverer
from redrive.domain.integration import Defaults
from redrive.ending import is_to_end
from redrive.engine.access import Access
from redrive.engine.alerts import NOBODY, Alerting, Alerts
from redrive.engine.catalogue import Catalogue
from redrive.engine.containing import Containing
from redrive.engine.editing import Editing
from redrive.engine.evidence import Evidence
from redrive.engine.expiry import Expiry
from redrive.engine.groups import Groups
from redrive.engine.health import Health
from redrive.engine.ingest import Ingest
from redrive.engine.judging import Judging
from redrive.engine.look import Look
from redrive.engine.membership import Membership
from redrive.engine.operate import Operate
from redrive.engine.placing import Judge
from redrive.engine.planning import Planning
from redrive.engine.probing import Probing
from redrive.engine.provider import Provider
from redrive.engine.replays import Replays
from redrive.engine.seeing import Seeing
from redrive.engine.stepping import Stepper
from redrive.engine.tools import Tools
from redrive.engine.verifying import SpotCheck
from redrive.engine.worker import RECORDING_SECONDS, Worker
from redrive.store.port import StoreOwned, StoreUnavailable
from redrive.telemetry.events import DrainStarted, LoopFailed

RENEW_SECONDS = 2.0  # at most
RENEWALS = 7  # in the time a lease lasts, at least
WATCH_SECONDS = 0.5
BALANCE_SECONDS = 1.0
PRUNE_SECONDS = 600.0
CHAINS_SECONDS = 60.0
ALERT_SECONDS = 5.0
CONTAINMENT_SECONDS = 1.0
LOOP_SECONDS = 1.0  # before a loop that was broken off begins again
KEYS_KEPT = timedelta(days=7)
TALLIES_KEPT = timedelta(days=8)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process allows itself."""

    slots: int = 1024
    max_queued: int = 10_000
    drain_seconds: float = 65.0
    history_days: int = 0  # 0: for ever
    resolved_days: int = 0  # 0: as history_days
    audit_days: int = 0
    auth_failures_per_minute: int = 100
    calls_per_second: int = 0


class Engine:
    """Everything below the skins: API, CLI and console call these verbs and nothing else."""

    def __init__(
        self,
        tools: Tools,
        deliverer: Deliverer,
        defaults: Defaults,
        limits: Limits,
        *,
        allow_http: bool,
        judge: Judge,
        sends: bool = True,
        provider: Provider | None = None,
        alerting: Alerting = NOBODY,
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.vault = tools.vault
        self._sends = sends
        self.announce = tools.announce
        self.limits = limits
        self.health = Health(tools.clock, tools.announce)
        self.access = Access(
            tools,
            failures_per_minute=limits.auth_failures_per_minute,
            calls_per_second=limits.calls_per_second,
            provider=provider,
        )
        self.catalogue = Catalogue(tools, defaults, allow_http=allow_http, judge=judge)
        self.worker = Worker(tools, deliverer, self.catalogue, self.health, slots=limits.slots)
        self.membership = Membership(tools, self.catalogue, self.worker, self.health)
        self.ingest = Ingest(tools, self.catalogue, self.worker, max_queued=limits.max_queued)
        self.operate = Operate(tools, self.catalogue, self.ingest, self.worker)
        self.editing = Editing(tools, self.catalogue, self.worker)
        self.look = Look(tools, self.catalogue)
        self.spot_check = SpotCheck(tools, self.worker)
        self.evidence = Evidence(tools, self.catalogue, self.look)
        self.groups = Groups(tools, self.catalogue)
        self.stepper = Stepper(tools, self.catalogue, self.worker, self.health)
        self.judging = Judging(tools, self.catalogue)
        seeing = Seeing(tools, self.catalogue, self.judging.verdict_of)
        self.planning = Planning(tools, self.catalogue, seeing)
        self.replays = Replays(tools, self.catalogue, self.planning, seeing, self.stepper.wake)
        self.alerts = Alerts(tools, self.catalogue, self.ingest, self.worker, alerting)
        self.probing = Probing(tools, deliverer, self.catalogue, self.worker)
        self.containing = Containing(tools, self.catalogue, self.membership, self.judging.simulate)
        self.expiry = Expiry(tools, self.catalogue, self.worker, self.probing.find)
        self.is_stopping = True  # or not started yet
        self.lost = asyncio.Event()  # set when the process must stop
        self.why_lost = ""
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Enter the store, settle what a predecessor left, and go to work; our incarnation."""
        owner = await self.membership.join()
        await self.vault.unlock(self.store)
        await self.catalogue.refresh()
        await self.catalogue.seal_the_rest()
        await self.membership.balance()
        await self.worker.adopt()
        duties = [
            self._every(
                min(RENEW_SECONDS, self.membership.lease_seconds / RENEWALS), "lease", self.membership.renew
            ),
            self._every(WATCH_SECONDS, "watch", self.membership.watch),
            self._every(BALANCE_SECONDS, "balance", self.membership.balance),
            self._every(PRUNE_SECONDS, "prune", self._prune),
            self._every(CHAINS_SECONDS, "chains", self.spot_check.look),
            self._every(CONTAINMENT_SECONDS, "containment", self.expiry.look_after),
            self._always("replay", self.stepper.run),
            self._every(ALERT_SECONDS, "alerts", self.alerts.look),
        ]
        if self._sends:
            self.worker.stopping = False
            await self.store.listen(self.worker.hear)
            duties.append(self._always("worker", self.worker.run))
        self._loops = [asyncio.create_task(duty) for duty in duties]
        self.is_stopping = False
        return owner

    async def drain(self, *, at_once: bool = False) -> int:
        """Claim no more and finish what is in flight, unless *at_once*; how many attempts are in doubt."""
        self.is_stopping = True
        self.announce(DrainStarted(self.worker.in_flight))
        self.membership.is_leaving = True  # what is idle goes to others while we wait for the rest
        self.stepper.is_stopping = True
        self.expiry.is_stopping = True
        await self.worker.stop_claiming()  # first: a step may take a while
        if not at_once:
            await self.stepper.between_steps()
        await self.ingest.idle()  # what it was storing as ours is in flight now
        aborted = await self.worker.drain(0 if at_once else self.limits.drain_seconds)
        await self.expiry.close(RECORDING_SECONDS)
        await self.probing.close(RECORDING_SECONDS)
        return aborted

    async def close(self) -> None:
        """Leave the store, however far the start came; what was not drained is cut off.

        Attempts that are in doubt are found, and recorded, at the next start.
        """
        if not self.is_stopping:
            await self.drain(at_once=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            await self.membership.leave()
        except StoreUnavailable as error:
            self.health.failed("leave", error)

    async def _prune(self) -> None:
        now = self.clock.now()
        await self.store.prune(now - KEYS_KEPT)
        await self.store.forget_tallies(now - TALLIES_KEPT)
        if days := self.limits.history_days:
            resolved = now - timedelta(days=self.limits.resolved_days or days)
            await self.store.forget_deliveries(now - timedelta(days=days), resolved_before=resolved)
            await self.store.replays.forget(now - timedelta(days=days))
        if days := self.limits.audit_days:
            await self.store.forget_events(now - timedelta(days=days))

    async def _every(self, seconds: float, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await duty()
            except StoreUnavailable as error:
                self.health.failed(name, error)
            except StoreOwned as error:
                self._give_up(f"its lease is gone: {error}")
            except (Exception, asyncio.CancelledError) as error:  # our bug: told, and the duty goes on
                if is_to_end():
                    raise
                self.announce(LoopFailed(name, error))
            if self.health.fatal is not None:
                self._give_up(self.health.fatal)
            await self.clock.sleep(seconds)

    async def _always(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a *loop* that looks after itself; but for a cancellation that was not meant for it."""
        while True:
            try:
                return await loop()
            except asyncio.CancelledError as error:
                if is_to_end():
                    raise
                self.announce(LoopFailed(name, error))
            await self.clock.sleep(LOOP_SECONDS)

    def _give_up(self, why: str) -> None:
        self.why_lost = self.why_lost or why
        self.lost.set()
