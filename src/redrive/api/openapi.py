"""The OpenAPI 3.1 description of the API: the routes' table, and what each call takes and gives."""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from redrive import __version__
from redrive.api import audit, evidence, groups, problems, queue, replays, views
from redrive.api.call import REQUEST_ID, Asked, Reply, Route, encode
from redrive.api.query import DEFAULT_LIMIT, MOST
from redrive.api.schemas import components
from redrive.api.schemas.parts import BOOLEAN, INSTANT, REPLAY_ID, Schema, line, obj, ref, whole, words
from redrive.audit.record import EventType
from redrive.domain import errors
from redrive.domain.errors import Fault, RedriveError
from redrive.domain.failure_group import GroupState
from redrive.domain.ids import GROUP_ID, RECOVERY_ID
from redrive.domain.integration import INTEGRATION_ID
from redrive.domain.item import Status
from redrive.domain.replay import ItemState

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_SUMMARY = "Delivers a platform's calls to its partners, retries, dead-letters, replays, and proves it."
_DESCRIPTION = (
    "Checks come in this order: 401, 403, 400, 404, 409. Unknown fields and unknown, repeated or empty "
    "query parameters are errors. A 2xx means durable, and its audit events with it. Errors are problems "
    "(RFC 9457) with a stable `error_code`. HEAD answers wherever GET does."
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What the table does not say of a call. `body` and `reply` name schemas.

    `later`: the status of the same reply when not all of it has happened yet.
    """

    status: int
    reply: str
    body: str | None = None
    query: Sequence[str] = ()
    key: Literal["call", "delivery"] | None = None
    refusals: tuple[type[RedriveError], ...] = ()
    media_type: str = "application/json"
    later: int | None = None


_PROBE_REFUSED = (errors.RecoveryNotFound, errors.ReplayConflict, errors.Conflict)
OPERATIONS = {
    "deliver": Operation(
        202,
        "Accepted",
        "Delivery",
        key="delivery",
        refusals=(errors.Conflict, errors.Contained, errors.RateLimited),
    ),
    "deliver_batch": Operation(202, "AcceptedBatch", "Batch", key="call", refusals=(errors.RateLimited,)),
    "list_queue": Operation(200, "RecoveryQueue", query=queue.FILTERS),
    "hand_over": Operation(201, "Imported", "Import", key="call", refusals=(errors.Conflict,)),
    "show_item": Operation(200, "Recovery"),
    "replay": Operation(
        200,
        "Replayed",
        "Reason",
        key="call",
        refusals=(errors.ReplayConflict, errors.Conflict, errors.Contained),
    ),
    "resolve": Operation(200, "Resolved", "Reason", key="call", refusals=(errors.Conflict,)),
    "erase": Operation(200, "Erased", "Reason", key="call", refusals=(errors.Conflict,)),
    "list_groups": Operation(200, "Groups", query=groups.FILTERS),
    "show_group": Operation(200, "GroupWithComments", query=groups.PAGES),
    "acknowledge_group": Operation(
        200, "JudgedGroup", "Acknowledgement", key="call", refusals=(errors.Conflict,)
    ),
    "resolve_group": Operation(200, "ResolvedGroup", "Reason", key="call", refusals=(errors.Conflict,)),
    "reopen_group": Operation(200, "JudgedGroup", "Reason", key="call", refusals=(errors.Conflict,)),
    "mute_group": Operation(200, "JudgedGroup", "Muting", key="call"),
    "comment_on_group": Operation(201, "Commented", "NewComment", key="call"),
    "list_replays": Operation(200, "Replays", query=replays.LIST_FILTERS),
    "start_replay": Operation(
        201,
        "ReplayReply",
        "ReplayStart",
        key="call",
        refusals=(errors.Conflict, errors.ReplayNotFound),
        later=202,
    ),
    "show_replay": Operation(200, "ReplayReply"),
    "list_replay_items": Operation(200, "ReplayItems", query=replays.ITEM_FILTERS),
    "pause_replay": Operation(200, "ReplayReply", "Nothing", key="call", refusals=(errors.Conflict,)),
    "resume_replay": Operation(200, "ReplayReply", "Nothing", key="call", refusals=(errors.Conflict,)),
    "cancel_replay": Operation(200, "ReplayReply", "Nothing", key="call", refusals=(errors.Conflict,)),
    "pace_replay": Operation(200, "ReplayReply", "NewRate", key="call", refusals=(errors.Conflict,)),
    "edit": Operation(201, "Edited", "Edit", key="call", refusals=(errors.Conflict, errors.Contained)),
    "list_integrations": Operation(200, "Integrations"),
    "create_integration": Operation(
        201, "SavedIntegration", "NewIntegration", key="call", refusals=(errors.Conflict,)
    ),
    "show_integration": Operation(200, "ShownIntegration"),
    "update_integration": Operation(200, "SavedIntegration", "Changes"),
    "rotate_secrets": Operation(
        200, "SavedIntegration", "NewSecret", key="call", refusals=(errors.Conflict,)
    ),
    "show_containment": Operation(200, "Containment"),
    "contain": Operation(200, "Containment", "NewContainment", key="call", later=202),
    "release": Operation(200, "Released", "NewRelease", key="call", refusals=(errors.Conflict,)),
    "probe": Operation(200, "Probed", "NewProbe", key="call", refusals=_PROBE_REFUSED),
    "show_health": Operation(200, "Health"),
    "list_events": Operation(200, "AuditEvents", query=audit.FILTERS),
    "show_evidence": Operation(200, "Evidence", media_type="application/jsonl"),
    "export_audit": Operation(200, "Evidence", query=evidence.FILTERS, media_type="application/jsonl"),
    "healthz": Operation(200, "Alive"),
    "readyz": Operation(200, "Ready"),
    "scrape_metrics": Operation(200, "Metrics", media_type="text/plain"),
    "show_openapi": Operation(200, "OpenApi"),
}
_EXAMPLES: tuple[RedriveError, ...] = (  # of errors that are about something
    errors.InvalidPayload(Fault("/reason", "is missing")),
    errors.Forbidden("platform.member_admin.operate"),
    errors.MethodNotAllowed(("GET", "POST")),
    errors.ReplayConflict("succeeded"),
    errors.DependencyUnavailable("storage"),
)


def describe(table: Sequence[Route]) -> Callable[[Asked], Awaitable[Reply]]:
    """The handler that shows the description of *table*, itself included; made when first asked for."""

    @cache
    def description() -> bytes:
        return encode(document(table))

    async def show_openapi(_asked: Asked) -> Reply:
        """This description, as OpenAPI 3.1."""
        return Reply(200, description())

    return show_openapi


def document(table: Iterable[Route]) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "redrive",
            "version": __version__,
            "summary": _SUMMARY,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components() | _plain() | _problems(),
            "headers": _HEADERS,
            "parameters": _CORRELATION,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _TOKENS}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    name = route.handler.__name__
    known = OPERATIONS[name]
    told = [(route.handler.__doc__ or "").strip()]
    if route.permission is not None:
        told.append(f"Needs the permission `{route.permission}`.")
    found: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "description": "\n\n".join(told),
        "parameters": _parameters(route, known),
        "responses": _responses(route, known),
        "security": [] if route.permission is None else [{"bearer": [route.permission.value]}],
    }
    if known.body is not None:
        content = {"application/json": {"schema": ref(known.body)}}
        found["requestBody"] = {"required": True, "content": content}
    return found


# --- what a call takes ---------------------------------------------------------------------------

_TEXT = line(256)
_WORD = {
    "integration_id": whole(INTEGRATION_ID),
    "recovery_id": whole(RECOVERY_ID),
    "group_id": whole(GROUP_ID),
    "group": whole(GROUP_ID) | {"description": "Failed and dlq items that wait in this group of failures."},
    "duplicate_risk": words(views.RISKS),
    "state": words(GroupState),
    "replay_id": REPLAY_ID,
    "status": words(Status),
    "event_type": _TEXT,
    "failure_code": _TEXT | {"examples": ["HTTP_503", "ECONNREFUSED"]},
    "since": INSTANT | {"description": "From this instant on (RFC 3339)."},
    "until": INSTANT | {"description": "Before this instant (RFC 3339)."},
    "held": BOOLEAN,
    "resolved": BOOLEAN,
    "incident": _TEXT | {"description": "What was done under the name of an incident."},
    "request_id": _TEXT | {"description": "All that this one call caused."},
    "target_id": _TEXT,
    "actor": _TEXT | {"description": "Who did it: a token's or a user's subject."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT},
    "cursor": _TEXT | {"description": "`next_cursor` of the page before, with the same filters."},
}
_OF_A_LIST = {  # what a word means in one list alone
    ("list_events", "event_type"): words(EventType),
    ("list_replay_items", "state"): words(ItemState),
}
_KEY_PATTERN = r'^("[\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x7e][\x21-\x7e]{0,254})$'
_KEYS = {
    "call": "The same caller, key, path and body: the first answer again, and no second effect.",
    "delivery": "The delivery's own key within the integration: the same `recovery_id` comes back.",
}
_CORRELATION = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Echoed, and stored with all that the call causes: 1–128 of `A-Za-z0-9._:-`. "
        "Another one is no error; it is replaced.",
        "schema": {"type": "string"},
    },
    "Traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context: carried on to every attempt; a malformed one starts a new trace.",
        "schema": {"type": "string"},
    },
}


def _parameters(route: Route, known: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _WORD[name]}
        for name in _PATH_PARAMETER.findall(route.path)
    ]
    for name in known.query:
        schema = _OF_A_LIST.get((route.handler.__name__, name), _WORD[name])
        found.append({"name": name, "in": "query", "schema": schema})
    if known.key is not None:
        schema = {"type": "string", "pattern": _KEY_PATTERN}
        told = f"{_KEYS[known.key]} 1–255 visible ASCII characters, bare or in quotes."
        found.append({"name": "Idempotency-Key", "in": "header", "description": told, "schema": schema})
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in _CORRELATION]


# --- what it gives -------------------------------------------------------------------------------

_TOKENS = "A token of `redrive token create`. An operation names its permission; none implies another."
_HEADERS = {
    "X-Request-Id": {"description": "The call's, or one that was made.", "schema": whole(REQUEST_ID)},
    "traceparent": {"description": "The call's, or a new trace.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true`: this is the first answer again, and nothing was done.",
        "schema": {"const": "true"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "What is asked for.", "schema": {"type": "string"}},
}


def _responses(route: Route, known: Operation) -> dict[str, Any]:
    names = ["Idempotency-Replayed"] if known.key else []
    reply = {"description": route.summary, "headers": _headers(*names)}
    reply["content"] = {known.media_type: {"schema": ref(known.reply)}}
    found = {str(status): reply for status in (known.status, known.later) if status is not None}
    by_status: dict[int, list[type[RedriveError]]] = {}
    for kind in _refusals(route, known):
        by_status.setdefault(problems.STATUS[kind], []).append(kind)
    return found | {str(status): _refused(by_status[status]) for status in sorted(by_status)}


def _refusals(route: Route, known: Operation) -> list[type[RedriveError]]:
    found: list[type[RedriveError]] = []
    if route.permission is not None:
        found += [errors.Unauthenticated, errors.Forbidden, errors.InvalidPayload]
    if "{integration_id}" in route.path:
        found.append(errors.IntegrationNotFound)
    if "{recovery_id}" in route.path:
        found.append(errors.RecoveryNotFound)
    if "{group_id}" in route.path:
        found.append(errors.GroupNotFound)
    if "{replay_id}" in route.path:
        found.append(errors.ReplayNotFound)
    if known.body is not None:
        found.append(errors.TooLarge)
    if known.key is not None:
        found.append(errors.IdempotencyKeyReused)
    return [*found, *known.refusals, errors.DependencyUnavailable]


def _refused(kinds: Sequence[type[RedriveError]]) -> dict[str, Any]:
    names = [kind.__name__ for kind in kinds]
    headers = []
    if errors.Unauthenticated in kinds:
        headers.append("WWW-Authenticate")
    if any(issubclass(kind, problems.RETRYABLE) for kind in kinds):
        headers.append("Retry-After")
    schema = ref(names[0]) if len(names) == 1 else {"anyOf": [ref(name) for name in names]}
    return {
        "description": " ".join((kind.__doc__ or "").strip() for kind in kinds),
        "headers": _headers(*headers),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _headers(*more: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", "traceparent", *more)}


_EVIDENCE = (
    "JSON Lines, described in docs/guides/evidence.md: a head, items each followed by all that is told "
    "of them, and a manifest of SHA-256 digests. A file without a manifest is not complete."
)


def _plain() -> dict[str, Schema]:
    return {
        "Evidence": {"type": "string", "description": _EVIDENCE},
        "Metrics": {"type": "string", "description": "Prometheus text, format 0.0.4."},
        "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
    }


def _problems() -> dict[str, Schema]:
    """RFC 9457: what all problems share, and one schema for each error."""
    common: dict[str, Schema] = {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted(set(problems.STATUS.values()))},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "error_code": words(kind.code for kind in problems.STATUS),
        "request_id": {"type": "string"},
        "retryable": BOOLEAN,
    }
    fault = obj({"pointer": {"type": "string"}, "detail": {"type": "string"}})
    of_its_own: dict[str, Schema] = {
        "errors": {"type": "array", "minItems": 1, "items": fault},
        "previous_status": words(Status),
        "requested_status": {"const": Status.REPLAYED.value},
        "degradation_reason": {"type": "string"},
    }
    found = {"Problem": obj(common)}
    examples = {type(example): example for example in _EXAMPLES}
    for kind in problems.STATUS:
        example = examples.get(kind) or kind()
        shown = problems.document(example, instance="/platform/integrations", request_id="req-42")
        extra = {name: of_its_own[name] for name in shown if name not in common}
        fixed: dict[str, Schema] = {
            name: {"const": shown[name]} for name in ("type", "title", "status", "error_code", "retryable")
        }
        found[kind.__name__] = {"allOf": [ref("Problem"), obj(fixed | extra)], "examples": [shown]}
    return found
