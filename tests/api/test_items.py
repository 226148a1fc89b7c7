"""An item and its attempts, field by field; and what a delivery and a batch are answered."""

import pytest

from tests.api.receiver import Answer
from tests.api.service import Partner, a_delivery
from tests.api.shapes import (
    GROUP_ID,
    INSTANT,
    POSITIVE,
    RECOVERY_ID,
    REQUEST_ID,
    SENTENCE,
    SPAN_ID,
    TRACEPARENT,
)


def test_a_delivery_is_answered_with_its_recovery_id(quiet: Partner) -> None:
    reply = quiet.service.admin.post(quiet.deliveries, a_delivery())

    assert reply.status == 202
    assert reply.json() == {"recovery_id": RECOVERY_ID, "status": "pending", "request_id": REQUEST_ID}
    assert reply.header("content-type") == "application/json"


def test_a_batch_is_answered_in_order(quiet: Partner) -> None:
    reply = quiet.service.admin.post(quiet.batch, {"deliveries": [a_delivery(n) for n in range(3)]})

    document = reply.json()
    assert reply.status == 202
    assert document == {
        "deliveries": [{"recovery_id": RECOVERY_ID, "status": "pending", "duplicate": False}] * 3,
        "request_id": REQUEST_ID,
    }
    shown = [quiet.item(one["recovery_id"])["payload_snapshot"]["body"] for one in document["deliveries"]]
    assert shown == [0, 1, 2]


def test_an_import_is_answered_with_its_recovery_id(quiet: Partner) -> None:
    reply = quiet.service.admin.post(quiet.queue, a_delivery(status="failed"))

    assert reply.status == 201
    assert reply.json() == {"recovery_id": RECOVERY_ID, "status": "failed", "request_id": REQUEST_ID}


def test_a_pending_item_has_every_field(quiet: Partner) -> None:
    recovery_id = quiet.deliver({"a": "é"}, ("X-Request-Id", "pending-1"), ("Idempotency-Key", "key-1"))

    assert quiet.show(recovery_id) == {
        "recovery": {
            "recovery_id": recovery_id,
            "integration_id": quiet.id,
            "event_type": "order.created",
            "request_id": "pending-1",
            "traceparent": TRACEPARENT,
            "idempotency_key": "key-1",
            "status": "pending",
            "cycle": 1,
            "attempt_count": 0,
            "max_attempts": 5,
            "next_retry_at": None,
            "last_attempt_at": None,
            "failure_code": None,
            "failure_detail": None,
            "last_http_status": None,
            "retryable": None,
            "duplicate_risk": None,
            "group_id": None,
            "payload_snapshot": {
                "content_type": "application/json",
                "encoding": "json",
                "body": {"a": "é"},
                "size": len(b'{"a": "\\u00e9"}'),
                "truncated": False,
            },
            "response_snapshot": None,
            "held": False,
            "resolved": None,
            "erased": None,
            "edit_of": None,
            "superseded_by": None,
            "created_by": "admin",
            "updated_by": "admin",
            "created_at": INSTANT,
            "updated_at": INSTANT,
        },
        "attempts": [],
        "request_id": REQUEST_ID,
    }


def test_a_failed_item_tells_why_and_its_attempt_as_well(partner: Partner) -> None:
    partner.answers(
        Answer(404, b'{"no": 1}', (("Content-Type", "application/json"), ("X-Two", "a"), ("X-Two", "b")))
    )
    recovery_id = partner.deliver()
    item = partner.becomes(recovery_id, "failed")

    answered = {
        "content_type": "application/json",
        "encoding": "json",
        "body": {"no": 1},
        "size": 9,
        "truncated": False,
        "status": 404,
        "headers": [
            ["Content-Type", "application/json"],
            ["X-Two", "a"],
            ["X-Two", "b"],
            ["Content-Length", "9"],
        ],
    }
    told = {
        "failure_code": "HTTP_404",
        "failure_detail": SENTENCE,
        "last_http_status": 404,
        "retryable": False,
        "duplicate_risk": "refused",
        "group_id": GROUP_ID,
        "response_snapshot": answered,
        "last_attempt_at": INSTANT,
        "attempt_count": 1,
        "next_retry_at": None,
        "updated_by": "redrive",
    }
    assert {name: item[name] for name in told} == told
    assert partner.show(recovery_id)["attempts"] == [
        {
            "cycle": 1,
            "attempt": 1,
            "started_at": INSTANT,
            "duration_ms": POSITIVE,
            "outcome": "failed",
            "failure_code": "HTTP_404",
            "failure_detail": SENTENCE,
            "retryable": False,
            "group_id": item["group_id"],
            "http_status": 404,
            "reach": "answered",
            "retry_after_seconds": None,
            "span_id": SPAN_ID,
            "response_snapshot": answered,
        }
    ]


def test_a_retrying_item_tells_when_it_is_tried_again(partner: Partner) -> None:
    partner.change(base_delay_seconds=3600, max_delay_seconds=3600)
    partner.answers(503)

    item = partner.becomes(partner.deliver(), "retrying")

    assert item["next_retry_at"] == INSTANT
    assert item["next_retry_at"] > item["last_attempt_at"]
    assert (item["attempt_count"], item["retryable"]) == (1, True)


def test_a_connection_that_is_refused_is_a_failure_without_an_answer(partner: Partner) -> None:
    partner.change(url="http://127.0.0.1:1/", max_attempts=1)

    item = partner.becomes(partner.deliver(), "dlq")

    assert (item["failure_code"], item["retryable"]) == ("ECONNREFUSED", True)
    assert (item["last_http_status"], item["response_snapshot"]) == (None, None)
    [attempt] = partner.show(item["recovery_id"])["attempts"]
    assert (attempt["reach"], attempt["http_status"]) == ("not_sent", None)


@pytest.mark.parametrize(
    ("content_type", "body", "encoding", "shown"),
    [
        ("application/json", b'{"a":1}', "json", {"a": 1}),
        ("application/problem+json; charset=utf-8", b"[]", "json", []),
        ("application/json", b"{", "text", "{"),
        ("application/json", b"[" * 50_000, "text", "[" * 50_000),
        ("text/html", b"<a>", "text", "<a>"),
        ("text/plain", "é\0".encode(), "text", "é\0"),
        ("text/plain", b"\xff", "base64", "/w=="),
        ("application/json", b"\xff", "base64", "/w=="),
        ("", b"a", "text", "a"),
    ],
)
def test_an_answer_is_shown_as_what_it_is(
    partner: Partner, content_type: str, body: bytes, encoding: str, shown: object
) -> None:
    partner.answers(Answer(400, body, (("Content-Type", content_type),) if content_type else ()))

    snapshot = partner.becomes(partner.deliver(), "failed")["response_snapshot"]

    assert (snapshot["encoding"], snapshot["body"], snapshot["size"]) == (encoding, shown, len(body))
    assert snapshot["content_type"] == content_type
