"""Attempts in our hands: send, have it recorded, let go; or give back what surely was not sent."""

import asyncio
from datetime import datetime, timedelta

from msgspec import Struct

from redrive.delivery.port import Deliverer, OwnFault
from redrive.domain.delivery import Claim
from redrive.domain.outcome import Outcome
from redrive.domain.sharing import Lane
from redrive.engine.blocked import BlockedTargets
from redrive.engine.breaking import Breakers
from redrive.engine.catalogue import Catalogue
from redrive.engine.health import Health
from redrive.engine.lanes import Pace
from redrive.engine.owned import Owned
from redrive.engine.recording import Recorder, unknown
from redrive.engine.sending import Sending
from redrive.engine.tools import Tools
from redrive.store.port import StoreUnavailable
from redrive.telemetry.events import LoopFailed, SendingSuspended

SUSPENDED_SECONDS = 5.0
DIED = "the process that made this attempt died, and nobody knows whether it was received"


class Held(Exception):
    """Its integration sends nothing now: an attempt that has not begun is given back."""


class UnderWay(Struct, eq=False):
    """A claim in our hands, under the pace of its lane. `is_unsent`: surely not a byte of it has left."""

    claim: Claim
    pace: Pace
    is_unsent: bool = True
    has_place: bool = True  # it counts toward what its receiver may have at once
    has_begun: bool = False
    goes_back: bool = False  # it was called back, and gives itself back
    is_trial: bool = False  # of a breaker that is not closed
    is_probe: bool = False  # a person sends it although its integration may be held


