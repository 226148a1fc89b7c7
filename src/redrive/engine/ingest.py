"""Accepting deliveries: durable before it is answered, and on its way at once when there is room."""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import Struct

from redrive.batch import Batcher
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Claim, Delivery, Headers
from redrive.domain.errors import Conflict, Contained, IdempotencyKeyReused, RateLimited, RedriveError
from redrive.domain.ids import ItemId, instant_of, recovery_id
from redrive.domain.integration import ACCEPTING, Integration
from redrive.engine.catalogue import Catalogue
from redrive.engine.lanes import Pace
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import (
    Accepted,
    Duplicate,
    Intake,
    KeyReused,
    Once,
    Refused,
    StoreUnavailable,
    Verdict,
)
from redrive.telemetry.events import DeliveriesAccepted


class Submission(Struct, frozen=True):
    """A delivery as a producer hands it over; every field is checked already."""

    event_type: str
    payload: bytes
    content_type: str = "application/json"
    headers: Headers = ()
    idempotency_key: str | None = None


class Receipt(Struct, frozen=True):
    """What a producer may rely on: the item is durable. `duplicate`: it was before this call."""

    id: ItemId
    duplicate: bool = False

    @property
    def recovery_id(self) -> str:
        """The public name of the item."""
        return recovery_id(self.id)


Results = Sequence[Receipt | RedriveError]


