"""A database of an earlier state, with something in it, is as good as a new one once it is brought up."""

import json
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import msgspec
import pytest

from redrive.clock import SystemClock
from redrive.domain.integration import Integration, SigningSecret
from redrive.store.migration import Migration, migrations
from redrive.store.postgres import PostgresStore, prepare
from redrive.store.postgres import migrate as postgres_migrate
from redrive.store.sqlite import SqliteStore, migrate, schema
from tests.factories import an_integration
from tests.postgres import Server, a_database

CLOCK = SystemClock()
SECRETS = {"signed": ["whsec_new", "whsec_old"], "unsigned": []}


def as_it_was(integration_id: str) -> str:
    """Its `config`, as the first schema had it: secrets had a table of their own."""
    document = msgspec.to_builtins(an_integration(integration_id))
    for later in ("secrets", "credentials", "redact_pointers", "redact_headers"):
        del document[later]
    return json.dumps(document)


def up_to(package: str, number: int) -> list[Migration]:
    return [step for step in migrations(package) if step.number <= number]


def expected() -> list[Integration]:
    return [
        an_integration(name, number=number, secrets=tuple(SigningSecret(secret) for secret in secrets))
        for number, (name, secrets) in enumerate(SECRETS.items(), start=1)
    ]


async def test_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "redrive.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "migrations", lambda package: up_to(package, 1))
        migrate(path, CLOCK)
    connection = apsw.Connection(str(path))
    for number, (name, secrets) in enumerate(SECRETS.items(), start=1):
        row = (number, name, "active", 1, as_it_was(name))
        connection.execute("INSERT INTO integration VALUES (?, ?, ?, ?, ?)", row)
        for position, secret in enumerate(secrets):
            connection.execute("INSERT INTO signing_secret VALUES (?, ?, ?)", (number, position, secret))
    connection.execute(
        "INSERT INTO token (token_id, digest, subject, permissions, created_at)"
        " VALUES ('tok_1', ?, 'ops', '', 0)",
        (bytes(32),),
    )
    connection.close()

    migrate(path, CLOCK)

    store = await SqliteStore.open(path, CLOCK)
    assert list(await store.integrations()) == expected()
    [token] = await store.tokens.all()
    assert (token.subject, token.tenant) == ("ops", None)
    await store.close()


async def test_postgres(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await a_database(postgres)
    with monkeypatch.context() as earlier:
        earlier.setattr(postgres_migrate, "migrations", lambda package: up_to(package, 2))
        await prepare(url, CLOCK)
    connection = await asyncpg.connect(url)
    for number, (name, secrets) in enumerate(SECRETS.items(), start=1):
        values: tuple[Any, ...] = (name, "active", 1, number, 1, as_it_was(name))
        await connection.execute(
            "INSERT INTO integration (integration_id, lifecycle, version, changed, shards, config)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            *values,
        )
        for position, secret in enumerate(secrets):
            await connection.execute(
                "INSERT INTO signing_secret VALUES ($1, $2, $3)", number, position, secret
            )
    await connection.close()

    await prepare(url, CLOCK)

    store = await PostgresStore.open(url, CLOCK)
    assert list(await store.integrations()) == expected()
    await store.close()
