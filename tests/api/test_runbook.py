"""The runbook: automatic retry, dead letter, judgement, replay, proof. And what else a person can do."""

import threading
from typing import Any

import pytest

from tests.api.receiver import Answer
from tests.api.service import Partner, Service
from tests.api.shapes import EVENT, ITEM, REPLAY

RECOVERY = "platform.integration.recovery"


def short(event: dict[str, Any]) -> tuple[str, str, str]:
    """What happened, and from which status to which."""
    before, after = (event[name].get("status", "nothing") for name in ("before_state", "after_state"))
    return event["event_type"].removeprefix("platform.integration."), before, after


def test_an_outage_is_retried_dead_lettered_replayed_and_proved(partner: Partner) -> None:
    partner.answers(503)
    recovery_id = partner.deliver({"order": 1}, ("X-Request-Id", "runbook-first"))
    dead = partner.becomes(recovery_id, "dlq")
    assert (dead["attempt_count"], dead["max_attempts"], dead["cycle"]) == (5, 5, 1)
    assert (dead["failure_code"], dead["last_http_status"], dead["retryable"]) == ("HTTP_503", 503, True)
    assert dead["payload_snapshot"]["body"] == {"order": 1}

    partner.answers(500, 200)
    reply = partner.replay(recovery_id, "they are back", ("X-Request-Id", "runbook-second"))
    done = partner.becomes(recovery_id, "succeeded")

    assert reply.status == 200
    assert (done["attempt_count"], done["cycle"], done["request_id"]) == (2, 2, "runbook-second")
    assert done["failure_code"] is None
    attempts = partner.show(recovery_id)["attempts"]
    assert [(one["cycle"], one["attempt"]) for one in attempts] == [
        *((1, n) for n in range(1, 6)),
        (2, 1),
        (2, 2),
    ]
    assert len({sent.header("webhook-id") for sent in partner.received}) == 1
    assert len(partner.received) == 7


def test_the_request_id_shows_the_whole_chain_it_caused(partner: Partner) -> None:
    partner.change(max_attempts=2)
    partner.answers(503, 503, 503, 200)
    recovery_id = partner.deliver(1, ("X-Request-Id", "chain-first"))
    partner.becomes(recovery_id, "dlq")
    partner.replay(recovery_id, "they are back", ("X-Request-Id", "chain-second"))
    partner.becomes(recovery_id, "succeeded")

    first, second = (partner.service.events(request_id=f"chain-{name}") for name in ("first", "second"))

    assert [short(event) for event in first] == [
        ("recovery.reprocess_failed", "pending", "retrying"),
        ("recovery.retry_scheduled", "pending", "retrying"),
        ("recovery.reprocess_failed", "retrying", "dlq"),
        ("recovery.retry_exhausted", "retrying", "dlq"),
    ]
    assert [short(event) for event in second] == [
        ("recovery.replayed", "dlq", "replayed"),
        ("recovery.reprocess_failed", "replayed", "retrying"),
        ("recovery.retry_scheduled", "replayed", "retrying"),
        ("recovery.reprocess_succeeded", "retrying", "succeeded"),
    ]
    for event in first + second:
        assert event.keys() == EVENT
        assert event["source_request_id"] == "chain-first"
        assert (event["target_type"], event["target_id"]) == ("recovery_item", recovery_id)
        assert event["integration_id"] == partner.id
    by_system = [event for event in first + second if event["event_type"] != f"{RECOVERY}.replayed"]
    assert {event["actor"]["type"] for event in by_system} == {"system"}
    assert second[0]["actor"]["id"] == "admin"
    assert second[0]["metadata"]["reason"] == "they are back"
    assert (second[0]["before_state"]["cycle"], second[0]["after_state"]["cycle"]) == (1, 2)
    assert (second[0]["before_state"]["attempt_count"], second[0]["after_state"]["attempt_count"]) == (2, 0)


def test_a_first_attempt_that_succeeds_leaves_no_event(partner: Partner) -> None:
    recovery_id = partner.deliver()
    partner.becomes(recovery_id, "succeeded")

    assert partner.service.events(target_id=recovery_id) == []
    [attempt] = partner.show(recovery_id)["attempts"]
    assert attempt["outcome"] == "succeeded"


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 422, 451])
def test_a_refusal_is_final_at_once(partner: Partner, status: int) -> None:
    partner.answers(status)
    item = partner.becomes(partner.deliver(), "failed")

    assert (item["failure_code"], item["retryable"], item["attempt_count"]) == (f"HTTP_{status}", False, 1)
    [event] = partner.service.events(target_id=item["recovery_id"])
    assert short(event) == ("recovery.reprocess_failed", "pending", "failed")


