"""Correct and replay: a copy of a failed or dlq item with other content, as an item of its own.

The item keeps its status. A copy has its own webhook-id; when it succeeds, the item is superseded by it.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Permission
from redrive.domain.delivery import Delivery, Evidence, Headers, Item
from redrive.domain.editing import correction
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.ids import ItemId, instant_of, recovery_id
from redrive.domain.item import Status, check_edit
from redrive.engine.acting import Acting, Deed, Order, Subject, check_is_open_for_copies, check_sends
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.content import legible
from redrive.engine.once import Render, Told
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Edit, Once


class Correction(Struct, frozen=True):
    """What is to be sent instead; None: what is there. Checked already."""

    payload: bytes | None = None
    content_type: str = "application/json"
    headers: Headers | None = None

    def of(self, delivery: Delivery) -> Delivery:
        """The delivery with it."""
        if self.payload is not None:
            delivery = replace(delivery, payload=self.payload, content_type=self.content_type)
        return delivery if self.headers is None else replace(delivery, headers=self.headers)


class Edited(Struct, frozen=True):
    """What a correction made: the copy, and what is different in it."""

    copy: Item
    diff: dict[str, Any]


class Editing:
    """The verb."""

    def __init__(self, tools: Tools, catalogue: Catalogue, worker: Worker) -> None:
        self.acting = Acting(tools, catalogue)
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.content = tools.content
        self.catalogue = catalogue
        self.worker = worker

    async def edit(self, order: Order, given: Correction, render: Render[Edited]) -> Told:
        """Send a corrected copy of a failed or dlq item."""
        return await self.acting.carry_out(
            order, EventType.EDITED, lambda on: self._edit(on, given), render, permission=Permission.EDIT
        )

    def _edit(self, on: Subject, given: Correction) -> Deed[Edited]:
        item, integration = on.item, on.integration
        check_edit(item.status, resolved=item.resolution is not None, place=item.place)
        check_sends(integration)
        was = legible(self.content.shown, on.stored).delivery
        corrected = given.of(was)
        diff = correction(
            was, corrected, pointers=integration.redact_pointers, is_open=not self.content.seals
        )
        if not diff["changes"]:
            raise InvalidPayload(Fault("", "nothing would be changed: a replay sends the same again"))
        copy, of = self._copy(on, corrected), item.edit_of or item.delivery.id
        stored = self.content.stored(copy)

        async def write(event: AuditEvent, once: Once | None) -> bool:
            await check_is_open_for_copies(self.store, integration, item)
            made = of_person(
                self.next_id,
                on.now,
                EventType.EDITED,
                on.order.call,
                integration_id=integration.integration_id,
                item=_pending(copy, of),
                after=_pending(copy, of).state(),
                metadata=on.order.why | diff | {"edit_of": item.recovery_id},
            )
            edit = Edit(item.delivery.id, item.status, item.cycle, stored, of, (event, made))
            if not await self.store.edit(edit, once):
                return False
            self.worker.due(integration.number, copy.id, self.clock.now())
            return True

        after = replace(item, edited_as=copy.id)
        return Deed(
            after, Edited(_pending(copy, of), diff), write, diff | {"edited_as": recovery_id(copy.id)}
        )

    def _copy(self, on: Subject, corrected: Delivery) -> Delivery:
        """Under an id of its own, of which a producer's key knows nothing; of the call that asks for it."""
        call, number = on.order.call, ItemId(self.next_id(on.now))
        return replace(
            corrected,
            id=number,
            request_id=call.request_id,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            idempotency_key=None,
            created_by=call.principal.id,
            created_at=instant_of(number),
            max_attempts=self.catalogue.defaults.of(on.integration, "max_attempts"),
        )


def _pending(copy: Delivery, of: ItemId) -> Item:
    """As it is listed once it is stored."""
    return Item(
        delivery=replace(copy, payload=b""),
        payload_size=len(copy.payload),
        status=Status.PENDING,
        cycle=1,
        attempt_count=0,
        max_attempts=copy.max_attempts,
        request_ids=(copy.request_id,),
        next_retry_at=None,
        last=Evidence(),
        resolution=None,
        updated_by=copy.created_by,
        updated_at=copy.created_at,
        edit_of=of,
    )
