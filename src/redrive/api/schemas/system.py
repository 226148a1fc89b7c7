"""Of audit events, and of the service itself."""

from typing import Final, get_args

from redrive.api.schemas.parts import (
    BOOLEAN,
    COUNT,
    CURSOR,
    INSTANT,
    INTEGRATION,
    REQUEST_ID,
    STRING,
    Schema,
    array,
    closed,
    obj,
    or_null,
    ref,
    reply,
    words,
)
from redrive.audit.record import DOMAIN, AuditEvent, EventType

_STATE: Schema = {"type": "object", "minProperties": 1}
_KINDS: Final = AuditEvent.__annotations__


SCHEMAS: Final[dict[str, Schema]] = {
    "AuditEvent": obj(
        {
            "event_id": STRING,
            "occurred_at": INSTANT,
            "event_type": words(EventType),
            "domain": {"const": DOMAIN},
            "request_id": or_null(REQUEST_ID),
            "source_request_id": or_null(REQUEST_ID),
            "traceparent": or_null(STRING),
            "actor": obj({"id": STRING, "type": STRING, "session_id": or_null(STRING)}, {"tenant": STRING}),
            "integration_id": or_null(INTEGRATION),
            "target_type": words(get_args(_KINDS["target_type"])),
            "target_id": STRING,
            "result": words(get_args(_KINDS["result"])),
            "before_state": _STATE,
            "after_state": _STATE,
            "metadata": {"type": "object"},
            "previous": or_null(STRING) | {"description": "The digest of its item's record before it."},
        }
    ),
    "AuditEvents": reply(
        {
            "total": COUNT,
            "total_is_exact": BOOLEAN,
            "events": array(ref("AuditEvent")),
            "next_cursor": CURSOR,
        }
    ),
    "Alive": reply({"status": {"const": "ok"}}),
    "Ready": reply({"status": {"const": "ready"}}),
    "Nothing": closed(obj({})),
}