@pytest.mark.parametrize("status", [408, 429, 500, 501, 503, 599])
def test_what_may_pass_is_retried(partner: Partner, status: int) -> None:
    partner.answers(status, 200)

    assert partner.becomes(partner.deliver(), "succeeded")["attempt_count"] == 2


@pytest.mark.parametrize("status", ["failed", "dlq"])
def test_a_replay_answers_what_it_did(service: Service, quiet: Partner, status: str) -> None:
    recovery_id = quiet.hand_over(status=status, attempt_count=3)

    reply = quiet.replay(recovery_id, "é 😀 it's back", ("X-Request-Id", f"replay-{recovery_id}"))

    document = reply.json()
    assert reply.status == 200
    assert document.keys() == REPLAY
    assert document["recovery"].keys() == ITEM
    assert "body" not in document["recovery"]["payload_snapshot"]
    recovery = document.pop("recovery")
    assert document == {
        "previous_status": status,
        "current_status": "replayed",
        "replayed": True,
        "reason": "é 😀 it's back",
        "request_id": f"replay-{recovery_id}",
    }
    assert (recovery["status"], recovery["cycle"], recovery["attempt_count"]) == ("replayed", 2, 0)
    assert recovery["updated_by"] == "admin"
    shown = quiet.item(recovery_id)
    del shown["payload_snapshot"]["body"]
    assert shown == recovery


