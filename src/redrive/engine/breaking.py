"""What came of attempts turns the breaker of an integration; what it turned to is stored, for all processes.

Memory comes first: nothing more is started from the moment on at which it opened. A trial is the other way
round: the store says whose it is before it begins, so that there is one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.breaker import Breaker, BreakerState, Sign, sign_of, throttled_for
from redrive.domain.delivery import Claim
from redrive.domain.outcome import Failed, Outcome, Succeeded
from redrive.domain.traffic import Traffic
from redrive.engine.catalogue import Catalogue, Tell, untold
from redrive.engine.gates import Gate, Trial
from redrive.engine.health import Health
from redrive.engine.lanes import Pace
from redrive.engine.owned import Owned
from redrive.engine.tools import Tools
from redrive.store.port import StoreUnavailable
from redrive.telemetry.events import (
    BreakerClosed,
    BreakerOpened,
    LoopFailed,
    ReceiverGone,
    SendingThrottled,
)

TIMEOUTS: Final = frozenset({"RESPONSE_TIMEOUT", "ETIMEDOUT"})
TRIAL_SLACK_SECONDS: Final = 10.0  # beside the timeout: to be claimed, and to be recorded
STORED_FROM_SECONDS: Final = 2.0  # a shorter throttle is over before others would hear of it
SAME_SECONDS: Final = 1.0  # two throttles that end that close together are one
GONE_AGAIN_SECONDS: Final = 3600.0
Change = Callable[[Traffic], Traffic | None]  # what is made of it as it is stored; None: nothing, it is known


class Breakers:
    """Those of the integrations of which this process has a lane."""

    def __init__(self, tools: Tools, catalogue: Catalogue, health: Health, owned: Owned) -> None:
        self.clock = tools.clock
        self.chance = tools.chance
        self.announce = tools.announce
        self.catalogue = catalogue
        self.health = health
        self.owned = owned
        self._writing: set[asyncio.Task[None]] = set()
        self._gone_at: dict[int, float] = {}  # when that was told

    # what came of attempts

    def see(self, claim: Claim, pace: Pace, outcome: Outcome, *, is_trial: bool, elapsed: float) -> None:
        """An attempt ended in *outcome* at *elapsed*, a second of the steady clock."""
        if isinstance(outcome, Succeeded):
            pace.gate.recent.well(elapsed)
            pace.widen()
        else:
            self._failed(claim, pace, outcome, elapsed)
        if is_trial and pace.gate.trial is Trial.UNDER_WAY:
            self._tried(claim.delivery.integration, pace.gate, sign_of(outcome))

    def untried(self, pace: Pace) -> None:
        """A trial could not be sent: the next attempt is one."""
        if pace.gate.trial is Trial.UNDER_WAY:
            pace.gate.trial = Trial.GRANTED

    def _failed(self, claim: Claim, pace: Pace, outcome: Failed, elapsed: float) -> None:
        number, gate = claim.delivery.integration, pace.gate
        if outcome.code == "HTTP_410":
            self._gone(number, elapsed)
        if (sign := sign_of(outcome)) is not Sign.ILL:
            pace.widen()
            if sign is Sign.WELL:
                gate.recent.well(elapsed)
            return
        if outcome.code in TIMEOUTS:
            pace.narrow()
        gate.recent.ill(elapsed, again=_failed_before(claim))
        if (asked := throttled_for(outcome)) is not None:
            self._throttle(number, gate, asked, elapsed)
        if gate.breaker.is_closed:
            self._judge(number, gate, elapsed)

    def _judge(self, number: int, gate: Gate, elapsed: float) -> None:
        for seen in gate.recent.seen(elapsed):
            if gate.watch.is_outage(seen):
                opened = gate.breaker.opened(self.clock.now(), chance=self.chance())
                self._turn(number, gate, opened, seen.facts())
                return

    def _tried(self, number: int, gate: Gate, trial: Sign) -> None:
        turned = gate.breaker.after(trial, self.clock.now(), chance=self.chance())
        self._turn(number, gate, turned, {"trial": trial.name.lower()})

    def _turn(self, number: int, gate: Gate, breaker: Breaker, facts: dict[str, Any]) -> None:
        was, now = gate.breaker, self.clock.now()
        gate.turn(breaker, now, self.clock.elapsed())
        integration_id = self.catalogue.numbered(number).integration_id
        if breaker.is_closed:
            self.owned.lanes.ramp(number)
            since = was.opened_at or now
            self.announce(BreakerClosed(integration_id, (now - since).total_seconds()))
        elif breaker.until is not None and breaker.until > now:
            seconds = (breaker.until - now).total_seconds()
            self.announce(BreakerOpened(integration_id, seconds, breaker.trips))
        self.owned.wake.set()
        self._begin(number, gate, self._keep(number, was, breaker, facts))

    # the trial

    def ask(self, number: int, gate: Gate) -> None:
        """Something is due, and the time has come to try the receiver: ask the store whether we may."""
        gate.trial = Trial.ASKED_FOR
        self._begin(number, gate, self._ask(number, gate))

    async def _ask(self, number: int, gate: Gate) -> None:
        timeout: float = self.catalogue.defaults.of(self.catalogue.numbered(number), "timeout_seconds")
        seconds = timeout + TRIAL_SLACK_SECONDS
        began, was = self.clock.elapsed(), gate.breaker
        trying = was.trying(self.clock.now(), seconds)
        try:
            is_ours = await self._store(number, was, trying)
            if is_ours and gate.breaker == was:
                gate.turn(trying, self.clock.now(), self.clock.elapsed())
                gate.grant(began + seconds)
        except StoreUnavailable as error:
            self.health.failed("breaker", error)
        finally:
            if gate.trial is Trial.ASKED_FOR:  # whatever went wrong, it is asked for again
                gate.put_off(self.clock.elapsed() + self.health.pause_seconds)
            self.owned.wake.set()

    # what others are told

    async def _keep(self, number: int, was: Breaker, breaker: Breaker, facts: dict[str, Any]) -> None:
        kind = {
            BreakerState.CLOSED: EventType.BREAKER_CLOSED,
            BreakerState.OPEN: EventType.BREAKER_OPENED,
        }[breaker.state]
        while True:
            try:
                await self._store(number, was, breaker, self.catalogue.by_itself(kind, facts))
            except StoreUnavailable as error:
                self.health.failed("breaker", error)
                await self.clock.sleep(self.health.pause_seconds)
            else:
                return

    async def _store(self, number: int, was: Breaker, breaker: Breaker, tell: Tell = untold) -> bool:
        """Store what a breaker turned to; False when another process had turned it before."""

        def turned(traffic: Traffic) -> Traffic | None:
            return replace(traffic, breaker=breaker) if traffic.breaker == was else None

        return await self.catalogue.change_traffic(number, turned, tell) is not None

    def _throttle(self, number: int, gate: Gate, asked: timedelta, elapsed: float) -> None:
        """Its receiver asked to be left alone; a stored one is heard of by other processes."""
        seconds = asked.total_seconds()
        if elapsed + seconds < gate.throttled_until + SAME_SECONDS:
            return
        gate.throttle(elapsed + seconds)
        self.announce(SendingThrottled(self.catalogue.numbered(number).integration_id, seconds))
        if seconds < STORED_FROM_SECONDS:
            return
        until = self.clock.now() + asked

        def throttled(traffic: Traffic) -> Traffic | None:
            is_known = traffic.throttled_until is not None and traffic.throttled_until >= until
            return None if is_known else replace(traffic, throttled_until=until)

        self._begin(number, gate, self._tell(number, throttled))

    async def _tell(self, number: int, change: Change) -> None:
        try:
            await self.catalogue.change_traffic(number, change)
        except StoreUnavailable as error:
            self.health.failed("throttle", error)  # others find out by themselves

    def _gone(self, number: int, elapsed: float) -> None:
        """A receiver that answers 410 wants nothing more, ever: that is for a person to decide."""
        last = self._gone_at.get(number)
        if last is not None and elapsed - last < GONE_AGAIN_SECONDS:
            return
        self._gone_at[number] = elapsed
        integration_id = self.catalogue.numbered(number).integration_id
        self.announce(ReceiverGone(integration_id))
        self._spawn(self._propose(number))

    async def _propose(self, number: int) -> None:
        now = self.clock.now()

        def gone(traffic: Traffic) -> Traffic | None:
            last = traffic.gone_at
            is_known = last is not None and now - last < timedelta(seconds=GONE_AGAIN_SECONDS)
            return None if is_known else replace(traffic, gone_at=now)

        tell = self.catalogue.by_itself(EventType.CONTAINMENT_PROPOSED, {"failure_code": "HTTP_410"})
        try:
            await self.catalogue.change_traffic(number, gone, tell)
        except StoreUnavailable as error:
            self._gone_at.pop(number, None)
            self.health.failed("propose", error)

    # its tasks

    async def close(self, seconds: float) -> None:
        """Give what is being stored *seconds* to be."""
        if self._writing:
            _, late = await asyncio.wait(self._writing, timeout=seconds)
            for task in late:
                task.cancel()

    def _begin(self, number: int, gate: Gate, writing: Coroutine[Any, Any, None]) -> None:
        """What *writing* stores the gate has turned to already: it follows nothing else meanwhile."""
        gate.ahead += 1

        def follow(_: object) -> None:
            gate.ahead -= 1
            self.owned.configure(self.catalogue.numbered(number))

        self._spawn(writing).add_done_callback(follow)

    def _spawn(self, writing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(writing)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.announce(LoopFailed("breaker", error))


def _failed_before(claim: Claim) -> bool:
    """Whether a retry or a replay failed: or there is to be no retry."""
    return claim.attempt > 1 or claim.cycle > 1 or claim.max_attempts == 1
