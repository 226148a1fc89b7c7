"""Probes: one request to the health URL, or one item sent as a trial, also while everything else is held."""

import asyncio
from datetime import datetime
from typing import Any, Final

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
from redrive.domain.traffic import Traffic
from redrive.engine.acting import Acting, check_opens, check_waits_in_no_job, tell_operated
from redrive.engine.attempts import UnderWay
from redrive.engine.audited import of_person, of_system
from redrive.engine.catalogue import Catalogue
from redrive.engine.expiry import Finding
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.operate import next_cycle
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Once, QueueFilter, Replay
from redrive.telemetry.events import AuditWritten, BreakerClosed

TURNS: Final = 10
NOT_KNOWN: Final = "nobody knows yet what came of it; look at the item"
NOT_SENT: Final = "a fault of our own kept it from being sent; it is sent when that is over"
ONE_ATTEMPT: Final = 1
EXPIRED: Final = "the containment ran out"


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
        self._under_way: set[asyncio.Task[Told]] = set()

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

    async def find(self, integration: Integration) -> Finding:
        """Whether a contained integration is well: asked at its health URL, else with an item that waits."""
        if integration.health_url is not None:
            try:
                probe, _ = await self._asked(integration, None, EXPIRED)
            except DependencyUnavailable as fault:
                return Finding(is_healthy=False, detail=fault.detail)
            await self._note(integration, probe, None, None, None)
            return _found(probe)
        if (item := await self._waiting(integration)) is None:
            return Finding(
                is_healthy=False, detail="it has no health URL, and no item waits that could be sent"
            )
        claim = await self.store.take(self.worker.owner, item, None, None)
        if claim is None:
            return Finding(is_healthy=False, detail="the item that was to be sent is gone")
        probe = self._probe(None, EXPIRED, item)
        outcome = await self._sent(claim)
        probe = self._ended(probe, outcome)
        await self._note(integration, probe, outcome, None, None)
        return _found(probe)

    async def idle(self) -> None:
        """Return once no probe is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

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
            outcome = await self._sent(claim)
            ended = self._ended(probe, outcome)
            told = render(Probed(integration, ended))
            await self._note(integration, ended, outcome, call, None)
            if once is not None:
                await self.store.amend(replace(once, status=told.status, body=told.body))
            return told

        task = asyncio.create_task(send())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _sent(self, claim: Claim) -> Outcome | None:
        """Make the attempt at once, whatever its lane has room for; None: it was given back."""
        number, item_id = claim.delivery.integration, claim.delivery.id
        lane = self.worker.owned.lane_of(number, item_id) or whole(number)
        pace = self.worker.lanes.pace(lane)
        self.worker.lanes.take(pace)
        return await asyncio.shield(self.worker.attempts.begin(UnderWay(claim, pace, is_probe=True)))

    async def _waiting(self, integration: Integration) -> Item | None:
        """The newest item that waits to be sent."""
        for status in (Status.RETRYING, Status.REPLAYED, Status.PENDING):
            wanted = QueueFilter(status=status)
            page = await self.store.queue(integration.number, wanted, limit=1, below=None)
            if page.rows:
                return page.rows[0]
        return None

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
        is_back = sent is not None and sign_of(sent) is Sign.WELL
        for _ in range(TURNS):
            old = self.catalogue.numbered(integration.number)
            before, now = old.traffic, self.clock.now()
            after = replace(before, probe=probe, version=before.version + 1)
            kinds = [EventType.PROBED]
            if is_back:
                after = replace(after, throttled_until=None)
            if is_back and not before.breaker.is_closed:
                after = replace(after, breaker=before.breaker.after(Sign.WELL, now, chance=0.5))
                kinds.append(EventType.BREAKER_CLOSED)
            events = [self._event(kind, old, before, after, probe=probe, call=call) for kind in kinds]
            if await self.catalogue.steer(old, after, events, once) is not None:
                self._tell(events, old, before, call, now)
                return
            await self.catalogue.refresh()
        raise DependencyUnavailable("contention", "the integration changed each time it was to be written")

    def _event(
        self,
        kind: EventType,
        old: Integration,
        before: Traffic,
        after: Traffic,
        *,
        probe: Probe,
        call: Call | None,
    ) -> AuditEvent:
        states: dict[str, Any] = {"before": before.state(), "after": after.state()}
        evidence = {"probe": probe.state(), "reason": probe.reason}
        name, now = old.integration_id, self.clock.now()
        if call is None or kind is EventType.BREAKER_CLOSED:
            return of_system(self.next_id, now, kind, integration_id=name, metadata=evidence, **states)
        return of_person(self.next_id, now, kind, call, integration_id=name, metadata=evidence, **states)

    def _tell(
        self, events: list[AuditEvent], old: Integration, before: Traffic, call: Call | None, now: datetime
    ) -> None:
        for event in events:
            if event.event_type is EventType.BREAKER_CLOSED:
                since = before.breaker.opened_at or now
                self.announce(BreakerClosed(old.integration_id, (now - since).total_seconds()))
            if event.event_type is EventType.PROBED and call is not None:
                name = old.integration_id
                tell_operated(self.announce, event.event_type, call, name, name)
            else:
                self.announce(AuditWritten(event.event_type.value))


def _found(probe: Probe) -> Finding:
    what = "the health URL" if probe.recovery_id is None else probe.recovery_id
    if probe.succeeded:
        return Finding(is_healthy=True, detail=f"{what} answered {probe.http_status}")
    return Finding(is_healthy=False, detail=f"{what}: {probe.failure_detail}")