class Ingest:
    """Takes deliveries in, many to a commit."""

    def __init__(
        self,
        tools: Tools,
        catalogue: Catalogue,
        worker: Worker,
        *,
        max_queued: int,
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.vault = tools.vault
        self.content = tools.content
        self.announce = tools.announce
        self.catalogue = catalogue
        self.worker = worker
        self.max_queued = max_queued
        self.batcher: Batcher[Intake, Verdict | Exception] = Batcher(self._store_singles, tools.turn)
        self._batches: dict[asyncio.Task[Sequence[Verdict]], int] = {}

    async def accept(self, call: Call, integration_id: str, submission: Submission) -> Receipt:
        """Accept one delivery, or raise why not."""
        call.require(Permission.DELIVER)
        integration = await self.catalogue.known(call, integration_id)
        self._check_room(1)
        intake = self.intake(call, integration, submission)
        [verdict] = await self.batcher.submit((intake,))
        if isinstance(verdict, Exception):
            raise verdict
        return receipt(intake, verdict)

    async def accept_batch(
        self,
        call: Call,
        integration_id: str,
        submissions: Sequence[Submission],
        *,
        render: Render[Results],
        key: Key | None = None,
    ) -> Told:
        """Accept many in one commit; each has its own result, in order."""
        call.require(Permission.DELIVER)
        integration = await self.catalogue.known(call, integration_id)
        self._check_room(len(submissions))
        intakes = [self.intake(call, integration, submission) for submission in submissions]
        return await idempotent(self.store, key, lambda: self._accept_batch(intakes, render, key))

    async def idle(self) -> None:
        """Return once nothing waits to be stored: what was claimed with it is in flight."""
        await self.batcher.idle()
        if self._batches:
            await asyncio.wait(self._batches)

    def intake(self, call: Call, integration: Integration, submission: Submission) -> Intake:
        """The value to store: stamped with the call, claimed for us when it can start at once."""
        number = self._id(integration)
        delivery = Delivery(
            id=number,
            integration=integration.number,
            event_type=submission.event_type,
            payload=submission.payload,
            content_type=submission.content_type,
            headers=submission.headers,
            request_id=call.request_id,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            idempotency_key=submission.idempotency_key,
            created_by=call.principal.id,
            created_at=instant_of(number),
            max_attempts=self.catalogue.defaults.of(integration, "max_attempts"),
        )
        return Intake(
            self.content.stored(delivery), fingerprint(submission, self.vault.derive("fingerprint")), None
        )

    def _id(self, integration: Integration) -> ItemId:
        """A new id: where an integration is split, one that falls into a lane of ours, if we have any."""
        number = self.next_id(self.clock.now())
        while self.worker.is_elsewhere(integration.number, number):
            number = self.next_id(self.clock.now())
        return ItemId(number)

    async def _accept_batch(
        self, intakes: Sequence[Intake], render: Render[Results], key: Key | None
    ) -> Told:
        """Alone in its unit of work: a reply that cannot be rendered undoes nothing but its own batch."""
        told: list[Told] = []

        def tell(verdicts: Sequence[Verdict]) -> Once | None:
            told.append(render(_receipts(intakes, verdicts)))
            return kept(key, told[-1], self.clock.now())

        storing = asyncio.create_task(self._store(intakes, tell))
        self._batches[storing] = len(intakes)
        storing.add_done_callback(self._batches.pop)
        await asyncio.shield(storing)
        return told[-1]

    async def _store_singles(self, intakes: Sequence[Intake]) -> list[Verdict | Exception]:
        """In one commit or, if need be, in halves: one that cannot be written takes nobody else's with it."""
        try:
            return list(await self._store(intakes))
        except Exception as error:  # noqa: BLE001 - handed on to whoever it is about
            if isinstance(error, StoreUnavailable) or len(intakes) == 1:
                return [error] * len(intakes)
        middle = len(intakes) // 2
        return [*await self._store_singles(intakes[:middle]), *await self._store_singles(intakes[middle:])]

    async def _store(
        self, intakes: Sequence[Intake], tell: Callable[[Sequence[Verdict]], Once | None] | None = None
    ) -> Sequence[Verdict]:
        """In a task that no caller who leaves takes along: what is claimed goes on from here."""
        owner = self.worker.owner
        reserved = [
            self.worker.reserve(intake.delivery.integration, intake.delivery.id) for intake in intakes
        ]
        claimed = [
            intake if pace is None else Intake(intake.delivery, intake.fingerprint, owner)
            for intake, pace in zip(intakes, reserved, strict=True)
        ]
        try:
            verdicts = await self.store.accept(claimed, tell)
        except BaseException:
            for pace in reserved:
                if pace is not None:
                    self.worker.cancel(pace)
            raise
        self._dispatch(owner, intakes, reserved, verdicts)
        return verdicts

    def _dispatch(
        self,
        owner: int,
        intakes: Sequence[Intake],
        reserved: Sequence[Pace | None],
        verdicts: Sequence[Verdict],
    ) -> None:
        accepted = duplicates = 0
        for intake, pace, verdict in zip(intakes, reserved, verdicts, strict=True):
            delivery = intake.delivery
            claimed = isinstance(verdict, Accepted) and verdict.claimed
            if pace is not None and not claimed:
                self.worker.cancel(pace)
            if pace is not None and claimed:
                claim = Claim(delivery, owner, 1, 1, delivery.max_attempts, delivery.request_id)
                self.worker.start(claim, pace)
            elif isinstance(verdict, Accepted):
                at = min(delivery.created_at, self.clock.now())
                self.worker.due(delivery.integration, delivery.id, at)
            accepted += isinstance(verdict, Accepted)
            duplicates += isinstance(verdict, Duplicate)
        self.announce(DeliveriesAccepted(accepted, duplicates))

    def _check_room(self, count: int) -> None:
        queued = self.batcher.queued + sum(self._batches.values())
        if queued and queued + count > self.max_queued:
            raise RateLimited(f"{queued} deliveries wait to be stored already; try again in a second")


def fingerprint(submission: Submission, secret: bytes) -> bytes:
    """A digest of what a producer asked for, to compare when its key comes again; empty without a key.

    With the database's own *secret*, so that it outlives the payload without telling of it.
    """
    if submission.idempotency_key is None:
        return b""
    digest = hmac.new(secret, digestmod="sha256")
    for part in (
        submission.event_type,
        submission.content_type,
        *(text for header in submission.headers for text in header),
    ):
        digest.update(f"{len(part)}:{part}\n".encode())
    digest.update(submission.payload)
    return digest.digest()


def receipt(intake: Intake, verdict: Verdict) -> Receipt:
    """What the producer is told, or the error that says why it was not accepted."""
    match verdict:
        case Accepted():
            return Receipt(intake.delivery.id)
        case Duplicate(id=first):
            return Receipt(first, duplicate=True)
        case KeyReused():
            raise IdempotencyKeyReused
        case Refused(lifecycle=lifecycle) if lifecycle in ACCEPTING:
            raise Contained("the integration is contained: until it is released it accepts no deliveries")
        case Refused(lifecycle=lifecycle):
            raise Conflict(f"the integration is {lifecycle}: it accepts no deliveries")
        case _:
            assert_never(verdict)


def _receipts(intakes: Sequence[Intake], verdicts: Sequence[Verdict]) -> Results:
    results: list[Receipt | RedriveError] = []
    for intake, verdict in zip(intakes, verdicts, strict=True):
        try:
            results.append(receipt(intake, verdict))
        except RedriveError as error:
            results.append(error)
    return results
