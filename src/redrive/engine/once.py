"""An Idempotency-Key to the letter: one effect, however many ask at once, also after a crash."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from redrive.domain.errors import IdempotencyKeyReused, RedriveError
from redrive.store.port import AlreadyAnswered, Once, Store

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Key:
    """A call's key: what it is scoped to, the digest of its body, and how its answer is written."""

    scope: bytes
    fingerprint: bytes
    status: int
    render: Callable[[Any], bytes]

    @classmethod
    def of(
        cls, caller: str, path: str, key: str, *, body: bytes, status: int, render: Callable[[Any], bytes]
    ) -> "Key":
        """Scoped to the caller, never to a token, so that rotating one changes nothing."""
        scope = hashlib.sha256(f"{caller}\n{path}\n{key}".encode()).digest()
        return cls(scope, hashlib.sha256(body).digest(), status, render)

    def answered(self, result: Any, now: datetime) -> Once:
        """The answer to store beside the effect."""
        return Once(self.scope, self.fingerprint, self.status, self.render(result), now)


@dataclass(frozen=True, slots=True)
class Again:
    """The stored first answer; nothing happened this time."""

    status: int
    answer: bytes


async def idempotent(store: Store, key: Key | None, act: Callable[[], Awaitable[Outcome]]) -> Outcome | Again:
    """Do *act*, unless its key was answered before: then the stored answer, or IdempotencyKeyReused.

    A refusal is looked at twice: whoever came first with the same key may be why it was refused.
    """
    if key is None:
        return await act()
    if (again := await _recall(store, key)) is not None:
        return again
    try:
        return await act()
    except (RedriveError, AlreadyAnswered):
        if (again := await _recall(store, key)) is not None:
            return again
        raise


async def _recall(store: Store, key: Key) -> Again | None:
    stored = await store.recall(key.scope)
    if stored is None:
        return None
    if stored.fingerprint != key.fingerprint:
        raise IdempotencyKeyReused
    return Again(stored.status, stored.body)
