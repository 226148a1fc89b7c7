"""This process among the others: its lease, without which it starts nothing, and its part of the lanes."""

import asyncio
from contextlib import suppress
from math import inf

from redrive.engine.catalogue import Catalogue
from redrive.engine.health import Health
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Balance, StoreUnavailable
from redrive.telemetry.events import LeaseEnded

SURELY = 0.8  # of a lease: what is in flight at its end has to be cut off before another may send
SETTLING_SECONDS = 5.0


class Membership:
    """Keeps the lease, and lets what is owned follow the store, which says what that is."""

    def __init__(self, tools: Tools, catalogue: Catalogue, worker: Worker, health: Health) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.announce = tools.announce
        self.catalogue = catalogue
        self.worker = worker
        self.owned = worker.owned
        self.health = health
        self.lease_seconds = inf  # how long a lease lasts from its renewal
        self.is_leaving = False
        self._changing = asyncio.Lock()  # what is ours: as one incarnation, or as the next

    async def join(self) -> int:
        """Become a live process; our incarnation."""
        asked_at = self.clock.elapsed()
        owner = await self.store.enter()
        try:
            seconds = await self.store.renew(owner)
            self.store.ids.start(owner, await self.store.last_id())
        except BaseException:  # nobody would send what falls to it while its lease lasts
            with suppress(StoreUnavailable):
                await self.store.leave(owner)
            raise
        self.owned.owner, self.owned.lease_until = owner, asked_at + SURELY * (seconds or 0.0)
        self.lease_seconds = seconds or self.lease_seconds
        return owner

    async def renew(self) -> None:
        """Renew the lease; when it ran out, or was ended, begin again as a new incarnation."""
        asked_at = self.clock.elapsed()
        seconds = await self.store.renew(self.owned.owner)
        self.health.worked()
        if seconds is None or self.owned.has_lapsed:
            async with self._changing:
                await self._rejoin(is_buried=seconds is None)
        else:
            self.owned.lease_until = asked_at + SURELY * seconds

    async def balance(self) -> None:
        """Learn what others changed; follow what is ours now; let go of what should not be, once idle."""
        async with self._changing:
            await self._balance()
        await self.acknowledge()

    async def acknowledge(self) -> None:
        """Confirm that nothing starts any more of what the catalogue, as it was read last, contains."""
        version = self.store.catalogue_version
        await self.worker.hold_back()
        await self.store.follow(self.owned.owner, version)

    async def leave(self) -> None:
        """Leave the store. Lanes that are settled go first: a new split need not wait for their receivers."""
        if owner := self.owned.owner:
            self.is_leaving = True
            async with self._changing:
                await self._follow(await self._divided())
            await self.store.leave(owner)

    async def watch(self) -> None:
        """Cut off what is in flight when the lease may have ended before it could be renewed."""
        if self.owned.has_lapsed:
            self.worker.cut()

    async def _balance(self) -> None:
        balance = await self._divided()
        await self.catalogue.refresh()  # after it: no lane may be ours of an integration that we do not know
        await self._follow(balance)

    async def _divided(self) -> Balance | None:
        if self.is_leaving:
            await self.store.step_down(self.owned.owner)
        return await self.store.balance(self.owned.owner)

    async def _follow(self, balance: Balance | None) -> None:
        if balance is None:
            self.owned.follow(None)
            return
        self.owned.follow(balance.owned - balance.surplus)
        if settled := balance.surplus - self.worker.unsettled_lanes():
            await self.store.release(self.owned.owner, settled)

    async def _rejoin(self, *, is_buried: bool) -> None:
        """What stays claimed is an orphan of the old incarnation, for whoever owns its lane next."""
        old = self.owned.owner
        self.announce(LeaseEnded(old))
        self.owned.follow(frozenset())
        await self.worker.lapse(SETTLING_SECONDS, is_buried=is_buried)
        if not is_buried:
            await self.store.leave(old)
        await self.join()
        await self._balance()
