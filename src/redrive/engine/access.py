"""Callers: bearer tokens to principals, remembered for a moment so that a revocation is soon felt."""

import asyncio
import hashlib
from datetime import datetime
from typing import NoReturn

from redrive.domain.access import Call, NotBelieved, Principal
from redrive.domain.errors import RateLimited, Unauthenticated
from redrive.engine.audited import of_denial
from redrive.engine.brake import Buckets
from redrive.engine.jwt import has_shape
from redrive.engine.provider import Provider
from redrive.engine.tools import Tools
from redrive.telemetry.events import AuditWritten, AuthenticationFailed

TRUSTED_SECONDS = 2.0  # of at most 5 until a revoked token is refused everywhere
REMEMBERED = 1_000
Found = tuple[Principal, datetime | None]  # whose a token is, and until when


class Access:
    """Says who calls."""

    def __init__(
        self,
        tools: Tools,
        *,
        failures_per_minute: int,
        calls_per_second: int,
        provider: Provider | None = None,
    ) -> None:
        """With a *provider*, its tokens are taken beside our own. 0 calls a second: as many as come."""
        self.provider = provider
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self._known: dict[str, tuple[float, datetime | None, Principal]] = {}
        self._good: dict[bytes, None] = {}  # digests of tokens that were valid, by their last use
        self._asking: dict[tuple[bytes, str], asyncio.Task[Found]] = {}
        self._failures = Buckets(failures_per_minute / 60, failures_per_minute)
        self._calls = Buckets(calls_per_second, calls_per_second) if calls_per_second else None

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was looked up a moment ago, without waiting."""
        entry = self._known.get(token)
        if entry is None or entry[0] <= self.clock.elapsed():
            return None
        if entry[1] is not None and entry[1] <= self.clock.now():
            return None
        return entry[2]

    async def principal(self, token: str, address: str) -> Principal:
        """The principal of *token*, or Unauthenticated; StoreUnavailable or DependencyUnavailable when nobody
        can say.

        RateLimited for a token nobody has seen from an *address* that has shown too many wrong ones. Others
        from there go on: it may be a proxy's.
        """
        if (known := self.known(token)) is not None:
            return known
        digest = hashlib.sha256(token.encode()).digest()
        asked = (digest, address)
        if asked not in self._asking:
            asking = self._asking[asked] = asyncio.create_task(self._ask(token, digest, address))
            asking.add_done_callback(lambda done: self._answered(asked, done))
        try:  # whoever goes away takes the answer from nobody else
            principal, until = await asyncio.shield(self._asking[asked])
        except NotBelieved as error:
            self._known.pop(token, None)
            self._good.pop(digest, None)
            self.refuse(error.why)
        self._good.pop(digest, None)  # the order is that of the last use
        self._good[digest] = None
        if len(self._good) > REMEMBERED:
            del self._good[next(iter(self._good))]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token] = (self.clock.elapsed() + TRUSTED_SECONDS, until, principal)
        return principal

    def admit(self, principal: Principal) -> None:
        """Count a call of *principal*; RateLimited when it has made too many."""
        if self._calls is not None:
            now = self.clock.elapsed()
            if seconds := self._calls.seconds_to_next(principal.caller, now):
                raise RateLimited(f"{principal.id} calls more often than it may", after=seconds)
            self._calls.take(principal.caller, now)

    def refuse(self, why: str) -> NoReturn:
        """Count a call without a valid token, and refuse it."""
        self.announce(AuthenticationFailed(why))
        raise Unauthenticated

    async def note_denial(self, call: Call, integration_id: str | None, route: str, permission: str) -> None:
        """Audit a 403; if that cannot be written, the call is answered 503 instead."""
        event = of_denial(
            self.next_id,
            self.clock.now(),
            call,
            integration_id=integration_id,
            route=route,
            permission=permission,
        )
        await self.store.note([event])
        self.announce(AuditWritten(event.event_type.value))

    async def _ask(self, token: str, digest: bytes, address: str) -> Found:
        """As `_look_up`, for all who show *token* from *address* meanwhile; it costs that address once."""
        now, may_be_guessed = self.clock.elapsed(), digest not in self._good
        if may_be_guessed:
            if seconds := self._failures.seconds_to_next(address, now):
                self.announce(AuthenticationFailed("braked"))
                raise RateLimited("too many tokens from there were not valid", after=seconds)
            self._failures.take(address, now)  # before it is looked up: others are at the same time
        try:
            found = await self._look_up(token, digest)
        except NotBelieved:
            if not may_be_guessed:
                self._failures.take(address, now)
            raise
        except BaseException:
            if may_be_guessed:
                self._failures.give_back(address, now)
            raise
        if may_be_guessed:
            self._failures.give_back(address, now)
        return found

    def _answered(self, asked: tuple[bytes, str], answer: asyncio.Task[Found]) -> None:
        del self._asking[asked]
        if not answer.cancelled():
            answer.exception()  # seen, although all who asked may have gone away

    async def _look_up(self, token: str, digest: bytes) -> Found:
        """Whose *token* is, and until when (None: until it is revoked); NotBelieved when it is nobody's."""
        if self.provider is not None and has_shape(token):
            return await self.provider.principal(token)
        found = await self.store.tokens.find(digest)
        if found is None:
            raise NotBelieved("unknown")
        if found.revoked_at is not None:
            raise NotBelieved("revoked")
        if found.expires_at is not None and found.expires_at <= self.clock.now():
            raise NotBelieved("expired")
        principal = Principal(found.subject, "token", found.token_id, found.permissions, found.tenant)
        return principal, found.expires_at
