"""The audit events an attempt or a person's verb leaves: built here, written with what they prove."""

from datetime import datetime
from typing import Any, Literal

from redrive.audit.record import NOTHING, Actor, AuditEvent, EventType, link_to
from redrive.domain.access import SYSTEM, Call, Principal
from redrive.domain.delivery import Attempt, Claim, Item, item_state, rfc3339
from redrive.domain.ids import EventId, export_id, recovery_id
from redrive.domain.integration import Integration, SigningSecret
from redrive.domain.item import RetryAt, Status, Step, open_status
from redrive.domain.outcome import Failed
from redrive.domain.redaction import REDACTED
from redrive.engine.tools import NextId


def actor(principal: Principal) -> Actor:
    """A principal as audit events name it."""
    return Actor(principal.id, principal.type, principal.session_id, principal.tenant)


def of_attempt(
    next_id: NextId, claim: Claim, integration_id: str, attempt: Attempt, step: Step, *, now: datetime
) -> tuple[AuditEvent, ...]:
    """What the contract asks of a finished attempt; none when a first attempt succeeded, but for a copy's."""
    outcome = attempt.outcome
    if not isinstance(outcome, Failed):
        if claim.attempt == 1 and claim.cycle == 1 and claim.edit_of is None:
            return ()
        types = [EventType.REPROCESS_SUCCEEDED]
    else:
        types = [EventType.REPROCESS_FAILED]
        if isinstance(step, RetryAt):
            types.append(EventType.RETRY_SCHEDULED)
        elif step.status is Status.DLQ:
            types.append(EventType.RETRY_EXHAUSTED)
    before = {
        "status": open_status(cycle=claim.cycle, attempts_finished=claim.attempt - 1),
        "cycle": claim.cycle,
        "attempt_count": claim.attempt - 1,
    }
    after = item_state(
        step.status,
        cycle=claim.cycle,
        attempt_count=claim.attempt,
        next_retry_at=step.due_at if isinstance(step, RetryAt) else None,
        failure_code=outcome.code if isinstance(outcome, Failed) else None,
    )
    metadata = _attempt_facts(claim, attempt)
    events: list[AuditEvent] = []
    for kind in types:
        event = _item_event(
            next_id(now),
            now,
            kind,
            claim,
            integration_id=integration_id,
            before=before,
            after=after,
            metadata=metadata,
            previous=link_to(events[-1]) if events else claim.head,
        )
        events.append(event)
    return tuple(events)


def of_superseding(next_id: NextId, claim: Claim, integration_id: str, *, now: datetime) -> AuditEvent | None:
    """What a corrected copy that succeeded leaves on each item it stood in for; the store fills in which."""
    if claim.edit_of is None:
        return None
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=EventType.SUPERSEDED,
        request_id=claim.request_id,
        source_request_id=None,
        traceparent=claim.delivery.traceparent,
        actor=actor(SYSTEM),
        integration_id=integration_id,
        target_type="recovery_item",
        target_id="",
        result="success",
        before_state={},
        after_state={},
        metadata={"superseded_by": claim.recovery_id},
    )


def of_person(
    next_id: NextId,
    now: datetime,
    kind: EventType,
    call: Call,
    *,
    integration_id: str,
    item: Item | None = None,
    target_id: str | None = None,
    group_id: str | None = None,
    head: str | None = None,
    source_request_id: str | None = None,
    before: dict[str, Any] = NOTHING,
    after: dict[str, Any],
    metadata: dict[str, Any] | None = None,
) -> AuditEvent:
    """A verb on an item (given, or named by *target_id*), a group of failures, or the integration itself.

    It stands after the last record of the item that is given, or after the *head* of the one that is named.
    """
    on_item = item is not None or target_id is not None
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=kind,
        request_id=call.request_id,
        source_request_id=source_request_id if item is None else item.delivery.request_id,
        traceparent=call.traceparent,
        actor=actor(call.principal),
        integration_id=integration_id,
        target_type="failure_group" if group_id else "recovery_item" if on_item else "integration",
        target_id=group_id or target_id or (integration_id if item is None else item.recovery_id),
        result="success",
        before_state=before,
        after_state=after,
        metadata=metadata or {},
        previous=head if item is None else item.head,
    )


def of_system(
    next_id: NextId,
    now: datetime,
    kind: EventType,
    *,
    integration_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    metadata: dict[str, Any],
    result: Literal["success", "failure"] = "success",
) -> AuditEvent:
    """What redrive did to an integration by itself: no call caused it."""
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=kind,
        request_id=None,
        source_request_id=None,
        traceparent=None,
        actor=actor(SYSTEM),
        integration_id=integration_id,
        target_type="integration",
        target_id=integration_id,
        result=result,
        before_state=before,
        after_state=after,
        metadata=metadata,
    )


