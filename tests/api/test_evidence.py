"""Evidence files: of an item, and of all that a cut of the audit log touched."""

import hashlib
import json
import threading
from collections import Counter
from typing import Any

import pytest

from redrive.audit.bundle import Reader
from redrive.audit.chain import Finding
from redrive.domain.ids import parse_recovery_id
from tests.api.loops import until
from tests.api.receiver import Answer
from tests.api.service import OPERATE, VIEW, Partner, Service, a_delivery
from tests.api.wire import Reply

EXPORT = "/platform/audit/export"


def lines_of(reply: Reply) -> list[dict[str, Any]]:
    """What an evidence file holds, which must be whole."""
    assert reply.status == 200, reply
    assert reply.header("content-type") == "application/jsonl"
    assert [found.detail for found in findings(reply.body)] == []
    return [json.loads(line) for line in reply.body.splitlines()]


def findings(body: bytes) -> list[Finding]:
    reader = Reader()
    found = [finding for line in body.splitlines(keepends=True) for finding in reader.take(line)]
    return found + list(reader.end())


def evidence_of(partner: Partner, recovery_id: str) -> Reply:
    return partner.service.admin.get(f"{partner.item_url(recovery_id)}/evidence")


def items_in(lines: list[dict[str, Any]]) -> list[str]:
    return [line["recovery_id"] for line in lines if line["kind"] == "item"]


@pytest.fixture
def partner(service: Service) -> Partner:
    return service.partner(max_attempts=2)


def a_long_story(partner: Partner) -> str:
    """An item that failed, was replayed, and arrived."""
    partner.answers(503, 503, 200)
    recovery_id = partner.deliver({"n": 1})
    partner.becomes(recovery_id, "dlq")
    partner.replay(recovery_id)
    partner.becomes(recovery_id, "succeeded")
    return recovery_id


def test_an_item_is_told_whole_and_in_the_order_of_what_happened(partner: Partner) -> None:
    recovery_id = a_long_story(partner)

    lines = lines_of(evidence_of(partner, recovery_id))

    told = [
        json.loads(line["record"])["event_type"].rpartition(".")[2]
        if line["kind"] == "event"
        else line["kind"]
        for line in lines
    ]
    assert told == [
        "evidence", "item",
        "attempt", "reprocess_failed", "retry_scheduled",
        "attempt", "reprocess_failed", "retry_exhausted",
        "replayed",
        "attempt", "reprocess_succeeded",
        "manifest",
    ]  # fmt: skip
    head, item = lines[:2]
    shown = partner.show(recovery_id)
    assert item["item"] == shown["recovery"]
    assert [line["attempt"] for line in lines if line["kind"] == "attempt"] == shown["attempts"]
    assert head["of"] == {"integration_id": partner.id, "recovery_id": recovery_id}
    assert head["made_by"] == {"id": "admin", "type": "token"}


def test_what_is_handed_out_is_audited_with_its_digest(partner: Partner) -> None:
    recovery_id = partner.hand_over()

    reply = evidence_of(partner, recovery_id)

    head = lines_of(reply)[0]
    [event] = partner.service.events(
        integration_id=partner.id, event_type="platform.integration.evidence_exported"
    )
    assert event["metadata"] == {"sha256": hashlib.sha256(reply.body).hexdigest()}
    assert event["target_id"] == head["export_id"]
    assert event["after_state"] == {"exists": True, "of": head["of"]}
    assert event["request_id"] == reply.header("x-request-id") == head["request_id"]
    assert reply.header("content-disposition") == f'attachment; filename="{head["export_id"]}.jsonl"'


def test_what_was_done_to_its_integration_meanwhile_belongs_to_an_item(partner: Partner) -> None:
    partner.change(name="Before")
    recovery_id = partner.hand_over()
    partner.change(name="After")
    partner.resolve(recovery_id)

    lines = lines_of(evidence_of(partner, recovery_id))

    told = [json.loads(line["record"]) for line in lines if line["kind"] == "event"]
    assert [one["event_type"].rpartition(".")[2] for one in told] == ["imported", "updated", "resolved"]
    assert told[1]["after_state"]["name"] == "After"


