"""Tokens of the client credentials grant (RFC 6749 §4.4): used until they end or are refused."""

import asyncio
import re
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from redrive.delivery.credentials import OAuth2, is_token, token_request, token_target
from redrive.delivery.hidden import Hidden
from redrive.delivery.port import Deliverer, OwnFault, Request
from redrive.domain.errors import InvalidPayload
from redrive.domain.outcome import Failed, Outcome, Reach

LASTS_SECONDS: Final = 300.0  # when the answer does not say
LONGEST_SECONDS: Final = 86_400.0
MARGIN_SECONDS: Final = 30.0  # before its end it is asked for anew, or a tenth of its time if that is less
TOKENS_KEPT: Final = 10_000
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class Granted(Hidden, frozen=True):
    """A token, and the second of the steady clock until which it is used."""

    token: str
    until: float


class _Answer(Hidden, frozen=True):
    access_token: str
    token_type: str
    expires_in: float | str | None = None  # some write it as text


_Whose = tuple[str, OAuth2]


class Tokens:
    """The tokens of every integration that asks for some."""

    def __init__(self, deliverer: Deliverer, elapsed: Callable[[], float], *, allow_http: bool) -> None:
        self._deliverer = deliverer
        self._elapsed = elapsed
        self._allow_http = allow_http
        self._kept: dict[_Whose, Granted] = {}
        self._asking: dict[_Whose, asyncio.Task[Granted | Failed]] = {}

    def kept(self, integration_id: str, asking: OAuth2) -> Granted | None:
        """The token that is used now, if there is one."""
        granted = self._kept.get((integration_id, asking))
        return granted if granted is not None and self._elapsed() < granted.until else None

    async def grant(self, integration_id: str, asking: OAuth2, timeout_seconds: float) -> Granted | Failed:
        """A token, asked for by one caller and given to all who wait; or how the asking failed.

        Raises OwnFault when it could not even be asked for.
        """
        whose = (integration_id, asking)
        task = self._asking.get(whose)
        if task is None:
            task = asyncio.create_task(self._ask(integration_id, asking, timeout_seconds))
            self._asking[whose] = task
            task.add_done_callback(lambda done: self._asked(whose, done))
        try:
            async with asyncio.timeout(timeout_seconds):
                granted = await asyncio.shield(task)
        except TimeoutError:
            return _failed("RESPONSE_TIMEOUT", f"gave no answer within {timeout_seconds:g} s")
        return granted

    def refused(self, integration_id: str, asking: OAuth2, token: str) -> None:
        """A receiver does not take *token*: it is used no more."""
        kept = self._kept.get((integration_id, asking))
        if kept is not None and kept.token == token:
            del self._kept[integration_id, asking]

    def _asked(self, whose: _Whose, done: "asyncio.Task[Granted | Failed]") -> None:
        del self._asking[whose]
        if not done.cancelled():
            done.exception()  # whoever waited for it may have left

    async def _ask(self, integration_id: str, asking: OAuth2, timeout_seconds: float) -> Granted | Failed:
        try:
            target = token_target(asking, allow_http=self._allow_http)
        except InvalidPayload as error:
            raise OwnFault(f"the token_url is not allowed any more: {error}") from error
        headers, body = token_request(asking)
        asked_at = self._elapsed()
        outcome = await self._deliverer.send(
            Request("POST", target, headers, body, timeout_seconds, integration_id)
        )
        granted = _read(outcome, asked_at)
        if isinstance(granted, Granted):
            if len(self._kept) >= TOKENS_KEPT:
                self._kept.clear()
            self._kept[integration_id, asking] = granted
        return granted


def judged(outcome: Outcome, *, was_kept: bool) -> Outcome:
    """What a receiver's answer means for the token it was shown.

    One that *was_kept* may have ended early: the next attempt asks for a new one, so this failure is worth
    it. A token that was asked for just now and is refused will be refused again.
    """
    if isinstance(outcome, Failed) and outcome.code == "HTTP_401" and was_kept:
        return replace(
            outcome,
            detail="the receiver refused the token; the next attempt asks for a new one",
            verdict=True,
        )
    return outcome


def _read(outcome: Outcome, asked_at: float) -> Granted | Failed:
    """Nothing of the answer is kept in what is told of it: a token may be in it."""
    if isinstance(outcome, Failed):
        told = outcome.detail.replace("the receiver", "it")
        return Failed(outcome.code, f"the token endpoint: {told}", Reach.NOT_SENT, None, outcome.retry_after)
    try:
        answer = msgspec.json.decode(outcome.answer.body, type=_Answer)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return _failed("PROTOCOL_ERROR", "did not answer with a token (RFC 6749 §5.1)")
    if answer.token_type.lower() != "bearer" or not is_token(answer.access_token):
        return _failed("PROTOCOL_ERROR", "answered with something that is no bearer token (RFC 6750)")
    lasts = _seconds(answer.expires_in)
    return Granted(answer.access_token, asked_at + lasts - min(MARGIN_SECONDS, lasts / 10))


def _seconds(told: float | str | None) -> float:
    if isinstance(told, str):
        told = int(told) if _DIGITS.fullmatch(told) else None
    return LASTS_SECONDS if told is None else min(max(told, 0.0), LONGEST_SECONDS)


def _failed(code: str, what: str) -> Failed:
    return Failed(code, f"the token endpoint {what}", Reach.NOT_SENT)
