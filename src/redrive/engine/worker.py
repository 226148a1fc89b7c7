"""Claim, send, decide, record: the life of an attempt."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from redrive.delivery.compose import compose
from redrive.delivery.port import Deliverer, OwnFault, Request
from redrive.domain.delivery import Attempt, Claim
from redrive.domain.errors import InvalidPayload
from redrive.domain.integration import Integration
from redrive.domain.item import RetryAt, next_step
from redrive.domain.outcome import Failed, Outcome, Reach, is_retryable
from redrive.domain.target import Target, parse_target
from redrive.engine import evidence
from redrive.engine.batch import Batcher
from redrive.engine.catalogue import Catalogue
from redrive.engine.health import Health
from redrive.engine.lanes import Lanes
from redrive.engine.tools import Tools
from redrive.store.port import Claimed, Result, StoreUnavailable
from redrive.telemetry.events import (
    AttemptFinished,
    AuditWritten,
    LeasesLost,
    LoopFailed,
    SendingSuspended,
    StoreFailed,
)

POLL_SECONDS = 2.0  # waking is a hint; the store's due times are the truth
SUSPENDED_SECONDS = 5.0
ADOPTED_AT_ONCE = 500
TIMEOUTS = frozenset({"RESPONSE_TIMEOUT", "ETIMEDOUT"})
RECORDING_SECONDS = 5.0  # what is known when the process stops is written down, if the store lets us
DIED = "the process that made this attempt died; nobody knows whether it was received"


class Worker:
    """Owns every lane of this process and makes their attempts, each at most once per claim."""

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
        self.chance = tools.chance
        self.unique_bytes = tools.unique_bytes
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.health = health
        self.owner = 0  # set when the store was entered
        self.lanes = Lanes(slots)
        self.recorder: Batcher[Result, bool | Exception] = Batcher(self._record)
        self.stopping = True
        self._attempts: set[asyncio.Task[None]] = set()
        self._aborted = 0
        self._at_once = False
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._targets: dict[str, Target] = {}
        catalogue.on_change = self.configure

    def configure(self, integration: Integration) -> None:
        """Let a lane follow its integration."""
        lane = self.lanes.lane(integration.number)
        concurrency = self.catalogue.defaults.of(integration, "concurrency")
        lane.configure(concurrency, integration.rate_per_second, sends=integration.sends)
        self._wake.set()

    @property
    def in_flight(self) -> int:
        """Attempts under way or being recorded."""
        return len(self._attempts)

    def reserve(self, number: int) -> bool:
        """Whether one attempt of this lane can start at once; if so, its place is taken."""
        if self.stopping or self.health.is_failing:
            return False
        lane = self.lanes.lane(number)
        if lane.next_due is not None and lane.next_due <= self.clock.now():
            return False  # older work first
        if not self.lanes.allowance(lane, self.clock.elapsed()):
            return False
        self.lanes.take(lane)
        return True

    def cancel(self, number: int) -> None:
        """Give a reserved place back."""
        self.lanes.refund(self.lanes.lane(number), 1)
        self._wake.set()

    def due(self, number: int, at: datetime) -> None:
        """Something unclaimed is due: look in time."""
        self.lanes.due(number, at)
        self._wake.set()

    def start(self, claim: Claim) -> None:
        """Make a claimed attempt; its place is reserved already."""
        task = asyncio.create_task(self._attempt(claim))
        self._attempts.add(task)
        task.add_done_callback(self._ended)

    async def run(self) -> None:
        """Claim what is due, until stopped."""
        polled_at = float("-inf")
        while not self.stopping:
            self._wake.clear()
            try:
                if self.clock.elapsed() - polled_at >= POLL_SECONDS:
                    polled_at = self.clock.elapsed()
                    for number, at in (await self.store.next_due()).items():
                        self.lanes.due(number, at)
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
        while True:
            taken = await self.store.adopt(self.owner, ADOPTED_AT_ONCE)
            self._report(taken)
            claims = taken.claims
            if not claims:
                break
            adopted += len(claims)
            for claim in claims:
                lane = self.lanes.lane(claim.delivery.integration)
                self.lanes.take(lane)
                self.lanes.sent(lane)
            await asyncio.gather(*(self._finish(claim, *self._lost(DIED)) for claim in claims))
        if adopted:
            self.announce(LeasesLost(adopted))
        return adopted

    async def stop_claiming(self) -> None:
        """Claim no more, and return once what was just being claimed is in flight or given back."""
        self.stopping = True
        self._wake.set()
        async with self._claiming:
            pass

    async def drain(self, seconds: float) -> int:
        """Let what is in flight finish for *seconds*, abort the rest; how many were aborted.

        An aborted attempt was, or may have been, sent: its claim stays, to be recorded as LEASE_EXPIRED.
        """
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=0 if self._at_once else seconds)
        late = list(self._attempts)
        self.abort()
        await asyncio.gather(*late, return_exceptions=True)
        await self.recorder.close(RECORDING_SECONDS)
        return self._aborted

    def abort(self) -> None:
        """Cut off what is in flight, and let a drain wait for nothing more."""
        self._at_once = True
        for task in self._attempts:
            task.cancel()

    async def _claim(self) -> None:
        elapsed = self.clock.elapsed()
        wants: dict[int, int] = {}
        if self.stopping:
            return
        for lane in self.lanes.collect(self.clock.now()):
            if room := self.lanes.allowance(lane, elapsed):
                self.lanes.take(lane, room)
                self.lanes.served(lane)
                wants[lane.number] = room
        if not wants:
            return
        try:
            claimed = await self.store.claim(self.owner, wants)
        except BaseException:
            for number, room in wants.items():
                self.lanes.refund(self.lanes.lane(number), room)
                self.lanes.due(number, self.clock.now())
            raise
        self._settle(wants, claimed)
        if self._is_stopping():  # the drain began while we claimed: none of it was sent
            await self._give_back(claimed.claims)
            return
        for claim in claimed.claims:
            self.start(claim)

    def _report(self, claimed: Claimed) -> None:
        for why in claimed.set_aside:
            self.announce(StoreFailed("claim", why))

    def _settle(self, wants: dict[int, int], claimed: Claimed) -> None:
        self._report(claimed)
        for claim in claimed.claims:
            wants[claim.delivery.integration] -= 1
        for number, unused in wants.items():
            self.lanes.refund(self.lanes.lane(number), unused)
        for number, at in claimed.next_due.items():
            if at is not None:
                self.lanes.due(number, at)

    def _made_room(self) -> None:
        if self.lanes.is_waiting:
            self._wake.set()

    def _is_stopping(self) -> bool:
        return self.stopping  # asked again after an await: it may have changed

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

    async def _attempt(self, claim: Claim) -> None:
        """Send, decide, record, announce."""
        lane = self.lanes.lane(claim.delivery.integration)
        span_id = self.unique_bytes(8)
        await self.clock.sleep(0)  # whoever handed this over is answered first: they wait for nothing but us
        started_at, started = self.clock.now(), self.clock.elapsed()
        outcome: Outcome
        try:
            outcome = await self.deliverer.send(self._request(claim, started_at, span_id))
        except OwnFault as fault:
            await self._suspend(claim, str(fault))
            return
        except Exception as error:  # noqa: BLE001 - our bug, after which nobody knows what was sent
            self.announce(LoopFailed("attempt", error))
            outcome = _unknown("redrive failed while it made this attempt")
        finally:
            self.lanes.sent(lane)
            self._made_room()
        duration = timedelta(seconds=self.clock.elapsed() - started)
        if isinstance(outcome, Failed) and outcome.code in TIMEOUTS:
            lane.narrow()
        else:
            lane.widen()
        try:
            await self._finish(claim, outcome, started_at, duration, span_id.hex())
        except Exception as error:  # noqa: BLE001 - our bug: the attempt must still not be forgotten
            self.announce(LoopFailed("record", error))
            await self._write_off(claim)

    async def _write_off(self, claim: Claim) -> None:
        """Record an attempt as unknown, until that succeeds: a claim that nobody ends would never be free."""
        while True:
            self.lanes.retake()
            try:
                await self._finish(claim, *self._lost("redrive could not write down what came of it"))
            except Exception as error:  # noqa: BLE001 - our bug, told each time
                self.announce(LoopFailed("record", error))
                await self.clock.sleep(SUSPENDED_SECONDS)
            else:
                return

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
            timeout_seconds=self.catalogue.defaults.of(integration, "timeout_seconds"),
            target=target,
            now=now,
            span_id=span_id,
        )

    async def _finish(
        self, claim: Claim, outcome: Outcome, started_at: datetime, duration: timedelta, span_id: str
    ) -> None:
        integration = self.catalogue.numbered(claim.delivery.integration)
        policy = self.catalogue.policy(integration.number)
        now = self.clock.now()
        step = next_step(outcome, claim.attempt, claim.max_attempts, policy, now=now, chance=self.chance())
        retryable = is_retryable(outcome.code, policy.network_codes) if isinstance(outcome, Failed) else None
        attempt = Attempt(claim.cycle, claim.attempt, started_at, duration, outcome, retryable, span_id)
        events = evidence.of_attempt(self.next_id, claim, integration.integration_id, attempt, step, now=now)
        try:
            [recorded] = await self.recorder.submit((Result(claim, attempt, step, events, now),))
        finally:
            self.lanes.recorded()
            self._made_room()
        if isinstance(recorded, Exception):
            raise recorded
        if recorded:
            if isinstance(step, RetryAt):
                self.due(claim.delivery.integration, step.due_at)
            for event in events:
                self.announce(AuditWritten(event.event_type.value, 1))
        self.announce(
            AttemptFinished(
                claim=claim,
                integration_id=integration.integration_id,
                method=integration.method,
                span_id=span_id,
                started_at=started_at,
                duration=duration,
                outcome=outcome,
                step=step,
                recorded=recorded,
            )
        )

    async def _record(self, results: Sequence[Result]) -> Sequence[bool | Exception]:
        """Until the store has it: what was sent must not be forgotten because a disk is full.

        One that cannot be written at all is answered with why, and takes no others with it.
        """
        while True:
            try:
                recorded = await self.store.record(self.owner, results)
            except StoreUnavailable as error:
                self.health.failed("record", error)
                await self.clock.sleep(self.health.pause_seconds)
            except Exception as error:  # noqa: BLE001 - our bug: handed on to the one attempt it is about
                if len(results) == 1:
                    return [error]
                return [recorded for one in results for recorded in await self._record([one])]
            else:
                self.health.worked()
                return recorded

    async def _suspend(self, claim: Claim, reason: str) -> None:
        lane = self.lanes.lane(claim.delivery.integration)
        lane.suspended_until = self.clock.elapsed() + SUSPENDED_SECONDS
        integration = self.catalogue.numbered(claim.delivery.integration)
        self.announce(SendingSuspended(integration.integration_id, reason, SUSPENDED_SECONDS))
        await self._give_back([claim], sent=True)

    async def _give_back(self, claims: Sequence[Claim], *, sent: bool = False) -> None:
        """Undo claims of which surely nothing was sent. *sent*: their lanes were told already."""
        for claim in claims:
            lane = self.lanes.lane(claim.delivery.integration)
            if not sent:
                self.lanes.sent(lane)
        while True:
            try:
                await self.store.give_back(self.owner, claims)
            except StoreUnavailable as error:
                self.health.failed("give_back", error)
                if self._is_stopping():
                    break  # they stay claimed; the next start records them as LEASE_EXPIRED
                await self.clock.sleep(self.health.pause_seconds)
            else:
                break
        for claim in claims:
            self.lanes.recorded()
            self.due(claim.delivery.integration, self.clock.now())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if task.cancelled():
            self._aborted += 1
        elif (error := task.exception()) is not None:
            self.announce(LoopFailed("attempt", error))

    def _lost(self, why: str) -> tuple[Outcome, datetime, timedelta, str]:
        return _unknown(why), self.clock.now(), timedelta(0), self.unique_bytes(8).hex()


def _unknown(detail: str) -> Failed:
    return Failed("LEASE_EXPIRED", detail, Reach.SENT)