def test_what_was_done_to_its_integration_later_does_not_belong_to_an_item(partner: Partner) -> None:
    resolved = partner.hand_over()
    partner.resolve(resolved)
    partner.answers(200)
    arrived = partner.deliver({"n": 1})
    partner.becomes(arrived, "succeeded")
    partner.change(name="Later")

    for recovery_id in (resolved, arrived):
        assert b"Later" not in evidence_of(partner, recovery_id).body


def test_the_jobs_it_was_in_belong_to_an_item(partner: Partner) -> None:
    recovery_id = partner.hand_over()
    partner.service.break_by_hand(
        "INSERT INTO replay_item (integration, job, item, cycle, risk, state, reason)"
        " SELECT integration, 77, id, 1, 3, 'skipped', 'contained' FROM dead WHERE id = ?",
        number(recovery_id),
    )

    [job] = [line for line in lines_of(evidence_of(partner, recovery_id)) if line["kind"] == "job"]

    assert job["recovery_id"] == recovery_id
    assert job["job"]["state"] == "skipped"
    assert job["job"]["reason"] == "contained"


def number(recovery_id: str) -> int:
    found = parse_recovery_id(recovery_id)
    assert found is not None
    return found


@pytest.mark.parametrize("payload", [b'{\n  "a": [1,\r\n 2]\n}', '"é\\n\u2028"'.encode(), b"1e400"])
def test_a_payload_stays_what_it_is_on_one_line(partner: Partner, payload: bytes) -> None:
    body = b'{"event_type":"e","payload":%b}' % payload
    recovery_id = partner.service.admin.post(partner.deliveries, body).json()["recovery_id"]

    reply = evidence_of(partner, recovery_id)

    [item] = [line for line in lines_of(reply) if line["kind"] == "item"]
    assert item["item"]["payload_snapshot"]["body"] == json.loads(payload)


def test_nothing_that_is_secret_is_in_it(service: Service) -> None:
    canaries = {name: f"canary-{name}" for name in ("pointer", "answer", "header", "bearer", "own")}
    partner = service.partner(
        max_attempts=1,
        auth_mode="bearer",
        credentials={"token": canaries["bearer"]},
        headers={"X-Api-Key": canaries["own"]},
        redact_pointers=["/card"],
        redact_headers=["Set-Cookie"],
    )
    headers = (("Content-Type", "application/json"), ("Set-Cookie", canaries["header"]))
    partner.answers(Answer(503, json.dumps({"card": canaries["answer"]}).encode(), headers))
    recovery_id = partner.deliver({"card": canaries["pointer"]})
    partner.becomes(recovery_id, "dlq")
    partner.change(credentials={"token": f"{canaries['bearer']}-2"}, headers={"X-Api-Key": "canary-2"})

    one = evidence_of(partner, recovery_id)
    every = service.admin.get(f"{EXPORT}?integration_id={partner.id}")

    assert lines_of(one)
    assert lines_of(every)
    assert b"canary" not in one.body + every.body
    assert one.body.count(b"[REDACTED]") >= 3


def test_a_signing_secret_is_not_in_it(partner: Partner) -> None:
    assert partner.secret is not None
    recovery_id = partner.hand_over()
    partner.service.admin.post(f"{partner.url}/secrets/rotate", {})

    body = evidence_of(partner, recovery_id).body

    assert b"secrets_rotated" in body
    assert partner.secret.encode() not in body


def test_what_is_being_sent_just_now_is_whole_too(partner: Partner) -> None:
    gate = threading.Event()
    partner.answers(Answer(200, gate=gate))
    recovery_id = partner.hand_over()
    try:
        partner.replay(recovery_id)
        until(lambda: partner.received, "it is under way")

        lines = lines_of(evidence_of(partner, recovery_id))
    finally:
        gate.set()

    assert (lines[1]["item"]["status"], lines[1]["item"]["attempt_count"]) == ("replayed", 1)


