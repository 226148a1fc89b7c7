"""Claim and send: the attempts of this process, as many at once as its lanes allow."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from math import inf

from msgspec import Struct

from redrive.delivery.compose import compose
from redrive.delivery.port import Deliverer, OwnFault, Request
from redrive.domain.delivery import Claim
from redrive.domain.errors import InvalidPayload
from redrive.domain.integration import Integration
from redrive.domain.outcome import Failed, Outcome
from redrive.domain.sharing import Lane, lane_of, whole
from redrive.domain.target import Target, parse_target
from redrive.engine.catalogue import Catalogue
from redrive.engine.health import Health
from redrive.engine.lanes import Lanes, Pace
from redrive.engine.recording import Recorder, unknown
from redrive.engine.tools import Tools
from redrive.store.port import Claimed, StoreUnavailable
from redrive.telemetry.events import LeasesLost, LoopFailed, SendingSuspended, StoreFailed

POLL_SECONDS = 2.0  # waking is a hint; the store's due times are the truth
SUSPENDED_SECONDS = 5.0
ADOPTED_AT_ONCE = 500
TIMEOUTS = frozenset({"RESPONSE_TIMEOUT", "ETIMEDOUT"})
RECORDING_SECONDS = 5.0  # what is known when the process stops is written down, if the store lets us
DIED = "the process that made this attempt died, and nobody knows whether it was received"


class UnderWay(Struct, eq=False):
    """A claim in our hands, under the pace of its lane. `is_unsent`: surely not a byte of it has left."""

    claim: Claim
    pace: Pace
    is_unsent: bool = True
    has_place: bool = True  # it counts toward what its receiver may have at once
    has_slot: bool = True


class Worker:
    """Makes the attempts of the lanes that this process owns, each at most once per claim."""

    def __init__(
        self,
        tools: Tools,
        deliverer: Deliverer,
        catalogue: Catalogue,
        health: Health,
        *,
        slots: int,
    ) -> None:
        self.store = tools.store
        self.deliverer = deliverer
        self.clock = tools.clock
        self.unique_bytes = tools.unique_bytes
        self.announce = tools.announce
        self.catalogue = catalogue
        self.health = health
        self.owner = 0  # set when the store was entered
        self.lease_until = inf  # a second of the steady clock, past which nothing may be started
        self.lanes = Lanes(slots)
        self.recorder = Recorder(tools, catalogue, health, self.due)
        self.stopping = True
        self._owned: frozenset[Lane] | None = frozenset()  # None: every lane is ours, and none is split
        self._owned_of: Mapping[int, Sequence[Lane]] = {}  # what is owned, by integration
        self._under_way: dict[asyncio.Task[None], UnderWay] = {}
        self._arriving: Counter[Lane] = Counter()  # places that were reserved for what is being accepted
        self._cut_off: list[UnderWay] = []
        self._in_doubt: set[Lane] = set()  # besides those: where a place was held until we were told to stop
        self._holding: dict[asyncio.Task[None], Pace] = {}  # the places of orphans
        self._asked_for: frozenset[Lane] = frozenset()  # those that are being claimed from just now
        self._at_once = False
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._targets: dict[str, Target] = {}
        catalogue.on_change = self.configure

    # what is ours

    @property
    def has_lapsed(self) -> bool:
        """Whether our lease may have run out: then nothing may be started."""
        return self.clock.elapsed() >= self.lease_until

    @property
    def in_flight(self) -> int:
        """Attempts under way or being recorded."""
        return len(self._under_way)

    def is_elsewhere(self, number: int, item_id: int) -> bool:
        """Whether an item falls to another process although some of its integration's lanes are ours."""
        return bool(self._lanes_of(number)) and self._lane_of(number, item_id) is None

    def configure(self, integration: Integration) -> None:
        """Let the lanes of an integration follow it."""
        concurrency: int = self.catalogue.defaults.of(integration, "concurrency")
        rate = integration.rate_per_second
        for lane in self._lanes_of(integration.number):
            self.lanes.pace(lane).configure(
                lane.of_count(concurrency),
                None if rate is None else lane.of_rate(rate),
                sends=integration.sends,
            )
        self._wake.set()

    def follow(self, owned: frozenset[Lane] | None) -> None:
        """Take over what is ours from now on (None: everything); what is new may have waited for long."""
        if owned == self._owned:
            return
        before = self._all_lanes()
        self._owned = owned
        self._owned_of = {
            number: tuple(lanes)
            for number, lanes in groupby(sorted(owned or ()), key=lambda lane: lane.integration)
        }
        now = self._all_lanes()
        self.lanes.keep(now)
        new = {lane.integration for lane in now - before}
        for integration in self.catalogue:
            if integration.number in new:
                self.configure(integration)
        for lane in now - before:
            self.lanes.pace(lane).forget()
            self._due(lane, self.clock.now())

    def unsettled_lanes(self) -> set[Lane]:
        """Lanes of which a claim is, or may just be coming, into our hands, or something in doubt."""
        arriving = {lane for lane, count in self._arriving.items() if count}
        cut_off = {begun.pace.lane for begun in self._cut_off}
        in_hand = {pace.lane for pace in self._paces()}
        return arriving | self._asked_for | in_hand | cut_off | self._in_doubt

    # what is accepted here

    def reserve(self, number: int, item_id: int) -> Pace | None:
        """Whose place an attempt of this item takes, if it can start at once."""
        if self.stopping or self.health.is_failing or self.has_lapsed:
            return None
        if (lane := self._lane_of(number, item_id)) is None:
            return None
        pace = self.lanes.pace(lane)
        if pace.next_due is not None and pace.next_due <= self.clock.now():
            return None  # older work first
        if not self.lanes.allowance(pace, self.clock.elapsed()):
            return None
        self.lanes.take(pace)
        self._arriving[lane] += 1
        return pace

    def cancel(self, reserved: Pace) -> None:
        """Give a reserved place back."""
        self._arriving[reserved.lane] -= 1
        self.lanes.refund(reserved, 1)
        self._wake.set()

    def start(self, claim: Claim, reserved: Pace) -> None:
        """Make an attempt whose place was reserved."""
        self._arriving[reserved.lane] -= 1
        self._begin(UnderWay(claim, reserved))

    def due(self, number: int, item_id: int, at: datetime) -> None:
        """An unclaimed item is due: look in time, or have the one look whose it is."""
        if (lane := self._lane_of(number, item_id)) is not None:
            self._due(lane, at)
        else:
            self.store.hint(number)

    def hear(self, numbers: Collection[int]) -> None:
        """Another process made something due in these integrations; none named: in any."""
        for number in numbers or self._owned_of:
            for lane in self._lanes_of(number):
                self._due(lane, self.clock.now())

    # the loop

    async def run(self) -> None:
        """Claim what is due, until stopped."""
        polled_at = -inf
        while not self.stopping:
            self._wake.clear()
            try:
                if self.clock.elapsed() - polled_at >= POLL_SECONDS:
                    polled_at = self.clock.elapsed()
                    for lane, at in (await self.store.next_due(self.owner)).items():
                        self._due(lane, at)
                async with self._claiming:
                    await self._claim()
            except StoreUnavailable as error:
                self.health.failed("claim", error)
                await self.clock.sleep(self.health.pause_seconds)
            except Exception as error:  # noqa: BLE001 - our bug: told, and the loop goes on
                self.announce(LoopFailed("worker", error))
                await self.clock.sleep(1.0)
            else:
                await self._rest()

    async def adopt(self) -> int:
        """Record what dead processes left unfinished as LEASE_EXPIRED; how many there were."""
        adopted = 0
        while orphans := await self._adopt_some():
            adopted += len(orphans)
            await asyncio.gather(*(self._record_orphan(orphan) for orphan in orphans))
        if adopted:
            self.announce(LeasesLost(adopted))
        return adopted

    # the end

    async def stop_claiming(self) -> None:
        """Claim no more, and return once what was just being claimed is in flight or given back."""
        self.stopping = True
        self._wake.set()
        async with self._claiming:
            pass
        await self._give_back_unsent()  # now: its lanes may go to others at once

    async def drain(self, seconds: float) -> int:
        """Let what is in flight finish for *seconds*, then cut it off; how many of these are in doubt.

        What dead processes sent is waited for too: whoever owns its lane next does not know of it. What was
        surely not sent is given back. The rest may have been received: its claims stay, to be recorded as
        LEASE_EXPIRED.
        """
        alarm = asyncio.create_task(self._abort_in(0 if self._at_once else seconds))
        await self._nothing_under_way()
        while self._holding:
            await asyncio.wait(self._holding)
        alarm.cancel()
        await self.recorder.batcher.close(RECORDING_SECONDS)
        await self._give_back_unsent()
        return len(self._cut_off)

    def abort(self) -> None:
        """Cut off what is in flight, and let a drain wait for nothing more."""
        self._at_once = True
        self.cut()
        for holding, pace in self._holding.items():
            self._in_doubt.add(pace.lane)
            holding.cancel()

    async def lapse(self, seconds: float, *, is_buried: bool) -> None:
        """Cut off what is in flight under a lease that ran out.

        Unless we are buried, what came back already is written down, and what was not sent given back, if
        that takes no longer than *seconds*.
        """
        self.cut()
        await self._nothing_under_way()
        if not is_buried:
            await self.recorder.batcher.settle(seconds)
            await self._give_back_unsent()
        self._cut_off.clear()

    async def _abort_in(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self.abort()

    def cut(self) -> None:
        """Cut off what is in flight: our right to it may have ended."""
        for task in self._under_way:
            task.cancel()

    async def _nothing_under_way(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _give_back_unsent(self) -> None:
        """Undo what was cut off and surely not sent, if the store lets us."""
        unsent = [cut_off for cut_off in self._cut_off if cut_off.is_unsent]
        if unsent:
            try:
                await self.store.give_back(self.owner, [cut_off.claim for cut_off in unsent])
            except StoreUnavailable as error:
                self.health.failed("give_back", error)
            else:
                self._cut_off = [cut_off for cut_off in self._cut_off if cut_off not in unsent]

    # claiming

    async def _claim(self) -> None:
        elapsed = self.clock.elapsed()
        wants: dict[Pace, int] = {}
        if self.stopping or self.has_lapsed:
            return
        for pace in self.lanes.collect(self.clock.now()):
            if room := self.lanes.allowance(pace, elapsed):
                self.lanes.take(pace, room)
                self.lanes.served(pace)
                wants[pace] = room
        if not wants:
            return
        self._asked_for = frozenset(pace.lane for pace in wants)
        try:
            await self._claim_from(wants)
        finally:
            self._asked_for = frozenset()

    async def _claim_from(self, wants: Mapping[Pace, int]) -> None:
        try:
            claimed = await self.store.claim(self.owner, {pace.lane: room for pace, room in wants.items()})
        except BaseException:
            for pace, room in wants.items():
                self.lanes.refund(pace, room)
                self._due(pace.lane, self.clock.now())
            raise
        for begun in self._settle(wants, claimed):
            if begun.is_unsent and self._is_stopping():  # a drain began while we claimed: it gives this back
                self.lanes.refund(begun.pace, 1)
                self._cut_off.append(begun)
            else:
                self._begin(begun)
        if claimed.orphans:
            self.announce(LeasesLost(len(claimed.orphans)))

    def _settle(self, wants: Mapping[Pace, int], claimed: Claimed) -> Sequence[UnderWay]:
        """What was claimed, each in a place that was taken for it; the other places are given back."""
        self._report(claimed)
        paces = {pace.lane: pace for pace in wants}
        shards = {lane.integration: lane.shards for lane in paces}
        unused = Counter(wants)
        under_way = []
        for claims, is_unsent in ((claimed.claims, True), (claimed.orphans, False)):
            for claim in claims:
                number = claim.delivery.integration
                pace = paces[lane_of(number, shards[number], claim.delivery.id)]
                unused[pace] -= 1
                under_way.append(UnderWay(claim, pace, is_unsent=is_unsent))
        for pace, count in unused.items():
            self.lanes.refund(pace, count)
        for lane, at in claimed.next_due.items():
            if at is not None:
                self._due(lane, at)
        return under_way

    async def _adopt_some(self) -> Sequence[Claim]:
        taken = await self.store.adopt(self.owner, ADOPTED_AT_ONCE)
        self._report(taken)
        return taken.claims

    def _report(self, claimed: Claimed) -> None:
        for why in claimed.set_aside:
            self.announce(StoreFailed("claim", why))

    async def _rest(self) -> None:
        """Until something happens, or time alone makes something possible."""
        alarm = asyncio.create_task(self._wake_in_time())
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _wake_in_time(self) -> None:
        wait = self.lanes.seconds_to_next(self.clock.now(), self.clock.elapsed())
        await self.clock.sleep(POLL_SECONDS if wait is None else min(wait, POLL_SECONDS))
        self._wake.set()

    # an attempt

    def _begin(self, begun: UnderWay) -> None:
        task = asyncio.create_task(self._attempt(begun) if begun.is_unsent else self._rescue(begun))
        self._under_way[task] = begun
        task.add_done_callback(self._ended)

    async def _attempt(self, begun: UnderWay) -> None:
        """Send, decide, record, announce."""
        claim = begun.claim
        span_id = self.unique_bytes(8)
        await self.clock.sleep(0)  # whoever handed this over is answered first: they wait for nothing but us
        started_at, started = self.clock.now(), self.clock.elapsed()
        try:
            outcome = await self._send(begun, started_at, span_id)
        except OwnFault as fault:
            await self._suspend(begun, str(fault))
            return
        self._leave_place(begun)
        if isinstance(outcome, Failed) and outcome.code in TIMEOUTS:
            begun.pace.narrow()
        else:
            begun.pace.widen()
        duration = timedelta(seconds=self.clock.elapsed() - started)
        await self.recorder.finish(claim, outcome, started_at, duration, span_id.hex())

    async def _send(self, begun: UnderWay, now: datetime, span_id: bytes) -> Outcome:
        """Make the exchange. What fails before a byte left is a fault of our own; after that nobody knows."""
        try:
            request = self._request(begun.claim, now, span_id)
            return await self.deliverer.send(request, lambda: self._leaves(begun))
        except OwnFault:
            raise
        except Exception as error:
            self.announce(LoopFailed("attempt", error))
            if begun.is_unsent:
                raise OwnFault(f"redrive failed before it could send: {type(error).__name__}") from error
            return unknown("redrive failed while it made this attempt")

    def _leaves(self, begun: UnderWay) -> None:
        """Its first byte may leave now, if it still is ours to send: we may have stood still until now."""
        if self.has_lapsed or begun.claim.owner != self.owner:
            raise OwnFault("our lease ran out before the attempt began")
        begun.is_unsent = False

    def _request(self, claim: Claim, now: datetime, span_id: bytes) -> Request:
        integration = self.catalogue.numbered(claim.delivery.integration)
        target = self._targets.get(integration.url)
        if target is None:
            try:
                target = parse_target(integration.url, allow_http=self.catalogue.allow_http)
            except InvalidPayload as error:
                raise OwnFault(f"the integration's url is not allowed any more: {error}") from error
            self._targets[integration.url] = target
        return compose(
            claim,
            integration,
            timeout_seconds=self._timeout_seconds(integration),
            target=target,
            now=now,
            span_id=span_id,
        )

    async def _rescue(self, begun: UnderWay) -> None:
        """Record an orphan, and leave its place taken while its receiver may still be at it."""
        claim = begun.claim
        await self._record_orphan(claim)
        if claim.orphaned_at is not None:
            begun.has_place = False  # it is let go of below, whatever becomes of us until then
            holding = asyncio.create_task(self._hold(begun, claim.orphaned_at))
            self._holding[holding] = begun.pace
            holding.add_done_callback(self._holding.pop)

    async def _hold(self, begun: UnderWay, since: datetime) -> None:
        integration = self.catalogue.numbered(begun.claim.delivery.integration)
        over_at = since + timedelta(seconds=self._timeout_seconds(integration))
        try:
            await self.clock.sleep((over_at - self.clock.now()).total_seconds())
        finally:
            self.lanes.sent(begun.pace)
            self._made_room()

    async def _record_orphan(self, claim: Claim) -> None:
        """With when it began, if that is known, and a span that no receiver has seen: its own is lost."""
        began_at, why = claim.orphaned_at, DIED
        if began_at is None:
            began_at, why = self.clock.now(), f"{DIED}; its time is when that was found"
        span_id = self.unique_bytes(8).hex()
        await self.recorder.write_off(claim, why, began_at, timedelta(0), span_id)

    async def _suspend(self, begun: UnderWay, reason: str) -> None:
        begun.pace.suspended_until = self.clock.elapsed() + SUSPENDED_SECONDS
        await self._give_back(begun.claim)
        self._due(begun.pace.lane, self.clock.now())
        integration = self.catalogue.numbered(begun.claim.delivery.integration)
        self.announce(SendingSuspended(integration.integration_id, reason, SUSPENDED_SECONDS))

    async def _give_back(self, claim: Claim) -> None:
        while True:
            try:
                await self.store.give_back(self.owner, [claim])
            except StoreUnavailable as error:
                self.health.failed("give_back", error)
                await self.clock.sleep(self.health.pause_seconds)
            else:
                return

    def _ended(self, task: asyncio.Task[None]) -> None:
        ended = self._under_way.pop(task)
        self._leave_place(ended)
        self._leave_slot(ended)
        if task.cancelled():
            self._cut_off.append(ended)
        elif (error := task.exception()) is not None:
            self.announce(LoopFailed("attempt", error))

    def _leave_place(self, begun: UnderWay) -> None:
        if begun.has_place:
            begun.has_place = False
            self.lanes.sent(begun.pace)
            self._made_room()

    def _leave_slot(self, begun: UnderWay) -> None:
        if begun.has_slot:
            begun.has_slot = False
            self.lanes.recorded()
            self._made_room()

    def _made_room(self) -> None:
        if self.lanes.is_waiting:
            self._wake.set()

    def _is_stopping(self) -> bool:
        return self.stopping  # asked again after an await: it may have changed

    def _paces(self) -> Iterable[Pace]:
        """Of what is in our hands, and of the orphans whose places are held."""
        return (*(begun.pace for begun in self._under_way.values()), *self._holding.values())

    def _due(self, lane: Lane, at: datetime) -> None:
        if self._owned is None or lane in self._owned:
            self.lanes.due(lane, at)
            self._wake.set()

    def _all_lanes(self) -> frozenset[Lane]:
        if self._owned is not None:
            return self._owned
        return frozenset(whole(integration.number) for integration in self.catalogue)

    def _lanes_of(self, number: int) -> Sequence[Lane]:
        return (whole(number),) if self._owned is None else self._owned_of.get(number, ())

    def _lane_of(self, number: int, item_id: int) -> Lane | None:
        if self._owned is None:
            return whole(number)
        lanes = self._owned_of.get(number)
        if not lanes:
            return None
        lane = lane_of(number, lanes[0].shards, item_id)
        return lane if lane in self._owned else None

    def _timeout_seconds(self, integration: Integration) -> float:
        timeout: float = self.catalogue.defaults.of(integration, "timeout_seconds")
        return timeout
