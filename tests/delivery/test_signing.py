import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from redrive.clock import random_bytes
from redrive.delivery.signing import check_secret, new_secret, sign
from redrive.domain.errors import InvalidPayload

keys = st.binary(min_size=24, max_size=64)


def as_secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(active=st.lists(keys, min_size=1, max_size=3), body=st.text().map(str.encode))
def test_the_reference_library_verifies_with_any_active_secret(active: list[bytes], body: bytes) -> None:
    secrets = [as_secret(key) for key in active]
    now = int(datetime.now(UTC).timestamp())

    signature = sign("rec_1", now, body, secrets)

    headers = {"webhook-id": "rec_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    for secret in secrets:
        Webhook(secret).verify(body, headers, json_parse=False)


@given(key=keys, other=keys)
def test_the_reference_library_refuses_another_secret(key: bytes, other: bytes) -> None:
    now = int(datetime.now(UTC).timestamp())

    signature = sign("rec_1", now, b"{}", [as_secret(key)])

    headers = {"webhook-id": "rec_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    if key != other:
        with pytest.raises(WebhookVerificationError):
            Webhook(as_secret(other)).verify(b"{}", headers)


def test_bytes_that_are_no_text_are_signed_as_they_are() -> None:
    signature = sign("rec_1", 1, b"\xff\x00", [as_secret(b"k" * 32)])

    # printf 'rec_1.1.\xff\x00' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk -binary | base64
    assert signature == "v1,HbeBUsqqPEsgBqgT0q/J+6dsTyNHghWqKXDUzN2Vc/w="


def test_a_new_secret_holds_32_random_bytes_and_is_valid() -> None:
    secret = new_secret(random_bytes)

    check_secret(secret)
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert secret != new_secret(random_bytes)


@given(key=keys)
def test_a_secret_of_24_to_64_bytes_is_valid(key: bytes) -> None:
    check_secret(as_secret(key))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        base64.b64encode(b"k" * 32).decode(),
        "WHSEC_" + base64.b64encode(b"k" * 32).decode(),
        as_secret(b"k" * 23),
        as_secret(b"k" * 65),
        as_secret(b"k" * 32).rstrip("="),
        as_secret(b"k" * 32) + "=",
        as_secret(b"k" * 32) + "\n",
        " " + as_secret(b"k" * 32),
        as_secret(b"\xff" * 32).replace("/", "_"),
        as_secret(b"k" * 32)[:-2] + "t=",  # the same bytes, written with unused bits set
        "whsec_" + "é" * 40,
    ],
)
def test_anything_else_is_no_secret(text: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        check_secret(text)

    assert caught.value.faults[0].pointer == "/secret"
