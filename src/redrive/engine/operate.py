"""A person's verbs on one item: hand over, replay, resolve, erase. Each leaves its reason in the audit."""

from datetime import datetime
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Erasure, Evidence, Item, Resolution, item_state
from redrive.domain.grouping import cause_elsewhere, failed_elsewhere
from redrive.domain.integration import Integration
from redrive.domain.item import DEAD, Status, check_erase, check_replay, check_resolve
from redrive.domain.outcome import Risk, is_retryable, risk_of
from redrive.engine.acting import (
    Acting,
    Deed,
    Order,
    Subject,
    check_is_open_for_copies,
    check_opens,
    check_sends,
    check_waits_in_no_job,
    tell_operated,
)
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.ingest import Ingest, Receipt, Submission, receipt
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Import, Once, Replay

ERASED = "[ERASED]"  # as the stores write it


class HandOver(Struct, frozen=True):
    """A delivery that failed elsewhere: what was to be sent, and what is known of its failure."""

    submission: Submission
    status: Status
    attempt_count: int
    last: Evidence


class Replayed(Struct, frozen=True):
    """What a replay did."""

    item: Item
    previous_status: Status
    reason: str


class Operate:
    """The verbs."""

    def __init__(
        self,
        tools: Tools,
        catalogue: Catalogue,
        ingest: Ingest,
        worker: Worker,
    ) -> None:
        self.acting = Acting(tools, catalogue)
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.content = tools.content
        self.announce = tools.announce
        self.catalogue = catalogue
        self.ingest = ingest
        self.worker = worker

    async def hand_over(
        self,
        call: Call,
        integration_id: str,
        given: HandOver,
        *,
        render: Render[Receipt],
        key: Key | None = None,
    ) -> Told:
        """Take in a delivery that failed elsewhere; it can be replayed like any other."""
        call.require(Permission.DELIVER)
        integration = await self.catalogue.current(call, integration_id)
        return await idempotent(
            self.store, key, lambda: self._hand_over(call, integration, given, render=render, key=key)
        )

    async def replay(self, order: Order, render: Render[Replayed]) -> Told:
        """Open the next cycle of a failed or dlq item."""
        return await self.acting.carry_out(order, EventType.REPLAYED, self._replay, render)

    async def resolve(self, order: Order, render: Render[Item]) -> Told:
        """Close a failed or dlq item for good."""
        return await self.acting.carry_out(order, EventType.RESOLVED, self._resolve, render)

    async def erase(self, order: Order, render: Render[Item]) -> Told:
        """Erase what an item was delivered with and answered; a failed or dlq item is closed by it."""
        return await self.acting.carry_out(order, EventType.ERASED, self._erase, render)

    async def _hand_over(
        self,
        call: Call,
        integration: Integration,
        given: HandOver,
        *,
        render: Render[Receipt],
        key: Key | None,
    ) -> Told:
        intake = self.ingest.intake(call, integration, given.submission)
        delivery = intake.delivery
        code = given.last.failure_code
        codes = self.catalogue.policy(integration.number).network_codes
        last = replace(
            given.last,
            retryable=None if code is None else is_retryable(code, codes),
            answer=self.content.stored_answer(delivery.id, given.last.answer),
        )
        told_of = failed_elsewhere(last)
        event = of_person(
            self.next_id,
            delivery.created_at,
            EventType.IMPORTED,
            call,
            integration_id=integration.integration_id,
            target_id=Receipt(delivery.id).recovery_id,
            source_request_id=call.request_id,
            after=item_state(given.status, cycle=1, attempt_count=given.attempt_count, failure_code=code),
        )
        # The whole body, evidence and all: a key that a mere delivery used is another request.
        fingerprint = b"" if key is None else key.fingerprint
        item = Import(
            delivery,
            fingerprint,
            given.status,
            given.attempt_count,
            last,
            event,
            risk=Risk.AMBIGUOUS if told_of is None else risk_of(told_of),
            cause=cause_elsewhere(integration, given.last, reads_answer=not self.content.seals),
        )
        told = render(Receipt(delivery.id))
        verdict = await self.store.hand_over(item, kept(key, told, self.clock.now()))
        done = receipt(intake, verdict)
        if done.duplicate:  # nothing was stored
            return render(done)
        tell_operated(self.announce, event.event_type, call, integration.integration_id, done.recovery_id)
        return told

    def _replay(self, on: Subject) -> Deed[Replayed]:
        call, integration, item = on.order.call, on.integration, on.item
        check_replay(item.status, resolved=item.resolution is not None, place=item.place)
        check_sends(integration)
        check_opens(item, call.request_id)
        after = next_cycle(item, call, on.now, self.catalogue.defaults.of(integration, "max_attempts"))

        async def write(event: AuditEvent, once: Once | None) -> bool:
            await check_is_open_for_copies(self.store, integration, item)
            replay = Replay(
                id=item.delivery.id,
                integration=integration.number,
                status=item.status,
                cycle=item.cycle,
                edit_of=item.edit_of,
                max_attempts=after.max_attempts,
                request_id=call.request_id,
                traceparent=call.traceparent,
                opened_by=call.principal.id,
                reason=on.order.reason,
                opened_at=on.now,
                event=event,
            )
            if not await self.store.replay(replay, once):
                await check_waits_in_no_job(self.store, integration, item)
                return False
            self.worker.due(integration.number, item.delivery.id, self.clock.now())
            return True

        return Deed(after, Replayed(after, item.status, on.order.reason), write)

    def _resolve(self, on: Subject) -> Deed[Item]:
        item, by = on.item, on.order.call.principal.id
        check_resolve(item.status, resolved=item.resolution is not None, place=item.place)
        resolution = Resolution(on.now, by, on.order.reason)
        after = replace(item, resolution=resolution, updated_at=on.now, updated_by=by)
        return Deed(after, after, partial(self.store.resolve, item, resolution))

    def _erase(self, on: Subject) -> Deed[Item]:
        item = on.item
        check_erase(item.status, erased=item.erasure is not None)
        erasure = Erasure(on.now, on.order.call.principal.id, on.order.reason)
        after = erased(item, erasure)
        return Deed(
            after, after, partial(self.store.erase, item, erasure), {"payload_size": item.payload_size}
        )


def erased(item: Item, erasure: Erasure) -> Item:
    """The item without what was delivered and answered, closed for good if it was dead."""
    resolution, last = item.resolution, item.last
    if item.status in DEAD and resolution is None:
        resolution = Resolution(erasure.erased_at, erasure.erased_by, erasure.reason)
    return replace(
        item,
        delivery=replace(
            item.delivery,
            payload=b"",
            headers=(),
            tracestate=None,
            content_type=item.delivery.content_type.partition(";")[0].rstrip(),
        ),
        payload_size=0,
        last=replace(
            last,
            failure_detail=ERASED if last.is_told and last.failure_detail else last.failure_detail,
            answer=None if last.answer is None else replace(last.answer, headers=(), body=b""),
            answer_size=0,
        ),
        resolution=resolution,
        erasure=erasure,
        updated_by=erasure.erased_by,
        updated_at=erasure.erased_at,
    )


def next_cycle(item: Item, call: Call, now: datetime, max_attempts: int) -> Item:
    """A dead item as its replay makes it."""
    return replace(
        item,
        status=Status.REPLAYED,
        cycle=item.cycle + 1,
        attempt_count=0,
        max_attempts=max_attempts,
        request_ids=(*item.request_ids, call.request_id),
        next_retry_at=None,
        updated_by=call.principal.id,
        updated_at=now,
    )
