"""Callers with a token of an identity provider, which is on a real socket, changes its keys and goes away."""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redrive.config import load
from redrive.domain.access import Permission
from redrive.domain.errors import Unauthenticated
from redrive.engine.jwt import MOST_CHARACTERS
from redrive.engine.provider import FRESH_SECONDS, KEPT_SECONDS, PAUSE_SECONDS
from redrive.engine.runtime import Limits
from tests.api.loops import until
from tests.api.receiver import Answer, Receiver
from tests.api.service import (
    EVENTS,
    INTEGRATIONS,
    NO_PROVIDER,
    OPERATE,
    PATIENT,
    VIEW,
    Service,
    a_delivery,
)
from tests.api.storage import Storage
from tests.api.test_system import count
from tests.api.wire import Caller, Reply
from tests.issuer import Signer, key_set

FIRST, SECOND = Signer.new("ES256", "first"), Signer.new("RS256", "second")
STRANGER = Signer.new("ES256", "first")
DOCUMENT = "/realm/.well-known/openid-configuration"


class IdentityProvider:
    """Says where its keys are, and which."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.origin = f"http://127.0.0.1:{self.receiver.port}"
        self.issuer = f"{self.origin}/realm"
        self.documents()
        self.publishes(FIRST)

    def documents(self, **changes: str) -> None:
        document = {"issuer": self.issuer, "jwks_uri": f"{self.origin}/keys"} | changes
        self.receiver.answers(DOCUMENT, Answer(body=json.dumps(document).encode()))

    def publishes(self, *keys: Signer) -> None:
        self.receiver.answers("/keys", Answer(body=key_set(*keys)))

    @property
    def fetches(self) -> int:
        return len(self.receiver.received("/keys"))

    def goes_away(self) -> None:
        self.receiver.close()


class Company:
    """A service, the provider it trusts, and the provider's users."""

    def __init__(self, service: Service, provider: IdentityProvider) -> None:
        self.service = service
        self.provider = provider

    def token(self, signer: Signer = FIRST, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A new one: none was seen before, so that none is remembered."""
        now = int(self.service.provider_clock.now().timestamp())
        claims = {
            "iss": self.provider.issuer,
            "aud": ["account", "redrive"],
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "groups": [VIEW],
        }
        return signer.sign(claims | changes, header)

    def user(self, signer: Signer = FIRST, header: dict[str, Any] | None = None, **changes: Any) -> Caller:
        return Caller(lambda: self.service.port, self.token(signer, header, **changes), "ada")

    def asks(self, signer: Signer = FIRST, header: dict[str, Any] | None = None, **changes: Any) -> Reply:
        """What a call with a new token is answered."""
        return self.user(signer, header, **changes).get(INTEGRATIONS)

    def time_passes(self, seconds: float) -> None:
        self.service.provider_clock.move(seconds)


Open = Callable[..., Company]


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    if provider.receiver.is_open:
        provider.goes_away()


@pytest.fixture
def opened(
    receiver: Receiver, new_storage: Callable[[], Storage], provider: IdentityProvider
) -> Iterator[Open]:
    services = []

    def open_one(limits: Limits = PATIENT, **settings: str) -> Company:
        trusting = {
            "jwt_issuer": provider.issuer,
            "jwt_audience": "redrive",
            "jwt_permissions_claim": "groups",
            "jwt_permissions": f"operators={OPERATE}, operators={VIEW}",
            "allow_http": "true",
        }
        service = Service(new_storage(), receiver, limits=limits, settings=load(trusting | settings, {}))
        services.append(service)
        return Company(service, provider)

    yield open_one
    for service in services:
        service.stop()


@pytest.fixture
def company(opened: Open) -> Company:
    return opened()


def test_a_user_may_do_what_the_token_permits_and_nothing_else(company: Company) -> None:
    viewer, operator = company.user(), company.user(groups=["operators"])
    new = {"integration_id": "crm", "url": "http://127.0.0.1/crm"}

    assert viewer.get(INTEGRATIONS).status == 200
    assert viewer.post(INTEGRATIONS, new).status == 403
    assert operator.post(INTEGRATIONS, new).status == 201
    assert operator.post(f"{INTEGRATIONS}/crm/deliveries", a_delivery()).status == 403
    for groups in ([], ["others"], None, 7):
        assert company.asks(groups=groups).status == 403


def test_the_audit_log_says_that_it_was_a_user_and_in_which_session(company: Company) -> None:
    company.user(jti="session-1").post(INTEGRATIONS, {}, ("X-Request-Id", "denied-1"))
    company.user(groups=["operators"], jti="session-2").post(
        INTEGRATIONS,
        {"integration_id": "crm", "url": "http://127.0.0.1/crm"},
        ("X-Request-Id", "made-1"),
    )

    [denied], [made] = (company.service.events(request_id=name) for name in ("denied-1", "made-1"))
    assert denied["actor"] == {"id": "ada", "type": "user", "session_id": "session-1"}
    assert made["actor"] == {"id": "ada", "type": "user", "session_id": "session-2"}


def test_a_user_and_a_token_of_one_name_do_not_share_an_idempotency_key(company: Company) -> None:
    token = company.service.caller(OPERATE, subject="ada")
    new = {"integration_id": "crm", "url": "http://127.0.0.1/crm"}

    replies = [
        caller.post(INTEGRATIONS, new, ("Idempotency-Key", "once"))
        for caller in (company.user(groups=[OPERATE]), token, company.user(groups=[OPERATE]))
    ]

    assert [reply.status for reply in replies] == [201, 409, 201]
    assert replies[2].header("idempotency-replayed") == "true", "another token of the same user"


def test_a_user_and_a_token_of_one_name_do_not_share_a_rate(opened: Open) -> None:
    company = opened(Limits(calls_per_second=1))
    token = company.service.caller(VIEW, subject="ada")

    assert token.get(INTEGRATIONS).status == 200
    assert company.asks().status == 200


def test_an_address_for_the_keys_makes_a_discovery_needless(opened: Open, provider: IdentityProvider) -> None:
    company = opened(jwt_jwks_url=f"{provider.origin}/keys")

    assert company.asks().status == 200
    assert provider.receiver.received(DOCUMENT) == []


def test_a_token_that_is_not_good_is_401_and_the_answer_does_not_say_why(company: Company) -> None:
    bad = [
        company.asks(STRANGER),
        company.asks(exp=1),
        company.asks(aud="other"),
        company.asks(sub="a\nb"),
        company.asks(header={"alg": "none"}),
        company.asks(header={"kid": "../../x"}),
    ]

    assert {reply.status for reply in bad} == {401}
    told = [reply.json() | {"request_id": None} for reply in bad]
    assert told == [company.service.nobody.get(INTEGRATIONS).json() | {"request_id": None}] * len(bad)
    assert count(company.service, "authentication_failures_total") == len(bad) + 1


def test_a_token_leads_nowhere(company: Company) -> None:
    elsewhere = f"{company.provider.origin}/elsewhere"
    company.provider.receiver.answers("/elsewhere", Answer(body=key_set(STRANGER)))

    for member in ("jku", "x5u"):
        assert company.asks(STRANGER, {member: elsewhere}).status == 401
    assert company.asks(STRANGER, {"jwk": STRANGER.jwk()}).status == 401

    assert company.provider.receiver.received("/elsewhere") == []
    assert company.provider.fetches == 0, "its header was enough"


def test_a_token_that_is_too_long_is_401_before_it_is_read(company: Company) -> None:
    assert company.asks(more="x" * MOST_CHARACTERS).status == 401
    assert company.asks(more="x" * (MOST_CHARACTERS // 2)).status == 200
    assert company.service.nobody.get(EVENTS, ("Authorization", "Bearer " + "x" * 20_000)).status == 401


def test_guessed_tokens_end_in_429(opened: Open) -> None:
    company = opened(Limits(auth_failures_per_minute=10))
    known = company.user()
    assert known.get(INTEGRATIONS).status == 200

    statuses = [company.asks(STRANGER).status for _ in range(30)]

    assert (statuses[0], statuses[-1]) == (401, 429)
    assert known.get(INTEGRATIONS).status == 200


def test_our_own_tokens_do_not_need_the_provider(company: Company) -> None:
    company.provider.goes_away()

    assert company.service.admin.get(INTEGRATIONS).status == 200
    assert company.asks().status == 503


def test_without_a_provider_nobodys_jwt_is_believed(service: Service, provider: IdentityProvider) -> None:
    assert service.settings == NO_PROVIDER
    assert Company(service, provider).asks().status == 401


# --- keys come and go ------------------------------------------------------------------------------


def test_the_keys_are_fetched_once_however_many_ask(company: Company) -> None:
    access = company.service.engine.access

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(access.principal(company.token(), "::1") for _ in range(50)))

    principals = company.service.run(at_once())

    assert {principal.id for principal in principals} == {"ada"}
    assert company.provider.fetches == 1


def test_a_thousand_random_kids_cost_one_fetch_a_minute(company: Company) -> None:
    access = company.service.engine.access
    assert company.asks().status == 200
    company.time_passes(PAUSE_SECONDS)

    async def guess() -> list[Any]:
        tokens = (company.token(STRANGER, {"kid": secrets.token_hex(8)}) for _ in range(1_000))
        calls = (access.principal(token, "::1") for token in tokens)
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = company.service.run(guess())

    assert {type(answer) for answer in answers} == {Unauthenticated}
    assert company.provider.fetches == 2
    company.time_passes(PAUSE_SECONDS)
    company.service.run(guess())
    assert company.provider.fetches == 3


def test_a_new_key_is_found_when_the_first_token_names_it(company: Company) -> None:
    assert company.asks().status == 200
    company.provider.publishes(FIRST, SECOND)
    assert company.asks(SECOND).status == 401, "asked again so soon, it would be asked for every guess"
    company.time_passes(PAUSE_SECONDS)

    assert [company.asks(SECOND).status, company.asks(FIRST).status] == [200, 200]
    assert company.provider.fetches == 2


def test_a_key_that_was_withdrawn_is_believed_no_longer(company: Company) -> None:
    assert company.asks(FIRST).status == 200
    company.provider.publishes(SECOND)
    company.time_passes(FRESH_SECONDS)

    assert company.asks(FIRST).status == 200, "nobody waits for the keys while known ones will do"
    until(lambda: company.asks(FIRST).status == 401)
    assert company.asks(SECOND).status == 200


def test_while_the_provider_is_away_known_keys_are_believed_for_a_day(company: Company) -> None:
    assert company.asks().status == 200
    company.provider.goes_away()

    company.time_passes(KEPT_SECONDS - 1)
    assert company.asks().status == 200
    company.time_passes(1)
    assert company.asks().status == 503


def test_while_the_provider_is_away_an_unknown_key_is_503(company: Company) -> None:
    assert company.asks(FIRST).status == 200
    company.provider.goes_away()
    company.time_passes(PAUSE_SECONDS)

    reply = company.asks(SECOND)

    assert (reply.status, reply.error_code) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert reply.json()["degradation_reason"] == "identity provider"
    assert reply.json()["retryable"] is True
    assert 1 <= int(str(reply.header("retry-after"))) <= PAUSE_SECONDS
    assert company.asks(FIRST).status == 200
    assert company.asks(STRANGER).status == 401
    assert count(company.service, "identity_provider_failures_total") == 1
    assert count(company.service, "authentication_failures_total") == 1, "nobody was found to be wrong before"


def test_a_provider_that_is_back_is_asked_again(company: Company) -> None:
    company.provider.receiver.answers("/keys", 500, Answer(body=key_set(FIRST)))

    assert [company.asks().status, company.asks().status] == [503, 503]
    assert company.provider.fetches == 1
    company.time_passes(PAUSE_SECONDS)
    assert company.asks().status == 200


@pytest.mark.parametrize(
    "answer",
    [
        Answer(302, b"", (("Location", "/keys"),)),
        Answer(404, b""),
        Answer(203, key_set(FIRST)),
        Answer(200, b"<html>"),
        Answer(200, b"[]"),
        Answer(200, key_set(FIRST)[:-1] + b', "keys": []}'),
        Answer(200, key_set(FIRST) + b" " * 70_000),
    ],
)
def test_what_is_no_set_of_keys_is_as_if_the_provider_were_away(company: Company, answer: Answer) -> None:
    company.provider.receiver.answers("/keys", answer)

    assert company.asks().status == 503


def test_a_document_of_another_issuer_is_not_followed(company: Company) -> None:
    company.provider.documents(issuer=f"{company.provider.issuer}/")

    assert company.asks().status == 503
    assert company.provider.fetches == 0


@pytest.mark.parametrize(
    "uri", ["http://localhost:{port}/keys", "file:///etc/passwd", "//127.0.0.1/keys", "7"]
)
def test_a_document_leads_to_no_private_network_that_the_operator_did_not_name(
    company: Company, uri: str
) -> None:
    company.provider.documents(jwks_uri=uri.format(port=company.provider.receiver.port))

    assert company.asks().status == 503
    assert company.provider.fetches == 0


def test_permissions_have_their_own_names(company: Company) -> None:
    for permission in Permission:
        status = company.asks(groups=[permission]).status
        assert status == (200 if permission is VIEW else 403)
