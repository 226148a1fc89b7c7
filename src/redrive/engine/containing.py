"""Containment: a person stops all that goes to an integration, and has it start again at a pace."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, Fault, InvalidPayload
from redrive.domain.integration import Integration
from redrive.domain.traffic import (
    DEFAULT_CONTAINMENT,
    LONGEST_CONTAINMENT,
    Containment,
    Mode,
    Release,
    Standing,
    Traffic,
)
from redrive.engine.acting import why
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.membership import Membership
from redrive.engine.once import Key, Render, Told, idempotent, kept, until_written
from redrive.engine.tools import Tools
from redrive.store.port import Once, StoreUnavailable
from redrive.telemetry.events import AuditWritten, Operated

PATIENCE_SECONDS: Final = 2.0  # for all processes to confirm, before the answer is that some have not yet
LOOK_SECONDS: Final = 0.05


class Terms(Struct, frozen=True):
    """What an operator asks for. Without an end it is *seconds* from now, without an owner the caller."""

    reason: str
    mode: Mode = Mode.HOLD
    owner: str | None = None
    until: datetime | None = None
    seconds: float | None = None
    incident: str | None = None


class Contained(Struct, frozen=True):
    """How an integration stands: `state` is none, containing (some process may still start something) or
    contained. `standing`: None until that is so; to count a long backlog takes time that a stop has not.
    """

    integration: Integration
    state: str
    standing: Standing | None


class Released(Struct, frozen=True):
    """What a release did, or, `dry_run`, would do."""

    integration: Integration
    simulation: dict[str, Any]
    dry_run: bool


Simulate = Callable[[Integration, float | None], Awaitable[dict[str, Any]]]


class Containing:
    """The verbs; whoever contains is answered when all processes have confirmed, or after two seconds."""

    def __init__(
        self, tools: Tools, catalogue: Catalogue, membership: Membership, simulate: Simulate
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.membership = membership
        self.simulate = simulate
        self._confirming: set[asyncio.Task[Contained | None]] = set()

    async def show(self, call: Call, integration_id: str) -> Contained:
        """How it stands."""
        call.require(Permission.VIEW)
        integration = await self.catalogue.current(call, integration_id)
        return await self._standing(integration)

    async def contain(
        self,
        call: Call,
        integration_id: str,
        terms: Terms,
        *,
        render: Render[Contained],
        key: Key | None = None,
    ) -> Told:
        """Stop all that goes to it; or change how, why and until when that is."""
        call.require(Permission.OPERATE)
        ends_at(terms, self.clock.now())  # what is wrong with the terms is said before anything is looked up

        async def act() -> Told | None:
            old = await self.catalogue.current(call, integration_id)
            traffic = contained(old.traffic, terms, call, self.clock.now())
            new = replace(old, traffic=traffic)
            event = self._event(call, EventType.CONTAINED, old, traffic, why(terms.reason, terms.incident))
            told = render(Contained(new, "containing", None))
            once = kept(key, told, self.clock.now())
            return told if await self._written(call, old, traffic, event, once) else None

        told = await idempotent(self.store, key, lambda: until_written(act))
        return told if told.again else await self._confirmed(call, integration_id, told, render, key)

    async def release(
        self,
        call: Call,
        integration_id: str,
        reason: str,
        *,
        rate_per_second: float | None = None,
        dry_run: bool = False,
        render: Render[Released],
        key: Key | None = None,
    ) -> Told:
        """Let everything go again, what waits at *rate_per_second*; a *dry_run* tells what that would be."""
        call.require(Permission.OPERATE)

        async def act() -> Told | None:
            old = await self.catalogue.current(call, integration_id)
            traffic = released(old.traffic, call.principal.id, reason, rate_per_second, self.clock.now())
            simulation = await self.simulate(old, rate_per_second)
            told = render(Released(old if dry_run else replace(old, traffic=traffic), simulation, dry_run))
            if dry_run:
                return told
            incident = None if old.traffic.containment is None else old.traffic.containment.incident
            told_of = why(reason, incident) | {"simulation": simulation}
            event = self._event(call, EventType.RELEASED, old, traffic, told_of)
            once = kept(key, told, self.clock.now())
            return told if await self._written(call, old, traffic, event, once) else None

        return await idempotent(self.store, key, lambda: until_written(act))

    async def _written(
        self, call: Call, old: Integration, traffic: Traffic, event: AuditEvent, once: Once | None
    ) -> bool:
        kind, name = event.event_type.value, old.integration_id
        if await self.catalogue.steer(old, traffic, [event], once) is None:
            return False
        self.announce(AuditWritten(kind))
        self.announce(Operated(kind, call.principal.id, name, name, call.request_id))
        return True

    async def _confirmed(
        self, call: Call, integration_id: str, told: Told, render: Render[Contained], key: Key | None
    ) -> Told:
        """What is told once every process has confirmed, should that be soon; else *told*."""
        until = self.clock.elapsed() + PATIENCE_SECONDS
        confirming = asyncio.create_task(self._until_confirmed(call, integration_id, until))
        self._confirming.add(confirming)  # it ends by itself: what it asks the store is not called off midway
        confirming.add_done_callback(self._looked)
        alarm = asyncio.create_task(self.clock.sleep(PATIENCE_SECONDS))
        try:
            await asyncio.wait([confirming, alarm], return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        try:
            if not confirming.done() or (found := confirming.result()) is None:
                return told
            last = render(found)
            if (once := kept(key, last, self.clock.now())) is not None:
                await self.store.amend(once)
        except StoreUnavailable:
            return told  # which is durable, and true
        return last

    async def _until_confirmed(self, call: Call, integration_id: str, until: float) -> Contained | None:
        """How it stands once that is known; None: it took too long."""
        while self.clock.elapsed() < until:
            integration = await self.catalogue.current(call, integration_id)
            await self.membership.acknowledge()
            if await self._state(integration) != "containing":
                return await self._standing(integration)
            await self.clock.sleep(LOOK_SECONDS)
        return None

    def _looked(self, confirming: "asyncio.Task[Contained | None]") -> None:
        self._confirming.discard(confirming)
        if not confirming.cancelled():
            confirming.exception()  # whoever still waits for it is told of it

    async def _standing(self, integration: Integration) -> Contained:
        state = await self._state(integration)
        return Contained(integration, state, await self.store.standing(integration.number))

    async def _state(self, integration: Integration) -> str:
        containment = integration.traffic.containment
        if containment is None:
            return "none"
        return "contained" if await self.store.is_followed(containment.version) else "containing"

    def _event(
        self, call: Call, kind: EventType, old: Integration, traffic: Traffic, metadata: dict[str, Any]
    ) -> AuditEvent:
        return of_person(
            self.next_id,
            self.clock.now(),
            kind,
            call,
            integration_id=old.integration_id,
            before=old.traffic.state(),
            after=traffic.state(),
            metadata=metadata,
        )


def contained(old: Traffic, terms: Terms, call: Call, now: datetime) -> Traffic:
    """What *terms* make of it: a new containment, or another end to the one there is."""
    until = ends_at(terms, now)
    new = Containment(
        mode=terms.mode,
        reason=terms.reason,
        owner=terms.owner or call.principal.id,
        by=call.principal.id,
        since=now,
        until=until,
        request_id=call.request_id,
        incident=terms.incident,
    )
    if old.containment is not None:  # nothing has started since, so nothing has to be confirmed again
        new = replace(new, since=old.containment.since, version=old.containment.version)
    return replace(old, containment=new, release=None, version=old.version + 1)


def released(old: Traffic, by: str, reason: str, rate_per_second: float | None, now: datetime) -> Traffic:
    """Nothing is contained any more; what waits goes at a rate. A release that drains takes another rate."""
    if old.containment is None and old.release is None:
        raise Conflict("the integration is not contained")
    since = now if old.containment is not None or old.release is None else old.release.since
    release = None if rate_per_second is None else Release(rate_per_second, since, by, reason)
    return replace(old, containment=None, release=release, version=old.version + 1)


def ends_at(terms: Terms, now: datetime) -> datetime:
    """When a containment runs out; InvalidPayload when that is not ahead, or too far."""
    if terms.until is not None and terms.seconds is not None:
        raise InvalidPayload(Fault("/for_seconds", "give this or until, not both"))
    longest = LONGEST_CONTAINMENT.total_seconds()
    if terms.seconds is not None:
        if not 0 < terms.seconds <= longest:  # a NaN fails this too
            raise InvalidPayload(Fault("/for_seconds", f"must be above 0 and at most {longest:g} (30 days)"))
        return now + timedelta(seconds=terms.seconds)
    until = terms.until or now + DEFAULT_CONTAINMENT
    if not now < until <= now + LONGEST_CONTAINMENT:
        raise InvalidPayload(Fault("/until", "must be ahead, and at most 30 days"))
    return until
