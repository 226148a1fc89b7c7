"""Replays of many over HTTP: the plan, the run, what is refused, what is shown."""

from typing import Any

import pytest

from tests.api.loops import until
from tests.api.service import OPERATE, VIEW, Partner
from tests.api.shapes import INSTANT, Like
from tests.api.wire import Reply

REPLAY_ID: Any = Like(r"rpl_[a-z0-9]{13}")
DIGEST: Any = Like(r"[0-9a-f]{64}")
ALL: dict[str, Any] = {"filter": {"status": "dlq"}}


def replays(partner: Partner) -> str:
    return f"{partner.url}/recovery/replays"


def post(partner: Partner, body: Any, *headers: tuple[str, str], under: str = "") -> Reply:
    return partner.service.admin.post(f"{replays(partner)}{under}", body, *headers)


def planned(partner: Partner, body: Any = ALL) -> dict[str, Any]:
    reply = post(partner, body)
    assert reply.status == 201, reply
    found: dict[str, Any] = reply.json()["replay"]
    return found


def a_run(plan: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"plan_digest": plan["plan"]["digest"], "reason": "it is back", **options}


def shown(partner: Partner, replay: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = partner.service.admin.get(f"{replays(partner)}/{replay['replay_id']}").json()
    return found["replay"]  # type: ignore[no-any-return]


def ended(partner: Partner, replay: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = shown(partner, replay)
        return found if found["state"].startswith("completed") else None

    return until(look, "the job ends")


def test_a_plan_is_answered_with_what_it_would_do(partner: Partner) -> None:
    for _ in range(2):
        partner.hand_over(failure_code="HTTP_503", last_http_status=503)
    partner.resolve(partner.hand_over())

    found = planned(partner)

    assert found == {
        "replay_id": REPLAY_ID,
        "integration_id": partner.id,
        "state": "planned",
        "because": None,
        "waits_for": None,
        "filter": {
            "status": "dlq",
            "group": None,
            "failure_code": None,
            "duplicate_risk": None,
            "event_type": None,
            "cycle": None,
            "since": None,
            "until": None,
            "named_items": None,
            "failures_of": None,
        },
        "as_of": INSTANT,
        "expires_at": INSTANT,
        "plan": {
            "digest": DIGEST,
            "total": 3,
            "eligible": 2,
            "skipped": {"resolved": 1},
            "duplicate_risk": found["plan"]["duplicate_risk"],
            "oldest_at": INSTANT,
            "estimated_seconds": found["plan"]["estimated_seconds"],
        },
        "options": None,
        "progress": {
            "waiting": 2,
            "in_flight": 0,
            "succeeded": 0,
            "failed": 0,
            "skipped": 1,
            "cancelled": 0,
            "total": 3,
            "outcomes_per_second": 0.0,
            "eta_seconds": None,
        },
        "created_by": "admin",
        "created_at": INSTANT,
        "run_by": None,
        "run_at": None,
        "run_request_id": None,
        "updated_by": "admin",
        "updated_at": INSTANT,
        "verdict": "unknown",
    }
    assert sum(found["plan"]["duplicate_risk"].values()) == 2


def test_a_plan_is_run_by_its_digest_and_tells_what_became_of_each_item(partner: Partner) -> None:
    good = partner.hand_over()
    plan = planned(partner)

    reply = post(partner, a_run(plan, incident="INC-442", rate=50), ("X-Request-Id", "the-run"))

    assert reply.status == 202
    started = reply.json()["replay"]
    assert started["options"] == {
        "reason": "it is back",
        "incident": "INC-442",
        "rate": 50,
        "concurrency": None,
        "canary": {"size": 5, "share": 1.0},
        "halt_if": {"share": 0.5, "last": 20},
        "order": "oldest",
        "require_healthy": False,
    }
    assert (started["run_by"], started["run_request_id"]) == ("admin", "the-run")
    job = ended(partner, plan)
    assert (job["state"], job["progress"]["succeeded"]) == ("completed", 1)
    assert partner.item(good)["request_id"] == "the-run"
    items = partner.service.admin.get(f"{replays(partner)}/{plan['replay_id']}/items?state=succeeded").json()
    assert items["items"] == [
        {
            "recovery_id": good,
            "planned_cycle": 1,
            "duplicate_risk": "ambiguous",
            "state": "succeeded",
            "reason": None,
            "first_attempt_failed": False,
            "first_attempt_at": INSTANT,
        }
    ]
    types = [event["event_type"] for event in partner.service.events(target_id=plan["replay_id"])]
    assert [one.rpartition(".")[2] for one in types] == ["planned", "started", "canary_passed", "completed"]
    caused = partner.service.events(request_id="the-run")
    assert {"started", "replayed", "reprocess_succeeded"} <= {
        event["event_type"].rpartition(".")[2] for event in caused
    }


def test_the_same_key_makes_one_job(partner: Partner) -> None:
    partner.hand_over()
    plan, key = planned(partner), ("Idempotency-Key", "click")

    first, second = (post(partner, a_run(plan), key) for _ in range(2))

    assert (first.status, second.status) == (202, 202)
    assert second.header("idempotency-replayed") == "true"
    assert first.json()["replay"] == second.json()["replay"]
    assert post(partner, a_run(plan)).status == 409


def test_a_plan_that_moved_on_is_refused_with_the_difference(partner: Partner) -> None:
    one = partner.hand_over()
    partner.hand_over()
    plan = planned(partner)
    partner.resolve(one)
    partner.change(timeout_seconds=7)

    reply = post(partner, a_run(plan))

    assert reply.status == 409
    assert reply.json()["error_code"] == "INT-409-CONFLICT"
    assert reply.json()["difference"] == {
        "eligible": 2,
        "moved_on": {"resolved": 1},
        "changed": [{"field": "timeout_seconds", "planned": 15.0, "now": 7.0}],
    }


def test_a_job_is_paused_paced_resumed_and_cancelled(partner: Partner) -> None:
    for _ in range(3):
        partner.hand_over()
    plan = planned(partner)
    post(partner, a_run(plan, rate=0.001))
    under = f"/{plan['replay_id']}"

    states = [
        post(partner, body, under=f"{under}/{verb}").json()["replay"]["state"]
        for verb, body in (("pause", {}), ("rate", {"rate": 0.002}), ("resume", {}), ("cancel", {}))
    ]

    assert states == ["paused", "paused", "canary", "cancelled"]
    assert shown(partner, plan)["options"]["rate"] == 0.002
    for verb in ("pause", "resume", "cancel"):
        assert post(partner, {}, under=f"{under}/{verb}").status == 409
    assert post(partner, {"rate": 1}, under=f"{under}/rate").status == 409


def test_a_single_replay_of_what_waits_in_a_job_is_a_conflict(partner: Partner) -> None:
    one = partner.hand_over()
    plan = planned(partner)
    post(partner, a_run(plan, rate=0.001))
    post(partner, {}, under=f"/{plan['replay_id']}/pause")

    reply = partner.replay(one)

    if partner.item(one)["status"] == "dlq":  # it was not among the canary yet
        assert reply.status == 409
        assert plan["replay_id"] in reply.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/filter"),
        ({"filter": {"status": "succeeded"}}, "/filter/status"),
        ({"filter": {"group": "grp_1"}}, "/filter/group"),
        ({"filter": {"duplicate_risk": "none"}}, "/filter/duplicate_risk"),
        ({"filter": {"cycle": 0}}, "/filter/cycle"),
        ({"filter": {"since": "yesterday"}}, "/filter/since"),
        ({"filter": {"recovery_ids": []}}, "/filter/recovery_ids"),
        ({"filter": {"recovery_ids": ["rec_1"]}}, "/filter/recovery_ids/0"),
        ({"filter": {"failures_of": "rpl_1"}}, "/filter/failures_of"),
        ({"filter": {"failures_of": "rpl_0000000000000", "status": "dlq"}}, "/filter/failures_of"),
        ({"filter": {}, "also": 1}, "/also"),
        ({"plan_digest": "x", "reason": " "}, "/reason"),
        ({"plan_digest": "x", "reason": "a", "incident": ""}, "/incident"),
        ({"plan_digest": "x", "reason": "a", "rate": 0}, "/rate"),
        ({"plan_digest": "x", "reason": "a", "canary": {"size": 101}}, "/canary/size"),
        ({"plan_digest": "x", "reason": "a", "canary": {"count": 1}}, "/canary"),
        ({"plan_digest": "x", "reason": "a", "halt_if": {"share": 2}}, "/halt_if/share"),
        ({"plan_digest": "x", "reason": "a", "order": "random"}, "/order"),
        ({"plan_digest": "x", "reason": "a", "filter": {}}, "/filter"),
    ],
)
def test_what_is_wrong_is_named(partner: Partner, body: Any, pointer: str) -> None:
    reply = post(partner, body)

    assert reply.status == 400
    assert [fault["pointer"] for fault in reply.json()["errors"]] == [pointer]


