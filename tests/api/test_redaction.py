"""What an integration's rules hide, wherever payloads and answers are shown; receivers get all of it."""

import json
from typing import Any

import pytest

from tests.api.receiver import Answer
from tests.api.service import Partner, Service

PAYLOAD = {"card": {"number": "4111-canary"}, "n": 1}
RULES = {"redact_pointers": ["/card/number"], "redact_headers": ["Set-Cookie"]}


@pytest.fixture
def partner(service: Service) -> Partner:
    partner = service.partner(max_attempts=1, **RULES)
    body = json.dumps(PAYLOAD | {"why": "no"}).encode()
    partner.answers(
        Answer(503, body, (("Content-Type", "application/json"), ("Set-Cookie", "session=canary")))
    )
    return partner


def test_what_is_hidden_is_hidden_everywhere_and_sent(partner: Partner) -> None:
    recovery_id = partner.deliver(PAYLOAD)
    partner.becomes(recovery_id, "dlq")

    shown = partner.show(recovery_id)

    payload, answer = shown["recovery"]["payload_snapshot"], shown["recovery"]["response_snapshot"]
    assert payload["body"] == {"card": {"number": "[REDACTED]"}, "n": 1}
    assert answer["body"] == {"card": {"number": "[REDACTED]"}, "n": 1, "why": "no"}
    assert (payload["redacted"], answer["redacted"]) == (True, True)
    assert ["Set-Cookie", "[REDACTED]"] in answer["headers"]
    assert shown["attempts"][0]["response_snapshot"] == answer
    assert json.loads(partner.received[0].body) == PAYLOAD
    everywhere = [
        shown,
        partner.items(),
        partner.replay(recovery_id).json(),
        partner.service.events(integration_id=partner.id),
    ]
    assert "canary" not in json.dumps(everywhere)


@pytest.mark.parametrize(
    "given",
    [
        {"payload_base64": "bm90IGpzb24sIGNhbmFyeQ==", "content_type": "application/json"},
        {"payload_base64": "Y2FuYXJ5", "content_type": "text/plain"},
        {"payload_base64": "/2NhbmFyeQ==", "content_type": "application/octet-stream"},
    ],
)
def test_what_the_rules_cannot_be_applied_to_is_not_shown(partner: Partner, given: dict[str, Any]) -> None:
    reply = partner.service.admin.post(partner.deliveries, {"event_type": "e", **given})

    payload = partner.item(reply.json()["recovery_id"])["payload_snapshot"]

    assert (payload["encoding"], payload["body"], payload["redacted"]) == ("text", "[REDACTED]", True)


def test_rules_are_for_what_is_shown_from_now_on(partner: Partner) -> None:
    recovery_id = partner.deliver(PAYLOAD)
    partner.change(redact_pointers=None)

    assert partner.item(recovery_id)["payload_snapshot"]["body"] == PAYLOAD
    *_, event = partner.service.events(integration_id=partner.id, event_type="platform.integration.updated")
    assert event["metadata"] == {"changed": ["redact_pointers"]}
