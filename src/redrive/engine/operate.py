"""A person's verbs on one item: hand over, replay, resolve, erase. Each leaves its reason in the audit."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Erasure, Evidence, Item, Resolution, item_state
from redrive.domain.errors import Conflict, DependencyUnavailable, RecoveryNotFound
from redrive.domain.ids import parse_recovery_id
from redrive.domain.integration import Integration
from redrive.domain.item import DEAD, Status, check_erase, check_replay, check_resolve
from redrive.domain.outcome import is_retryable
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.ingest import Ingest, Receipt, Submission, receipt
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import Import, Replay
from redrive.telemetry.events import AuditWritten, Operated

ERASED = "[ERASED]"  # as the stores write it
TURNS = 10


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
    """The verbs. Each reads, decides, and writes guarded by what it read; if that moved on, once more."""

    def __init__(
        self,
        tools: Tools,
        catalogue: Catalogue,
        ingest: Ingest,
        worker: Worker,
    ) -> None:
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

    async def replay(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Replayed],
        key: Key | None = None,
    ) -> Told:
        """Open the next cycle of a failed or dlq item."""
        return await self._once(
            call,
            key,
            lambda: self._replay(call, integration_id, recovery_id, reason, render=render, key=key),
        )

    async def resolve(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Item],
        key: Key | None = None,
    ) -> Told:
        """Close a failed or dlq item for good."""
        return await self._once(
            call,
            key,
            lambda: self._resolve(call, integration_id, recovery_id, reason, render=render, key=key),
        )

    async def erase(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Item],
        key: Key | None = None,
    ) -> Told:
        """Erase what an item was delivered with and answered; a failed or dlq item is closed by it."""
        return await self._once(
            call,
            key,
            lambda: self._erase(call, integration_id, recovery_id, reason, render=render, key=key),
        )

    async def item(self, call: Call, integration_id: str, recovery_id: str) -> tuple[Integration, Item]:
        """The item, or IntegrationNotFound, or RecoveryNotFound (also for another integration's)."""
        integration = await self.catalogue.current(call, integration_id)
        number = parse_recovery_id(recovery_id)
        found = None if number is None else await self.store.item(integration.number, number)
        if found is None:
            raise RecoveryNotFound(f"{integration_id} has no item {recovery_id!r}")
        return integration, self.content.listed(found)

    async def _once(self, call: Call, key: Key | None, act: Callable[[], Awaitable[Told | None]]) -> Told:
        """What an operator may do to an item, decided anew until it is written, and once under a *key*."""
        call.require(Permission.OPERATE)
        return await idempotent(self.store, key, lambda: _until_written(act))

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
        item = Import(delivery, fingerprint, given.status, given.attempt_count, last, event)
        told = render(Receipt(delivery.id))
        verdict = await self.store.hand_over(item, kept(key, told, self.clock.now()))
        done = receipt(intake, verdict)
        if done.duplicate:  # nothing was stored
            return render(done)
        self._announce(event.event_type, call, integration, done.recovery_id)
        return told

    async def _replay(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Replayed],
        key: Key | None,
    ) -> Told | None:
        integration, item = await self.item(call, integration_id, recovery_id)
        check_replay(item.status, resolved=item.resolution is not None)
        if not integration.sends:
            raise Conflict(
                f"the integration is {integration.lifecycle_status}; only an active one is replayed"
            )
        if call.request_id in item.request_ids:
            raise Conflict(
                f"request id {call.request_id!r} opened an earlier cycle of this item; replay under a new one"
            )
        now = self.clock.now()
        after = _next_cycle(item, call, now, self.catalogue.defaults.of(integration, "max_attempts"))
        event = of_person(
            self.next_id,
            now,
            EventType.REPLAYED,
            call,
            integration_id=integration_id,
            item=item,
            before=item.state(),
            after=after.state(),
            metadata={"reason": reason},
        )
        replay = Replay(
            id=item.delivery.id,
            integration=integration.number,
            status=item.status,
            cycle=item.cycle,
            max_attempts=after.max_attempts,
            request_id=call.request_id,
            traceparent=call.traceparent,
            opened_by=call.principal.id,
            reason=reason,
            opened_at=now,
            event=event,
        )
        told = render(Replayed(after, item.status, reason))
        if not await self.store.replay(replay, kept(key, told, now, item=item.delivery.id)):
            return None
        self.worker.due(integration.number, item.delivery.id, self.clock.now())
        self._announce(event.event_type, call, integration, recovery_id)
        return told

    async def _resolve(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Item],
        key: Key | None,
    ) -> Told | None:
        integration, item = await self.item(call, integration_id, recovery_id)
        check_resolve(item.status, resolved=item.resolution is not None)
        now = self.clock.now()
        resolution = Resolution(now, call.principal.id, reason)
        after = replace(item, resolution=resolution, updated_at=now, updated_by=call.principal.id)
        event = of_person(
            self.next_id,
            now,
            EventType.RESOLVED,
            call,
            integration_id=integration_id,
            item=item,
            before=item.state(),
            after=after.state(),
            metadata={"reason": reason},
        )
        told = render(after)
        if not await self.store.resolve(item, resolution, event, kept(key, told, now, item=item.delivery.id)):
            return None
        self._announce(event.event_type, call, integration, recovery_id)
        return told

    async def _erase(
        self,
        call: Call,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        render: Render[Item],
        key: Key | None,
    ) -> Told | None:
        integration, item = await self.item(call, integration_id, recovery_id)
        check_erase(item.status, erased=item.erasure is not None)
        now = self.clock.now()
        history = await self.store.history(integration.number, item.delivery.id)
        is_told = history is not None and not history[1]
        after = erased(item, Erasure(now, call.principal.id, reason), is_told=is_told)
        assert after.erasure is not None  # noqa: S101 - what `erased` is for
        event = of_person(
            self.next_id,
            now,
            EventType.ERASED,
            call,
            integration_id=integration_id,
            item=item,
            before=item.state(),
            after=after.state(),
            metadata={"reason": reason, "payload_size": item.payload_size},
        )
        told = render(after)
        if not await self.store.erase(item, after.erasure, event, kept(key, told, now)):
            return None
        self._announce(event.event_type, call, integration, recovery_id)
        return told

    def _announce(self, kind: EventType, call: Call, integration: Integration, target_id: str) -> None:
        self.announce(AuditWritten(kind.value))
        self.announce(
            Operated(kind.value, call.principal.id, integration.integration_id, target_id, call.request_id)
        )


async def _until_written(act: Callable[[], Awaitable[Told | None]]) -> Told:
    """Decide anew each time the item moved on between reading and writing; a decision then says why not."""
    for _ in range(TURNS):
        if (told := await act()) is not None:
            return told
    raise DependencyUnavailable("contention", "the item changed each time it was about to be written")


def erased(item: Item, erasure: Erasure, *, is_told: bool) -> Item:
    """The item without what was delivered and answered, closed for good if it was dead.

    *is_told*: what is known of its last attempt was told by a caller, in whose words anything may be.
    """
    resolution = item.resolution
    if item.status in DEAD and resolution is None:
        resolution = Resolution(erasure.erased_at, erasure.erased_by, erasure.reason)
    answer = item.last.answer
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
            item.last,
            failure_detail=ERASED if is_told and item.last.failure_detail else item.last.failure_detail,
            answer=None if answer is None else replace(answer, headers=(), body=b""),
            answer_size=0,
        ),
        resolution=resolution,
        erasure=erasure,
        updated_by=erasure.erased_by,
        updated_at=erasure.erased_at,
    )


def _next_cycle(item: Item, call: Call, now: datetime, max_attempts: int) -> Item:
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
