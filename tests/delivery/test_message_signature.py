"""RFC 9421 signatures, verified as a partner would: by a library of others, from the bytes that came."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from http_message_signatures import ContentDigest, InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from redrive.delivery.compose import Proof
from redrive.delivery.credentials import Bearer
from redrive.delivery.http import HttpDeliverer, _head
from redrive.delivery.message_signature import _base, key_id, message_signature
from redrive.delivery.port import OwnFault, Request
from redrive.delivery.signing import public_key, signature
from redrive.domain.target import Target, parse_target
from tests.delivery.receivers import OK, answering, playing
from tests.delivery.test_compose import A_DELIVERY, AN_INTEGRATION, composed
from tests.message_signatures import COVERED, Message, only, received, verified

SHARED = "whsec_" + base64.b64encode(b"s" * 32).decode()
PRIVATE = "whsk_" + base64.b64encode(b"p" * 32).decode()
SIGNS = structs.replace(AN_INTEGRATION, message_signature=True)


def on_the_wire(request: Request) -> Message:
    """As `received`, of what the deliverer writes."""
    return received(_head(request) + request.body, request.target.scheme)


def sent(target: Target, *, method: str = "POST", content_type: str = "text/plain", body: bytes) -> Request:
    """A request to *target* that SHARED and PRIVATE signed."""
    integration = structs.replace(SIGNS, method=method)
    delivery = structs.replace(A_DELIVERY, payload=body, content_type=content_type)
    return composed(integration=integration, delivery=delivery, proof=Proof((SHARED, PRIVATE)), target=target)


async def captured(deliverer: HttpDeliverer, *secrets: str) -> Message:
    """A request that went over a socket."""
    async with playing(answering(OK)) as partner:
        target = Target("http", "127.0.0.1", partner.port, "/hooks?a=1&b")
        request = composed(integration=SIGNS, proof=Proof(secrets), target=target, now=datetime.now(UTC))
        await deliverer.send(request)
    return received(partner.requests[0])


@pytest.mark.parametrize(("secret", "algorithm"), [(SHARED, "hmac-sha256"), (PRIVATE, "ed25519")])
async def test_a_partner_verifies_what_came(deliverer: HttpDeliverer, secret: str, algorithm: str) -> None:
    message = await captured(deliverer, secret)

    result = verified(message, secret)

    created = int(message.headers["webhook-timestamp"])
    assert result.parameters == {"created": created, "keyid": key_id(secret), "alg": algorithm}
    assert list(result.covered_components) == [*(f'"{name}"' for name in COVERED), '"@signature-params"']
    assert result.body == message.body == A_DELIVERY.payload
    assert result.label == "sig1"


async def test_every_active_secret_signs(deliverer: HttpDeliverer) -> None:
    message = await captured(deliverer, PRIVATE, SHARED)

    labels = [verified(only(message, at), secret).label for at, secret in enumerate((PRIVATE, SHARED))]
    assert labels == ["sig1", "sig2"]
    assert "webhook-signature" in message.headers


ALTERED: dict[str, Callable[[Message], Message]] = {
    "method": lambda message: replace(message, method="PUT"),
    "scheme": lambda message: replace(message, url=message.url.replace("https", "http")),
    "query": lambda message: replace(message, url=f"{message.url}?"),
    "body": lambda message: replace(message, body=b'{"n": 2}'),
    "body and digest": lambda message: replace(
        message, body=b"", headers={**message.headers, "Content-Digest": ContentDigest.create(b"")}
    ),
    "type": lambda message: replace(message, headers={**message.headers, "Content-Type": "text/json"}),
    "id": lambda message: replace(message, headers={**message.headers, "webhook-id": "rec_1"}),
    "instant": lambda message: replace(
        message,
        headers={
            **message.headers,
            "Signature-Input": re.sub("created=[0-9]+", "created=1", message.headers["Signature-Input"]),
        },
    ),
}


@pytest.mark.parametrize("part", ALTERED)
@pytest.mark.parametrize("secret", [SHARED, PRIVATE], ids=["shared", "private"])
def test_what_was_altered_on_the_way_is_refused(secret: str, part: str) -> None:
    message = on_the_wire(composed(integration=SIGNS, proof=Proof((secret,))))
    verified(message, secret)

    with pytest.raises(InvalidSignature):
        verified(ALTERED[part](message), secret)


_HOSTS = st.sampled_from(["partner.example", "[2001:db8::1]", "192.0.2.7", "Partner.EXAMPLE", "a.example."])
_PORTS = st.sampled_from(["", ":80", ":443", ":8443"])
_PIECE = st.text("abcXYZ019-._~!$&'()*+,;=:@/", max_size=12) | st.sampled_from(["%2F", "%7e", "..", "//"])
_PATHS = st.lists(_PIECE, max_size=4).map(lambda pieces: "/" + "".join(pieces))
_QUERIES = st.just("") | _PATHS.map(lambda text: "?" + text[1:])
_TYPES = st.sampled_from(["application/json", 'text/plain; charset="utf-8" ', "a/b ;\tc", "a/b;  "])


@settings(deadline=None)
@given(
    scheme=st.sampled_from(["http", "https"]),
    where=st.tuples(_HOSTS, _PORTS, st.just("") | _PATHS, _QUERIES).map("".join),
    method=st.sampled_from(["POST", "PUT", "PATCH"]),
    content_type=_TYPES,
    body=st.binary(max_size=200),
)
def test_any_request_verifies_as_it_is_on_the_wire(
    scheme: str, where: str, method: str, content_type: str, body: bytes
) -> None:
    target = parse_target(f"{scheme}://{where}", allow_http=True)

    request = sent(target, method=method, content_type=content_type, body=body)

    message = on_the_wire(request)
    for at, secret in enumerate((SHARED, PRIVATE)):
        assert verified(only(message, at), secret).body == body


@settings(deadline=None)
@given(body=st.binary(min_size=1, max_size=50), at=st.integers(0, 49), bit=st.integers(0, 7))
def test_a_body_with_one_bit_changed_is_refused(body: bytes, at: int, bit: int) -> None:
    request = sent(Target("https", "partner.example", 443, "/"), body=body)
    changed = bytearray(body)
    changed[at % len(body)] ^= 1 << bit

    message = received(_head(request) + changed, "https")

    with pytest.raises(InvalidSignature):
        verified(only(message, 1), PRIVATE)


def test_another_key_is_refused() -> None:
    other = "whsk_" + base64.b64encode(b"q" * 32).decode()
    message = on_the_wire(composed(integration=SIGNS, proof=Proof((other,))))

    headers = {name: value.replace(key_id(other), key_id(PRIVATE)) for name, value in message.headers.items()}

    with pytest.raises(InvalidSignature):
        verified(replace(message, headers=headers), PRIVATE)


def test_what_is_covered_stands_in_this_order() -> None:
    headers = dict(composed(integration=SIGNS, proof=Proof((PRIVATE,))).headers)

    assert headers["Signature-Input"] == (
        'sig1=("@method" "@target-uri" "content-digest" "content-type" "webhook-id")'
        f';created={headers["webhook-timestamp"]};keyid="{public_key(PRIVATE)}";alg="ed25519"'
    )


def test_the_id_of_a_shared_key_shows_nothing_of_it() -> None:
    # printf 'redrive:keyid:ssssssssssssssssssssssssssssssss' | sha256sum | cut -c 1-16
    assert key_id(SHARED) == "a3aa0a41528ce4ea"


def test_headers_of_the_same_name_do_not_stand_beside_ours() -> None:
    forged = (("signature", "x"), ("Signature-INPUT", "x"), ("content-digest", "x"), ("X-Region", "eu"))
    delivery = structs.replace(A_DELIVERY, headers=(("SIGNATURE", "y"),))

    request = composed(
        integration=structs.replace(SIGNS, headers=forged), delivery=delivery, proof=Proof((PRIVATE,))
    )

    verified(on_the_wire(request), PRIVATE)
    assert ("X-Region", "eu") in request.headers


def test_nobody_who_did_not_ask_for_it_gets_one() -> None:
    names = {name.lower() for name, _ in composed().headers}

    assert names.isdisjoint({"content-digest", "signature-input", "signature"})


def test_what_should_be_signed_and_cannot_be_is_not_sent() -> None:
    with pytest.raises(OwnFault):
        composed(integration=structs.replace(SIGNS, auth_mode="bearer"), proof=Proof(credentials=Bearer("t")))


# examples of the RFCs

OF_RFC = {
    "date": "Tue, 20 Apr 2021 02:07:55 GMT",
    "@method": "POST",
    "@path": "/foo",
    "@authority": "example.com",
    "content-type": "application/json",
    "content-length": "18",
}


@pytest.mark.parametrize(
    ("secret", "covered", "key", "expected"),
    [
        pytest.param(
            "whsec_uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
            ("date", "@authority", "content-type"),
            "test-shared-secret",
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
            id="B.2.5",
        ),
        pytest.param(
            "whsk_n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=",
            ("date", "@method", "@path", "@authority", "content-type", "content-length"),
            "test-key-ed25519",
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
            id="B.2.6",
        ),
    ],
)
def test_an_example_of_rfc_9421_comes_out_the_same(
    secret: str, covered: tuple[str, ...], key: str, expected: str
) -> None:
    _, base = _base({name: OF_RFC[name] for name in covered}, f'created=1618884473;keyid="{key}"')

    assert signature(secret, base) == expected


def test_the_digest_is_that_of_rfc_9530() -> None:
    """Of the example in its appendix D: the body with a line feed at its end."""
    signed = message_signature(
        "POST",
        Target("https", "foo.example", 443, "/"),
        content_type="application/json",
        webhook_id="rec_1",
        timestamp=1,
        body=b'{"hello": "world"}\n',
        secrets=[SHARED],
    )

    assert signed[0] == ("Content-Digest", "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:")
