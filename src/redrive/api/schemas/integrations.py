"""Of integrations."""

from typing import Final, get_args

import msgspec

from redrive.api.integrations import MOST_OVERLAP, Changes, NewIntegration, NewSecret
from redrive.api.schemas.parts import (
    BOOLEAN,
    COUNT,
    INSTANT,
    INTEGRATION,
    NUMBER,
    SENT_HEADERS,
    STRING,
    Schema,
    array,
    bodies,
    line,
    obj,
    or_null,
    ref,
    reply,
    whole,
    words,
)
from redrive.delivery.credentials import KINDS
from redrive.delivery.signing import Scheme
from redrive.domain.headers import HEADER_NAME
from redrive.domain.integration import RANGES, AuthMode, Lifecycle, Method
from redrive.domain.outcome import RETRYABLE_NETWORK_CODES
from redrive.domain.redaction import MOST_RULES, POINTER
from redrive.domain.target import MAX_URL

_SECRET: Schema = {"pattern": "^wh(sec|sk)_", "writeOnly": True}
_CREDENTIALS: Schema = {
    "writeOnly": True,
    "description": "; ".join(
        f"{mode}: {' '.join(field.name for field in msgspec.structs.fields(kind))}"
        for mode, kind in KINDS.items()
    ),
}
_INTEGRATION: dict[str, Schema] = {
    "integration_id": INTEGRATION,
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


def _asked() -> dict[str, Schema]:
    found = bodies(NewIntegration, Changes, NewSecret)
    for name in (NewIntegration.__name__, Changes.__name__):
        _bound(found[name]["properties"])
    rotation = found[NewSecret.__name__]["properties"]
    rotation["overlap_seconds"] |= {"minimum": 0, "maximum": MOST_OVERLAP}
    rotation["secret"]["anyOf"][0] |= _SECRET
    return found


def _bound(properties: dict[str, Schema]) -> None:
    """What the types of a Struct do not say of its values."""
    for name, (low, high) in RANGES.items():
        value = properties[name].get("anyOf", [properties[name]])[0]  # where null is allowed, it comes last
        value |= {"minimum": low, "maximum": high}
    if "integration_id" in properties:
        properties["integration_id"] |= INTEGRATION
    properties["name"] |= line(128)
    properties["url"] |= {"maxLength": MAX_URL, "pattern": "^https?://"}
    properties["headers"]["anyOf"][0] |= SENT_HEADERS
    properties["retryable_network_codes"]["anyOf"][0]["items"] = words(RETRYABLE_NETWORK_CODES)
    for rules, of_each in (
        ("redact_pointers", {"pattern": f"^{POINTER.pattern}$"}),
        ("redact_headers", whole(HEADER_NAME)),
    ):
        properties[rules]["anyOf"][0] |= {"maxItems": MOST_RULES}
        properties[rules]["anyOf"][0]["items"] |= of_each
    properties["secret"] |= _SECRET
    properties["credentials"] |= _CREDENTIALS


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
    "Integration": obj(_INTEGRATION),
    "Integrations": reply({"integrations": array(ref("Integration"))}),
    "ShownIntegration": reply(_INTEGRATION),
    "SavedIntegration": reply(
        _INTEGRATION,
        {"secret": {"type": "string", "description": "The signing secret that was made; shown once."}},
    ),
}
