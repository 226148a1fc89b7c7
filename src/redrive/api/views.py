"""Values as the JSON documents of the contract."""

import base64
from datetime import datetime, timedelta
from typing import Any

import msgspec

from redrive.audit.record import Actor, AuditEvent
from redrive.domain.delivery import Attempt, Erasure, Item, Resolution, rfc3339
from redrive.domain.failure_group import Comment, FailureGroup, GroupState, shown
from redrive.domain.grouping import why_grouped
from redrive.domain.health import WINDOWS, Diagnosis, Tally
from redrive.domain.ids import ItemId, group_id, instant_of, recovery_id
from redrive.domain.integration import Defaults, Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Answer, Failed, Risk
from redrive.domain.redaction import REDACTED, is_json, redacted_json

RISKS = tuple(each.name.lower() for each in Risk if each is not Risk.NONE)
_POLICY = (
    "timeout_seconds", "max_attempts", "base_delay_seconds", "max_delay_seconds", "jitter",
    "retryable_network_codes", "concurrency", "breaker_failure_share",
)  # fmt: skip


def integration(found: Integration, defaults: Defaults, *, now: datetime) -> dict[str, Any]:
    """Everything but secrets, but how those that sign do it; policy fields as they are in force."""
    return {
        "integration_id": found.integration_id,
        "name": found.name,
        "url": found.url,
        "method": found.method,
        "headers": dict(found.headers),
        "auth_mode": found.auth_mode,
        "signing_secrets": [
            {
                "signature_scheme": secret.scheme,
                "public_key": secret.public_key,
                "ends_at": instant(secret.ends_at),
            }
            for secret in found.secrets
            if found.auth_mode != "none" and secret.is_active(now)
        ],
        "lifecycle_status": found.lifecycle_status.value,
        **{name: defaults.of(found, name) for name in _POLICY},
        "rate_per_second": found.rate_per_second,
        "shards": found.shards,
        "message_signature": found.message_signature,
        "health_url": found.health_url,
        "redact_pointers": list(found.redact_pointers),
        "redact_headers": list(found.redact_headers),
        "containment": containment(found),
        "breaker": defaults.breaker(found).state_shown(),
        "throttled_until": throttled_until(found, now),
        "release": release(found),
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def containment(found: Integration) -> dict[str, Any] | None:
    """How an integration is contained, if it is."""
    contained = found.traffic.containment
    if contained is None:
        return None
    return contained.state() | {
        "request_id": contained.request_id,
        "failed_probes": contained.probes,
        "next_probe_at": instant(contained.probe_at),
    }


def release(found: Integration) -> dict[str, Any] | None:
    """How what waited when it was released is sent, until that is done."""
    return None if found.traffic.release is None else found.traffic.release.state()


def throttled_until(found: Integration, now: datetime) -> str | None:
    """Until when the receiver asked to be left alone, if that is still to come."""
    until = found.traffic.throttled_until
    return rfc3339(until) if until is not None and until > now else None


def diagnosis(found: Diagnosis) -> dict[str, Any]:
    """The verdict on a receiver, why, and the figures: of some times, and of each minute that has any."""
    facts = found.facts
    return {
        "verdict": found.verdict.value,
        "reasons": list(found.reasons),
        "outcomes": [
            {"minutes": minutes} | _tally(facts.tallies.of_last(minutes, facts.now)) for minutes in WINDOWS
        ],
        "last_success_at": instant(facts.tallies.last_success),
        "last_failure_at": instant(facts.tallies.last_failure),
        "breaker": facts.breaker.state_shown(),
        "throttled_until": rfc3339(facts.throttled_until)
        if facts.is_throttled and facts.throttled_until is not None
        else None,
        "gone_at": instant(facts.gone_at) if facts.is_gone else None,
        "probe": None if facts.probe is None else facts.probe.state(),
        "minutes": [{"at": rfc3339(tally.at)} | _tally(tally) for tally in facts.tallies.minutes],
    }


def _tally(found: Tally) -> dict[str, Any]:
    share, average = found.failure_share, found.average
    return {
        "succeeded": found.succeeded,
        "failed": found.failed,
        "failure_share": None if share is None else round(share, 4),
        "average_ms": None if average is None else round(average / timedelta(milliseconds=1), 1),
    }


def item(found: Item, integration: Integration, *, bodies: bool) -> dict[str, Any]:
    """An item; lists leave the bodies of its snapshots out."""
    delivery, last = found.delivery, found.last
    payload = snapshot(
        integration, delivery.content_type, delivery.payload, found.payload_size, bodies=bodies
    )
    return {
        "recovery_id": found.recovery_id,
        "integration_id": integration.integration_id,
        "event_type": delivery.event_type,
        "request_id": found.request_id,
        "traceparent": delivery.traceparent,
        "idempotency_key": delivery.idempotency_key,
        "status": found.status.value,
        "cycle": found.cycle,
        "attempt_count": found.attempt_count,
        "max_attempts": found.max_attempts,
        "next_retry_at": instant(found.next_retry_at),
        "last_attempt_at": instant(last.occurred_at),
        "failure_code": last.failure_code,
        "failure_detail": last.failure_detail,
        "last_http_status": last.last_http_status,
        "retryable": last.retryable,
        "duplicate_risk": risk(found.risk) if found.status is not Status.SUCCEEDED else None,
        "group_id": None if found.group is None else group_id(found.group),
        "payload_snapshot": payload,
        "response_snapshot": (
            None
            if last.answer is None
            else response(integration, last.answer, last.answer_size, bodies=bodies)
        ),
        "held": not integration.sends and not found.is_done,
        "resolved": _closed(found.resolution),
        "erased": _closed(found.erasure),
        "edit_of": name_of(found.edit_of),
        "superseded_by": name_of(found.superseded_by),
        "created_by": delivery.created_by,
        "updated_by": found.updated_by,
        "created_at": rfc3339(delivery.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def attempt(found: Attempt, integration: Integration) -> dict[str, Any]:
    """One attempt with its answer."""
    outcome = found.outcome
    failed = outcome if isinstance(outcome, Failed) else None
    asked = None if failed is None or failed.retry_after is None else failed.retry_after.total_seconds()
    return {
        "cycle": found.cycle,
        "attempt": found.attempt,
        "started_at": rfc3339(found.started_at),
        "duration_ms": round(found.duration.total_seconds() * 1000, 3),
        "outcome": "succeeded" if failed is None else "failed",
        "failure_code": None if failed is None else failed.code,
        "failure_detail": None if failed is None else failed.detail,
        "retryable": found.retryable,
        "group_id": None if found.group is None else group_id(found.group),
        "http_status": None if outcome.answer is None else outcome.answer.status,
        "reach": outcome.reach.value,
        "retry_after_seconds": asked,
        "span_id": found.span_id,
        "response_snapshot": (
            None
            if outcome.answer is None
            else response(integration, outcome.answer, len(outcome.answer.body), bodies=True)
        ),
    }


def group(found: FailureGroup, integration: Integration) -> dict[str, Any]:
    """A group of failures."""
    found = shown(found, integration)
    cause, judged = found.cause, found.judgement
    by = {"at": instant(judged.at), "by": judged.by}
    return {
        "group_id": found.group_id,
        "integration_id": integration.integration_id,
        "failure_class": cause.failure_class,
        "failure_code": cause.failure_code,
        "detail": cause.detail,
        "fingerprint": cause.fingerprint,
        "why_grouped": why_grouped(cause),
        "failures": found.failures,
        "items": found.items,
        "items_is_exact": found.items_is_exact,
        "first_seen_at": rfc3339(found.first_seen_at),
        "last_seen_at": rfc3339(found.last_seen_at),
        "sample": recovery_id(found.sample),
        "state": found.state.value,
        "regressed": found.is_regressed,
        "acknowledged": by if judged.state is GroupState.ACKNOWLEDGED else None,
        "resolved": by if judged.state is GroupState.RESOLVED else None,
        "muted_until": instant(judged.muted_until),
    }


def comment(found: Comment) -> dict[str, Any]:
    """What a person wrote about a group."""
    return {
        "written_at": rfc3339(instant_of(found.id)),
        "written_by": found.written_by,
        "text": found.text,
    }


def risk(found: Risk) -> str | None:
    """What sending again would risk, in a word; None when nothing failed."""
    return None if found is Risk.NONE else found.name.lower()


def event(found: AuditEvent) -> dict[str, Any]:
    """An audit event."""
    return {
        "event_id": found.event_id,
        "occurred_at": rfc3339(found.occurred_at),
        "event_type": found.event_type.value,
        "domain": "platform.integration",
        "request_id": found.request_id,
        "source_request_id": found.source_request_id,
        "traceparent": found.traceparent,
        "actor": _actor(found.actor),
        "integration_id": found.integration_id,
        "target_type": found.target_type,
        "target_id": found.target_id,
        "result": found.result,
        "before_state": found.before_state,
        "after_state": found.after_state,
        "metadata": found.metadata,
        "previous": found.previous,
    }


def _actor(found: Actor) -> dict[str, Any]:
    """With the tenant of one that was bound to one."""
    told = {"id": found.id, "type": found.type, "session_id": found.session_id}
    return told if found.tenant is None else told | {"tenant": found.tenant}


def response(integration: Integration, answer: Answer, size: int, *, bodies: bool) -> dict[str, Any]:
    """A response's snapshot: what came back, as far as it was kept, which is *size* bytes."""
    shown = snapshot(integration, answer.content_type, answer.body, size, bodies=bodies)
    hidden = {name.lower() for name in integration.redact_headers}
    if "content-type" in hidden:
        shown["content_type"] = REDACTED
    shown["truncated"] = answer.truncated
    shown["status"] = answer.status
    shown["headers"] = [
        [name, REDACTED if name.lower() in hidden else value] for name, value in answer.headers
    ]
    return shown


def snapshot(
    integration: Integration, content_type: str, body: bytes, size: int, *, bodies: bool
) -> dict[str, Any]:
    """Bytes as JSON when they are, else as text when they are UTF-8, else in base64.

    Of what the integration's rules cannot be applied to nothing is shown.
    """
    told = {"content_type": content_type, "size": size, "truncated": False}
    if bodies and body and integration.redact_pointers:
        shown = redacted_json(body, integration.redact_pointers)
        encoding = "text" if shown is None else "json"
        return told | {
            "encoding": encoding,
            "body": REDACTED if shown is None else msgspec.Raw(shown),
            "redacted": True,
        }
    told["encoding"] = "text" if bodies and not body else _encoding(content_type, body)
    if bodies:
        match told["encoding"]:
            case "json":
                told["body"] = msgspec.Raw(body)
            case "text":
                told["body"] = body.decode("utf-8")
            case _:
                told["body"] = base64.b64encode(body).decode()
    return told


def name_of(item_id: ItemId | None) -> str | None:
    """The public name of another item, if there is one."""
    return None if item_id is None else recovery_id(item_id)


def instant(found: Any) -> str | None:
    """An instant, if there is one."""
    return None if found is None else rfc3339(found)


def _encoding(content_type: str, body: bytes) -> str:
    """How the body is shown; of a body that a list left out, what its type suggests."""
    if not body:
        return "json" if is_json(content_type) else "text"
    try:
        body.decode("utf-8")
        if is_json(content_type):
            msgspec.json.decode(body, type=msgspec.Raw)
            return "json"
    except UnicodeDecodeError:
        return "base64"
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return "text"
    return "text"


def _closed(found: Resolution | Erasure | None) -> dict[str, Any] | None:
    """By whom, when and why, under the names that the record has."""
    if found is None:
        return None
    told = msgspec.structs.asdict(found)
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in told.items()}
