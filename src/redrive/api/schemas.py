"""The JSON Schemas (2020-12) of what goes in and out: from the code's own words wherever it has them."""

import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from redrive.api import views
from redrive.api.containment import MOST_NAME, MOST_REASON, NewContainment, NewRelease
from redrive.api.deliveries import MOST_BATCH
from redrive.api.groups import Acknowledgement, Muting, NewComment
from redrive.api.integrations import MOST_OVERLAP, Changes, NewIntegration, NewSecret
from redrive.api.probes import NewProbe
from redrive.api.queue import FAILURE_CODES, Reason, Snapshot
from redrive.api.replays import MOST_CYCLE, NewRate, ReplayPlan, ReplayRun
from redrive.audit.record import DOMAIN, AuditEvent, EventType
from redrive.delivery.credentials import KINDS
from redrive.delivery.signing import Scheme
from redrive.domain import errors
from redrive.domain.breaker import BreakerState
from redrive.domain.failure_group import LONGEST_COMMENT, GroupState
from redrive.domain.grouping import FailureClass
from redrive.domain.headers import HEADER_NAME, HEADER_VALUE, MAX_HEADERS
from redrive.domain.health import SHOWN_MINUTES, Verdict
from redrive.domain.ids import ALPHABET, GROUP_ID, RECOVERY_ID, REPLAY_PREFIX
from redrive.domain.integration import (
    INTEGRATION_ID,
    RANGES,
    AuthMode,
    Lifecycle,
    Method,
)
from redrive.domain.item import DEAD, Status
from redrive.domain.outcome import RETRYABLE_NETWORK_CODES, Reach
from redrive.domain.redaction import MOST_RULES, POINTER
from redrive.domain.replay import MOST_CANARY, ItemState, ReplayState
from redrive.domain.replay_plan import Skip
from redrive.domain.target import MAX_URL
from redrive.domain.traffic import LONGEST_CONTAINMENT, Mode

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_LINE = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": _REF + name}


def whole(pattern: re.Pattern[str]) -> Schema:
    """A string that matches all of *pattern* (JSON Schema's patterns are not anchored)."""
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$"}


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}, **more: Any) -> Schema:
    """An object; what it may hold besides is left open, because a reply may grow."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        **more,
    }


def components() -> dict[str, Schema]:
    """Every schema by its name."""
    return {**_asked(), **_values(), **_replies()}


STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
HTTP_STATUS: Schema = {"type": "integer", "minimum": 100, "maximum": 599}
BYTES: Schema = {"type": "string", "contentEncoding": "base64"}


def line(most: int) -> Schema:
    """A text on one line."""
    told = "One line of printable characters, no space at either end."
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": _LINE, "description": told}


def words(among: Any) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": [str(word) for word in among]}


def or_null(schema: Schema) -> Schema:
    """*schema*, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def closed(schema: Schema) -> Schema:
    """An object that holds nothing else."""
    return schema | {"additionalProperties": False}