def test_what_was_erased_stays_erased(partner: Partner) -> None:
    partner.answers(Answer(404, b"canary"))
    recovery_id = partner.deliver("canary")
    partner.becomes(recovery_id, "failed")
    partner.service.admin.post(f"{partner.item_url(recovery_id)}/erase", {"reason": "request 4711"})

    reply = evidence_of(partner, recovery_id)

    assert lines_of(reply)[1]["item"]["erased"]["reason"] == "request 4711"
    assert b"canary" not in reply.body


def test_only_whoever_may_view_is_handed_anything(service: Service, partner: Partner) -> None:
    recovery_id = partner.hand_over()
    operator = service.caller(OPERATE)

    for path in (f"{partner.item_url(recovery_id)}/evidence", f"{EXPORT}?integration_id={partner.id}"):
        assert operator.get(path).error_code == "AUTH-403-FORBIDDEN"


def test_what_is_not_there_is_not_audited(service: Service, partner: Partner) -> None:
    before = service.rows()

    assert evidence_of(partner, "rec_0000000000000").error_code == "INT-404-RECOVERY-NOT-FOUND"
    assert service.admin.get(f"{EXPORT}?integration_id=nothing").error_code == "INT-404-NOT-FOUND"
    assert service.rows() == before


def test_a_file_that_cannot_be_audited_is_not_handed_out(service: Service, partner: Partner) -> None:
    recovery_id = partner.hand_over()
    service.take_storage_away()

    replies = [evidence_of(partner, recovery_id), service.admin.get(f"{EXPORT}?integration_id={partner.id}")]

    service.give_storage_back()
    assert {reply.error_code for reply in replies} == {"INT-503-DEPENDENCY-UNAVAILABLE"}


# exports


def test_all_that_a_call_touched_is_exported_each_item_once(service: Service, partner: Partner) -> None:
    request = ("X-Request-Id", f"req-{partner.id}")
    partner.answers(503)
    touched = [partner.deliver(1, request) for _ in range(3)]
    for recovery_id in touched:
        partner.becomes(recovery_id, "dlq")
    partner.hand_over()

    lines = lines_of(service.admin.get(f"{EXPORT}?request_id=req-{partner.id}"))

    assert sorted(items_in(lines)) == sorted(touched)
    assert Counter(line["kind"] for line in lines) == {
        "evidence": 1, "item": 3, "attempt": 6, "event": 12, "manifest": 1,
    }  # fmt: skip
    assert lines[0]["of"] == {"request_id": f"req-{partner.id}"}


def test_an_integration_is_exported_with_what_just_arrived_in_it(service: Service, partner: Partner) -> None:
    quiet = partner.deliver()
    partner.becomes(quiet, "succeeded")
    told = a_long_story(partner)

    lines = lines_of(service.admin.get(f"{EXPORT}?integration_id={partner.id}"))

    assert items_in(lines) == [told, quiet]
    kinds = [
        json.loads(line["record"])["event_type"].rpartition(".")[2]
        for line in lines
        if line["kind"] == "event"
    ]
    assert kinds[0] == "created"
    assert kinds[-1] == "evidence_exported" or "evidence_exported" not in kinds


def test_an_export_has_no_end_that_is_not_its_own(service: Service, partner: Partner) -> None:
    batch = {"deliveries": [a_delivery(n) for n in range(230)]}
    answered = service.admin.post(partner.batch, batch).json()["deliveries"]
    partner.change(lifecycle_status="paused")
    for _ in range(230):
        partner.hand_over()

    lines = lines_of(service.admin.get(f"{EXPORT}?integration_id={partner.id}"))

    assert len(items_in(lines)) == len(set(items_in(lines))) == 460
    assert {one["recovery_id"] for one in answered} <= set(items_in(lines))


