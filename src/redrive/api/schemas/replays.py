"""Of plans and jobs that replay many."""

from typing import Final

from redrive.api import views
from redrive.api.replay_bodies import MOST_CYCLE, NewRate, ReplayPlan, ReplayRun
from redrive.api.schemas.parts import (
    BOOLEAN,
    COUNT,
    CURSOR,
    DUPLICATE_RISK,
    GROUP,
    INSTANT,
    INTEGRATION,
    NAME,
    NUMBER,
    REASON,
    RECOVERY,
    REPLAY_ID,
    REQUEST_ID,
    STRING,
    Schema,
    array,
    bodies,
    line,
    obj,
    or_null,
    ref,
    reply,
    words,
)
from redrive.domain.health import Verdict
from redrive.domain.replay import MOST_CANARY, ItemState, ReplayState
from redrive.domain.replay_judging import Skip


def _asked() -> dict[str, Schema]:
    found = bodies(ReplayPlan, ReplayRun, NewRate)
    wanted = found["ReplayFilter"]["properties"]
    for name, bound in {
        "group": GROUP,
        "failure_code": line(64),
        "event_type": NAME,
        "cycle": {"minimum": 1, "maximum": MOST_CYCLE},
        "since": INSTANT,
        "until": INSTANT,
        "recovery_ids": {"items": RECOVERY, "minItems": 1},
        "failures_of": REPLAY_ID,
    }.items():
        wanted[name]["anyOf"][0] |= bound
    run = found[ReplayRun.__name__]["properties"]
    run["reason"] = REASON
    run["incident"]["anyOf"][0] |= NAME
    run["concurrency"]["anyOf"][0] |= {"minimum": 1, "maximum": 100_000}
    for rate in (run["rate"], found[NewRate.__name__]["properties"]["rate"]):
        rate["anyOf"][0] |= {"minimum": 0.001, "maximum": 100_000}
    canary, halt_if = found["CanaryOption"]["properties"], found["HaltOption"]["properties"]
    canary["size"] |= {"minimum": 0, "maximum": MOST_CANARY}
    canary["share"] |= {"exclusiveMinimum": 0, "maximum": 1}
    halt_if["share"] |= {"minimum": 0, "maximum": 1}
    halt_if["last"] |= {"minimum": 1, "maximum": 10_000}
    return found


_REPLAY: dict[str, Schema] = {
    "replay_id": REPLAY_ID,
    "integration_id": INTEGRATION,
    "state": words(ReplayState),
    "verdict": words(Verdict) | {"description": "On the receiver, now."},
    "because": or_null(STRING),
    "waits_for": or_null(
        words(["containment", "lifecycle", "breaker"])
        | {"description": "Why a job that runs replays nothing now, or (breaker) one at a time."}
    ),
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
    "run_request_id": or_null(REQUEST_ID),
    "updated_by": STRING,
    "updated_at": INSTANT,
}
_REPLAY_ITEM: dict[str, Schema] = {
    "recovery_id": RECOVERY,
    "planned_cycle": COUNT,
    "duplicate_risk": or_null(DUPLICATE_RISK),
    "state": words(ItemState),
    "reason": or_null({"type": "string", "description": "Why it was skipped, or how it failed."}),
    "first_attempt_failed": BOOLEAN,
    "first_attempt_at": or_null(INSTANT),
}


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
    "Replay": obj(_REPLAY),
    "ReplayItem": obj(_REPLAY_ITEM),
    "ReplayStart": {"oneOf": [ref(ReplayPlan.__name__), ref(ReplayRun.__name__)]},
    "ReplayReply": reply({"replay": ref("Replay")}),
    "Replays": reply(
        {
            "integration_id": INTEGRATION,
            "limit": COUNT,
            "replays": array(ref("Replay")),
            "next_cursor": CURSOR,
        }
    ),
    "ReplayItems": reply(
        {
            "replay_id": REPLAY_ID,
            "state": or_null(words(ItemState)),
            "limit": COUNT,
            "items": array(ref("ReplayItem")),
            "next_cursor": CURSOR,
        }
    ),
}
