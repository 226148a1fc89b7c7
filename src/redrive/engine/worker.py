"""Claim what is due, and start as many attempts at once as the lanes of this process allow; stop in order."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf

from redrive.delivery.port import Deliverer
from redrive.domain.delivery import Claim
from redrive.domain.sharing import Lane, lane_of
from redrive.engine.attempts import Attempts, UnderWay
from redrive.engine.breaking import Breakers
from redrive.engine.catalogue import Catalogue
from redrive.engine.gates import Trial
from redrive.engine.health import Health
from redrive.engine.lanes import Pace
from redrive.engine.load import Load
from redrive.engine.owned import Owned
from redrive.engine.recording import Recorder
from redrive.engine.tools import Tools
from redrive.store.port import Claimed, StoreUnavailable
from redrive.telemetry.events import LeasesLost, LoopFailed, StoreFailed

POLL_SECONDS = 2.0  # waking is a hint; the store's due times are the truth
ADOPTED_AT_ONCE = 500
A_FEW = 8  # what a lane that gives way may claim at least, if it has the room
TICK = timedelta(milliseconds=1)  # as fine as the clock tells: a step that ends now is over
RECORDING_SECONDS = 5.0  # what is known when the process stops is written down, if the store lets us


class Worker:
    """Starts the attempts of the lanes that we own: at once of what is accepted here, else once claimed."""

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
        self.clock = tools.clock
        self.announce = tools.announce
        self.health = health
        self.owned = Owned(tools.clock, catalogue, slots=slots)
        self.lanes = self.owned.lanes
        self.load = Load(tools.clock, tools.cpu_seconds)
        self.recorder = Recorder(tools, catalogue, health, self.due)
        self.breakers = Breakers(tools, catalogue, health, self.owned)
        self.attempts = Attempts(
            tools,
            deliverer,
            catalogue,
            health,
            owned=self.owned,
            recorder=self.recorder,
            breakers=self.breakers,
        )
        self.stopping = True
        self._arriving: Counter[Lane] = Counter()  # places that were reserved for what is being accepted
        self._asked_for: frozenset[Lane] = frozenset()  # those that are being claimed from just now
        self._at_once = False
        self._claiming = asyncio.Lock()

    @property
    def owner(self) -> int:
        """The incarnation that we claim as."""
        return self.owned.owner

    @property
    def in_flight(self) -> int:
        """Attempts under way or being recorded."""
        return self.attempts.in_flight

    def unsettled_lanes(self) -> set[Lane]:
        """Lanes of which a claim is, or may just be coming, into our hands, or something in doubt."""
        arriving = {lane for lane, count in self._arriving.items() if count}
        return arriving | self._asked_for | self.attempts.unsettled_lanes()

    # what is accepted here

    def is_elsewhere(self, number: int, item_id: int) -> bool:
        """Whether an item falls to another process although some of its integration's lanes are ours."""
        return bool(self.owned.lanes_of(number)) and self.owned.lane_of(number, item_id) is None

    def reserve(self, number: int, item_id: int) -> Pace | None:
        """Whose place an attempt of this item takes, if it can start at once."""
        self.load.look()
        self.load.arrived()
        if self.stopping or self.health.is_failing or self.owned.has_lapsed:
            return None
        if (lane := self.owned.lane_of(number, item_id)) is None:
            return None
        pace = self.lanes.pace(lane)
        if self._is_after_older(pace):
            return None
        elapsed = self.clock.elapsed()
        if elapsed < pace.gate.shut_until or not self.lanes.allowance(pace, elapsed):
            return None
        self.lanes.take(pace)
        self._arriving[lane] += 1
        return pace

    def cancel(self, reserved: Pace) -> None:
        """Give a reserved place back."""
        self._arriving[reserved.lane] -= 1
        self.lanes.refund(reserved, 1)
        self.owned.wake.set()

    def start(self, claim: Claim, reserved: Pace) -> None:
        """Make an attempt whose place was reserved."""
        self._arriving[reserved.lane] -= 1
        self.attempts.begin(UnderWay(claim, reserved))

    def due(self, number: int, item_id: int, at: datetime) -> None:
        """An unclaimed item is due: look in time, or have the one look whose it is."""
        if (lane := self.owned.lane_of(number, item_id)) is not None:
            self.owned.due(lane, at)
        else:
            self.store.hint(number)

    def hear(self, numbers: Collection[int]) -> None:
        """Another process made something due in these integrations; none named: in any."""
        for number in numbers or self.owned.numbers:
            for lane in self.owned.lanes_of(number):
                self.owned.due(lane, self.clock.now())

    # the loop

    async def run(self) -> None:
        """Claim what is due, until stopped."""
        polled_at = -inf
        while not self.stopping:
            self.owned.wake.clear()
            try:
                if self.clock.elapsed() - polled_at >= POLL_SECONDS:
                    polled_at = self.clock.elapsed()
                    for lane, at in (await self.store.next_due(self.owner)).items():
                        self.owned.due(lane, at)
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
            await asyncio.gather(*(self.attempts.record_orphan(orphan) for orphan in orphans))
        if adopted:
            self.announce(LeasesLost(adopted))
        return adopted

    async def hold_back(self) -> None:
        """Give back what was claimed and not sent of integrations that send no more; whatever else is
        claimed of them, on its way here, is given back when it comes.
        """
        await self.attempts.hold_back()

    # the end

    async def stop_claiming(self) -> None:
        """Claim no more, and return once what was just being claimed is in flight or given back."""
        self.stopping = True
        self.owned.wake.set()
        async with self._claiming:
            pass
        await self.attempts.give_back_unsent()  # now: its lanes may go to others at once

    async def drain(self, seconds: float) -> int:
        """Let what is in flight finish for *seconds*, then cut it off; how many of these are in doubt.

        What dead processes sent is waited for too: whoever owns its lane next does not know of it. What was
        surely not sent is given back. The rest may have been received: its claims stay, to be recorded as
        LEASE_EXPIRED.
        """
        alarm = asyncio.create_task(self._abort_in(0 if self._at_once else seconds))
        await self.attempts.all_ended()
        await self.attempts.all_let_go()
        alarm.cancel()
        await self.recorder.batcher.close(RECORDING_SECONDS)
        await self.breakers.close(RECORDING_SECONDS)
        await self.attempts.give_back_unsent()
        return len(self.attempts.cut_off)

    def abort(self) -> None:
        """Cut off what is in flight, and let a drain wait for nothing more."""
        self._at_once = True
        self.attempts.abort()

    async def lapse(self, seconds: float, *, is_buried: bool) -> None:
        """Cut off what is in flight under a lease that ran out.

        Unless we are buried, what came back already is written down, and what was not sent given back, if
        that takes no longer than *seconds*.
        """
        self.cut()
        await self.attempts.all_ended()
        if not is_buried:
            await self.recorder.batcher.settle(seconds)
            await self.attempts.give_back_unsent()
        self.attempts.cut_off.clear()

    def cut(self) -> None:
        """Cut off what is in flight: our right to it may have ended."""
        self.attempts.cut()

    async def _abort_in(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self.abort()

    # claiming

    async def _claim(self) -> None:
        elapsed = self.clock.elapsed()
        wants: dict[Pace, int] = {}
        if self.stopping or self.owned.has_lapsed:
            return
        self.load.look()
        for pace in self.lanes.collect(self.clock.now()):
            is_shut = elapsed < pace.gate.shut_until
            if is_shut and pace.sends and pace.gate.wants_trial(elapsed):
                self.breakers.ask(pace.lane.integration, pace.gate)
            if room := self.lanes.allowance(pace, elapsed):
                wanted = self._share(pace, room)
                if is_shut:
                    pace.gate.trial = Trial.UNDER_WAY
                self.lanes.take(pace, wanted)
                self.lanes.served(pace)
                wants[pace] = wanted
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
                self.breakers.untried(pace)
                self.owned.due(pace.lane, self.clock.now())
            raise
        self.load.claimed(len(claimed.claims))
        for begun in self._settle(wants, claimed):
            if begun.is_unsent and self._is_stopping():  # a drain began while we claimed: it gives this back
                self.lanes.refund(begun.pace, 1)
                self.attempts.cut_off.append(begun)
            else:
                self.attempts.begin(begun)
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
                is_trial = is_unsent and pace.gate.trial is Trial.UNDER_WAY
                under_way.append(UnderWay(claim, pace, is_unsent=is_unsent, is_trial=is_trial))
        for pace, count in unused.items():
            self.lanes.refund(pace, count)
        trials = {begun.pace for begun in under_way if begun.is_trial}
        for pace in wants.keys() - trials:
            self.breakers.untried(pace)
        self.owned.made_room()
        for lane, at in claimed.next_due.items():
            pace = paces[lane]
            pace.is_behind = not unused[pace] and self.owned.falls_due_now(at)
            pace.left(at)
            if at is not None:
                self.owned.due(lane, self._look_again_at(pace, at))
        return under_way

    def _share(self, pace: Pace, room: int) -> int:
        """How much of a lane's room to claim for: three quarters, so that what arrives meanwhile can start.

        All of it when more waits than that, and of room for three or less. A quarter where what waits gives
        way, or a few: a small lane costs others next to nothing.
        """
        if self._gives_way(pace):
            return min(room, max(A_FEW, -(-room // 4)))
        return room if pace.is_behind else room - room // 4

    def _is_after_older(self, pace: Pace) -> bool:
        """Whether what arrives has to wait for what is due in its lane, or was left by the last claim."""
        is_due = pace.next_due is not None and pace.next_due <= self.clock.now()
        return (is_due or pace.is_behind) and not self._gives_way(pace)

    def _look_again_at(self, pace: Pace, at: datetime) -> datetime:
        """When to claim again from a lane whose next item is due *at*."""
        now = self.clock.now()
        if self._gives_way(pace):
            return self.owned.end_of_step(max(at, now + TICK))
        return now if pace.is_behind else self.owned.end_of_step(at)

    def _gives_way(self, pace: Pace) -> bool:
        """Whether what waits in a lane takes a part of its room each step; what arrives starts beside it."""
        is_asked_to = self.load.favours_arrivals and pace.has_ample_room
        return is_asked_to and not pace.is_late(self.clock.now())

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
            await self.owned.wake.wait()
        finally:
            alarm.cancel()

    async def _wake_in_time(self) -> None:
        is_idle = self.owned.has_lapsed  # nothing may start until a new lease wakes us
        wait = None if is_idle else self.lanes.seconds_to_next(self.clock.now(), self.clock.elapsed())
        await self.clock.sleep(POLL_SECONDS if wait is None else min(wait, POLL_SECONDS))
        self.owned.wake.set()

    def _is_stopping(self) -> bool:
        return self.stopping  # asked again after an await: it may have changed
