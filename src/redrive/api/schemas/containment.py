"""Of containment, and of what a release would do."""

from typing import Final

from redrive.api.containment import NewContainment, NewRelease
from redrive.api.schemas.parts import (
    BOOLEAN,
    COUNT,
    INSTANT,
    INTEGRATION,
    NAME,
    NUMBER,
    REASON,
    REQUEST_ID,
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
from redrive.domain.integration import RANGES
from redrive.domain.traffic import LONGEST_CONTAINMENT, Mode


def _asked() -> dict[str, Schema]:
    found = bodies(NewContainment, NewRelease)
    terms = found[NewContainment.__name__]["properties"]
    terms["reason"] |= REASON
    for name in ("owner", "incident"):
        terms[name]["anyOf"][0] |= NAME
    terms["until"]["anyOf"][0] |= INSTANT
    longest = LONGEST_CONTAINMENT.total_seconds()
    terms["for_seconds"]["anyOf"][0] |= {"exclusiveMinimum": 0, "maximum": longest}
    release = found[NewRelease.__name__]["properties"]
    low, high = RANGES["rate_per_second"]
    release["reason"] |= REASON
    release["rate_per_second"]["anyOf"][0] |= {"minimum": low, "maximum": high}
    return found


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
    "HowContained": obj(
        {
            "mode": words(Mode),
            "reason": STRING,
            "owner": STRING,
            "by": STRING,
            "since": INSTANT,
            "until": INSTANT,
            "incident": or_null(STRING),
            "request_id": REQUEST_ID,
            "failed_probes": COUNT | {"description": "Since it ran out: its receiver was not well."},
            "next_probe_at": or_null(INSTANT | {"description": "null: it is probed when it runs out."}),
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
    "Containment": reply(
        {
            "integration_id": INTEGRATION,
            "state": words(("none", "containing", "contained")),
            "containment": or_null(ref("HowContained")),
            "release": or_null(ref("HowReleased")),
            "waiting": or_null(COUNT) | {"description": "null: it was stopped first, and not counted yet."},
            "in_flight": or_null(COUNT),
        }
    ),
    "Released": reply(
        {
            "integration_id": INTEGRATION,
            "released": BOOLEAN,
            "dry_run": BOOLEAN,
            "simulation": ref("Simulation"),
            "containment": or_null(ref("HowContained")),
            "release": or_null(ref("HowReleased")),
            "reason": STRING,
        }
    ),
}
