"""How a receiver is, and asking it on purpose, over HTTP."""

from typing import Any

import pytest

from tests.api.loops import until
from tests.api.receiver import Answer
from tests.api.service import Partner, Service
from tests.api.shapes import INSTANT, POSITIVE, REQUEST_ID, SENTENCE

REASON = "is it back?"


def asked(partner: Partner, **body: Any) -> Any:
    return partner.service.admin.post(f"{partner.url}/probe", body)


def test_a_probe_asks_the_health_url_with_a_bare_get(service: Service) -> None:
    partner = service.partner(health_url=f"http://127.0.0.1:{service.receiver.port}/alive")
    service.receiver.answers("/alive", Answer(204, b""))

    reply = asked(partner, reason=REASON)

    assert reply.status == 200
    assert reply.json() == {
        "integration_id": partner.id,
        "probe": {
            "kind": "health_url",
            "at": INSTANT,
            "by": service.admin.subject,
            "reason": REASON,
            "recovery_id": None,
            "outcome": "succeeded",
            "http_status": 204,
            "failure_code": None,
            "failure_detail": None,
            "duration_ms": POSITIVE,
        },
        "request_id": REQUEST_ID,
    }
    request = service.receiver.received("/alive")[-1]
    assert (request.method, request.body) == ("GET", b"")
    assert request.header("webhook-signature") is None
    assert request.header("X-Request-Id") == reply.json()["request_id"]


def test_a_probe_that_fails_did_what_was_asked(service: Service) -> None:
    partner = service.partner(health_url=f"http://127.0.0.1:{service.receiver.port}/dead")
    service.receiver.answers("/dead", 503)

    reply = asked(partner)

    assert reply.status == 200
    found = reply.json()["probe"]
    assert (found["outcome"], found["failure_code"], found["http_status"]) == ("failed", "HTTP_503", 503)
    assert found["failure_detail"] == SENTENCE


def test_a_probe_sends_one_item_once_while_its_integration_is_contained(service: Service) -> None:
    partner = service.partner()
    item = partner.hand_over()
    service.admin.post(f"{partner.url}/containment", {"reason": "an outage"})
    body = {"recovery_id": item, "reason": REASON}

    first = partner.service.admin.post(f"{partner.url}/probe", body, ("Idempotency-Key", "k-1"))
    again = partner.service.admin.post(f"{partner.url}/probe", body, ("Idempotency-Key", "k-1"))

    assert (first.status, again.status) == (200, 200)
    assert first.json()["probe"] == again.json()["probe"]
    assert first.json()["probe"]["outcome"] == "succeeded"
    assert len(partner.received) == 1
    assert partner.item(item)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"recovery_id": "rec_0000000000000"}, "/reason"),
        ({"recovery_id": "REC!", "reason": REASON}, "/recovery_id"),
        ({"reason": " "}, "/reason"),
        ({"reason": "x" * 257}, "/reason"),
        ({"force": True}, "/force"),
    ],
)
def test_a_probe_is_asked_for_strictly(service: Service, body: dict[str, Any], pointer: str) -> None:
    reply = asked(service.partner(), **body)

    assert (reply.status, reply.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert pointer in reply.pointers


def test_a_probe_without_anything_to_ask_is_a_conflict(service: Service) -> None:
    reply = asked(service.partner())

    assert (reply.status, reply.error_code) == (409, "INT-409-CONFLICT")


def test_of_one_that_nobody_tried_nothing_is_known(service: Service) -> None:
    partner = service.partner()

    reply = service.admin.get(f"{partner.url}/health")

    nothing: dict[str, Any] = {"succeeded": 0, "failed": 0, "failure_share": None, "average_ms": None}
    assert reply.json() == {
        "integration_id": partner.id,
        "verdict": "unknown",
        "reasons": ["no attempt ended in the last 60 minutes"],
        "outcomes": [{"minutes": minutes} | nothing for minutes in (5, 15, 60)],
        "last_success_at": None,
        "last_failure_at": None,
        "breaker": {"state": "closed", "changed_at": None, "until": None, "opened_at": None, "trips": 0},
        "throttled_until": None,
        "gone_at": None,
        "containment": None,
        "probe": None,
        "minutes": [],
        "request_id": REQUEST_ID,
    }


def test_health_comes_from_what_was_recorded(service: Service) -> None:
    partner = service.partner()
    partner.answers(*[200] * 4, 404)
    for status in (*["succeeded"] * 4, "failed"):
        partner.becomes(partner.deliver(), status)

    found = service.admin.get(f"{partner.url}/health").json()

    assert found["verdict"] == "degraded"
    assert found["reasons"] == ["1 of 5 attempts failed in the last 5 minutes"]
    assert [one["failed"] for one in found["outcomes"]] == [1, 1, 1]
    assert sum(one["succeeded"] for one in found["minutes"]) == 4
    assert found["last_success_at"] == INSTANT


def test_a_410_is_shown_as_gone(service: Service) -> None:
    partner = service.partner()
    partner.answers(410)

    partner.becomes(partner.deliver(), "failed")

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = service.admin.get(f"{partner.url}/health").json()
        return shown if shown["gone_at"] else None

    found = until(look)
    assert "410" in found["reasons"][-1]
    assert service.admin.get(partner.url).json()["containment"] is None