def test_who_may_not_is_refused_and_what_is_not_there_is_not_found(partner: Partner) -> None:
    partner.hand_over()
    plan = planned(partner)
    url = f"{replays(partner)}/{plan['replay_id']}"
    viewer, operator = partner.service.caller(VIEW), partner.service.caller(OPERATE)

    assert viewer.post(replays(partner), ALL).status == 403
    assert viewer.post(f"{url}/pause", {}).status == 403
    assert [operator.get(one).status for one in (replays(partner), url, f"{url}/items")] == [403] * 3
    assert viewer.get(f"{replays(partner)}/rpl_0000000000000").json()["error_code"] == (
        "INT-404-REPLAY-NOT-FOUND"
    )
    assert viewer.get(f"{replays(partner)}/job-1").status == 400
    assert post(partner, {"plan_digest": "none", "reason": "why"}).status == 404


def test_plans_and_jobs_are_history(partner: Partner) -> None:
    partner.hand_over()
    names = [planned(partner)["replay_id"] for _ in range(3)]

    first = partner.service.admin.get(f"{replays(partner)}?limit=2").json()
    rest = partner.service.admin.get(f"{replays(partner)}?limit=2&cursor={first['next_cursor']}").json()

    assert [one["replay_id"] for one in first["replays"] + rest["replays"]] == names[::-1]
    assert rest["next_cursor"] is None
