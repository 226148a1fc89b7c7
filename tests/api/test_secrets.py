"""What signs and what shows that it is us, through the API: rotated, sealed, shown to no one."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from redrive.engine.once import Key
from tests.api.loops import until
from tests.api.receiver import Answer, Received
from tests.api.service import INTEGRATIONS, Partner, Service
from tests.api.wire import Reply
from tests.message_signatures import Message, only
from tests.message_signatures import verified as message_verified

CANARY = "c4n4ry"


def rotate(partner: Partner, *headers: tuple[str, str], **given: Any) -> Reply:
    return partner.service.admin.post(f"{partner.url}/secrets/rotate", given, *headers)


def delivered(partner: Partner) -> Received:
    """The next delivery, as it came."""
    before = len(partner.received)
    partner.deliver()
    return until(lambda: partner.received[before:])[0]


def verifies(received: Received, secret: str) -> bool:
    headers = {name.lower(): value for name, value in received.headers}
    try:
        Webhook(secret).verify(received.body, headers)
    except WebhookVerificationError:
        return False
    return True


# rotation


def test_after_a_rotation_both_secrets_sign_and_the_new_one_is_shown_once(partner: Partner) -> None:
    reply = rotate(partner)

    document = reply.json()
    new, old = document["signing_secrets"]
    received = delivered(partner)
    assert reply.status == 200
    assert partner.secret is not None
    assert verifies(received, document["secret"])
    assert verifies(received, partner.secret)
    assert new == {"signature_scheme": "v1", "public_key": None, "ends_at": None}
    ends_at, now = (datetime.fromisoformat(text) for text in (old["ends_at"], document["updated_at"]))
    assert ends_at - now == timedelta(days=1)
    assert "secret" not in partner.service.admin.get(partner.url).json()


def test_without_an_overlap_the_old_secret_signs_no_more(partner: Partner) -> None:
    new = rotate(partner, overlap_seconds=0).json()

    received = delivered(partner)
    assert len(new["signing_secrets"]) == 1
    assert partner.secret is not None
    assert verifies(received, new["secret"])
    assert not verifies(received, partner.secret)


def test_a_secret_that_is_given_is_not_shown(partner: Partner) -> None:
    given = "whsec_" + "Z2l2" * 8

    document = rotate(partner, secret=given).json()

    assert "secret" not in document
    assert verifies(delivered(partner), given)


def test_an_earlier_end_stays(partner: Partner) -> None:
    first = rotate(partner, overlap_seconds=60).json()["signing_secrets"][1]["ends_at"]

    ends = [each["ends_at"] for each in rotate(partner).json()["signing_secrets"]]

    assert ends[0] is None
    assert ends[2] == first < ends[1]


def test_ed25519_has_no_secret_to_hand_over(partner: Partner) -> None:
    document = rotate(partner, signature_scheme="v1a", overlap_seconds=0).json()

    [signing] = document["signing_secrets"]
    received = delivered(partner)
    scheme, _, signature = (received.header("webhook-signature") or "").partition(",")
    signed = (
        f"{received.header('webhook-id')}.{received.header('webhook-timestamp')}.".encode() + received.body
    )
    assert "secret" not in document
    assert (scheme, signing["signature_scheme"]) == ("v1a", "v1a")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signing["public_key"].removeprefix("whpk_")))
    key.verify(base64.b64decode(signature), signed)
    assert rotate(partner).json()["signing_secrets"][0]["signature_scheme"] == "v1a"  # as the one before


def test_an_integration_may_begin_with_ed25519(service: Service) -> None:
    partner = service.partner(signature_scheme="v1a")

    [signing] = service.admin.get(partner.url).json()["signing_secrets"]
    assert partner.secret is None
    assert signing["public_key"].startswith("whpk_")


def test_a_rotation_is_audited_without_a_secret(partner: Partner) -> None:
    given = "whsec_" + "Y2Fu" * 8
    rotate(partner, ("X-Request-Id", f"rotated-{partner.id}"), secret=given, overlap_seconds=60)

    [event] = partner.service.events(request_id=f"rotated-{partner.id}")

    assert event["event_type"] == "platform.integration.secrets_rotated"
    assert event["metadata"] == {"overlap_seconds": 60.0, "signature_scheme": "v1"}
    assert [each["secret"] for each in event["before_state"]["signing_secrets"]] == ["[REDACTED]"]
    assert [each["secret"] for each in event["after_state"]["signing_secrets"]] == ["[REDACTED]"] * 2
    assert given not in json.dumps(event)


def test_under_a_key_a_rotation_happens_once_and_is_told_again(partner: Partner) -> None:
    first = rotate(partner, ("Idempotency-Key", "rotate-1"))
    again = rotate(partner, ("Idempotency-Key", "rotate-1"))

    assert again.header("idempotency-replayed") == "true"
    assert again.json()["secret"] == first.json()["secret"]
    assert len(partner.service.admin.get(partner.url).json()["signing_secrets"]) == 2
    assert len(partner.service.events(integration_id=partner.id)) == 2


def test_what_is_told_again_lies_sealed(service: Service) -> None:
    key = ("Idempotency-Key", "sealed-1")
    document = {"integration_id": "told-again", "url": "https://partner.example/"}

    secret = service.admin.post(INTEGRATIONS, document, key).json()["secret"]

    kept = Key.of("token\n\nadmin", f"POST {INTEGRATIONS}", "sealed-1", b"", secret=b"")
    once = service.run(service.store.recall(kept.scope))
    assert once is not None
    assert secret.encode() not in once.body
    assert service.admin.post(INTEGRATIONS, document, key).json()["secret"] == secret


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"overlap_seconds": -1}, "/overlap_seconds"),
        ({"overlap_seconds": 2_592_001}, "/overlap_seconds"),
        ({"overlap_seconds": 1.5}, "/overlap_seconds"),
        ({"secret": "whsec_short"}, "/secret"),
        ({"secret": "plain"}, "/secret"),
        ({"secret": "whsk_" + "Z2l2" * 8}, "/secret"),
        ({"signature_scheme": "v2"}, "/signature_scheme"),
        ({"signature_scheme": "v1a", "secret": "whsec_" + "Z2l2" * 8}, "/signature_scheme"),
        ({"secrets": []}, "/secrets"),
    ],
)
def test_a_bad_rotation_changes_nothing(quiet: Partner, unchanged: Any, body: Any, pointer: str) -> None:
    reply = quiet.service.admin.post(f"{quiet.url}/secrets/rotate", body)

    assert (reply.status, reply.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    unchanged()


def test_so_many_secrets_sign_and_no_more(quiet: Partner) -> None:
    for _ in range(7):
        assert rotate(quiet).status == 200

    refused = rotate(quiet)

    assert (refused.status, refused.error_code) == (409, "INT-409-CONFLICT")
    assert rotate(quiet, overlap_seconds=0).status == 200


def test_what_does_not_sign_has_nothing_to_rotate(service: Service) -> None:
    refused = rotate(service.partner(auth_mode="none"))

    assert (refused.status, refused.error_code) == (409, "INT-409-CONFLICT")


# message signatures


def as_it_came(partner: Partner) -> Message:
    """The next delivery, as RFC 9421 sees it."""
    came, port = delivered(partner), partner.service.receiver.port
    return Message(came.method, f"http://127.0.0.1:{port}{came.path}", dict(came.headers), came.body)


def test_a_delivery_carries_a_message_signature_where_it_is_asked_for(service: Service) -> None:
    partner = service.partner(message_signature=True)
    assert partner.secret is not None

    message = as_it_came(partner)

    assert message_verified(message, partner.secret).body == message.body == b"1"
    partner.change(message_signature=False)
    assert delivered(partner).header("signature") is None


def test_after_a_rotation_both_secrets_sign_the_message(service: Service) -> None:
    partner = service.partner(message_signature=True)
    new = rotate(partner).json()["secret"]
    assert partner.secret is not None

    message = as_it_came(partner)

    assert message_verified(only(message, 0), new).body == message.body
    assert message_verified(only(message, 1), partner.secret).body == message.body


def test_who_only_shows_credentials_gets_a_secret_to_sign_messages_with(service: Service) -> None:
    partner = service.partner(auth_mode="bearer", credentials={"token": "t"})

    secret = partner.change(message_signature=True).json()["secret"]

    message = as_it_came(partner)
    assert message.headers["Authorization"] == "Bearer t"
    assert message_verified(message, secret).body == message.body


def test_what_does_not_sign_signs_no_message(service: Service) -> None:
    document = {"integration_id": "refused", "url": "https://partner.example/", "auth_mode": "none"}
    signs, silent = service.partner(message_signature=True), service.partner(auth_mode="none")

    refused = [
        service.admin.post(INTEGRATIONS, document | {"message_signature": True}),
        signs.change(auth_mode="none"),
        silent.change(message_signature=True),
    ]

    assert [(reply.status, reply.error_code) for reply in refused] == [(400, "INT-400-INVALID-PAYLOAD")] * 3
    assert {error["pointer"] for reply in refused for error in reply.json()["errors"]} == {
        "/message_signature"
    }
    assert signs.change(auth_mode="none", message_signature=False).status == 200


# credentials

SHOWN: list[tuple[str, dict[str, str], str, str]] = [
    ("header", {"name": "X-Api-Key", "value": CANARY}, "X-Api-Key", CANARY),
    ("basic", {"username": "us", "password": CANARY}, "Authorization", "Basic dXM6YzRuNHJ5"),
    ("bearer", {"token": CANARY}, "Authorization", f"Bearer {CANARY}"),
]


@pytest.mark.parametrize(("mode", "credentials", "header", "value"), SHOWN)
def test_credentials_are_shown_to_the_receiver_and_to_nobody_else(
    service: Service, mode: str, credentials: dict[str, str], header: str, value: str
) -> None:
    partner = service.partner(auth_mode=mode, credentials=credentials)

    received = delivered(partner)

    assert received.header(header) == value
    assert received.header("webhook-signature") is None
    seen = [
        service.admin.get(partner.url).json(),
        service.events(integration_id=partner.id),
        partner.items(),
        partner.change(name="Another").json(),
    ]
    assert CANARY not in json.dumps(seen)
    assert "YzRuNHJ5" not in json.dumps(seen)


def test_a_replay_shows_todays_credentials(service: Service) -> None:
    partner = service.partner(auth_mode="bearer", credentials={"token": "before"}, max_attempts=1)
    partner.answers(503, 200)
    recovery_id = partner.deliver()
    partner.becomes(recovery_id, "dlq")

    partner.change(credentials={"token": "after"})
    partner.replay(recovery_id)
    partner.becomes(recovery_id, "succeeded")

    shown = [received.header("authorization") for received in partner.received]
    assert shown == ["Bearer before", "Bearer after"]


def test_credentials_and_a_signature_may_stand_together(service: Service) -> None:
    secret = "whsec_" + "Z2l2" * 8
    partner = service.partner(auth_mode="bearer", credentials={"token": "t"}, secret=secret)

    received = delivered(partner)

    assert received.header("authorization") == "Bearer t"
    assert verifies(received, secret)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"auth_mode": "bearer"}, "/credentials"),
        ({"auth_mode": "mtls"}, "/credentials"),
        ({"auth_mode": "hmac", "credentials": {"token": CANARY}}, "/credentials"),
        ({"auth_mode": "none", "credentials": {"token": CANARY}}, "/credentials"),
        ({"auth_mode": "none", "secret": "whsec_" + "Z2l2" * 8}, "/secret"),
        ({"auth_mode": "none", "signature_scheme": "v1"}, "/signature_scheme"),
        ({"auth_mode": "basic", "credentials": {"username": "a", "token": CANARY}}, "/credentials/password"),
        ({"auth_mode": "bearer", "credentials": {"token": f"{CANARY} x"}}, "/credentials/token"),
        ({"auth_mode": "bearer", "credentials": CANARY}, "/credentials"),
        ({"auth_mode": "bearer", "credentials": {"token": 7}}, "/credentials"),
        ({"auth_mode": "kerberos"}, "/auth_mode"),
    ],
)
def test_bad_credentials_are_told_and_never_repeated(
    service: Service, fields: dict[str, Any], pointer: str
) -> None:
    before = service.rows()
    document = {"integration_id": "refused", "url": "https://partner.example/", **fields}

    reply = service.admin.post(INTEGRATIONS, document)

    assert (reply.status, reply.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert pointer in [error["pointer"] for error in reply.json()["errors"]]
    assert CANARY not in json.dumps(reply.json())
    assert service.rows() == before


@pytest.fixture
def shown_to_one(service: Service) -> Partner:
    return service.partner(auth_mode="bearer", credentials={"token": CANARY})


@pytest.mark.parametrize("url", ["https://thief.example/", "http://127.0.0.1:1/"])
def test_credentials_stay_with_the_origin_they_were_given_for(shown_to_one: Partner, url: str) -> None:
    before = shown_to_one.facts()

    refused = shown_to_one.change(url=url)

    assert (refused.status, refused.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/credentials"]
    assert shown_to_one.facts() == before
    assert shown_to_one.change(url=url, credentials={"token": "another"}).status == 200


def test_another_path_of_the_same_origin_needs_no_new_credentials(shown_to_one: Partner) -> None:
    url = shown_to_one.service.admin.get(shown_to_one.url).json()["url"]

    assert shown_to_one.change(url=f"{url}?a=1").status == 200


def test_another_mode_forgets_the_credentials(shown_to_one: Partner) -> None:
    shown_to_one.change(auth_mode="hmac")

    refused = shown_to_one.change(auth_mode="bearer")

    assert refused.status == 400


# OAuth2


def granted(token: str, **more: Any) -> Answer:
    return Answer(200, json.dumps({"access_token": token, "token_type": "Bearer"} | more).encode())


@pytest.fixture
def idp(service: Service) -> Iterator[str]:
    path = "/idp-token"
    service.receiver.answers(path, granted("t0k-1"), granted("t0k-2"))
    service.receiver._received[path].clear()
    yield path
    service.receiver.answers(path, 500)


def with_tokens(service: Service, path: str, **more: Any) -> Partner:
    credentials = {
        "token_url": f"http://127.0.0.1:{service.receiver.port}{path}",
        "client_id": "us",
        "client_secret": CANARY,
    }
    return service.partner(auth_mode="oauth2", credentials=credentials, **more)


def test_a_token_is_asked_for_once_and_shown_with_each_delivery(service: Service, idp: str) -> None:
    partner = with_tokens(service, idp)

    shown = [delivered(partner).header("authorization") for _ in range(3)]

    [asked] = service.receiver.received(idp)
    assert shown == ["Bearer t0k-1"] * 3
    assert asked.body == b"grant_type=client_credentials"


def test_a_token_that_is_refused_early_is_renewed_for_the_next_attempt(service: Service, idp: str) -> None:
    partner = with_tokens(service, idp)
    partner.answers(200, 401, 200)
    delivered(partner)

    recovery_id = partner.deliver()

    item = partner.becomes(recovery_id, "succeeded")
    attempts = partner.show(recovery_id)["attempts"]
    assert item["attempt_count"] == 2
    assert [attempt["failure_code"] for attempt in attempts] == ["HTTP_401", None]
    assert attempts[0]["retryable"] is True
    shown = [received.header("authorization") for received in partner.received]
    assert shown == ["Bearer t0k-1", "Bearer t0k-1", "Bearer t0k-2"]


def test_a_new_token_that_is_refused_is_final(service: Service, idp: str) -> None:
    partner = with_tokens(service, idp)
    partner.answers(401)

    recovery_id = partner.deliver()

    item = partner.becomes(recovery_id, "failed")
    assert (item["failure_code"], item["attempt_count"]) == ("HTTP_401", 1)


def test_an_endpoint_that_is_down_is_retried_and_the_receiver_hears_nothing(
    service: Service, idp: str
) -> None:
    service.receiver.answers(idp, 503, granted("t0k-1"))
    partner = with_tokens(service, idp)

    recovery_id = partner.deliver()

    partner.becomes(recovery_id, "succeeded")
    first, second = partner.show(recovery_id)["attempts"]
    assert (first["failure_code"], first["reach"]) == ("HTTP_503", "not_sent")
    assert first["failure_detail"].startswith("the token endpoint")
    assert second["outcome"] == "succeeded"
    assert len(partner.received) == 1


def test_neither_secret_nor_token_is_seen_anywhere(service: Service, idp: str) -> None:
    partner = with_tokens(service, idp)
    partner.answers(200, 401, 401)
    delivered(partner)
    recovery_id = partner.deliver()
    partner.becomes(recovery_id, "failed")

    seen = json.dumps(
        [
            partner.show(recovery_id),
            service.events(integration_id=partner.id),
            service.admin.get(partner.url).json(),
        ]
    )

    assert CANARY not in seen
    assert "t0k-" not in seen


# what cannot be opened


def test_a_secret_that_cannot_be_opened_sends_nothing_and_spends_no_attempt(own_service: Service) -> None:
    partner = own_service.partner(max_attempts=1)
    other = own_service.partner()
    own_service.break_by_hand(
        "UPDATE integration SET config = replace(config, 'sealed:v1:', 'sealed:v1:0')"
        " WHERE integration_id = ?",
        partner.id,
    )
    own_service.restart()

    recovery_id = partner.deliver()
    delivered(other)

    assert partner.item(recovery_id)["attempt_count"] == 0
    assert partner.received == []
    new = rotate(partner, overlap_seconds=0)
    assert new.status == 200
    partner.becomes(recovery_id, "succeeded")
    assert verifies(partner.received[0], new.json()["secret"])