class Attempts:
    """Makes each at most once per claim, and frees the place and the slot that were taken for it."""

    def __init__(
        self,
        tools: Tools,
        deliverer: Deliverer,
        catalogue: Catalogue,
        health: Health,
        *,
        owned: Owned,
        recorder: Recorder,
        breakers: Breakers,
    ) -> None:
        self.store = tools.store
        self.sending = Sending(tools, deliverer, catalogue)
        self.blocked = BlockedTargets(tools)
        self.clock = tools.clock
        self.unique_bytes = tools.unique_bytes
        self.announce = tools.announce
        self.catalogue = catalogue
        self.health = health
        self.owned = owned
        self.lanes = owned.lanes
        self.recorder = recorder
        self.breakers = breakers
        self.cut_off: list[UnderWay] = []
        self._in_doubt: set[Lane] = set()  # besides those: where a place was held until we were told to stop
        self._under_way: dict[asyncio.Task[Outcome | None], UnderWay] = {}
        self._holding: dict[asyncio.Task[None], Pace] = {}  # the places of orphans

    # what is in our hands

    @property
    def in_flight(self) -> int:
        """Attempts under way or being recorded."""
        return len(self._under_way)

    def unsettled_lanes(self) -> set[Lane]:
        """Lanes of what is in our hands, of the orphans whose places are held, and of what is in doubt."""
        begun = (*self._under_way.values(), *self.cut_off)
        return (
            {one.pace.lane for one in begun} | {pace.lane for pace in self._holding.values()} | self._in_doubt
        )

    def begin(self, begun: UnderWay) -> "asyncio.Task[Outcome | None]":
        """Make an attempt, or record it if it is an orphan. Its place and its slot are taken already."""
        task = asyncio.create_task(self._attempt(begun) if begun.is_unsent else self._rescue(begun))
        self._under_way[task] = begun
        task.add_done_callback(self._ended)
        return task

    def cut(self) -> None:
        """Cut off what is in flight: our right to it may have ended."""
        for task in self._under_way:
            task.cancel()

    def abort(self) -> None:
        """Cut off what is in flight, and hold no orphan's place any longer."""
        self.cut()
        for holding, pace in self._holding.items():
            self._in_doubt.add(pace.lane)
            holding.cancel()

    async def all_ended(self) -> None:
        """Wait until nothing is in flight."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def all_let_go(self) -> None:
        """Wait until no orphan's place is held."""
        while self._holding:
            await asyncio.wait(self._holding)

    async def give_back_unsent(self) -> None:
        """Undo what was cut off and surely not sent, if the store lets us."""
        unsent = [cut_off for cut_off in self.cut_off if cut_off.is_unsent]
        if unsent:
            try:
                await self.store.give_back(self.owned.owner, [cut_off.claim for cut_off in unsent])
            except StoreUnavailable as error:
                self.health.failed("give_back", error)
            else:
                self.cut_off = [cut_off for cut_off in self.cut_off if cut_off not in unsent]

    async def hold_back(self) -> None:
        """Call back what was not sent yet to integrations that send no more; once this returns it is free."""
        held = {
            task: begun
            for task, begun in self._under_way.items()
            if begun.is_unsent and begun.has_place and self._is_held(begun)
        }
        for task, begun in held.items():
            if begun.has_begun and not begun.goes_back:  # else it finds out by itself
                begun.goes_back = True
                task.cancel()
        if held:
            await asyncio.wait(held)

    # an attempt

    async def _attempt(self, begun: UnderWay) -> Outcome | None:
        """Send, decide, record, announce; what came of it, or None when it was given back."""
        claim = begun.claim
        span_id = self.unique_bytes(8)
        await self.clock.sleep(0)  # whoever handed this over is answered first: they wait for nothing but us
        started_at, started = self.clock.now(), self.clock.elapsed()
        begun.has_begun = True
        try:
            outcome = await self._send(begun, started_at, span_id)
        except Held:
            await self._let_wait(begun)
            return None
        except asyncio.CancelledError:
            if not _was_called_back(begun):
                raise
            await self._let_wait(begun)
            return None
        except OwnFault as fault:
            await self._suspend(begun, str(fault))
            return None
        self._leave_place(begun)
        ended = self.clock.elapsed()
        self.breakers.see(claim, begun.pace, outcome, is_trial=begun.is_trial, elapsed=ended)
        self.blocked.see(self.catalogue.numbered(claim.delivery.integration).integration_id, outcome)
        duration = timedelta(seconds=ended - started)
        await self.recorder.finish(claim, outcome, started_at, duration, span_id.hex())
        return outcome

    async def _send(self, begun: UnderWay, now: datetime, span_id: bytes) -> Outcome:
        """Make the exchange. What fails before a byte left is a fault of our own; after that nobody knows."""
        try:
            self._must_not_be_held(begun)  # not even a token may be asked for
            return await self.sending.send(begun.claim, now, span_id, lambda: self._leaves(begun))
        except (OwnFault, Held):
            raise
        except Exception as error:  # our bug: told, and the attempt ends as what is known of it says
            self.announce(LoopFailed("attempt", error))
            if begun.is_unsent:
                raise OwnFault(f"redrive failed before it could send: {type(error).__name__}") from error
            return unknown("redrive failed while it made this attempt")

    def _leaves(self, begun: UnderWay) -> None:
        """Its first byte may leave now, if it still is ours to send: we may have stood still until now."""
        if self.owned.has_lapsed or begun.claim.owner != self.owned.owner:
            raise OwnFault("our lease ran out before the attempt began")
        self._must_not_be_held(begun)
        begun.is_unsent = False

    def _must_not_be_held(self, begun: UnderWay) -> None:
        if self._is_held(begun):
            raise Held

    def _is_held(self, begun: UnderWay) -> bool:
        if begun.is_probe:
            return False
        if not self.catalogue.numbered(begun.claim.delivery.integration).sends:
            return True
        shut_until = begun.pace.gate.shut_until  # 0.0 for ever where nothing ever failed
        return bool(shut_until) and not begun.is_trial and self.clock.elapsed() < shut_until

    async def _suspend(self, begun: UnderWay, reason: str) -> None:
        begun.pace.suspended_until = self.clock.elapsed() + SUSPENDED_SECONDS
        await self._let_wait(begun)
        integration = self.catalogue.numbered(begun.claim.delivery.integration)
        self.announce(SendingSuspended(integration.integration_id, reason, SUSPENDED_SECONDS))

    async def _let_wait(self, begun: UnderWay) -> None:
        """As if it had not been claimed."""
        begun.goes_back = True
        if begun.is_trial:
            self.breakers.untried(begun.pace)
        await self._give_back(begun.claim)
        delivery = begun.claim.delivery
        self.recorder.due(delivery.integration, delivery.id, self.clock.now())

    async def _give_back(self, claim: Claim) -> None:
        while True:
            try:
                await self.store.give_back(self.owned.owner, [claim])
            except StoreUnavailable as error:
                self.health.failed("give_back", error)
                await self.clock.sleep(self.health.pause_seconds)
            else:
                return

    # an orphan

    async def _rescue(self, begun: UnderWay) -> Outcome | None:
        """Record an orphan, and leave its place taken while its receiver may still be at it."""
        claim = begun.claim
        await self.record_orphan(claim)
        if claim.orphaned_at is not None:
            begun.has_place = False  # it is let go of below, whatever becomes of us until then
            holding = asyncio.create_task(self._hold(begun, claim.orphaned_at))
            self._holding[holding] = begun.pace
            holding.add_done_callback(self._holding.pop)
        return None

    async def record_orphan(self, claim: Claim) -> None:
        """With when it began, if that is known, and a span that no receiver has seen: its own is lost."""
        began_at, why = claim.orphaned_at, DIED
        if began_at is None:
            began_at, why = self.clock.now(), f"{DIED}; its time is when that was found"
        span_id = self.unique_bytes(8).hex()
        await self.recorder.write_off(claim, why, began_at, timedelta(0), span_id)

    async def _hold(self, begun: UnderWay, since: datetime) -> None:
        integration = self.catalogue.numbered(begun.claim.delivery.integration)
        over_at = since + timedelta(seconds=self.sending.timeout_seconds(integration))
        try:
            await self.clock.sleep((over_at - self.clock.now()).total_seconds())
        finally:
            self.lanes.sent(begun.pace)
            self.owned.made_room()

    # its end

    def _ended(self, task: "asyncio.Task[Outcome | None]") -> None:
        ended = self._under_way.pop(task)
        self._leave_place(ended)
        self.lanes.recorded()
        self.owned.made_room()
        if task.cancelled():
            self.cut_off.append(ended)
        elif (error := task.exception()) is not None:
            self.announce(LoopFailed("attempt", error))

    def _leave_place(self, begun: UnderWay) -> None:
        if begun.has_place:
            begun.has_place = False
            self.lanes.sent(begun.pace)
            self.owned.made_room()


def _was_called_back(begun: UnderWay) -> bool:
    """Whether that alone is why its task was cancelled; then this undoes it."""
    task = asyncio.current_task()
    return begun.goes_back and task is not None and task.uncancel() == 0
