import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from redrive.clock import random_bytes
from redrive.delivery.signing import Scheme, check_secret, new_secret, public_key, sign
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


def as_private(seed: bytes, public: bytes = b"") -> str:
    return "whsk_" + base64.b64encode(seed + public).decode()


@given(seed=st.binary(min_size=32, max_size=32), body=st.binary())
def test_a_v1a_signature_is_ed25519_over_the_same_bytes(seed: bytes, body: bytes) -> None:
    secret = as_private(seed)
    shown = public_key(secret)
    assert shown is not None

    scheme, _, signature = sign("rec_1", 7, body, [secret]).partition(",")

    assert (scheme, shown[:5]) == ("v1a", "whpk_")
    verifier = Ed25519PublicKey.from_public_bytes(base64.b64decode(shown[5:]))
    verifier.verify(base64.b64decode(signature), b"rec_1.7." + body)


def test_both_schemes_stand_side_by_side() -> None:
    signed = sign("rec_1", 7, b"{}", [as_private(b"a" * 32), as_secret(b"b" * 24)])

    assert [each.partition(",")[0] for each in signed.split(" ")] == ["v1a", "v1"]


def test_a_private_key_may_come_with_its_public_half() -> None:
    """As libsodium and Go have it."""
    seed = b"s" * 32
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    check_secret(as_private(seed, public))

    assert sign("rec_1", 7, b"", [as_private(seed, public)]) == sign("rec_1", 7, b"", [as_private(seed)])


@pytest.mark.parametrize(
    "secret",
    [
        "whsk_",
        as_private(b"s" * 31),
        as_private(b"s" * 33),
        as_private(b"s" * 32, b"p" * 32),
        "whsk_!",
        "whpk_abc",
    ],
)
def test_a_key_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(InvalidPayload):
        check_secret(secret)


@pytest.mark.parametrize(("scheme", "prefix"), [("v1", "whsec_"), ("v1a", "whsk_")])
def test_a_secret_that_is_made_is_of_its_scheme(scheme: Scheme, prefix: str) -> None:
    secret = new_secret(random_bytes, scheme)

    check_secret(secret)
    assert secret.startswith(prefix)
    assert (public_key(secret) is None) is (scheme == "v1")
