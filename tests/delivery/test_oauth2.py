"""Tokens of the client credentials grant, asked of an endpoint on a socket."""

import asyncio
import json
from typing import Any

import pytest

from redrive.delivery.credentials import OAuth2
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.oauth2 import Granted, Tokens, judged
from redrive.delivery.port import OwnFault
from redrive.domain.outcome import Answer, Failed, Reach, Succeeded
from tests.delivery.receivers import SHORT, Call, Partner, answering, playing

UNAUTHORIZED = Failed("HTTP_401", "the receiver answered 401", Reach.ANSWERED, Answer(401, (), b""))


class Steps:
    """A steady clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def tokens(deliverer: HttpDeliverer, steps: Steps) -> Tokens:
    return Tokens(deliverer, steps, allow_http=True)


def asking(partner: Partner, **more: Any) -> OAuth2:
    return OAuth2(f"http://127.0.0.1:{partner.port}/token", "us", "s3cr3t", **more)


def answer(document: Any, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def granting(**more: Any) -> bytes:
    return answer({"access_token": "tok-1", "token_type": "Bearer"} | more)


async def test_a_token_is_asked_for_as_the_standard_says(tokens: Tokens) -> None:
    async with playing(answering(granting())) as partner:
        granted = await tokens.grant("acme", asking(partner, scope="a b"), 5.0)

        [request] = partner.requests
        head, _, body = request.partition(b"\r\n\r\n")
        assert isinstance(granted, Granted)
        assert granted.token == "tok-1"
        assert head.startswith(b"POST /token HTTP/1.1\r\n")
        assert b"Content-Type: application/x-www-form-urlencoded" in head
        assert b"Authorization: Basic dXM6czNjcjN0" in head
        assert body == b"grant_type=client_credentials&scope=a+b"


@pytest.mark.parametrize(
    ("expires_in", "used_for"), [(None, 270.0), (3600, 3570.0), (60, 54.0), (1e300, 86_370.0)]
)
async def test_a_token_is_used_until_shortly_before_its_end(
    tokens: Tokens, steps: Steps, expires_in: float | None, used_for: float
) -> None:
    more = {} if expires_in is None else {"expires_in": expires_in}
    async with playing(answering(granting(**more))) as partner:
        whose = asking(partner)
        await tokens.grant("acme", whose, 5.0)

        steps.now = 1000.0 + used_for
        assert tokens.kept("acme", whose) is None
        steps.now -= 0.5
        assert tokens.kept("acme", whose) is not None


@pytest.mark.parametrize("expires_in", [0, -5])
async def test_a_token_that_has_ended_already_is_used_once(tokens: Tokens, expires_in: int) -> None:
    async with playing(answering(granting(expires_in=expires_in))) as partner:
        whose = asking(partner)

        assert isinstance(await tokens.grant("acme", whose, 5.0), Granted)
        assert tokens.kept("acme", whose) is None


async def test_many_who_need_one_ask_once(tokens: Tokens) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        asked.set()
        await gate.wait()
        await call.send(granting())

    async with playing(script) as partner:
        whose = asking(partner)
        waiting = [asyncio.create_task(tokens.grant("acme", whose, 5.0)) for _ in range(20)]
        await asked.wait()
        waiting[0].cancel()  # who asked first may be cut off; the others still get theirs
        gate.set()
        _, *granted = await asyncio.gather(*waiting, return_exceptions=True)

        assert len(partner.requests) == 1
        assert all(isinstance(each, Granted) for each in granted)


async def test_integrations_do_not_share_a_token(tokens: Tokens) -> None:
    async with playing(answering(granting())) as partner:
        whose = asking(partner)
        await tokens.grant("acme", whose, 5.0)

        assert tokens.kept("acme", whose) is not None
        assert tokens.kept("other", whose) is None
        assert tokens.kept("acme", asking(partner, scope="more")) is None


async def test_a_token_that_was_refused_is_used_no_more(tokens: Tokens) -> None:
    async with playing(answering(granting())) as partner:
        whose = asking(partner)
        await tokens.grant("acme", whose, 5.0)

        tokens.refused("acme", whose, "an older one")
        assert tokens.kept("acme", whose) is not None
        tokens.refused("acme", whose, "tok-1")
        assert tokens.kept("acme", whose) is None


@pytest.mark.parametrize(
    ("said", "code", "retryable"),
    [
        (answer({"error": "invalid_client"}, "401 Unauthorized"), "HTTP_401", False),
        (answer({"error": "invalid_scope"}, "400 Bad Request"), "HTTP_400", False),
        (answer({}, "503 Service Unavailable"), "HTTP_503", True),
        (answer({}, "302 Found"), "HTTP_302", False),
        (answer(b"not json"), "PROTOCOL_ERROR", False),
        (answer([]), "PROTOCOL_ERROR", False),
        (answer({"access_token": "s3cr3t"}), "PROTOCOL_ERROR", False),
        (answer({"access_token": "s3cr3t", "token_type": "mac"}), "PROTOCOL_ERROR", False),
        (answer({"access_token": "s3cr3t\r\nX: 1", "token_type": "bearer"}), "PROTOCOL_ERROR", False),
        (answer({"access_token": "", "token_type": "bearer"}), "PROTOCOL_ERROR", False),
        (answer({"access_token": 7, "token_type": "bearer"}), "PROTOCOL_ERROR", False),
        (answer(b"[" * 60_000), "PROTOCOL_ERROR", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "PROTOCOL_ERROR", False),
    ],
)
async def test_an_endpoint_that_gives_none_is_told_without_what_it_said(
    tokens: Tokens, said: bytes, code: str, *, retryable: bool
) -> None:
    async with playing(answering(said)) as partner:
        refused = await tokens.grant("acme", asking(partner), 5.0)

    assert isinstance(refused, Failed)
    assert (refused.code, refused.reach, refused.answer) == (code, Reach.NOT_SENT, None)
    assert refused.is_retryable(frozenset()) is retryable
    assert refused.detail.startswith("the token endpoint")
    assert "s3cr3t" not in repr(refused)


async def silent(call: Call) -> None:
    await call.request()
    await call.is_left()


async def test_an_endpoint_that_says_nothing_takes_no_more_than_the_attempts_time(tokens: Tokens) -> None:
    async with playing(silent) as partner:
        refused = await tokens.grant("acme", asking(partner), SHORT)

    assert isinstance(refused, Failed)
    assert (refused.code, refused.reach) == ("RESPONSE_TIMEOUT", Reach.NOT_SENT)


async def test_where_deliveries_may_not_go_no_token_is_asked_for(tokens: Tokens) -> None:
    refused = await tokens.grant("acme", OAuth2("http://10.1.2.3/token", "us", "s3cr3t"), 5.0)

    assert isinstance(refused, Failed)
    assert refused.code == "BLOCKED_ADDRESS"


async def test_a_url_that_is_not_allowed_any_more_is_a_fault_of_our_own(deliverer: HttpDeliverer) -> None:
    with pytest.raises(OwnFault, match="token_url is not allowed any more"):
        await Tokens(deliverer, Steps(), allow_http=False).grant(
            "a", OAuth2("http://a.example/", "u", "s"), 5.0
        )


def test_a_kept_token_that_is_refused_is_worth_another_attempt_and_a_new_one_is_not() -> None:
    kept, new = judged(UNAUTHORIZED, was_kept=True), judged(UNAUTHORIZED, was_kept=False)

    assert isinstance(kept, Failed)
    assert kept.is_retryable(frozenset())
    assert new == UNAUTHORIZED


@pytest.mark.parametrize("was_kept", [True, False])
def test_other_outcomes_mean_what_they_say(*, was_kept: bool) -> None:
    for outcome in (
        Succeeded(Answer(200, (), b"")),
        Failed("HTTP_403", "…", Reach.ANSWERED, Answer(403, (), b"")),
        Failed("ECONNRESET", "…", Reach.SENT),
    ):
        assert judged(outcome, was_kept=was_kept) is outcome