@pytest.mark.parametrize("status", ["pending", "retrying", "replayed", "succeeded"])
def test_only_failed_and_dlq_items_are_replayed(service: Service, status: str) -> None:
    partner, recovery_id = an_item_that_is(service, status)
    before = partner.facts()

    reply = partner.replay(recovery_id)

    assert (reply.status, reply.error_code) == (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
    problem = reply.json()
    assert (problem["previous_status"], problem["requested_status"]) == (status, "replayed")
    assert problem["retryable"] is False
    assert partner.facts() == before


@pytest.mark.parametrize("status", ["pending", "retrying", "replayed", "succeeded"])
def test_only_failed_and_dlq_items_are_resolved(service: Service, status: str) -> None:
    partner, recovery_id = an_item_that_is(service, status)
    before = partner.facts()

    reply = partner.resolve(recovery_id)

    assert (reply.status, reply.error_code) == (409, "INT-409-CONFLICT")
    assert partner.facts() == before


def test_a_replay_under_the_request_id_of_an_earlier_cycle_is_refused(partner: Partner) -> None:
    first, second = ("X-Request-Id", "cycle-one"), ("X-Request-Id", "cycle-two")
    partner.answers(400)
    recovery_id = partner.deliver(1, first)
    partner.becomes(recovery_id, "failed")
    assert partner.replay(recovery_id, "a", first).error_code == "INT-409-CONFLICT"

    assert partner.replay(recovery_id, "a", second).status == 200
    partner.becomes(recovery_id, "failed")

    assert partner.replay(recovery_id, "a", first).error_code == "INT-409-CONFLICT"
    assert partner.replay(recovery_id, "a", second).error_code == "INT-409-CONFLICT"
    assert partner.replay(recovery_id, "a", ("X-Request-Id", "cycle-three")).status == 200


def test_a_replay_takes_the_attempts_the_integration_allows_then(partner: Partner) -> None:
    partner.answers(503)
    recovery_id = partner.hand_over()
    partner.change(max_attempts=2)

    partner.replay(recovery_id)

    assert partner.becomes(recovery_id, "dlq")["attempt_count"] == 2
    assert len(partner.received) == 2


def test_resolving_closes_an_item_for_good(service: Service, quiet: Partner) -> None:
    recovery_id = quiet.hand_over()

    reply = quiet.resolve(recovery_id, "paid by hand", ("X-Request-Id", f"resolve-{recovery_id}"))

    document = reply.json()
    resolved = {
        "resolved_at": document["recovery"]["updated_at"],
        "resolved_by": "admin",
        "reason": "paid by hand",
    }
    assert reply.status == 200
    assert (document["resolved"], document["reason"]) == (True, "paid by hand")
    assert document["recovery"]["status"] == "dlq"
    assert document["recovery"]["resolved"] == resolved
    assert quiet.item(recovery_id)["resolved"] == resolved
    [event] = service.events(request_id=f"resolve-{recovery_id}")
    assert short(event) == ("resolved", "dlq", "dlq")
    assert (event["before_state"]["resolved"], event["after_state"]["resolved"]) == (False, True)
    assert quiet.resolve(recovery_id).error_code == "INT-409-CONFLICT"
    assert quiet.replay(recovery_id).error_code == "INT-409-CONFLICT"


def test_what_was_delivered_is_erased_and_the_trail_stays(service: Service, partner: Partner) -> None:
    partner.answers(Answer(404, b"canary answer", (("X-A", "canary"),)))
    recovery_id = partner.deliver("canary payload", headers={"X-Name": "canary"})
    partner.becomes(recovery_id, "failed")
    before = service.events(target_id=recovery_id)
    url = f"{partner.item_url(recovery_id)}/erase"

    reply = service.admin.post(url, {"reason": "request 4711"})

    shown = partner.show(recovery_id)
    erased = {"erased_at": shown["recovery"]["updated_at"], "erased_by": "admin", "reason": "request 4711"}
    assert (reply.status, reply.json()["erased"]) == (200, True)
    assert shown["recovery"]["erased"] == reply.json()["recovery"]["erased"] == erased
    assert shown["recovery"]["payload_snapshot"]["size"] == 0
    assert shown["recovery"]["resolved"]["reason"] == "request 4711"
    assert [attempt["failure_code"] for attempt in shown["attempts"]] == ["HTTP_404"]
    assert "canary" not in str([shown, reply.json()])
    *earlier, event = service.events(target_id=recovery_id)
    assert earlier == before
    assert short(event) == ("erased", "failed", "failed")
    assert event["metadata"] == {"reason": "request 4711", "payload_size": len('"canary payload"')}
    for refused in (service.admin.post(url, {"reason": "again"}), partner.replay(recovery_id)):
        assert refused.error_code == "INT-409-CONFLICT"


def test_what_was_answered_of_it_under_a_key_goes_with_it(service: Service, partner: Partner) -> None:
    partner.answers(Answer(404, b"", (("X-A", "canary"),)))
    given = {"payload_base64": "cGRm", "content_type": 'application/pdf; name="canary.pdf"'}
    reply = service.admin.post(partner.deliveries, {"event_type": "e", **given})
    recovery_id = reply.json()["recovery_id"]
    partner.becomes(recovery_id, "failed")
    key = ("Idempotency-Key", "resolved-1")
    assert "canary" in str(partner.resolve(recovery_id, "by phone", key).json())

    erased = service.admin.post(f"{partner.item_url(recovery_id)}/erase", {"reason": "request 4711"})
    again = partner.resolve(recovery_id, "by phone", key)

    assert erased.status == 200
    assert again.error_code == "INT-409-CONFLICT"
    assert "canary" not in str([erased.json(), again.json(), partner.show(recovery_id)])


def test_what_is_still_to_be_sent_is_not_erased(quiet: Partner) -> None:
    recovery_id = quiet.deliver()
    before = quiet.facts()

    refused = quiet.service.admin.post(f"{quiet.item_url(recovery_id)}/erase", {"reason": "request 4711"})

    assert (refused.status, refused.error_code) == (409, "INT-409-CONFLICT")
    assert quiet.facts() == before


def test_an_import_keeps_what_is_known_and_can_be_replayed(partner: Partner) -> None:
    known = {
        "attempt_count": 7,
        "failure_code": "HTTP_503",
        "failure_detail": "their gateway was down",
        "last_http_status": 503,
        "occurred_at": "2026-03-01T15:02:11.5+01:00",
        "response_snapshot": {
            "status": 503,
            "headers": [["Retry-After", "5"], ["Content-Type", "text/plain"]],
            "content_type": "text/plain",
            "encoding": "text",
            "body": "dé",
            "size": 3,
            "truncated": False,
        },
    }
    recovery_id = partner.hand_over(("X-Request-Id", "handed-over"), payload={"a": 1}, **known)

    item = partner.item(recovery_id)
    assert {
        name: item[name] for name in ("attempt_count", "failure_code", "failure_detail", "last_http_status")
    } == {
        name: known[name] for name in ("attempt_count", "failure_code", "failure_detail", "last_http_status")
    }
    assert (item["status"], item["cycle"], item["retryable"]) == ("dlq", 1, True)
    assert item["last_attempt_at"] == "2026-03-01T14:02:11.500Z"
    assert item["response_snapshot"] == known["response_snapshot"]
    [event] = partner.service.events(request_id="handed-over")
    assert short(event) == ("imported", "nothing", "dlq")
    assert event["before_state"] == {"exists": False}
    assert event["source_request_id"] == "handed-over"
    assert partner.received == []

    partner.replay(recovery_id)

    done = partner.becomes(recovery_id, "succeeded")
    assert (done["cycle"], done["attempt_count"]) == (2, 1)
    assert [sent.body for sent in partner.received] == [b'{"a": 1}']


@pytest.mark.parametrize(
    ("encoding", "body", "size"), [("json", {"a": [1]}, 10), ("text", "", 0), ("base64", "AP8=", 2)]
)
def test_an_imported_answer_comes_back_as_it_was_given(
    quiet: Partner, encoding: str, body: Any, size: int
) -> None:
    kind = {"json": "application/json", "text": "text/plain", "base64": "application/octet-stream"}[encoding]
    snapshot = {"encoding": encoding, "body": body, "content_type": kind, "status": 500}

    shown = quiet.item(quiet.hand_over(response_snapshot=snapshot))["response_snapshot"]

    assert (shown["encoding"], shown["body"], shown["size"]) == (encoding, body, size)
    assert (shown["content_type"], shown["status"]) == (kind, 500)


def test_an_imported_answer_without_its_status_is_refused_rather_than_dropped(quiet: Partner) -> None:
    reply = quiet.service.admin.post(
        quiet.queue, {"event_type": "a", "payload": 1, "status": "dlq", "response_snapshot": {"body": "x"}}
    )

    assert (reply.status, reply.pointers) == (400, ["/response_snapshot/status"])


def test_a_paused_integration_accepts_and_holds_until_it_is_active(
    service: Service, partner: Partner
) -> None:
    partner.change(lifecycle_status="paused")
    recovery_id = partner.deliver()
    dead = partner.hand_over()
    item = partner.item(recovery_id)
    assert (item["status"], item["held"], partner.item(dead)["held"]) == ("pending", True, True)
    assert partner.replay(dead).error_code == "INT-409-CONFLICT"
    assert partner.received == []

    reply = partner.change(lifecycle_status="active")

    assert reply.json()["lifecycle_status"] == "active"
    assert partner.becomes(recovery_id, "succeeded")["held"] is False
    kinds = [short(event) for event in service.events(integration_id=partner.id)]
    assert [kind for kind, _, _ in kinds] == ["created", "lifecycle_changed", "imported", "lifecycle_changed"]


@pytest.mark.parametrize("lifecycle", ["draft", "paused", "retired"])
def test_what_is_done_with_is_not_held(service: Service, partner: Partner, lifecycle: str) -> None:
    succeeded, resolved, waiting = partner.deliver(), partner.hand_over(), partner.hand_over()
    partner.becomes(succeeded, "succeeded")
    partner.resolve(resolved)

    partner.change(lifecycle_status=lifecycle)

    held = {name: partner.item(name)["held"] for name in (succeeded, resolved, waiting)}
    assert held == {succeeded: False, resolved: False, waiting: True}
    assert [item["recovery_id"] for item in partner.items("held=true")] == [waiting]
    assert [item["recovery_id"] for item in partner.items("held=false")] == [resolved, succeeded]


def test_a_resolve_is_answered_with_an_item_that_is_not_held(partner: Partner) -> None:
    recovery_id = partner.hand_over()
    partner.change(lifecycle_status="paused")

    reply = partner.resolve(recovery_id)

    assert reply.json()["recovery"]["held"] is False


@pytest.mark.parametrize("lifecycle", ["draft", "retired"])
def test_draft_and_retired_integrations_refuse(service: Service, lifecycle: str) -> None:
    partner = service.partner()
    dead = partner.hand_over()
    partner.change(lifecycle_status=lifecycle)
    before = partner.facts()

    delivery = {"event_type": "a", "payload": 1}
    refused = [
        service.admin.post(partner.deliveries, delivery),
        service.admin.post(partner.queue, delivery | {"status": "dlq"}),
        partner.replay(dead),
    ]
    batch = service.admin.post(partner.batch, {"deliveries": [delivery]})

    assert [reply.error_code for reply in refused] == ["INT-409-CONFLICT"] * 3
    assert [one["error_code"] for one in batch.json()["deliveries"]] == ["INT-409-CONFLICT"]
    assert partner.facts() == before


def test_a_retry_waits_while_its_integration_is_paused(partner: Partner) -> None:
    gate = threading.Event()
    partner.answers(Answer(503, gate=gate), Answer(200))
    recovery_id = partner.deliver()
    partner.change(lifecycle_status="paused")
    gate.set()

    item = partner.becomes(recovery_id, "retrying")
    assert (item["held"], len(partner.received)) == (True, 1)

    partner.change(lifecycle_status="active")
    assert partner.becomes(recovery_id, "succeeded")["attempt_count"] == 2


def an_item_that_is(service: Service, status: str) -> tuple[Partner, str]:
    """A partner with one item that is and stays in *status*."""
    slow = {"base_delay_seconds": 3600, "max_delay_seconds": 3600}
    partner = service.partner(**slow if status == "retrying" else {})
    if status in ("pending", "replayed"):
        partner = service.partner(rate_per_second=0.001)
    if status in ("failed", "dlq"):
        return partner, partner.hand_over(status=status)
    if status == "replayed":
        recovery_id = partner.hand_over()
        partner.replay(recovery_id)
    else:
        partner.answers(503 if status == "retrying" else 200)
        recovery_id = partner.deliver()
    partner.becomes(recovery_id, status)
    return partner, recovery_id
