"""What came of an attempt: decide, record, announce. What is known is kept while the store is away."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from redrive.batch import Batcher
from redrive.domain.delivery import Attempt, Claim
from redrive.domain.item import RetryAt, next_step
from redrive.domain.outcome import Failed, Outcome, Reach, risk_of
from redrive.engine import audited
from redrive.engine.catalogue import Catalogue
from redrive.engine.causes import Causes
from redrive.engine.health import Health
from redrive.engine.tools import Tools
from redrive.store.port import Result, StoreUnavailable
from redrive.telemetry.events import AttemptFinished, AuditWritten, LoopFailed

AGAIN_SECONDS = 5.0
Due = Callable[[int, int, datetime], None]  # an integration, an item of it, and when


class Recorder:
    """Turns outcomes into steps, attempts and audit events, many to a commit."""

    def __init__(self, tools: Tools, catalogue: Catalogue, health: Health, due: Due) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.chance = tools.chance
        self.next_id = tools.next_id
        self.content = tools.content
        self.announce = tools.announce
        self.catalogue = catalogue
        self.health = health
        self.due = due
        self.causes = Causes()
        self.batcher: Batcher[Result, bool | Exception] = Batcher(self._record, tools.turn)

    async def finish(
        self, claim: Claim, outcome: Outcome, started_at: datetime, duration: timedelta, span_id: str
    ) -> None:
        """Decide what *outcome* leads to and write it down; what cannot be written is written off."""
        try:
            await self._finish(claim, outcome, started_at, duration, span_id)
        except Exception as error:  # noqa: BLE001 - our bug: the attempt must still not be forgotten
            self.announce(LoopFailed("record", error))
            why = "redrive could not write down what came of it"
            await self.write_off(claim, why, started_at, duration, span_id)

    async def write_off(
        self, claim: Claim, why: str, started_at: datetime, duration: timedelta, span_id: str
    ) -> None:
        """Record an attempt as unknown, until that succeeds: a claim that nobody ends would never be free."""
        while True:
            try:
                await self._finish(claim, unknown(why), started_at, duration, span_id)
            except Exception as error:  # noqa: BLE001 - our bug, told each time
                self.announce(LoopFailed("record", error))
                await self.clock.sleep(AGAIN_SECONDS)
            else:
                return

    async def _finish(
        self, claim: Claim, outcome: Outcome, started_at: datetime, duration: timedelta, span_id: str
    ) -> None:
        integration = self.catalogue.numbered(claim.delivery.integration)
        policy = self.catalogue.policy(integration.number)
        now = self.clock.now()
        step = next_step(outcome, claim.attempt, claim.max_attempts, policy, now=now, chance=self.chance())
        retryable = outcome.is_retryable(policy.network_codes) if isinstance(outcome, Failed) else None
        stored = self.content.stored_outcome(claim.delivery.id, outcome)
        attempt = Attempt(claim.cycle, claim.attempt, started_at, duration, stored, retryable, span_id)
        events = audited.of_attempt(self.next_id, claim, integration.integration_id, attempt, step, now=now)
        cause, risk = None, claim.risk
        if isinstance(outcome, Failed):
            # Of an answer that is sealed at rest, nothing may stand open in what its group says.
            cause = self.causes.of(integration, outcome, reads_answer=not self.content.seals)
            risk = max(claim.risk, risk_of(outcome))
        superseded = audited.of_superseding(self.next_id, claim, integration.integration_id, now=now)
        result = Result(claim, attempt, step, events, now, cause, risk, superseded)
        [recorded] = await self.batcher.submit((result,))
        if isinstance(recorded, Exception):
            raise recorded
        if recorded:
            if isinstance(step, RetryAt):
                self.due(claim.delivery.integration, claim.delivery.id, step.due_at)
            for event in events:
                self.announce(AuditWritten(event.event_type))
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
        """By incarnation: what was sent under a lease that is over may stand beside what is sent now."""
        recorded: list[bool | Exception] = []
        for owner, own in _by_owner(results):
            recorded += await self._record_of(owner, own)
        return recorded

    async def _record_of(self, owner: int, results: Sequence[Result]) -> Sequence[bool | Exception]:
        """Until the store has it: what was sent must not be forgotten because a disk is full.

        One that cannot be written at all is answered with why, and takes no others with it.
        """
        while True:
            try:
                recorded = await self.store.record(owner, results)
            except StoreUnavailable as error:
                self.health.failed("record", error)
                await self.clock.sleep(self.health.pause_seconds)
            except Exception as error:  # noqa: BLE001 - our bug: handed on to the one attempt it is about
                if len(results) == 1:
                    return [error]
                return [recorded for one in results for recorded in await self._record_of(owner, [one])]
            else:
                self.health.worked()
                return recorded


def unknown(detail: str) -> Failed:
    """Nobody knows whether the receiver got it."""
    return Failed("LEASE_EXPIRED", detail, Reach.SENT)


def _by_owner(results: Sequence[Result]) -> Iterator[tuple[int, list[Result]]]:
    for owner, own in groupby(results, key=lambda result: result.claim.owner):
        yield owner, list(own)