def test_all_that_was_done_in_an_incident_is_in_its_file(partner: Partner) -> None:
    name = f"INC {partner.id} / é"
    why = {"reason": "the incident", "incident": name}
    post = partner.service.admin.post
    replayed, resolved, grouped = [
        partner.hand_over(failure_code="HTTP_500", failure_detail=words) for words in ("one", "two", "three")
    ]
    group_id = partner.item(grouped)["group_id"]

    post(f"{partner.url}/containment", why)
    post(f"{partner.url}/containment/release", {"reason": "it is back"})  # it was contained in that incident
    assert post(partner.replay_url(replayed), why).status == 200
    assert post(partner.resolve_url(resolved), why).status == 200
    assert post(f"{partner.url}/recovery/groups/{group_id}/resolve", why).status == 200

    lines = lines_of(partner.service.admin.get(f"{EXPORT}?incident=INC%20{partner.id}%20/%20%C3%A9"))
    records = [json.loads(line["record"]) for line in lines if line["kind"] == "event"]
    kinds = {record["event_type"].rpartition(".")[2] for record in records}
    assert {"contained", "released", "resolved", "group_resolved", "replayed"} <= kinds
    assert set(items_in(lines)) == {replayed, resolved, grouped}


def test_a_window_chooses_the_events_and_their_items_come_whole(service: Service, partner: Partner) -> None:
    before = partner.hand_over()
    partner.hand_over()
    since = service.events(integration_id=partner.id)[-1]["occurred_at"]
    partner.resolve(before)
    at = service.events(target_id=before)[-1]["occurred_at"]

    lines = lines_of(service.admin.get(f"{EXPORT}?integration_id={partner.id}&since={at}"))

    assert at > since
    assert items_in(lines) == [before]
    assert len([line for line in lines if line.get("target_id") == before]) == 2


def test_an_item_that_cannot_be_read_says_so_and_keeps_no_other_back(
    service: Service, partner: Partner
) -> None:
    damaged, whole = partner.hand_over(), partner.hand_over()
    partner.service.break_by_hand("UPDATE dead SET status = 'nonsense' WHERE id = ?", number(damaged))

    reply = service.admin.get(f"{EXPORT}?integration_id={partner.id}&until=2999-01-01T00:00:00Z")

    lines = [json.loads(line) for line in reply.body.splitlines()]
    [fault] = [line["fault"] for line in lines if line.get("fault")]
    assert "nonsense" in fault
    assert items_in(lines) == [damaged, whole]
    assert lines[-1]["kind"] == "manifest"


def test_a_tenant_exports_its_own_alone(service: Service) -> None:
    own, foreign = (service.partner(integration_id=f"{name}.evidence") for name in ("acme", "globex"))
    request = ("X-Request-Id", "req-of-two-tenants")
    mine, _theirs = own.hand_over(request), foreign.hand_over(request)
    member = service.caller(VIEW, tenant="acme")

    lines = lines_of(member.get(f"{EXPORT}?request_id=req-of-two-tenants"))

    assert items_in(lines) == [mine]
    assert member.get(f"{EXPORT}?integration_id={foreign.id}").error_code == "INT-404-NOT-FOUND"
    assert "globex" not in json.dumps(lines)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?since=2026-01-01T00:00:00Z",
        "?incident=a&request_id=b",
        "?incident=",
        "?limit=5&incident=a",
        "?x=1",
    ],
)
def test_what_is_exported_is_named_once(service: Service, query: str) -> None:
    assert service.admin.get(f"{EXPORT}{query}").error_code == "INT-400-INVALID-PAYLOAD"


def test_a_head_is_answered_without_a_file(service: Service, partner: Partner) -> None:
    reply = service.admin.send("HEAD", f"{EXPORT}?integration_id={partner.id}")

    assert (reply.status, reply.body) == (200, b"")
