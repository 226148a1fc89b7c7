"""What the engine asks of a store about the tokens of callers: verbs, each one transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from redrive.domain.access import Permission


class Token(Struct, frozen=True):
    """A caller's credential without its secret, which is kept as a SHA-256 digest."""

    token_id: str
    subject: str
    permissions: frozenset[Permission]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    tenant: str | None = None


class Tokens(Protocol):
    """The tokens there are; none is ever deleted."""

    async def add(self, token: Token, digest: bytes) -> None:
        """Keep a new token under the SHA-256 of its secret."""
        ...

    async def all(self) -> Sequence[Token]:
        """Every token, newest first."""
        ...

    async def revoke(self, token_id: str, at: datetime) -> bool:
        """Revoke a token; False when there is none of that id."""
        ...

    async def find(self, digest: bytes) -> Token | None:
        """The token with this digest, revoked and expired ones included."""
        ...
