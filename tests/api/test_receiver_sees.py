"""What arrives at a partner: exactly the stored bytes, signed, and nothing that was not promised."""

import base64
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from redrive import __version__
from tests.api.loops import until
from tests.api.receiver import Answer
from tests.api.service import Partner, Service, with_payload
from tests.api.shapes import TRACEPARENT
from tests.api.wire import JSON

MIB = 1 << 20
EXACT = [
    b"1",
    b"null",
    b'""',
    b"[]",
    b'{ "a" :\t1 ,\r\n "b":[ 1,2 ] }',
    b'{"a":1,"a":2}',
    b"12345678901234567890123456789012345678901234567890",
    b"1E+400",
    b"-0.0",
    b"0.1000000000000000055511151231257827",
    b'"\\u00e9\\ud83d\\ude00\\/\\u0000"',
    '"é 😀 \u2028 \x7f"'.encode(),
    b'{"\\u0061":true}',
    b"[" * 200 + b"]" * 200,
    b'"' + b"x" * (MIB - 2) + b'"',
    b"[" + b"9" * 5000 + b"]",
]


@pytest.mark.parametrize("payload", EXACT, ids=[repr(payload[:24]) for payload in EXACT])
@pytest.mark.parametrize("envelope", ["plain", "spacious", "batch"])
def test_a_payload_arrives_byte_for_byte(
    service: Service, partner: Partner, payload: bytes, envelope: str
) -> None:
    one = with_payload(payload)
    if envelope == "spacious":
        one = b'\n  {  "event_type" : "a" ,\r\n "payload" :\t%b\n }  ' % payload
    if envelope == "batch":
        reply = service.admin.send("POST", partner.batch, b'{"deliveries": [ %b ]}' % one, JSON)
    else:
        reply = service.admin.send("POST", partner.deliveries, one, JSON)

    assert reply.status == 202, reply
    [sent] = until(lambda: partner.received)
    assert sent.body == payload
    assert sent.header("content-type") == "application/json"


def test_a_stored_payload_is_shown_as_it_came(service: Service, quiet: Partner) -> None:
    payload = b'{ "a":1.10,"a":2,"big":123456789012345678901 }'
    reply = service.admin.send("POST", quiet.deliveries, with_payload(payload), JSON)

    shown = service.admin.get(quiet.item_url(reply.json()["recovery_id"]))

    assert payload in shown.body
    snapshot = shown.json()["recovery"]["payload_snapshot"]
    assert (snapshot["encoding"], snapshot["size"], snapshot["truncated"]) == ("json", len(payload), False)


@pytest.mark.parametrize("content", [b"", b"<a/>", bytes(range(256)), b"x" * MIB])
def test_bytes_in_base64_arrive_as_bytes_with_their_type(partner: Partner, content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    body = {"event_type": "a", "payload_base64": encoded, "content_type": "application/xml; charset=utf-8"}

    reply = partner.service.admin.post(partner.deliveries, body)

    assert reply.status == 202, reply
    [sent] = until(lambda: partner.received)
    assert sent.body == content
    assert sent.header("content-type") == "application/xml; charset=utf-8"


def test_a_receiver_sees_exactly_the_promised_headers(service: Service) -> None:
    partner = service.partner(headers={"X-Tenant": "t1", "X-Both": "integration"})
    recovery_id = partner.deliver(1, headers={"x-both": "delivery", "X-Own": "d1"})

    [sent] = until(lambda: partner.received)

    assert sent.method == "POST"
    assert {name.lower(): value for name, value in sent.headers} == {
        "host": f"127.0.0.1:{service.receiver.port}",
        "content-length": "1",
        "content-type": "application/json",
        "webhook-id": recovery_id,
        "webhook-timestamp": sent.header("webhook-timestamp"),
        "webhook-signature": sent.header("webhook-signature"),
        "traceparent": TRACEPARENT,
        "x-request-id": partner.item(recovery_id)["request_id"],
        "user-agent": f"redrive/{__version__}",
        "x-tenant": "t1",
        "x-both": "delivery",
        "x-own": "d1",
    }
    assert abs(int(sent.header("webhook-timestamp") or 0) - time.time()) < 60


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_method_is_the_integrations(service: Service, method: str) -> None:
    partner = service.partner(method=method)
    partner.deliver()

    [sent] = until(lambda: partner.received)
    assert sent.method == method


@pytest.mark.parametrize("payload", [1, "é😀", {"a": [None, 1.5]}])
def test_the_signature_is_what_standard_webhooks_verifies(partner: Partner, payload: object) -> None:
    partner.deliver(payload)

    [sent] = until(lambda: partner.received)
    headers = {name.lower(): value for name, value in sent.headers}
    assert partner.secret is not None
    assert Webhook(partner.secret).verify(sent.body, headers) == payload


def test_a_replay_is_signed_anew_under_the_same_webhook_id(partner: Partner) -> None:
    partner.answers(400, 200)
    recovery_id = partner.deliver({"a": 1})
    partner.becomes(recovery_id, "failed")
    partner.replay(recovery_id)
    partner.becomes(recovery_id, "succeeded")

    first, second = partner.received
    assert first.body == second.body
    assert first.header("webhook-id") == second.header("webhook-id") == recovery_id
    assert partner.secret is not None
    for sent in (first, second):
        Webhook(partner.secret).verify(sent.body, {name.lower(): value for name, value in sent.headers})


def test_auth_mode_none_does_not_sign(service: Service) -> None:
    partner = service.partner(auth_mode="none")
    partner.deliver()

    [sent] = until(lambda: partner.received)
    assert sent.header("webhook-signature") is None
    assert sent.header("webhook-id") is not None


def test_a_redirect_is_not_followed(partner: Partner) -> None:
    partner.answers(Answer(307, headers=(("Location", f"/{partner.id}/elsewhere"),)))

    item = partner.becomes(partner.deliver(), "failed")

    assert (item["failure_code"], item["retryable"]) == ("HTTP_307", False)
    assert partner.service.receiver.received(f"/{partner.id}/elsewhere") == []


def test_an_answer_is_kept_up_to_64_kib(partner: Partner) -> None:
    partner.answers(Answer(400, b"x" * 70_000, (("Content-Type", "text/plain"),)))

    snapshot = partner.becomes(partner.deliver(), "failed")["response_snapshot"]

    assert (len(snapshot["body"]), snapshot["truncated"]) == (65_536, True)


def test_the_service_never_delivers_to_itself(
    service: Service, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        service.engine.catalogue, "judge", lambda *_: None
    )  # as it was before it listened there
    partner.change(url=f"http://127.0.0.1:{service.port}/healthz")

    item = partner.becomes(partner.deliver(), "failed")

    assert (item["failure_code"], item["retryable"]) == ("BLOCKED_ADDRESS", False)
    assert item["response_snapshot"] is None


@pytest.mark.parametrize("asked", ["seconds", "http-date"])
def test_retry_after_moves_the_next_attempt(partner: Partner, asked: str) -> None:
    value = "Fri, 31 Dec 2100 23:59:59 GMT" if asked == "http-date" else "7200"
    partner.answers(Answer(429, headers=(("Retry-After", value),)))

    item = partner.becomes(partner.deliver(), "retrying")

    wait = datetime.fromisoformat(item["next_retry_at"]) - datetime.now(UTC)
    expected = 86_400 if asked == "http-date" else 7_200
    assert expected - 60 < wait.total_seconds() <= expected
    [attempt] = partner.show(item["recovery_id"])["attempts"]
    assert attempt["retry_after_seconds"] == expected
