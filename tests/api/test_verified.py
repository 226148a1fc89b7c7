"""Whatever people and attempts do to items, also at once: no chain forks, and each ends where its item is."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from redrive.audit.bundle import Reader
from redrive.audit.chain import Finding
from redrive.engine.verifying import Tally, verify
from tests.api.loops import until
from tests.api.service import Partner, Service
from tests.api.wire import Reply

Verb = Callable[[Partner, str, int], Reply]


def findings(service: Service) -> list[Finding]:
    async def look() -> list[Finding]:
        return [finding async for finding in verify(service.store, Tally(), lambda _: None)]

    return service.run(look())


def post(partner: Partner, under: str, body: Any, number: int = 0) -> Reply:
    request_id = ("X-Request-Id", f"req-{under[-30:].strip('/').replace('/', '.')}-{number}")
    return partner.service.admin.post(f"{partner.url}{under}", body, request_id)


def replay(partner: Partner, recovery_id: str, number: int) -> Reply:
    return post(partner, f"/recovery/queue/{recovery_id}/replay", {"reason": "it is back"}, number)


def resolve(partner: Partner, recovery_id: str, number: int) -> Reply:
    return post(partner, f"/recovery/queue/{recovery_id}/resolve", {"reason": "by phone"}, number)


def erase(partner: Partner, recovery_id: str, number: int) -> Reply:
    return post(partner, f"/recovery/queue/{recovery_id}/erase", {"reason": "request 4711"}, number)


def edit(partner: Partner, recovery_id: str, number: int) -> Reply:
    return post(
        partner, f"/recovery/queue/{recovery_id}/edit", {"reason": "a typo", "payload": number}, number
    )


def resolve_group(partner: Partner, recovery_id: str, number: int) -> Reply:
    group_id = partner.item(recovery_id)["group_id"] or "grp_0000000000000"
    return post(partner, f"/recovery/groups/{group_id}/resolve", {"reason": "obsolete"}, number)


def run_job(partner: Partner, recovery_id: str, number: int) -> Reply:
    planned = post(partner, "/recovery/replays", {"filter": {"status": "dlq"}}, number)
    digest = planned.json().get("replay", {}).get("plan", {}).get("digest", "none")
    options = {"rate": 1_000, "canary": {"size": 1}, "incident": "INC-7"}
    return post(partner, "/recovery/replays", {"plan_digest": digest, "reason": "again", **options}, number)


VERBS: list[Verb] = [replay, replay, replay, resolve, erase, edit, resolve_group, run_job]


def quiet(partner: Partner) -> None:
    """Nothing is under way any more."""
    until(
        lambda: all(item["status"] in ("succeeded", "failed", "dlq") for item in partner.items()) or None,
        "nothing is open",
    )


def test_whatever_is_done_at_once_leaves_whole_chains(own_service: Service) -> None:
    partner = own_service.partner(max_attempts=2)
    partner.answers(*(503, 503, 404, 200, 503) * 60, 200)
    ids = [partner.deliver(n) for n in range(12)]
    quiet(partner)
    chance = Random(7)
    acts = [(chance.choice(VERBS), chance.choice(ids), number) for number in range(120)]

    with ThreadPoolExecutor(8) as pool:
        statuses = [reply.status for reply in pool.map(lambda act: act[0](partner, *act[1:]), acts)]

    assert {200, 409} <= set(statuses)
    assert not [status for status in statuses if status >= 500 and status != 503], statuses
    quiet(partner)
    assert findings(own_service) == []
    exported = own_service.admin.get(f"/platform/audit/export?integration_id={partner.id}")
    reader = Reader()
    found = [one for line in exported.body.splitlines(keepends=True) for one in reader.take(line)]
    assert [*found, *reader.end()] == []
    assert reader.items >= len(ids)


def test_what_a_job_of_an_incident_replayed_is_exported_under_its_name(own_service: Service) -> None:
    partner = own_service.partner(max_attempts=1)
    partner.answers(503, 503, 503, 200)
    ids = [partner.deliver(n) for n in range(3)]
    quiet(partner)

    assert run_job(partner, "", 1).status == 202
    for recovery_id in ids:
        partner.becomes(recovery_id, "succeeded")

    exported = own_service.admin.get("/platform/audit/export?incident=INC-7")
    lines = [json.loads(line) for line in exported.body.splitlines()]
    assert sorted(line["recovery_id"] for line in lines if line["kind"] == "item") == sorted(ids)
    assert {line["job"]["state"] for line in lines if line["kind"] == "job"} == {"succeeded"}
    types = {
        json.loads(line["record"])["event_type"].rpartition(".")[2]
        for line in lines
        if line["kind"] == "event"
    }
    assert {"replayed", "started"} <= types
    assert findings(own_service) == []
