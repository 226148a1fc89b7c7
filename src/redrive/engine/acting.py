"""A person's verb on one item: read, decide, write guarded by what was read; if it moved on, once more."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Item
from redrive.domain.errors import Conflict, Contained, RecoveryNotFound
from redrive.domain.ids import parse_recovery_id, replay_id
from redrive.domain.integration import Integration
from redrive.domain.item import check_original
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.once import Key, Render, Told, idempotent, kept, until_written
from redrive.engine.tools import Tools
from redrive.store.port import Once, Store
from redrive.telemetry.events import Announce, AuditWritten, Operated

Result = TypeVar("Result")


class Order(Struct, frozen=True):
    """What a person asks to be done to an item, why, and in which incident; under a *key*, once."""

    call: Call
    integration_id: str
    recovery_id: str
    reason: str
    key: Key | None = None
    incident: str | None = None

    @property
    def why(self) -> dict[str, Any]:
        """As an event tells it."""
        return why(self.reason, self.incident)


class Subject(Struct, frozen=True):
    """The item of an order as it was read just before `now`, without its content; and as it is `stored`."""

    order: Order
    integration: Integration
    item: Item
    now: datetime
    stored: Item


class Deed(Struct, Generic[Result], frozen=True):
    """What was decided: what the item becomes, what is told of it, and how both are written.

    `write` is given the event and the stored reply; False: the item has moved on and nothing was written.
    """

    after: Item
    result: Result
    write: Callable[[AuditEvent, Once | None], Awaitable[bool]]
    metadata: dict[str, Any] = {}  # of the event, besides the reason


Decide = Callable[[Subject], Deed[Result]]


class Acting:
    """Carries out orders; a verb brings what is its own."""

    def __init__(self, tools: Tools, catalogue: Catalogue) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.content = tools.content
        self.announce = tools.announce
        self.catalogue = catalogue

    async def carry_out(
        self,
        order: Order,
        kind: EventType,
        decide: Decide[Result],
        render: Render[Result],
        *,
        permission: Permission = Permission.OPERATE,
    ) -> Told:
        """Do what *decide* makes of the item, with an event of *kind*; or raise what it raises."""
        order.call.require(permission)
        return await idempotent(
            self.store, order.key, lambda: until_written(lambda: self._once(order, kind, decide, render))
        )

    async def item(self, call: Call, integration_id: str, recovery_id: str) -> tuple[Integration, Item]:
        """The item, or IntegrationNotFound, or RecoveryNotFound (also for another integration's)."""
        integration = await self.catalogue.current(call, integration_id)
        number = parse_recovery_id(recovery_id)
        found = None if number is None else await self.store.item(integration.number, number)
        if found is None:
            raise RecoveryNotFound(f"{integration_id} has no item {recovery_id!r}")
        return integration, found

    async def _once(
        self, order: Order, kind: EventType, decide: Decide[Result], render: Render[Result]
    ) -> Told | None:
        integration, found = await self.item(order.call, order.integration_id, order.recovery_id)
        item, now = self.content.listed(found), self.clock.now()
        deed = decide(Subject(order, integration, item, now, found))
        event = of_person(
            self.next_id,
            now,
            kind,
            order.call,
            integration_id=order.integration_id,
            item=item,
            before=item.state(),
            after=deed.after.state(),
            metadata=order.why | deed.metadata,
        )
        told = render(deed.result)
        if not await deed.write(event, kept(order.key, told, now, item=item.delivery.id)):
            return None
        tell_operated(self.announce, kind, order.call, order.integration_id, order.recovery_id)
        return told


def why(reason: str | None, incident: str | None = None) -> dict[str, Any]:
    """Why something was done, in which incident, as an event tells it: what is not known it leaves out."""
    told = {"reason": reason, "incident": incident}
    return {name: each for name, each in told.items() if each is not None}


def check_sends(integration: Integration) -> None:
    """Raise unless what a person has sent would be sent now."""
    if integration.traffic.containment is not None:
        raise Contained("the integration is contained: its items are replayed once it is released")
    if not integration.sends:
        raise Conflict(f"the integration is {integration.lifecycle_status}; only an active one is replayed")


def check_opens(item: Item, request_id: str) -> None:
    """Raise when a call of this id opened a cycle of the item before: each is opened by one of its own."""
    if request_id in item.request_ids:
        raise Conflict(f"request id {request_id!r} opened an earlier cycle of this item; use a new one")


async def check_waits_in_no_job(store: Store, integration: Integration, item: Item) -> None:
    """Raise when the item waits in a job that runs, and is going to be replayed by that."""
    job = await store.replays.waits_in(integration.number, item.delivery.id)
    if job is not None:
        raise Conflict(f"the item waits in {replay_id(job)}, which runs, and is replayed by it")


async def check_is_open_for_copies(store: Store, integration: Integration, item: Item) -> None:
    """Raise when the item is a copy, and its original is closed, or another copy of that is under way."""
    if item.edit_of is not None:
        original = await store.item(integration.number, item.edit_of)
        if original is not None:
            check_original(original.status, resolved=original.resolution is not None, place=original.place)


def tell_operated(
    announce: Announce, kind: EventType, call: Call, integration_id: str, target_id: str
) -> None:
    """Announce that a person's verb was written, with its event."""
    announce(AuditWritten(kind.value))
    announce(Operated(kind.value, call.principal.id, integration_id, target_id, call.request_id))