def of_export(
    number: EventId,
    now: datetime,
    call: Call,
    *,
    of: dict[str, Any],
    integration_id: str | None,
    digest: str | None,
) -> AuditEvent:
    """An evidence file that is handed out, *of* something; with its digest where that is known by then."""
    told = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in of.items()}
    return AuditEvent(
        id=number,
        occurred_at=now,
        event_type=EventType.EVIDENCE_EXPORTED,
        request_id=call.request_id,
        source_request_id=None,
        traceparent=call.traceparent,
        actor=actor(call.principal),
        integration_id=integration_id,
        target_type="export",
        target_id=export_id(number),
        result="success",
        before_state=NOTHING,
        after_state={"exists": True, "of": told},
        metadata={} if digest is None else {"sha256": digest},
    )


def of_denial(
    next_id: NextId, now: datetime, call: Call, *, integration_id: str | None, route: str, permission: str
) -> AuditEvent:
    """A call that was refused with 403."""
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=EventType.ACCESS_DENIED,
        request_id=call.request_id,
        source_request_id=None,
        traceparent=call.traceparent,
        actor=actor(call.principal),
        integration_id=integration_id,
        target_type="route",
        target_id=route,
        result="denied",
        before_state={"permissions": sorted(call.principal.permissions)},
        after_state={"permissions": sorted(call.principal.permissions)},
        metadata={"permission": permission},
    )


def integration_state(integration: Integration) -> dict[str, Any]:
    """An integration as audit events show it: a secret and a header's value may be there, not be read."""
    return _fields(integration) | {
        "headers": {name: REDACTED for name, _ in integration.headers},
        "signing_secrets": [_signs(secret) for secret in integration.secrets],
        "credentials": None if integration.credentials is None else REDACTED,
        "version": integration.version,
    }


def changed_fields(old: Integration, new: Integration) -> list[str]:
    """What differs between two states, by name; also where both show the same `[REDACTED]`."""
    before, after = _fields(old), _fields(new)
    return [name for name in after if before[name] != after[name]]


def _fields(integration: Integration) -> dict[str, Any]:
    """What people can change of it, secrets included."""
    return {
        "name": integration.name,
        "url": integration.url,
        "method": integration.method,
        "headers": integration.headers,
        "auth_mode": integration.auth_mode,
        "lifecycle_status": integration.lifecycle_status,
        "timeout_seconds": integration.timeout_seconds,
        "max_attempts": integration.max_attempts,
        "base_delay_seconds": integration.base_delay_seconds,
        "max_delay_seconds": integration.max_delay_seconds,
        "jitter": integration.jitter,
        "retryable_network_codes": integration.retryable_network_codes,
        "concurrency": integration.concurrency,
        "rate_per_second": integration.rate_per_second,
        "breaker_failure_share": integration.breaker_failure_share,
        "shards": integration.shards,
        "message_signature": integration.message_signature,
        "health_url": integration.health_url,
        "redact_pointers": integration.redact_pointers,
        "redact_headers": integration.redact_headers,
        "signing_secrets": integration.secrets,
        "credentials": integration.credentials,
    }


def _signs(secret: SigningSecret) -> dict[str, Any]:
    ends_at = None if secret.ends_at is None else rfc3339(secret.ends_at)
    return {"secret": REDACTED, "public_key": secret.public_key, "ends_at": ends_at}


def _attempt_facts(claim: Claim, attempt: Attempt) -> dict[str, Any]:
    outcome = attempt.outcome
    facts: dict[str, Any] = {
        "cycle": claim.cycle,
        "attempt": claim.attempt,
        "max_attempts": claim.max_attempts,
        "span_id": attempt.span_id,
        "started_at": rfc3339(attempt.started_at),
        "duration_ms": round(attempt.duration.total_seconds() * 1000, 3),
        "http_status": None if outcome.answer is None else outcome.answer.status,
        "reach": outcome.reach,
    }
    if isinstance(outcome, Failed):
        facts["failure_code"] = outcome.code
        facts["failure_detail"] = outcome.detail
        facts["retryable"] = attempt.retryable
        if outcome.retry_after is not None:
            facts["retry_after_seconds"] = outcome.retry_after.total_seconds()
    return facts


def _item_event(
    number: int,
    now: datetime,
    kind: EventType,
    claim: Claim,
    *,
    integration_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    metadata: dict[str, Any],
    previous: str | None,
) -> AuditEvent:
    return AuditEvent(
        id=EventId(number),
        occurred_at=now,
        event_type=kind,
        request_id=claim.request_id,
        source_request_id=claim.delivery.request_id,
        traceparent=claim.delivery.traceparent,
        actor=actor(SYSTEM),
        integration_id=integration_id,
        target_type="recovery_item",
        target_id=recovery_id(claim.delivery.id),
        result="failure" if kind is not EventType.REPROCESS_SUCCEEDED else "success",
        before_state=before,
        after_state=after,
        metadata=metadata,
        previous=previous,
    )
