from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook

from redrive import __version__
from redrive.delivery.compose import Proof, compose
from redrive.delivery.credentials import Basic, Bearer, Header, MutualTls, OAuth2
from redrive.delivery.port import OwnFault, Request
from redrive.delivery.tls import Identity
from redrive.domain.delivery import Claim, Delivery
from redrive.domain.ids import ItemId, recovery_id
from redrive.domain.integration import Integration
from redrive.domain.target import Target

SECRET = "whsec_" + "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
AN_INSTANT = datetime(2026, 11, 23, 12, 0, 0, 999_000, tzinfo=UTC)
AN_ITEM = ItemId(1 << 40)
A_DELIVERY = Delivery(
    id=AN_ITEM,
    integration=1,
    event_type="invoice.paid",
    payload=b'{"n": 1}',
    content_type="application/json",
    headers=(),
    request_id="req-delivered",
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    tracestate=None,
    idempotency_key=None,
    created_by="producer",
    created_at=AN_INSTANT,
    max_attempts=5,
)
AN_INTEGRATION = Integration(
    number=1,
    integration_id="billing",
    name="Billing",
    url="https://partner.example/hooks",
    created_at=AN_INSTANT,
    updated_at=AN_INSTANT,
)


A_TARGET = Target("https", "partner.example", 443, "/hooks")
SIGNED = Proof((SECRET,))


def composed(
    *,
    delivery: Delivery = A_DELIVERY,
    integration: Integration = AN_INTEGRATION,
    proof: Proof = SIGNED,
    now: datetime = AN_INSTANT,
    target: Target = A_TARGET,
) -> Request:
    claim = Claim(delivery, owner=1, cycle=1, attempt=1, max_attempts=5, request_id="req-opened")
    return compose(
        claim,
        integration,
        proof,
        timeout_seconds=15.0,
        target=target,
        now=now,
        span_id=bytes.fromhex("c" * 16),
    )


def test_the_headers_are_those_of_the_contract_and_no_others() -> None:
    request = composed()

    signature = dict(request.headers)["webhook-signature"]
    assert request.headers == (
        ("Content-Type", "application/json"),
        ("webhook-id", recovery_id(AN_ITEM)),
        ("webhook-timestamp", str(int(AN_INSTANT.timestamp()))),
        ("webhook-signature", signature),
        ("traceparent", "00-" + "a" * 32 + "-" + "c" * 16 + "-01"),
        ("X-Request-Id", "req-opened"),
        ("User-Agent", f"redrive/{__version__}"),
    )


def test_the_body_is_the_payload_and_the_method_the_integrations() -> None:
    request = composed(integration=replace(AN_INTEGRATION, method="PUT"))

    assert request.body is A_DELIVERY.payload
    assert (request.method, request.timeout_seconds) == ("PUT", 15.0)


def test_the_reference_library_accepts_the_request() -> None:
    request = composed(now=datetime.now(UTC))

    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == {"n": 1}


def test_every_active_secret_signs() -> None:
    other = SECRET.replace("a2tr", "a2ts")

    request = composed(proof=Proof((SECRET, other)))

    assert len(dict(request.headers)["webhook-signature"].split(" ")) == 2


def test_without_authentication_nothing_is_signed() -> None:
    request = composed(integration=replace(AN_INTEGRATION, auth_mode="none"), proof=Proof())

    assert "webhook-signature" not in dict(request.headers)


@pytest.mark.parametrize("auth_mode", ["hmac", "header", "basic", "bearer", "oauth2", "mtls"])
def test_a_request_that_cannot_be_authenticated_is_a_fault_of_our_own(auth_mode: str) -> None:
    integration = replace(AN_INTEGRATION, auth_mode=auth_mode)

    with pytest.raises(OwnFault):
        composed(integration=integration, proof=Proof())


def test_without_the_token_that_it_gives_oauth2_is_a_fault_of_our_own() -> None:
    asking = OAuth2("https://idp.example/token", "us", "secret")

    with pytest.raises(OwnFault):
        composed(integration=replace(AN_INTEGRATION, auth_mode="oauth2"), proof=Proof(credentials=asking))


@pytest.mark.parametrize(
    ("auth_mode", "proof", "header"),
    [
        ("header", Proof(credentials=Header("X-Api-Key", "k 1")), ("X-Api-Key", "k 1")),
        ("basic", Proof(credentials=Basic("us", "pä:ss")), ("Authorization", "Basic dXM6cMOkOnNz")),
        ("bearer", Proof(credentials=Bearer("t0k.en")), ("Authorization", "Bearer t0k.en")),
        (
            "oauth2",
            Proof(credentials=OAuth2("https://idp.example/token", "us", "secret"), token="granted"),
            ("Authorization", "Bearer granted"),
        ),
    ],
)
def test_credentials_are_shown_once_and_nothing_stands_in_for_them(
    auth_mode: str, proof: Proof, header: tuple[str, str]
) -> None:
    forged = ((header[0].lower(), "forged"), ("X-Region", "eu"))
    integration = replace(AN_INTEGRATION, auth_mode=auth_mode, headers=forged)
    delivery = replace(A_DELIVERY, headers=((header[0].upper(), "forged"),))

    request = composed(integration=integration, delivery=delivery, proof=proof)

    assert [pair for pair in request.headers if pair[0].lower() == header[0].lower()] == [header]
    assert ("X-Region", "eu") in request.headers
    assert "webhook-signature" not in dict(request.headers)


def test_credentials_may_be_shown_beside_a_signature() -> None:
    integration = replace(AN_INTEGRATION, auth_mode="bearer")

    headers = dict(composed(integration=integration, proof=Proof((SECRET,), Bearer("t"))).headers)

    assert headers["Authorization"] == "Bearer t"
    assert headers["webhook-signature"].startswith("v1,")


def test_an_identity_is_for_the_connection_and_not_for_the_header() -> None:
    identity = MutualTls("certificate", "private key", "ca")

    request = composed(
        integration=replace(AN_INTEGRATION, auth_mode="mtls"), proof=Proof(credentials=identity)
    )

    assert request.identity == Identity("certificate", "private key", "ca")
    assert "private key" not in repr(request)


@pytest.mark.parametrize(
    "shown", [Proof(("whsec_x",)), Bearer("secret"), Basic("a", "secret"), Identity("c", "secret")]
)
def test_what_holds_a_secret_does_not_print_it(shown: object) -> None:
    assert repr(shown) == f"{type(shown).__name__}(…)"


def test_the_tracestate_goes_on_unchanged() -> None:
    request = composed(delivery=replace(A_DELIVERY, tracestate="vendor=1,other=2"))

    assert ("tracestate", "vendor=1,other=2") in request.headers


def test_a_deliverys_header_stands_in_for_the_integrations() -> None:
    integration = replace(AN_INTEGRATION, headers=(("X-Api-Key", "integration"), ("X-Region", "eu")))
    delivery = replace(A_DELIVERY, headers=(("x-api-KEY", "delivery"), ("X-Shard", "7")))

    request = composed(integration=integration, delivery=delivery)

    assert request.headers[-3:] == (("X-Region", "eu"), ("x-api-KEY", "delivery"), ("X-Shard", "7"))


def test_an_integrations_headers_come_last() -> None:
    request = composed(integration=replace(AN_INTEGRATION, headers=(("X-Api-Key", "k"),)))

    assert request.headers[-1] == ("X-Api-Key", "k")
