"""The identity provider whose tokens are taken: its keys are fetched when they are needed, and kept.

However many made-up tokens come, it is asked once a minute at most; and a key that it did not publish is
believed from nobody.
"""

import asyncio
from datetime import datetime
from math import inf
from typing import Final

from redrive import __version__
from redrive.clock import Clock
from redrive.delivery.port import Deliverer, OwnFault, Request
from redrive.domain.access import NotBelieved, Principal
from redrive.domain.errors import DependencyUnavailable, InvalidPayload
from redrive.domain.outcome import Failed
from redrive.domain.target import parse_target
from redrive.engine.jwks import Key, json_object, read_keys
from redrive.engine.jwt import Token, Trust, choose, take_apart, verify
from redrive.telemetry.events import Announce, IdentityProviderFailed

PAUSE_SECONDS: Final = 60.0  # between two fetches, at least
FRESH_SECONDS: Final = 300.0  # then they are fetched again: a key that was withdrawn is believed no longer
KEPT_SECONDS: Final = 24 * 3600.0  # without a fetch that worked, while the provider is away
TIMEOUT_SECONDS: Final = 5.0
NAMED: Final = "named"  # for the guard: a host that the operator named
FOUND: Final = "found"  # one that only the provider's own document names
_HEADERS: Final = (("Accept", "application/json"), ("User-Agent", f"redrive/{__version__}"))
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class Provider:
    """One OpenID Connect provider. *keys_url*: where its keys are; None: where its discovery says."""

    def __init__(
        self,
        trust: Trust,
        keys_url: str | None,
        deliverer: Deliverer,
        clock: Clock,
        announce: Announce,
        *,
        allow_http: bool,
    ) -> None:
        self._trust = trust
        self._discovery_url = trust.issuer.removesuffix("/") + _WELL_KNOWN
        self._keys_url = keys_url
        self._named = parse_target(keys_url or trust.issuer, allow_http=allow_http).host
        self._allow_http = allow_http
        self._deliverer = deliverer
        self._clock = clock
        self._announce = announce
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = self._tried_at = -inf
        self._is_reachable = False  # when it was last tried
        self._fetching = asyncio.Lock()
        self._freshening: asyncio.Task[None] | None = None

    async def principal(self, text: str) -> tuple[Principal, datetime]:
        """Whom the token *text* proves, and until when; NotBelieved when it does not.

        DependencyUnavailable when it names a key we do not know and the provider cannot be asked for.
        """
        token = take_apart(text)
        key = await self._key(token)
        return verify(token, key, self._trust, self._clock.now())

    async def _key(self, token: Token) -> Key:
        if (key := choose(self._known(), token)) is None:
            await self._refresh()
            key = choose(self._known(), token)
        elif self._age() >= FRESH_SECONDS and self._may_try() and not self._fetching.locked():
            self._freshening = asyncio.create_task(self._refresh())  # nobody has to wait for it
        if key is not None:
            return key
        if self._is_reachable:
            raise NotBelieved("key")
        raise DependencyUnavailable(
            "identity provider",
            "the token names a key that is not known, and the identity provider did not tell its keys;"
            " nothing was changed",
            after=max(1.0, self._tried_at + PAUSE_SECONDS - self._clock.elapsed()),
        )

    def _may_try(self) -> bool:
        return self._clock.elapsed() - self._tried_at >= PAUSE_SECONDS

    def _age(self) -> float:
        return self._clock.elapsed() - self._fetched_at

    def _known(self) -> tuple[Key, ...]:
        return self._keys if self._age() < KEPT_SECONDS else ()

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; whoever comes meanwhile waits for the same."""
        async with self._fetching:
            if not self._may_try():
                return
            now = self._clock.elapsed()
            self._tried_at, self._is_reachable = now, False
            try:
                self._keys = await self._fetch()
            except (OwnFault, InvalidPayload, ValueError) as error:
                self._announce(IdentityProviderFailed(str(error)))
            else:
                self._fetched_at, self._is_reachable = now, True

    async def _fetch(self) -> tuple[Key, ...]:
        return read_keys(await self._get(self._keys_url or await self._discover()))

    async def _discover(self) -> str:
        document = json_object(await self._get(self._discovery_url))
        if document.get("issuer") != self._trust.issuer:
            raise ValueError("the issuer in its discovery document is not jwt_issuer")
        return str(document.get("jwks_uri"))

    async def _get(self, url: str) -> bytes:
        """The whole body that is answered; ValueError, or OwnFault, when there is none."""
        target = parse_target(url, allow_http=self._allow_http, pointer="jwks_uri")
        whose = NAMED if target.host == self._named else FOUND
        outcome = await self._deliverer.send(Request("GET", target, _HEADERS, b"", TIMEOUT_SECONDS, whose))
        if isinstance(outcome, Failed):
            raise ValueError(outcome.detail)  # noqa: TRY004 - not the type is wrong, but what came of it
        if outcome.answer.status != 200 or outcome.answer.truncated:
            raise ValueError(f"{target.host} did not answer with a document of at most 64 KiB")
        return outcome.answer.body
