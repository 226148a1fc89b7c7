"""Of health, probes and breakers."""

from typing import Final

from redrive.api.probes import NewProbe
from redrive.api.schemas.parts import (
    COUNT,
    FAILURE_CODE,
    HTTP_STATUS,
    INSTANT,
    INTEGRATION,
    NUMBER,
    REASON,
    RECOVERY,
    STRING,
    Schema,
    array,
    bodies,
    obj,
    or_null,
    ref,
    reply,
    words,
)
from redrive.domain.breaker import BreakerState
from redrive.domain.health import SHOWN_MINUTES, Verdict

_TALLY: dict[str, Schema] = {
    "succeeded": COUNT,
    "failed": COUNT,
    "failure_share": or_null(NUMBER),
    "average_ms": or_null(NUMBER | {"description": "How long an attempt took."}),
}


def _asked() -> dict[str, Schema]:
    found = bodies(NewProbe)
    probe = found[NewProbe.__name__]["properties"]
    probe["recovery_id"]["anyOf"][0] |= RECOVERY
    probe["reason"]["anyOf"][0] |= REASON
    return found


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
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
            "recovery_id": or_null(RECOVERY),
            "outcome": words(("succeeded", "failed", "unknown")),
            "http_status": or_null(HTTP_STATUS),
            "failure_code": or_null(FAILURE_CODE),
            "failure_detail": or_null(STRING),
            "duration_ms": NUMBER,
        }
    ),
    "Probed": reply({"integration_id": INTEGRATION, "probe": ref("Probe")}),
    "Health": reply(
        {
            "integration_id": INTEGRATION,
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
}
