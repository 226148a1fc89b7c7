"""Of items, their attempts, and what a person does with one."""

from typing import Final

from redrive.api import views
from redrive.api.queue import Reason, Snapshot
from redrive.api.schemas.deliveries import FORMS, PAYLOAD
from redrive.api.schemas.parts import (
    BOOLEAN,
    BYTES,
    COUNT,
    CURSOR,
    FAILURE_CODE,
    GROUP,
    HTTP_STATUS,
    INSTANT,
    INTEGRATION,
    NAME,
    NUMBER,
    REASON,
    RECOVERY,
    REQUEST_ID,
    SENT_HEADERS,
    STRING,
    Schema,
    array,
    bodies,
    closed,
    line,
    obj,
    or_null,
    ref,
    reply,
    words,
)
from redrive.domain.integration import Lifecycle
from redrive.domain.item import DEAD, Status
from redrive.domain.outcome import Reach

_PAIRS = array({"type": "array", "prefixItems": [STRING, STRING], "items": False, "minItems": 2})
_ENCODING = words(("json", "text", "base64"))
_SNAPSHOT: Final[dict[str, Schema]] = {
    "content_type": STRING,
    "encoding": _ENCODING,
    "size": COUNT,
    "truncated": BOOLEAN,
}
_BODY: Final[dict[str, Schema]] = {
    "body": {"description": "As `encoding` says; lists leave it out."},
    "redacted": {"const": True, "description": "Something is hidden by the integration's rules."},
}
_EVIDENCE: dict[str, Schema] = {
    "attempt_count": COUNT | {"maximum": 1000},
    "failure_code": or_null(FAILURE_CODE),
    "failure_detail": or_null(line(2000)),
    "last_http_status": or_null(HTTP_STATUS),
    "response_snapshot": or_null(ref(Snapshot.__name__)),
    "occurred_at": or_null(INSTANT),
}
_RISK = (
    "Of sending it again, by how far its worst attempt got. `never_sent`: the receiver has not seen it; "
    "`refused`: it answered with a redirect, a 4xx or a 503; `ambiguous`: it may have acted on it."
)
_ITEM: dict[str, Schema] = {
    "recovery_id": RECOVERY,
    "integration_id": INTEGRATION,
    "event_type": STRING,
    "request_id": REQUEST_ID | {"description": "Of the call that opened the cycle."},
    "traceparent": STRING,
    "idempotency_key": or_null(STRING),
    "status": words(Status),
    "cycle": COUNT,
    "attempt_count": COUNT,
    "max_attempts": COUNT,
    "next_retry_at": or_null(INSTANT),
    "last_attempt_at": or_null(INSTANT),
    "failure_code": or_null(FAILURE_CODE),
    "failure_detail": or_null(STRING),
    "last_http_status": or_null(HTTP_STATUS),
    "retryable": or_null(BOOLEAN),
    "duplicate_risk": or_null(words(views.RISKS)) | {"description": _RISK},
    "group_id": or_null(GROUP) | {"description": "Of a failed or dlq item."},
    "payload_snapshot": ref("PayloadSnapshot"),
    "response_snapshot": or_null(ref("ResponseSnapshot")),
    "held": BOOLEAN,
    "resolved": or_null(obj({"resolved_at": INSTANT, "resolved_by": STRING, "reason": STRING})),
    "erased": or_null(obj({"erased_at": INSTANT, "erased_by": STRING, "reason": STRING})),
    "edit_of": or_null(RECOVERY) | {"description": "The item that this is a corrected copy of."},
    "superseded_by": or_null(RECOVERY) | {"description": "Its corrected copy that succeeded."},
    "created_by": STRING,
    "updated_by": STRING,
    "created_at": INSTANT,
    "updated_at": INSTANT,
}
_ATTEMPT: dict[str, Schema] = {
    "cycle": COUNT,
    "attempt": COUNT,
    "started_at": INSTANT,
    "duration_ms": NUMBER,
    "outcome": words(("succeeded", "failed")),
    "failure_code": or_null(FAILURE_CODE),
    "failure_detail": or_null(STRING),
    "retryable": or_null(BOOLEAN),
    "group_id": or_null(GROUP),
    "http_status": or_null(COUNT),
    "reach": words(Reach),
    "retry_after_seconds": or_null(NUMBER),
    "span_id": STRING,
    "response_snapshot": or_null(ref("ResponseSnapshot")),
}


def _asked() -> dict[str, Schema]:
    found = bodies(Reason, Snapshot)
    why = found[Reason.__name__]["properties"]
    why["reason"] = REASON
    why["incident"]["anyOf"][0] |= NAME
    return found


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
    "Import": {
        "oneOf": [
            closed(obj(must | {"status": words(sorted(DEAD))}, may | _EVIDENCE))
            for must, may in FORMS.values()
        ]
    },
    "Edit": {
        "description": "What is not given stays; something must be.",
        "oneOf": [
            closed(obj({"reason": REASON, **must}, {"incident": NAME, **may}))
            for must, may in (
                ({"payload": PAYLOAD}, {"headers": SENT_HEADERS}),
                ({"payload_base64": BYTES, "content_type": STRING}, {"headers": SENT_HEADERS}),
                ({"headers": SENT_HEADERS}, {}),
            )
        ],
    },
    "PayloadSnapshot": obj(_SNAPSHOT, _BODY),
    "ResponseSnapshot": obj(_SNAPSHOT | {"status": COUNT, "headers": _PAIRS}, _BODY),
    "Item": obj(_ITEM),
    "Attempt": obj(_ATTEMPT),
    "RecoveryQueue": reply(
        {
            "integration_id": INTEGRATION,
            "lifecycle_status": words(Lifecycle),
            "status": or_null(words(Status)),
            "limit": COUNT,
            "queue": array(ref("Item")),
            "next_cursor": CURSOR,
        }
    ),
    "Recovery": reply({"recovery": ref("Item"), "attempts": array(ref("Attempt"))}),
    "Imported": reply({"recovery_id": RECOVERY, "status": words(sorted(DEAD))}),
    "Replayed": reply(
        {
            "recovery": ref("Item"),
            "previous_status": words(sorted(DEAD)),
            "current_status": {"const": Status.REPLAYED.value},
            "replayed": {"const": True},
            "reason": STRING,
        }
    ),
    "Resolved": reply({"recovery": ref("Item"), "resolved": {"const": True}, "reason": STRING}),
    "Erased": reply({"recovery": ref("Item"), "erased": {"const": True}, "reason": STRING}),
    "Edited": reply(
        {
            "recovery": ref("Item"),
            "edited": {"const": True},
            "reason": STRING,
            "changes": array(
                obj(
                    {"op": words(("add", "remove", "replace")), "path": STRING},
                    {"value": {}, "value_size": COUNT, "was": {}, "was_size": COUNT},
                ),
                description="In the manner of RFC 6902, from /payload and /headers on.",
            ),
        },
        {"changes_omitted": COUNT},
    ),
}