def array(of: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": of, **more}


_INTEGRATION_ID = whole(INTEGRATION_ID)
_RECOVERY_ID = whole(RECOVERY_ID)
REPLAY_ID = whole(re.compile(f"{REPLAY_PREFIX}[0-7][{ALPHABET}]{{12}}"))
_REQUEST_ID: Schema = {"type": "string"}
_CURSOR = or_null({"type": "string", "description": "Pass it on as `cursor`, with the same filters."})
_PAIRS = array({"type": "array", "prefixItems": [STRING, STRING], "items": False, "minItems": 2})
_FAILURE_CODE: Schema = {
    "anyOf": [words(sorted(FAILURE_CODES)), {"type": "string", "pattern": "^HTTP_[1-5][0-9]{2}$"}]
}
_SENT_HEADERS: Schema = {
    "type": "object",
    "propertyNames": whole(HEADER_NAME),
    "additionalProperties": whole(HEADER_VALUE),
    "maxProperties": MAX_HEADERS,
}
_ENCODING = words(("json", "text", "base64"))


def _asked() -> dict[str, Schema]:
    """Request bodies."""
    _, found = msgspec.json.schema_components(
        [
            NewIntegration,
            Changes,
            NewSecret,
            Reason,
            Snapshot,
            NewContainment,
            NewRelease,
            NewProbe,
            Acknowledgement,
            Muting,
            NewComment,
            ReplayPlan,
            ReplayRun,
            NewRate,
        ],
        ref_template=_REF + "{name}",
    )
    for name in (NewIntegration.__name__, Changes.__name__):
        _bound(found[name]["properties"])
    rotation = found[NewSecret.__name__]["properties"]
    rotation["overlap_seconds"] |= {"minimum": 0, "maximum": MOST_OVERLAP}
    rotation["secret"]["anyOf"][0] |= _SECRET
    found[Reason.__name__]["properties"]["reason"] = line(256)
    _bound_containment(found[NewContainment.__name__]["properties"])
    release = found[NewRelease.__name__]["properties"]
    low, high = RANGES["rate_per_second"]
    release["reason"] |= line(MOST_REASON)
    release["rate_per_second"]["anyOf"][0] |= {"minimum": low, "maximum": high}
    for name in (Acknowledgement.__name__, Muting.__name__):
        found[name]["properties"]["reason"] |= or_null(line(256))
    found[Muting.__name__]["properties"]["until"] |= or_null(INSTANT)
    found[NewComment.__name__]["properties"]["text"] = _COMMENT
    _bound_replays(found)
    probe = found[NewProbe.__name__]["properties"]
    probe["recovery_id"]["anyOf"][0] |= _RECOVERY_ID
    probe["reason"]["anyOf"][0] |= line(256)
    event_type, headers = line(128), _SENT_HEADERS
    forms = {
        "JsonDelivery": ({"event_type": event_type, "payload": _PAYLOAD}, {"headers": headers}),
        "BinaryDelivery": (
            {"event_type": event_type, "payload_base64": BYTES, "content_type": STRING},
            {"headers": headers},
        ),
    }
    keyed = {"idempotency_key": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"}}
    return {
        **found,
        **{name: closed(obj(must, may)) for name, (must, may) in forms.items()},
        "Delivery": {"oneOf": [ref(name) for name in forms]},
        "ReplayStart": {"oneOf": [ref(ReplayPlan.__name__), ref(ReplayRun.__name__)]},
        "Nothing": closed(obj({})),
        "Edit": {
            "description": "What is not given stays; something must be.",
            "oneOf": [
                closed(obj({"reason": line(256), **must}, {"incident": line(128), **may}))
                for must, may in (
                    ({"payload": _PAYLOAD}, {"headers": headers}),
                    ({"payload_base64": BYTES, "content_type": STRING}, {"headers": headers}),
                    ({"headers": headers}, {}),
                )
            ],
        },
        "Batch": closed(
            obj(
                {
                    "deliveries": array(
                        {"oneOf": [closed(obj(must, may | keyed)) for must, may in forms.values()]},
                        minItems=1,
                        maxItems=MOST_BATCH,
                    )
                }
            )
        ),
        "Import": {
            "oneOf": [
                closed(obj(must | {"status": words(sorted(DEAD))}, may | _EVIDENCE))
                for must, may in forms.values()
            ]
        },
    }


_COMMENT: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_COMMENT,
    "pattern": r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x08\x0b-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
}


def _bound_replays(found: dict[str, Schema]) -> None:
    """What the types of these bodies do not say of their values."""
    wanted = found["ReplayFilter"]["properties"]
    for name, bound in {
        "group": whole(GROUP_ID),
        "failure_code": line(64),
        "event_type": line(128),
        "cycle": {"minimum": 1, "maximum": MOST_CYCLE},
        "since": INSTANT,
        "until": INSTANT,
        "recovery_ids": {"items": _RECOVERY_ID, "minItems": 1},
        "failures_of": REPLAY_ID,
    }.items():
        wanted[name]["anyOf"][0] |= bound
    run = found[ReplayRun.__name__]["properties"]
    run["reason"] = line(256)
    run["incident"]["anyOf"][0] |= line(128)
    run["concurrency"]["anyOf"][0] |= {"minimum": 1, "maximum": 100_000}
    for rate in (run["rate"], found[NewRate.__name__]["properties"]["rate"]):
        rate["anyOf"][0] |= {"minimum": 0.001, "maximum": 100_000}
    canary, halt_if = found["CanaryOption"]["properties"], found["HaltOption"]["properties"]
    canary["size"] |= {"minimum": 0, "maximum": MOST_CANARY}
    canary["share"] |= {"exclusiveMinimum": 0, "maximum": 1}
    halt_if["share"] |= {"minimum": 0, "maximum": 1}
    halt_if["last"] |= {"minimum": 1, "maximum": 10_000}


_SECRET: Schema = {"pattern": "^wh(sec|sk)_", "writeOnly": True}
_CREDENTIALS: Schema = {
    "writeOnly": True,
    "description": "; ".join(
        f"{mode}: {' '.join(field.name for field in msgspec.structs.fields(kind))}"
        for mode, kind in KINDS.items()
    ),
}
_PAYLOAD: Schema = {"description": "Any JSON; exactly these bytes are sent."}
_EVIDENCE: dict[str, Schema] = {
    "attempt_count": COUNT | {"maximum": 1000},
    "failure_code": or_null(_FAILURE_CODE),
    "failure_detail": or_null(line(2000)),
    "last_http_status": or_null(HTTP_STATUS),
    "response_snapshot": or_null(ref(Snapshot.__name__)),
    "occurred_at": or_null(INSTANT),
}


def _bound(properties: dict[str, Schema]) -> None:
    """What the types of a Struct do not say of its values."""
    for name, (low, high) in RANGES.items():
        value = properties[name].get("anyOf", [properties[name]])[0]  # where null is allowed, it comes last
        value |= {"minimum": low, "maximum": high}
    if "integration_id" in properties:
        properties["integration_id"] |= _INTEGRATION_ID
    properties["name"] |= line(128)
    properties["url"] |= {"maxLength": MAX_URL, "pattern": "^https?://"}
    properties["headers"]["anyOf"][0] |= _SENT_HEADERS
    properties["retryable_network_codes"]["anyOf"][0]["items"] = words(RETRYABLE_NETWORK_CODES)
    for rules, of_each in (
        ("redact_pointers", {"pattern": f"^{POINTER.pattern}$"}),
        ("redact_headers", whole(HEADER_NAME)),
    ):
        properties[rules]["anyOf"][0] |= {"maxItems": MOST_RULES}
        properties[rules]["anyOf"][0]["items"] |= of_each
    properties["secret"] |= _SECRET
    properties["credentials"] |= _CREDENTIALS


def _bound_containment(properties: dict[str, Schema]) -> None:
    properties["reason"] |= line(MOST_REASON)
    for name in ("owner", "incident"):
        properties[name]["anyOf"][0] |= line(MOST_NAME)
    properties["until"]["anyOf"][0] |= INSTANT
    properties["for_seconds"]["anyOf"][0] |= {
        "exclusiveMinimum": 0,
        "maximum": LONGEST_CONTAINMENT.total_seconds(),
    }


def _values() -> dict[str, Schema]:
    """What replies are made of."""
    snapshot = {"content_type": STRING, "encoding": _ENCODING, "size": COUNT, "truncated": BOOLEAN}
    body: dict[str, Schema] = {
        "body": {"description": "As `encoding` says; lists leave it out."},
        "redacted": {"const": True, "description": "Something is hidden by the integration's rules."},
    }
    of_event = AuditEvent.__annotations__
    return {
        "PayloadSnapshot": obj(snapshot, body),
        "ResponseSnapshot": obj(snapshot | {"status": COUNT, "headers": _PAIRS}, body),
        "Integration": obj(_INTEGRATION),
        "HowContained": obj(
            {
                "mode": words(Mode),
                "reason": STRING,
                "owner": STRING,
                "by": STRING,
                "since": INSTANT,
                "until": INSTANT,
                "incident": or_null(STRING),
                "request_id": _REQUEST_ID,
            }
        ),
        "HowReleased": obj({"rate_per_second": NUMBER, "since": INSTANT, "by": STRING, "reason": STRING}),
        "Simulation": obj(
            {
                "backlog": COUNT,
                "arrivals_per_second": NUMBER,
                "healthy_per_second": or_null(NUMBER)
                | {"description": "The most that the receiver took over a minute of the last week."},
                "ceiling_per_second": or_null(NUMBER)
                | {"description": "What concurrency, rate and the receiver's usual answering time allow."},
                "rates": array(
                    obj(
                        {
                            "rate_per_second": NUMBER,
                            "sends_per_second": NUMBER,
                            "drain_seconds": or_null(NUMBER)
                            | {"description": "null: never, as much arrives as is sent."},
                            "new_traffic_delay_seconds": NUMBER,
                            "is_proven": BOOLEAN | {"description": "The receiver took as much before."},
                        }
                    )
                ),
            }
        ),
        "Breaker": obj(
            {
                "state": words(BreakerState),
                "changed_at": or_null(INSTANT),
                "until": or_null(INSTANT | {"description": "No trial begins before."}),
                "opened_at": or_null(INSTANT | {"description": "When it opened first in a row of times."}),
                "trips": COUNT | {"description": "How often it opened in a row."},
            }
        ),
        "Probe": obj(
            {
                "kind": words(("health_url", "item")),
                "at": INSTANT,
                "by": STRING,
                "reason": or_null(STRING),
                "recovery_id": or_null(_RECOVERY_ID),
                "outcome": words(("succeeded", "failed", "unknown")),
                "http_status": or_null(HTTP_STATUS),
                "failure_code": or_null(_FAILURE_CODE),
                "failure_detail": or_null(STRING),
                "duration_ms": NUMBER,
            }
        ),
        "Item": obj(_ITEM),
        "Replay": obj(_REPLAY),
        "ReplayItem": obj(_REPLAY_ITEM),
        "Attempt": obj(_ATTEMPT),
        "Group": obj(_GROUP),
        "Comment": obj(_WRITTEN),
        "AuditEvent": obj(
            {
                "event_id": STRING,
                "occurred_at": INSTANT,
                "event_type": words(EventType),
                "domain": {"const": DOMAIN},
                "request_id": or_null(_REQUEST_ID),
                "source_request_id": or_null(_REQUEST_ID),
                "traceparent": or_null(STRING),
                "actor": obj(
                    {"id": STRING, "type": STRING, "session_id": or_null(STRING)}, {"tenant": STRING}
                ),
                "integration_id": or_null(_INTEGRATION_ID),
                "target_type": words(get_args(of_event["target_type"])),
                "target_id": STRING,
                "result": words(get_args(of_event["result"])),
                "before_state": _STATE,
                "after_state": _STATE,
                "metadata": {"type": "object"},
                "previous": or_null(STRING) | {"description": "The digest of its item's record before it."},
            }
        ),
    }


_TALLY: dict[str, Schema] = {
    "succeeded": COUNT,
    "failed": COUNT,
    "failure_share": or_null(NUMBER),
    "average_ms": or_null(NUMBER | {"description": "How long an attempt took."}),
}
_STATE: Schema = {"type": "object", "minProperties": 1}
_INTEGRATION: dict[str, Schema] = {
    "integration_id": _INTEGRATION_ID,
    "name": STRING,
    "url": STRING,
    "method": words(get_args(Method)),
    "headers": {"type": "object", "additionalProperties": STRING},
    "auth_mode": words(get_args(AuthMode)),
    "signing_secrets": array(
        obj(
            {
                "signature_scheme": words(get_args(Scheme)),
                "public_key": or_null({"type": "string", "pattern": "^whpk_"}),
                "ends_at": or_null(INSTANT),
            }
        ),
        description="Those that sign now, the latest first.",
    ),
    "lifecycle_status": words(Lifecycle),
    "timeout_seconds": NUMBER,
    "max_attempts": COUNT,
    "base_delay_seconds": NUMBER,
    "max_delay_seconds": NUMBER,
    "jitter": NUMBER,
    "retryable_network_codes": array(words(RETRYABLE_NETWORK_CODES)),
    "concurrency": COUNT,
    "rate_per_second": or_null(NUMBER),
    "breaker_failure_share": NUMBER | {"description": "From which its breaker opens; 0: it never does."},
    "shards": COUNT | {"description": "Lanes that several processes may send from side by side."},
    "message_signature": BOOLEAN | {"description": "Whether calls also carry an RFC 9421 signature."},
    "health_url": or_null(STRING),
    "redact_pointers": array(STRING),
    "redact_headers": array(STRING),
    "containment": or_null(ref("HowContained")),
    "release": or_null(ref("HowReleased")),
    "breaker": ref("Breaker"),
    "throttled_until": or_null(INSTANT | {"description": "Its receiver asked to be left alone until then."}),
    "created_at": INSTANT,
    "updated_at": INSTANT,
}
_GROUP_ID = whole(GROUP_ID)
_RISK = (
    "Of sending it again, by how far its worst attempt got. `never_sent`: the receiver has not seen it; "
    "`refused`: it answered with a redirect, a 4xx or a 503; `ambiguous`: it may have acted on it."
)
_ITEM: dict[str, Schema] = {
    "recovery_id": _RECOVERY_ID,
    "integration_id": _INTEGRATION_ID,
    "event_type": STRING,
    "request_id": _REQUEST_ID | {"description": "Of the call that opened the cycle."},
    "traceparent": STRING,
    "idempotency_key": or_null(STRING),
    "status": words(Status),
    "cycle": COUNT,
    "attempt_count": COUNT,
    "max_attempts": COUNT,
    "next_retry_at": or_null(INSTANT),
    "last_attempt_at": or_null(INSTANT),
    "failure_code": or_null(_FAILURE_CODE),
    "failure_detail": or_null(STRING),
    "last_http_status": or_null(HTTP_STATUS),
    "retryable": or_null(BOOLEAN),
    "duplicate_risk": or_null(words(views.RISKS)) | {"description": _RISK},
    "group_id": or_null(_GROUP_ID) | {"description": "Of a failed or dlq item."},
    "payload_snapshot": ref("PayloadSnapshot"),
    "response_snapshot": or_null(ref("ResponseSnapshot")),
    "held": BOOLEAN,
    "resolved": or_null(obj({"resolved_at": INSTANT, "resolved_by": STRING, "reason": STRING})),
    "erased": or_null(obj({"erased_at": INSTANT, "erased_by": STRING, "reason": STRING})),
    "edit_of": or_null(_RECOVERY_ID) | {"description": "The item that this is a corrected copy of."},
    "superseded_by": or_null(_RECOVERY_ID) | {"description": "Its corrected copy that succeeded."},
    "created_by": STRING,
    "updated_by": STRING,
    "created_at": INSTANT,
    "updated_at": INSTANT,
}
_DUPLICATE_RISK = words(views.RISKS)
_REPLAY: dict[str, Schema] = {
    "replay_id": REPLAY_ID,
    "integration_id": _INTEGRATION_ID,
    "state": words(ReplayState),
    "verdict": words(Verdict) | {"description": "On the receiver, now."},
    "because": or_null(STRING),
    "filter": {"type": "object"},
    "as_of": INSTANT,
    "expires_at": INSTANT,
    "plan": or_null(
        obj(
            {
                "digest": STRING,
                "total": COUNT,
                "eligible": COUNT,
                "skipped": {"type": "object", "propertyNames": words(Skip), "additionalProperties": COUNT},
                "duplicate_risk": obj(dict.fromkeys(views.RISKS, COUNT)),
                "oldest_at": or_null(INSTANT),
                "estimated_seconds": or_null(NUMBER),
            }
        )
    ),
    "options": or_null({"type": "object"}),
    "progress": obj(
        {
            **dict.fromkeys(ItemState, COUNT),
            "total": COUNT,
            "outcomes_per_second": NUMBER,
            "eta_seconds": or_null(NUMBER),
        },
        description="The counts by outcome sum to the total at every moment.",
    ),
    "created_by": STRING,
    "created_at": INSTANT,
    "run_by": or_null(STRING),
    "run_at": or_null(INSTANT),
    "run_request_id": or_null(_REQUEST_ID),
    "updated_by": STRING,
    "updated_at": INSTANT,
}
_REPLAY_ITEM: dict[str, Schema] = {
    "recovery_id": _RECOVERY_ID,
    "planned_cycle": COUNT,
    "duplicate_risk": or_null(_DUPLICATE_RISK),
    "state": words(ItemState),
    "reason": or_null({"type": "string", "description": "Why it was skipped, or how it failed."}),
    "first_attempt_failed": BOOLEAN,
    "first_attempt_at": or_null(INSTANT),
}
_ATTEMPT: dict[str, Schema] = {
    "cycle": COUNT,
    "attempt": COUNT,
    "started_at": INSTANT,
    "duration_ms": NUMBER,
    "outcome": words(("succeeded", "failed")),
    "failure_code": or_null(_FAILURE_CODE),
    "failure_detail": or_null(STRING),
    "retryable": or_null(BOOLEAN),
    "group_id": or_null(_GROUP_ID),
    "http_status": or_null(COUNT),
    "reach": words(Reach),
    "retry_after_seconds": or_null(NUMBER),
    "span_id": STRING,
    "response_snapshot": or_null(ref("ResponseSnapshot")),
}


_BY: Schema = or_null(obj({"at": INSTANT, "by": STRING}))
_GROUP: dict[str, Schema] = {
    "group_id": _GROUP_ID,
    "integration_id": _INTEGRATION_ID,
    "failure_class": words(FailureClass),
    "failure_code": _FAILURE_CODE,
    "detail": STRING | {"description": "What the receiver said, or how it failed, with what varies marked."},
    "fingerprint": {"type": "string", "pattern": "^v1:[0-9a-f]{64}$"},
    "why_grouped": STRING,
    "failures": COUNT | {"description": "Attempts that failed so."},
    "items": COUNT | {"description": "Failed and dlq items that wait for a person, counted up to 10,000."},
    "items_is_exact": BOOLEAN,
    "first_seen_at": INSTANT,
    "last_seen_at": INSTANT,
    "sample": _RECOVERY_ID | {"description": "The item that failed so last."},
    "state": words(GroupState),
    "regressed": BOOLEAN | {"description": "It failed again after it was resolved."},
    "acknowledged": _BY,
    "resolved": _BY,
    "muted_until": or_null(INSTANT),
}
_WRITTEN: dict[str, Schema] = {"written_at": INSTANT, "written_by": STRING, "text": STRING}
_OF_ONE_DELIVERY = [
    kind.__name__
    for kind in (
        errors.InvalidPayload,
        errors.TooLarge,
        errors.IdempotencyKeyReused,
        errors.Conflict,
        errors.Contained,
    )
]


def _replies() -> dict[str, Schema]:
    """What a 2xx holds; each has the request_id of its call."""
    accepted: dict[str, Schema] = {"recovery_id": _RECOVERY_ID, "status": {"const": Status.PENDING.value}}
    return {
        "Accepted": _reply(accepted),
        "AcceptedBatch": _reply(
            {
                "deliveries": array(
                    {"anyOf": [obj(accepted | {"duplicate": BOOLEAN}), *map(ref, _OF_ONE_DELIVERY)]},
                    description="A receipt or a problem for each delivery, in order.",
                )
            }
        ),
        "Imported": _reply({"recovery_id": _RECOVERY_ID, "status": words(sorted(DEAD))}),
        "RecoveryQueue": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "lifecycle_status": words(Lifecycle),
                "status": or_null(words(Status)),
                "limit": COUNT,
                "queue": array(ref("Item")),
                "next_cursor": _CURSOR,
            }
        ),
        "Recovery": _reply({"recovery": ref("Item"), "attempts": array(ref("Attempt"))}),
        "Replayed": _reply(
            {
                "recovery": ref("Item"),
                "previous_status": words(sorted(DEAD)),
                "current_status": {"const": Status.REPLAYED.value},
                "replayed": {"const": True},
                "reason": STRING,
            }
        ),
        "Resolved": _reply({"recovery": ref("Item"), "resolved": {"const": True}, "reason": STRING}),
        "Erased": _reply({"recovery": ref("Item"), "erased": {"const": True}, "reason": STRING}),
        "Groups": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "state": or_null(words(GroupState)),
                "limit": COUNT,
                "groups": array(ref("Group")),
                "next_cursor": _CURSOR,
            }
        ),
        "GroupWithComments": _reply(
            {
                "group": ref("Group"),
                "limit": COUNT,
                "comments": array(ref("Comment"), description="Newest first."),
                "next_cursor": _CURSOR,
            }
        ),
        "JudgedGroup": _reply({"group": ref("Group")}),
        "ResolvedGroup": _reply({"group": ref("Group"), "resolved_items": COUNT, "reason": STRING}),
        "Commented": _reply({"group_id": _GROUP_ID, "comment": ref("Comment")}),
        "ReplayReply": _reply({"replay": ref("Replay")}),
        "Replays": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "limit": COUNT,
                "replays": array(ref("Replay")),
                "next_cursor": _CURSOR,
            }
        ),
        "ReplayItems": _reply(
            {
                "replay_id": REPLAY_ID,
                "state": or_null(words(ItemState)),
                "limit": COUNT,
                "items": array(ref("ReplayItem")),
                "next_cursor": _CURSOR,
            }
        ),
        "Edited": _reply(
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
        "Integrations": _reply({"integrations": array(ref("Integration"))}),
        "ShownIntegration": _reply(_INTEGRATION),
        "SavedIntegration": _reply(
            _INTEGRATION,
            {"secret": {"type": "string", "description": "The signing secret that was made; shown once."}},
        ),
        "Containment": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "state": words(("none", "containing", "contained")),
                "containment": or_null(ref("HowContained")),
                "release": or_null(ref("HowReleased")),
                "waiting": COUNT,
                "in_flight": COUNT,
            }
        ),
        "Released": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "released": BOOLEAN,
                "dry_run": BOOLEAN,
                "simulation": ref("Simulation"),
                "containment": or_null(ref("HowContained")),
                "release": or_null(ref("HowReleased")),
                "reason": STRING,
            }
        ),
        "Probed": _reply({"integration_id": _INTEGRATION_ID, "probe": ref("Probe")}),
        "Health": _reply(
            {
                "integration_id": _INTEGRATION_ID,
                "verdict": words(Verdict),
                "reasons": array(STRING),
                "outcomes": array(obj({"minutes": COUNT} | _TALLY)),
                "last_success_at": or_null(INSTANT | {"description": "The minute of it."}),
                "last_failure_at": or_null(INSTANT | {"description": "The minute of it."}),
                "breaker": ref("Breaker"),
                "throttled_until": or_null(INSTANT),
                "gone_at": or_null(INSTANT | {"description": "It answered 410, and took nothing since."}),
                "containment": or_null(ref("HowContained")),
                "probe": or_null(ref("Probe")),
                "minutes": array(
                    obj({"at": INSTANT} | _TALLY),
                    maxItems=SHOWN_MINUTES + 1,
                    description="Those of the last hour in which an attempt ended, the oldest first.",
                ),
            }
        ),
        "AuditEvents": _reply(
            {
                "total": COUNT,
                "total_is_exact": BOOLEAN,
                "events": array(ref("AuditEvent")),
                "next_cursor": _CURSOR,
            }
        ),
        "Alive": _reply({"status": {"const": "ok"}}),
        "Ready": _reply({"status": {"const": "ready"}}),
    }


def _reply(required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}) -> Schema:
    return obj({**required, "request_id": _REQUEST_ID}, optional)
