"""Callers' tokens in the database."""

from collections.abc import Sequence
from datetime import datetime

from redrive.store.postgres.connection import Connection, Database
from redrive.store.postgres.work import SQL
from redrive.store.rows import to_ms, to_token, token_row
from redrive.store.tokens import Token


class PostgresTokens:
    """The verbs of `store.tokens`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, token: Token, digest: bytes) -> None:
        """Keep a token."""
        row = token_row(token, digest)

        async def has_token(connection: Connection) -> bool | None:
            return bool(await connection.fetch(SQL["has_token"], token.token_id, digest)) or None

        await self._database.write(lambda connection: connection.execute(SQL["add_token"], *row), has_token)

    async def all(self) -> Sequence[Token]:
        """Every token."""
        return [to_token(row) for row in await self._database.ask(SQL["tokens"])]

    async def revoke(self, token_id: str, at: datetime) -> bool:
        """Revoke a token."""
        values = (to_ms(at), token_id)
        return bool(
            await self._database.again(lambda connection: connection.fetch(SQL["revoke_token"], *values))
        )

    async def find(self, digest: bytes) -> Token | None:
        """The token of a digest."""
        rows = await self._database.ask(SQL["token"], digest)
        return to_token(rows[0]) if rows else None
