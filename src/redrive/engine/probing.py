"""Probes: one request to the health URL, or one item sent as a trial, also while everything else is held."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.delivery.compose import health_request
from redrive.delivery.port import Deliverer, OwnFault
from redrive.domain.access import SYSTEM, Call, Permission
from redrive.domain.breaker import Sign, sign_of
from redrive.domain.delivery import Claim, Item
from redrive.domain.errors import Conflict, DependencyUnavailable
from redrive.domain.health import Probe
from redrive.domain.integration import Integration, Lifecycle
from redrive.domain.item import DEAD, OPEN, Status, check_replay
from redrive.domain.outcome import Failed, Outcome
from redrive.domain.sharing import whole
from redrive.domain.target import parse_target
from redrive.domain.trace import child, new_traceparent
from redrive.domain.traffic import NO_HEALTH_URL, Traffic, still
from redrive.engine.acting import (
    Acting,
    check_is_open_for_copies,
    check_opens,
    check_waits_in_no_job,
    tell_operated,
    why,
)
from redrive.engine.attempts import UnderWay
from redrive.engine.audited import of_person, of_system
from redrive.engine.catalogue import Catalogue
from redrive.engine.expiry import Finding
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.operate import next_cycle
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Once, QueueFilter, Replay, StoreUnavailable
from redrive.telemetry.events import BreakerClosed, LoopFailed, Operated

TURNS: Final = 10
LOOKED_AT: Final = 50  # of the items that wait, for one that may be sent
NOT_KNOWN: Final = "nobody knows yet what came of it; look at the item"
NOT_SENT: Final = "a fault of our own kept it from being sent; it is sent when that is over"
ONE_ATTEMPT: Final = 1
EXPIRED: Final = "the containment ran out"
Write = Callable[[], Awaitable[None]]  # may be repeated
Done = TypeVar("Done")


class Probed(Struct, frozen=True):
    """What a probe did."""

    integration: Integration
    probe: Probe


class Probing:
    """The verbs. What came of a probe is evidence: stored beside the integration, and audited."""

    def __init__(self, tools: Tools, deliverer: Deliverer, catalogue: Catalogue, worker: Worker) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.unique_bytes = tools.unique_bytes
        self.announce = tools.announce
        self.deliverer = deliverer
        self.catalogue = catalogue
        self.worker = worker
        self.acting = Acting(tools, catalogue)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def ask(
        self,
        call: Call,
        integration_id: str,
        reason: str | None,
        *,
        render: Render[Probed],
        key: Key | None = None,
    ) -> Told:
        """Make one request to the health URL."""
        call.require(Permission.OPERATE)
        integration = await self.catalogue.current(call, integration_id)

        async def act() -> Told:
            probe, _ = await self._asked(integration, call, reason)
            told = render(Probed(integration, probe))
            await self._note(integration, probe, None, call, kept(key, told, self.clock.now()))
            return told

        return await idempotent(self.store, key, act)

    async def send(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Probed],
        key: Key | None = None,
    ) -> Told:
        """Send one item now: a dead one in a new cycle of one attempt, an open one with its next attempt."""
        call.require(Permission.OPERATE)

        async def act() -> Told:
            for _ in range(TURNS):
                integration, item = await self.acting.item(call, integration_id, recovery_id)
                await self._check(integration, item, call)
                probe = self._probe(call, reason, item)
                told = render(Probed(integration, replace(probe, failure_detail=NOT_KNOWN)))
                once = kept(key, told, self.clock.now(), item=item.delivery.id)
                if (claim := await self._take(integration, item, call, reason, once)) is not None:
                    # Whoever asked may leave: what was claimed is sent all the same.
                    return await asyncio.shield(
                        self._sending(integration, claim, probe, call, render=render, once=once)
                    )
            raise Conflict("the item is being attempted at this moment")

        return await idempotent(self.store, key, act)

    async def find(self, integration: Integration) -> Finding | None:
        """Whether an integration whose containment ran out is well: its health URL says, or one item, once.

        None: nobody asked, for it is not this process's to send, or a person was faster.
        """
        if integration.health_url is not None:
            return await self._found_at_url(integration)
        containment = integration.traffic.containment
        if containment is not None and containment.is_tried:
            return _no_way("an item was sent to try it, and no other is")
        if (item := await self._spare(integration)) is None:
            return _no_way("no item waits that would have an attempt left if it failed")
        return await self._found_with(integration, item)

    async def close(self, seconds: float) -> None:
        """Give the probes that are under way, and what came of others, *seconds* to be written down."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=seconds)
            for task in late:
                task.cancel()

    # where a containment ends

    async def _found_at_url(self, integration: Integration) -> Finding:
        try:
            probe, _ = await self._asked(integration, None, EXPIRED)
        except DependencyUnavailable as fault:
            return Finding(is_healthy=False, detail=fault.detail)
        await self._surely(lambda: self._note(integration, probe, None, None, None))
        return _found(probe)

    async def _found_with(self, integration: Integration, item: Item) -> Finding | None:
        """Send the item: but first it is written that one was, or a crash might have us send another."""
        if self._is_stopping() or not await self._tries(integration):
            return None
        claim = await self.store.take(self.worker.owner, item, None, None)
        if claim is None:
            return _no_way("the item that was to be sent is gone")
        if self._is_stopping():
            await self.store.give_back(self.worker.owner, [claim])
            return None
        probe, outcome = await self._sent(claim, self._probe(None, EXPIRED, item))
        await self._surely(lambda: self._note(integration, probe, outcome, None, None))
        return _found(probe)

    def _is_stopping(self) -> bool:
        return self.worker.stopping  # asked again after an await: a drain may have begun

    async def _tries(self, integration: Integration) -> bool:
        """Have it known that an item is sent; False: a person was faster, or somebody sent one."""
        ran_out = integration.traffic.containment

        def tried(traffic: Traffic) -> Traffic | None:
            found = None if ran_out is None else still(traffic, ran_out)
            if found is None or found.is_tried:
                return None
            return replace(traffic, containment=replace(found, is_tried=True))

        return await self.catalogue.change_traffic(integration.number, tried) is not None

    async def _spare(self, integration: Integration) -> Item | None:
        """The newest item that waits, and would not be dead if it failed."""
        for status in (Status.RETRYING, Status.REPLAYED, Status.PENDING):
            wanted = QueueFilter(status=status)
            page = await self.store.queue(integration.number, wanted, limit=LOOKED_AT, below=None)
            for item in page.rows:
                if item.attempt_count + 1 < item.max_attempts:
                    return item
        return None

    # the health URL

    async def _asked(
        self, integration: Integration, call: Call | None, reason: str | None
    ) -> tuple[Probe, Outcome]:
        if integration.health_url is None:
            raise Conflict("the integration has no health_url to ask; give it one, or name an item to send")
        probe = self._probe(call, reason, None)
        request = health_request(
            integration,
            parse_target(integration.health_url, allow_http=self.catalogue.allow_http),
            timeout_seconds=self.worker.attempts.sending.timeout_seconds(integration),
            traceparent=self._trace() if call is None else child(call.traceparent, self.unique_bytes(8)),
            request_id=None if call is None else call.request_id,
        )
        try:
            outcome = await self.deliverer.send(request)
        except OwnFault as fault:
            raise DependencyUnavailable("egress", f"the health URL could not be asked: {fault}") from fault
        return self._ended(probe, outcome), outcome

    def _trace(self) -> str:
        return new_traceparent(self.unique_bytes(16), self.unique_bytes(8))

    # an item

    async def _check(self, integration: Integration, item: Item, call: Call) -> None:
        """Raise unless it may be sent now; a containment and an open breaker do not stand in the way."""
        if item.status not in OPEN | DEAD:
            raise Conflict(f"an item that is {item.status} is not sent again")
        if integration.lifecycle_status is not Lifecycle.ACTIVE:
            raise Conflict(f"the integration is {integration.lifecycle_status}; only an active one sends")
        if item.status in OPEN:
            return
        check_replay(item.status, resolved=item.resolution is not None, place=item.place)
        check_opens(item, call.request_id)
        await check_waits_in_no_job(self.store, integration, item)
        await check_is_open_for_copies(self.store, integration, item)

    async def _take(
        self, integration: Integration, item: Item, call: Call, reason: str, once: Once | None
    ) -> Claim | None:
        owner, now = self.worker.owner, self.clock.now()
        if item.status in OPEN:
            return await self.store.take(owner, item, None, once)
        after = next_cycle(item, call, now, ONE_ATTEMPT)
        event = of_person(
            self.next_id,
            now,
            EventType.REPLAYED,
            call,
            integration_id=integration.integration_id,
            item=item,
            before=item.state(),
            after=after.state(),
            metadata={"reason": reason, "trial": True},
        )
        replay = Replay(
            id=item.delivery.id,
            integration=integration.number,
            status=item.status,
            cycle=item.cycle,
            max_attempts=ONE_ATTEMPT,
            request_id=call.request_id,
            traceparent=call.traceparent,
            opened_by=call.principal.id,
            reason=reason,
            opened_at=now,
            event=event,
            is_trial=True,
            edit_of=item.edit_of,
        )
        claim = await self.store.take(owner, item, replay, once)
        if claim is not None:
            tell_operated(self.announce, event.event_type, call, integration.integration_id, item.recovery_id)
        return claim

    def _sending(
        self,
        integration: Integration,
        claim: Claim,
        probe: Probe,
        call: Call,
        *,
        render: Render[Probed],
        once: Once | None,
    ) -> "asyncio.Task[Told]":
        async def send() -> Told:
            ended, outcome = await self._sent(claim, probe)
            told = render(Probed(integration, ended))
            await self._surely(lambda: self._note(integration, ended, outcome, call, None))
            if once is not None:
                amended = replace(once, status=told.status, body=told.body)
                await self._surely(lambda: self.store.amend(amended))
            return told

        return self._begin(send())

    async def _sent(self, claim: Claim, probe: Probe) -> tuple[Probe, Outcome | None]:
        """Make the attempt at once, whatever its lane has room for. None: it was given back, or cut off."""
        number, item_id = claim.delivery.integration, claim.delivery.id
        lane = self.worker.owned.lane_of(number, item_id) or whole(number)
        pace = self.worker.lanes.pace(lane)
        self.worker.lanes.take(pace)
        attempt = self.worker.attempts.begin(UnderWay(claim, pace, is_probe=True))
        await asyncio.wait([attempt])  # whoever waits is not cut off with it
        if attempt.cancelled():
            return replace(probe, failure_detail=NOT_KNOWN), None
        outcome = attempt.result()
        return self._ended(probe, outcome), outcome

    # what came of it

    def _probe(self, call: Call | None, reason: str | None, item: Item | None) -> Probe:
        by = SYSTEM.id if call is None else call.principal.id
        return Probe(self.clock.now(), by, reason, None if item is None else item.recovery_id)

    def _ended(self, probe: Probe, outcome: Outcome | None) -> Probe:
        if outcome is None:
            return replace(probe, failure_detail=NOT_SENT)
        milliseconds = (self.clock.now() - probe.at).total_seconds() * 1000
        status = None if outcome.answer is None else outcome.answer.status
        ended = replace(probe, http_status=status, duration_ms=round(milliseconds, 1))
        if isinstance(outcome, Failed):
            return replace(ended, failure_code=outcome.code, failure_detail=outcome.detail)
        return replace(ended, succeeded=True)

    async def _note(
        self,
        integration: Integration,
        probe: Probe,
        sent: Outcome | None,
        call: Call | None,
        once: Once | None,
    ) -> None:
        """Store the evidence. An item that was answered tells the breaker that the receiver is back."""
        is_back, now = sent is not None and sign_of(sent) is Sign.WELL, self.clock.now()

        def noted(traffic: Traffic) -> Traffic | None:
            if traffic.probe == probe:  # it was written, and the store could not tell us
                return None
            if not is_back:
                return replace(traffic, probe=probe)
            breaker = traffic.breaker
            if not breaker.is_closed:
                breaker = breaker.after(Sign.WELL, now, chance=0.5)
            return replace(traffic, probe=probe, throttled_until=None, breaker=breaker)

        def tell(old: Integration, after: Traffic) -> Sequence[AuditEvent]:
            kinds = [EventType.PROBED]
            if after.breaker != old.traffic.breaker:
                kinds.append(EventType.BREAKER_CLOSED)
            return [self._event(kind, old, after, probe=probe, call=call) for kind in kinds]

        old = await self.catalogue.change_traffic(integration.number, noted, tell, once)
        if old is not None:
            self._tell(old, call, now, has_closed=is_back and not old.traffic.breaker.is_closed)

    def _event(
        self, kind: EventType, old: Integration, after: Traffic, *, probe: Probe, call: Call | None
    ) -> AuditEvent:
        states: dict[str, Any] = {"before": old.traffic.state(), "after": after.state()}
        contained = old.traffic.containment
        incident = None if contained is None else contained.incident
        evidence = {"probe": probe.state(), "reason": probe.reason} | why(None, incident)
        name, now = old.integration_id, self.clock.now()
        if call is None or kind is EventType.BREAKER_CLOSED:
            return of_system(self.next_id, now, kind, integration_id=name, metadata=evidence, **states)
        return of_person(self.next_id, now, kind, call, integration_id=name, metadata=evidence, **states)

    def _tell(self, old: Integration, call: Call | None, now: datetime, *, has_closed: bool) -> None:
        name = old.integration_id
        if has_closed:
            since = old.traffic.breaker.opened_at or now
            self.announce(BreakerClosed(name, (now - since).total_seconds()))
        if call is not None:
            kind = EventType.PROBED.value
            self.announce(Operated(kind, call.principal.id, name, name, call.request_id))

    # its tasks

    async def _surely(self, write: Write) -> None:
        """Have it written: now, or by a task of its own once the store is back. It is about what was sent."""
        try:
            await write()
        except StoreUnavailable as error:
            self.worker.health.failed("probe", error)
            self._begin(self._keep(write))
        except Exception as error:  # noqa: BLE001 - our bug: told; whoever asked is told what was sent
            self.announce(LoopFailed("probe", error))

    async def _keep(self, write: Write) -> None:
        await self.clock.sleep(self.worker.health.pause_seconds)
        await self._surely(write)

    def _begin(self, doing: Coroutine[Any, Any, Done]) -> "asyncio.Task[Done]":
        task = asyncio.create_task(doing)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def _found(probe: Probe) -> Finding:
    what = "the health URL" if probe.recovery_id is None else probe.recovery_id
    if probe.succeeded:
        return Finding(is_healthy=True, detail=f"{what} answered {probe.http_status}")
    if probe.recovery_id is None:
        return Finding(is_healthy=False, detail=f"{what}: {probe.failure_detail}")
    return _no_way(f"{what}: {probe.failure_detail}")


def _no_way(why: str) -> Finding:
    """Nothing is left to find out with."""
    return Finding(is_healthy=False, detail=f"{why}; {NO_HEALTH_URL}")
