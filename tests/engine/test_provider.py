"""What is asked of an identity provider, and how long what it proves is remembered."""

import json
from typing import Any

import pytest

from redrive.domain.errors import DependencyUnavailable, Unauthenticated
from redrive.domain.outcome import Answer, Outcome, classify
from redrive.engine.access import TRUSTED_SECONDS, Access
from redrive.engine.jwt import LEEWAY_SECONDS, Trust
from redrive.engine.provider import FOUND, FRESH_SECONDS, NAMED, Provider
from redrive.telemetry.events import AuthenticationFailed, IdentityProviderFailed
from tests.engine.conftest import Harness, eventually
from tests.issuer import Signer, key_set

SIGNER = Signer.new("EdDSA", "one")
ISSUER = "https://id.example/realm"


def answering(body: bytes) -> Outcome:
    return classify(Answer(200, (), body))


def access_to(harness: Harness, jwks_uri: str, issuer: str = ISSUER, keys_url: str | None = None) -> Access:
    document = json.dumps({"issuer": issuer, "jwks_uri": jwks_uri}).encode()
    harness.deliverer.scripts |= {
        "/realm/.well-known/openid-configuration": lambda _: answering(document),
        "/keys": lambda _: answering(key_set(SIGNER)),
    }
    provider = Provider(
        Trust(issuer, "redrive"),
        keys_url,
        harness.deliverer,
        harness.clock,
        harness.events.append,
        allow_http=False,
    )
    return Access(harness.tools, failures_per_minute=10, calls_per_second=0, provider=provider)


def token(harness: Harness, lasts: int = 300, **changes: Any) -> str:
    now = int(harness.clock.now().timestamp())
    claims = {"iss": ISSUER, "aud": "redrive", "sub": "ada", "iat": now, "exp": now + lasts}
    return SIGNER.sign(claims | changes)


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/"])
async def test_only_the_host_that_the_operator_named_may_be_in_a_private_network(
    harness: Harness, issuer: str
) -> None:
    access = access_to(harness, "https://keys.example/keys", issuer)

    await access.principal(token(harness, iss=issuer), "::1")

    assert [(one.method, one.target.host, one.integration_id) for one in harness.deliverer.requests] == [
        ("GET", "id.example", NAMED),
        ("GET", "keys.example", FOUND),
    ]


async def test_an_address_of_the_keys_that_the_operator_named_is_asked_alone(harness: Harness) -> None:
    access = access_to(harness, "https://id.example/none", keys_url="https://keys.example/keys")

    await access.principal(token(harness), "::1")

    [request] = harness.deliverer.requests
    assert (request.target.host, request.integration_id) == ("keys.example", NAMED)


@pytest.mark.parametrize("uri", ["http://id.example/keys", "https://me@id.example/keys", "/keys", ""])
async def test_keys_come_over_https_or_not_at_all(harness: Harness, uri: str) -> None:
    access = access_to(harness, uri)

    with pytest.raises(DependencyUnavailable):
        await access.principal(token(harness), "::1")

    assert harness.deliverer.sent("/keys") == 0
    assert [type(event) for event in harness.events] == [IdentityProviderFailed]


async def test_nobody_is_braked_because_the_provider_is_away(harness: Harness) -> None:
    access = access_to(harness, "")

    for _ in range(20):
        with pytest.raises(DependencyUnavailable):
            await access.principal(token(harness), "::1")


async def test_what_a_token_proves_is_remembered_until_it_expires_and_not_for_long(harness: Harness) -> None:
    access = access_to(harness, "https://id.example/keys")
    lasting, ending = token(harness), token(harness, 1 - LEEWAY_SECONDS)
    for text in (lasting, ending):
        assert await access.principal(text, "::1") is access.known(text)

    harness.clock.move(1)
    assert access.known(lasting) is not None
    assert access.known(ending) is None
    with pytest.raises(Unauthenticated):
        await access.principal(ending, "::1")
    assert harness.events[-1] == AuthenticationFailed("expired")

    harness.clock.move(TRUSTED_SECONDS)
    assert access.known(lasting) is None


async def test_keys_are_asked_for_again_only_when_they_have_aged(harness: Harness) -> None:
    access = access_to(harness, "https://id.example/keys")

    for seconds, fetches in ((0, 1), (FRESH_SECONDS - 1, 1), (1, 2), (FRESH_SECONDS, 3)):
        harness.clock.move(seconds)
        await access.principal(token(harness), "::1")  # which waits for none but the first fetch

        async def are_fetched(times: int = fetches) -> bool | None:
            return harness.deliverer.sent("/keys") == times or None

        await eventually(are_fetched)
        assert harness.deliverer.sent("/keys") == fetches
