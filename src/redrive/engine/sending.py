"""One attempt on its way out: opened secrets, a token where one is needed, the request, the exchange."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from redrive.delivery.compose import Proof, compose
from redrive.delivery.credentials import OAuth2
from redrive.delivery.oauth2 import Tokens, judged
from redrive.delivery.port import Deliverer, OwnFault
from redrive.delivery.sealing import Unsealable
from redrive.domain.delivery import Claim
from redrive.domain.errors import InvalidPayload
from redrive.domain.integration import Integration
from redrive.domain.outcome import Failed, Outcome, Reach
from redrive.domain.target import Target, parse_target
from redrive.engine.catalogue import Catalogue
from redrive.engine.tools import Tools


class _Outgoing(Struct, frozen=True):
    claim: Claim
    integration: Integration
    now: datetime
    span_id: bytes
    leaving: Callable[[], None]


class Sending:
    """Makes exchanges, each at most once."""

    def __init__(self, tools: Tools, deliverer: Deliverer, catalogue: Catalogue) -> None:
        self.deliverer = deliverer
        self.clock = tools.clock
        self.vault = tools.vault
        self.content = tools.content
        self.catalogue = catalogue
        self.tokens = Tokens(deliverer, tools.clock.elapsed, allow_http=catalogue.allow_http)
        self._targets: dict[str, Target] = {}

    async def send(self, claim: Claim, now: datetime, span_id: bytes, leaving: Callable[[], None]) -> Outcome:
        """Make the exchange that *claim* permits, stamped *now*, as the span *span_id*.

        *leaving* is called as `Deliverer.send` says. OwnFault when nothing was sent for a reason of our own.
        """
        integration = self.catalogue.numbered(claim.delivery.integration)
        try:
            proof = self.vault.proof(integration, now)
            delivery = self.content.opened(claim.delivery)
        except Unsealable as error:
            raise OwnFault(f"what is sealed cannot be opened: {error}") from error
        if delivery is not claim.delivery:
            claim = replace(claim, delivery=delivery)
        outgoing = _Outgoing(claim, integration, now, span_id, leaving)
        seconds = self.timeout_seconds(integration)
        if isinstance(proof.credentials, OAuth2):
            return await self._with_token(outgoing, proof, proof.credentials, seconds)
        return await self._exchange(outgoing, proof, seconds)

    def timeout_seconds(self, integration: Integration) -> float:
        """What an attempt may take in all."""
        timeout: float = self.catalogue.defaults.of(integration, "timeout_seconds")
        return timeout

    async def _with_token(self, outgoing: _Outgoing, proof: Proof, asking: OAuth2, seconds: float) -> Outcome:
        """Asking for a token takes from the attempt's time; when that fails, the attempt does."""
        whose, began = outgoing.integration.integration_id, self.clock.elapsed()
        kept = self.tokens.kept(whose, asking)
        granted = kept or await self.tokens.grant(whose, asking, seconds)
        if isinstance(granted, Failed):
            return granted
        left = seconds - (self.clock.elapsed() - began)
        if left <= 0:
            return Failed("RESPONSE_TIMEOUT", "the token endpoint left no time to send", Reach.NOT_SENT)
        outcome = await self._exchange(outgoing, replace(proof, token=granted.token), left)
        if isinstance(outcome, Failed) and outcome.code == "HTTP_401":
            self.tokens.refused(whose, asking, granted.token)
        return judged(outcome, was_kept=kept is not None)

    async def _exchange(self, outgoing: _Outgoing, proof: Proof, seconds: float) -> Outcome:
        request = compose(
            outgoing.claim,
            outgoing.integration,
            proof,
            timeout_seconds=seconds,
            target=self._target(outgoing.integration.url),
            now=outgoing.now,
            span_id=outgoing.span_id,
        )
        return await self.deliverer.send(request, outgoing.leaving)

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            try:
                target = parse_target(url, allow_http=self.catalogue.allow_http)
            except InvalidPayload as error:
                raise OwnFault(f"the integration's url is not allowed any more: {error}") from error
            self._targets[url] = target
        return target
