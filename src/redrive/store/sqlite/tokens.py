"""Callers' tokens in the file."""

from collections.abc import Sequence
from datetime import datetime

from redrive.store.rows import to_ms, to_token, token_row
from redrive.store.sqlite.connection import Do, ask
from redrive.store.sqlite.work import SQL
from redrive.store.tokens import Token


class SqliteTokens:
    """The verbs of `store.tokens`; *read* and *write* run what they are given on a connection."""

    def __init__(self, read: Do, write: Do) -> None:
        self._read = read
        self._write = write

    async def add(self, token: Token, digest: bytes) -> None:
        """Keep a token."""
        row = token_row(token, digest)
        await self._write(lambda c: c.execute(SQL["add_token"], row))

    async def all(self) -> Sequence[Token]:
        """Every token."""
        return await self._read(lambda c: [to_token(row) for row in ask(c, SQL["tokens"])])

    async def revoke(self, token_id: str, at: datetime) -> bool:
        """Revoke a token."""
        values = (to_ms(at), token_id)
        return bool(await self._write(lambda c: ask(c, SQL["revoke_token"], values)))

    async def find(self, digest: bytes) -> Token | None:
        """The token of a digest."""
        rows = await self._read(lambda c: ask(c, SQL["token"], (digest,)))
        return to_token(rows[0]) if rows else None
