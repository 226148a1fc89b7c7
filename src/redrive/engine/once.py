"""What a caller is told: rendered before the commit, so that what cannot be told does not happen.

Under an Idempotency-Key it is stored with the effect and told again, to the letter: one effect, however many
ask at once, also after a crash.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from msgspec import Struct

from redrive.domain.errors import DependencyUnavailable, IdempotencyKeyReused, RedriveError
from redrive.domain.ids import ItemId
from redrive.store.port import AlreadyAnswered, Once, Store

Result = TypeVar("Result")
TURNS = 10


class Told(Struct, frozen=True):
    """What a caller is told. `again`: it was told before, and nothing happened this time."""

    status: int
    body: bytes
    again: bool = False


Render = Callable[[Result], Told]  # asked before the commit; what it raises undoes the verb


class Key(Struct, frozen=True):
    """A call's Idempotency-Key: what it is scoped to, and the digest of the body it came with."""

    scope: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, caller: str, path: str, key: str, body: bytes, *, secret: bytes) -> "Key":
        """Scoped to the caller (Principal.caller), never to a token, so that rotating one changes nothing.

        The *secret* is the database's own: a password in a body could be guessed from a mere digest.
        """
        scope = hashlib.sha256(f"{caller}\n{path}\n{key}".encode()).digest()
        return cls(scope, hmac.digest(secret, body, "sha256"))


def kept(key: Key | None, told: Told, now: datetime, *, item: ItemId | None = None) -> Once | None:
    """What is stored beside the effect: nothing without a key. *item*: the one it tells of."""
    return None if key is None else Once(key.scope, key.fingerprint, told.status, told.body, now, item)


async def idempotent(store: Store, key: Key | None, act: Callable[[], Awaitable[Told]]) -> Told:
    """Do *act*, unless its key was used before: then what was told, or IdempotencyKeyReused.

    A refusal is looked at twice: whoever came first with the same key may be why it was refused.
    """
    if key is None:
        return await act()
    if (told := await _recall(store, key)) is not None:
        return told
    try:
        return await act()
    except (RedriveError, AlreadyAnswered):
        if (told := await _recall(store, key)) is not None:
            return told
        raise


async def until_written(act: Callable[[], Awaitable[Result | None]]) -> Result:
    """Decide anew each time what it is about moved on before it was written; a decision then says why not."""
    for _ in range(TURNS):
        if (done := await act()) is not None:
            return done
    raise DependencyUnavailable("contention", "it changed each time it was about to be written")


async def _recall(store: Store, key: Key) -> Told | None:
    stored = await store.recall(key.scope)
    if stored is None:
        return None
    if stored.fingerprint != key.fingerprint:
        raise IdempotencyKeyReused
    return Told(stored.status, stored.body, again=True)
