"""The audit event of contract §5 and the ones an attempt or an operator's verb leaves behind."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from redrive.domain.ids import EventId, event_id

DOMAIN = "platform.integration"
NOTHING: dict[str, Any] = {"exists": False}  # the state before a creation


class EventType(StrEnum):
    """Every audit event that can be written, with when (the docstring of each member is below)."""

    REPROCESS_FAILED = "platform.integration.recovery.reprocess_failed"
    RETRY_SCHEDULED = "platform.integration.recovery.retry_scheduled"
    RETRY_EXHAUSTED = "platform.integration.recovery.retry_exhausted"
    REPROCESS_SUCCEEDED = "platform.integration.recovery.reprocess_succeeded"
    REPLAYED = "platform.integration.recovery.replayed"
    IMPORTED = "platform.integration.imported"
    RESOLVED = "platform.integration.resolved"
    ERASED = "platform.integration.erased"
    EDITED = "platform.integration.edited"
    SUPERSEDED = "platform.integration.superseded"
    CREATED = "platform.integration.created"
    UPDATED = "platform.integration.updated"
    LIFECYCLE_CHANGED = "platform.integration.lifecycle_changed"
    SECRETS_ROTATED = "platform.integration.secrets_rotated"
    CONTAINED = "platform.integration.contained"
    RELEASED = "platform.integration.released"
    CONTAINMENT_EXPIRED = "platform.integration.containment_expired"
    GROUP_ACKNOWLEDGED = "platform.integration.group_acknowledged"
    GROUP_RESOLVED = "platform.integration.group_resolved"
    GROUP_REOPENED = "platform.integration.group_reopened"
    GROUP_MUTED = "platform.integration.group_muted"
    GROUP_COMMENTED = "platform.integration.group_commented"
    REPLAY_PLANNED = "platform.integration.replay_job.planned"
    REPLAY_STARTED = "platform.integration.replay_job.started"
    REPLAY_CANARY_PASSED = "platform.integration.replay_job.canary_passed"
    REPLAY_HALTED = "platform.integration.replay_job.halted"
    REPLAY_PAUSED = "platform.integration.replay_job.paused"
    REPLAY_RESUMED = "platform.integration.replay_job.resumed"
    REPLAY_RATE_CHANGED = "platform.integration.replay_job.rate_changed"
    REPLAY_CANCELLED = "platform.integration.replay_job.cancelled"
    REPLAY_COMPLETED = "platform.integration.replay_job.completed"
    EVIDENCE_EXPORTED = "platform.integration.evidence_exported"
    CHAIN_BROKEN = "platform.integration.chain_broken"
    BREAKER_OPENED = "platform.integration.breaker_opened"
    BREAKER_CLOSED = "platform.integration.breaker_closed"
    PROBED = "platform.integration.probed"
    CONTAINMENT_PROPOSED = "platform.integration.containment_proposed"
    ACCESS_DENIED = "platform.integration.access_denied"


WHEN: dict[EventType, str] = {
    EventType.REPROCESS_FAILED: "an attempt failed",
    EventType.RETRY_SCHEDULED: "…and another one is scheduled",
    EventType.RETRY_EXHAUSTED: "…and none is left: the item went to `dlq`",
    EventType.REPROCESS_SUCCEEDED: (
        "an attempt succeeded on an item that had failed or been replayed before, or is a corrected copy"
    ),
    EventType.REPLAYED: "an operator opened the item's next cycle",
    EventType.IMPORTED: "a delivery that failed elsewhere was handed over",
    EventType.RESOLVED: "a person closed a failed or dlq item for good",
    EventType.ERASED: "a person had an item's payload and answers erased",
    EventType.EDITED: "a person had a corrected copy of a failed or dlq item sent; of both",
    EventType.SUPERSEDED: "a corrected copy of a failed or dlq item succeeded",
    EventType.CREATED: "an integration was added",
    EventType.UPDATED: "an integration was changed",
    EventType.LIFECYCLE_CHANGED: "an integration's lifecycle_status was changed",
    EventType.SECRETS_ROTATED: "an integration got a new signing secret",
    EventType.CONTAINED: "an integration was contained, or its containment was changed",
    EventType.RELEASED: "an integration was released, or its rate after that was changed",
    EventType.CONTAINMENT_EXPIRED: "a containment ran out and the receiver was not well: it goes on",
    EventType.GROUP_ACKNOWLEDGED: "a person looks at a group of failures",
    EventType.GROUP_RESOLVED: "a person closed a group of failures; each of its items has its own event",
    EventType.GROUP_REOPENED: "a person opened a group of failures again",
    EventType.GROUP_MUTED: "a person had alerts of a group of failures held back, or ended that",
    EventType.GROUP_COMMENTED: "a person wrote about a group of failures",
    EventType.REPLAY_PLANNED: "a replay of many was planned: its set is frozen",
    EventType.REPLAY_STARTED: "a plan was run",
    EventType.REPLAY_CANARY_PASSED: "enough of the first few succeeded: the rest is released",
    EventType.REPLAY_HALTED: "too much of a job failed: nothing more of it is replayed",
    EventType.REPLAY_PAUSED: "a person paused a job",
    EventType.REPLAY_RESUMED: "a person let a paused job go on",
    EventType.REPLAY_RATE_CHANGED: "a person changed the rate of a job",
    EventType.REPLAY_CANCELLED: "a person cancelled a job: what was replayed stays so",
    EventType.REPLAY_COMPLETED: "every item of a job has its outcome",
    EventType.EVIDENCE_EXPORTED: "an evidence file was handed out: of an item, or of a cut of this log",
    EventType.CHAIN_BROKEN: "an item's audit records were found altered, missing or out of order",
    EventType.BREAKER_OPENED: "too many attempts failed, or a trial did: the integration waits",
    EventType.BREAKER_CLOSED: "a trial or a probe succeeded: sending begins again",
    EventType.PROBED: "the health URL was asked, or one item was sent as a trial",
    EventType.CONTAINMENT_PROPOSED: "the receiver answered 410 (Gone); told once an hour at most",
    EventType.ACCESS_DENIED: "a call was refused with 403",
}


class Actor(Struct, frozen=True, omit_defaults=True):
    """Who did it: a token's subject, a user of the identity provider, or redrive itself.

    `tenant`: to which the caller was bound, if to one.
    """

    id: str
    type: str
    session_id: str | None = None
    tenant: str | None = None


class AuditEvent(Struct, frozen=True):
    """One fact, written in the transaction that made it true and never changed."""

    id: EventId
    occurred_at: datetime
    event_type: EventType
    request_id: str | None
    source_request_id: str | None
    traceparent: str | None
    actor: Actor
    integration_id: str | None
    target_type: Literal["recovery_item", "integration", "route", "failure_group", "replay_job", "export"]
    target_id: str
    result: Literal["success", "failure", "denied"]
    before_state: dict[str, Any]
    after_state: dict[str, Any]
    metadata: dict[str, Any]
    previous: str | None = None  # the digest of the record before it of the same target, in hex

    @property
    def event_id(self) -> str:
        """The public name of the event."""
        return event_id(self.id)


_encoder = msgspec.json.Encoder()


def record_of(event: AuditEvent) -> bytes:
    """The event as it is stored, in JSON: the very bytes that its digest is of."""
    return _encoder.encode(event)


def digest_of(record: bytes) -> bytes:
    """SHA-256: what the next event of the same target names."""
    return hashlib.sha256(record).digest()


def link_to(event: AuditEvent) -> str:
    """How the next event of the same target names *event*: `previous`."""
    return digest_of(record_of(event)).hex()


def chained(*events: AuditEvent, after: str | None) -> tuple[AuditEvent, ...]:
    """Events of one target, one after another, *after* the record with that digest."""
    done: list[AuditEvent] = []
    for event in events:
        done.append(replace(event, previous=link_to(done[-1]) if done else after))
    return tuple(done)
