"""Tells operators what is amiss: deliveries of our own, to an integration of this very service.

What is to be told is decided from what is durable, and kept before it is told, by whoever is first: so a
process that dies on the way loses nothing, and under its key nothing is told twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call, Permission, Principal
from redrive.domain.alerting import (
    BEGINS,
    ENDS,
    Message,
    Sign,
    State,
    Thresholds,
    decide,
    signs_of_containment,
    signs_of_growth,
    windows_to_count,
)
from redrive.domain.errors import IdempotencyKeyReused, RedriveError
from redrive.domain.trace import new_traceparent
from redrive.engine.catalogue import Catalogue
from redrive.engine.ingest import Ingest, Submission
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import EventFilter
from redrive.telemetry.events import AlertFailed, AlertTold

DUTY: Final = "alerts"
KEPT_AS: Final = "alerts"
OVERLAP: Final = timedelta(minutes=5)  # events that were written within it may become visible out of order
REMEMBERED_EVERY: Final = timedelta(minutes=1)
COUNTED_AT_MOST: Final = 10_000
MOST_FACTS: Final = 20
TOLD_EVERY_SECONDS: Final = 60.0
_PAGE: Final = 200
_OURSELVES: Final = Principal("redrive", "system", None, frozenset({Permission.DELIVER}))
_TOLD_BY: Final = [EventType(name) for name in (*BEGINS, *ENDS) if name in set(EventType)]


@dataclass(frozen=True, slots=True)
class Alerting:
    """Which integration is told (empty: none), and what is too much."""

    to: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)


NOBODY: Final = Alerting()


class Alerts:
    """Looks at what happened since it last looked. One process does it for all."""

    def __init__(
        self, tools: Tools, catalogue: Catalogue, ingest: Ingest, worker: Worker, alerting: Alerting
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.unique_bytes = tools.unique_bytes
        self.announce = tools.announce
        self.catalogue = catalogue
        self.ingest = ingest
        self.worker = worker
        self.to = alerting.to
        self.thresholds = alerting.thresholds
        self._fails_again_at = 0.0  # by the steady clock; before that it is no news

    async def look(self) -> None:
        """Tell what was kept to be told; then decide what is to be told now, keep that, and tell it."""
        if not self.to or not await self.store.is_elected(DUTY, self.worker.owner):
            return
        if all(one.integration_id != self.to for one in self.catalogue):
            self._tell_failure(f"there is no integration {self.to!r}: add it, or correct alerts_to")
        kept = await self.store.kept(KEPT_AS)
        if kept is None:  # what came before anybody wanted to know of it is not told
            kept = await self.store.keep(KEPT_AS, _encode(State(self.clock.now())))
        if (settled := await self._tell(kept)) is None:
            return
        state = _decode(settled)
        after = await self._judged(state)
        if _is_worth_keeping(state, after):
            changed = _encode(replace(after, version=state.version + 1))
            if await self.store.exchange(KEPT_AS, settled, changed):
                await self._tell(changed)

    async def _tell(self, kept: bytes) -> bytes | None:
        """Deliver what is in the outbox, and empty it; what is kept then, or None: it could not be told."""
        state = _decode(kept)
        if not state.outbox:
            return kept
        for message in state.outbox:
            try:
                await self._deliver(message)
            except RedriveError as error:  # it stays where it is, until somebody sees to that integration
                self._tell_failure(error.detail)
                return None
        emptied = _encode(replace(state, outbox=(), version=state.version + 1))
        return emptied if await self.store.exchange(KEPT_AS, kept, emptied) else None

    def _tell_failure(self, why: str) -> None:
        now = self.clock.elapsed()
        if now >= self._fails_again_at:
            self._fails_again_at = now + TOLD_EVERY_SECONDS
            self.announce(AlertFailed(self.to, why))

    async def _deliver(self, message: Message) -> None:
        traceparent = new_traceparent(self.unique_bytes(16), self.unique_bytes(8))
        call = Call(_OURSELVES, message.key, traceparent)
        payload = msgspec.json.encode(message.payload())
        submission = Submission(message.event_type, payload, idempotency_key=message.key)
        try:
            receipt = await self.ingest.accept(call, self.to, submission)
        except IdempotencyKeyReused:  # by an earlier version, which says it in other words
            return
        if not receipt.duplicate:
            alert = message.alert
            self.announce(AlertTold(alert.kind.value, alert.integration_id, is_over=message.is_over))

    async def _judged(self, state: State) -> State:
        now = self.clock.now()
        events = await self._events_since(state.looked_at - OVERLAP)
        others = [one for one in self.catalogue if one.integration_id != self.to]  # or it would never end
        signs = [
            *_signs_of_events([event for event in events if event.id not in state.seen], self.to),
            *signs_of_containment(state, others, now=now),
            *await self._growth(state, now),
        ]
        after = decide(state, signs, now=now, quiet=self.thresholds.quiet)
        seen = tuple(event.id for event in events if event.occurred_at >= now - 2 * OVERLAP)
        return replace(after, looked_at=now, seen=seen)

    async def _growth(self, state: State, now: datetime) -> Sequence[Sign]:
        window = self.thresholds.window
        counted = [
            (end, await self._died(end - window, end if end < now else None))
            for end in windows_to_count(state.looked_at, now, window)
        ]
        return signs_of_growth(state, counted, COUNTED_AT_MOST, thresholds=self.thresholds)

    async def _died(self, since: datetime, before: datetime | None) -> Mapping[str, int]:
        counts = await self.store.count_dead(since, before, most=COUNTED_AT_MOST + 1)
        return {
            one.integration_id: counts[one.number]
            for one in self.catalogue
            if one.number in counts and one.integration_id != self.to
        }

    async def _events_since(self, since: datetime) -> list[AuditEvent]:
        found: list[AuditEvent] = []
        for kind in _TOLD_BY:
            below = None
            while True:
                wanted = EventFilter(event_type=kind, since=since)
                page = await self.store.events(wanted, limit=_PAGE, below=below)
                found += page.rows
                if page.next_below is None:
                    break
                below = page.rows[-1].id
        return found


def _signs_of_events(events: Iterable[AuditEvent], but: str) -> list[Sign]:
    """What audit events say, oldest first; nothing of the integration *but*."""
    signs = []
    for event in sorted(events, key=lambda event: event.id):
        about, name = event.integration_id, event.event_type.value
        if about is not None and about != but:
            kind = BEGINS.get(name) or ENDS[name]
            signs.append(Sign(kind, about, event.occurred_at, name in BEGINS, _facts_of(event)))
    return signs


def _facts_of(event: AuditEvent) -> dict[str, Any]:
    """What is short of an event: it was written for operators, and hides what is secret."""
    told = {
        name: value
        for name, value in event.metadata.items()
        if value is None or isinstance(value, bool | int | float | str)
    }
    named = {"event_id": event.event_id, "target_id": event.target_id, "request_id": event.request_id}
    return named | dict(list(told.items())[:MOST_FACTS])


def _is_worth_keeping(state: State, after: State) -> bool:
    """Once a minute also that nothing happened; until then the same is looked at again."""
    is_same = replace(after, looked_at=state.looked_at) == state
    return not is_same or after.looked_at - state.looked_at >= REMEMBERED_EVERY


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(State).decode
