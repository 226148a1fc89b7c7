"""A PostgreSQL that does not let us in, or goes away: said in a sentence, never an accident of ours."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import asyncpg
import pytest

from redrive.clock import SystemClock
from redrive.store.port import StoreUnavailable
from redrive.store.postgres import PostgresStore
from redrive.store.postgres.connection import Connection, Database, _Session
from tests.postgres import Server, a_database, a_server

CLOCK = SystemClock()
INT8_ARRAY = 1016  # in every PostgreSQL


@pytest.mark.parametrize(
    ("url", "why", "advice"),
    [
        ("postgresql://a_stranger@127.0.0.1:{port}/postgres", 'role "a_stranger" does not exist', "the role"),
        ("postgresql://postgres@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist', "createdb"),
        (
            "postgresql://postgres@127.0.0.1:{port}/postgres?colour=red",
            'unrecognized configuration parameter "colour"',
            "",
        ),
    ],
)
async def test_a_refusal_of_the_server_is_said_as_it_said_it_with_what_to_do(
    postgres: Server, url: str, why: str, advice: str
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await PostgresStore.open(url.format(port=postgres.port), CLOCK)

    assert str(refused.value) == f"the database cannot be used: {why}"
    assert advice in refused.value.advice


async def test_a_role_without_its_rights_makes_the_store_unavailable(postgres: Server) -> None:
    url = await a_database(postgres)
    connection = await asyncpg.connect(url)
    await connection.execute("DROP ROLE IF EXISTS guest")
    await connection.execute("CREATE ROLE guest LOGIN")
    await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on
    await connection.close()

    with pytest.raises(StoreUnavailable, match="permission denied for schema public"):
        await PostgresStore.open(url.replace("postgres@", "guest@"), CLOCK)


async def test_a_server_that_is_away_is_told_by_its_errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    with a_server() as server:
        database = await Database.open(server.url(), CLOCK, connections=2)
        await database.ask("SELECT 1")
        server.stop("immediate")

        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await database.ask("SELECT 1")

        server.start()
        assert await database.ask("SELECT 1")
        await database.close()
    assert caplog.messages == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[int]]:
    """The types that sessions ask the server about, from now on; none of them is known yet."""
    asked: list[frozenset[int]] = []
    introspect = asyncpg.Connection._introspect_types

    async def note(self: Any, typeoids: Collection[int], *how_long: float | None) -> Any:
        asked.append(frozenset(typeoids))
        return await introspect(self, typeoids, *how_long)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", note)
    monkeypatch.setattr(_Session, "_known", {})
    return asked


async def in_two_sessions(database: Database, query: str, value: Sequence[object]) -> list[Any]:
    both = asyncio.Barrier(2)

    async def ask(connection: Connection) -> Any:
        await both.wait()
        return await connection.fetchval(query, value)

    return list(await asyncio.gather(database.run(ask), database.run(ask)))


async def test_what_arrays_are_made_of_is_asked_by_one_session_for_all(
    postgres: Server, asked: list[frozenset[int]]
) -> None:
    database = await Database.open(postgres.url(), CLOCK, connections=4)
    await database.ask("SELECT $1::bigint[]", [1])

    sums = await in_two_sessions(database, "SELECT sum(n) FROM unnest($1::bigint[]) n", [1, 2])

    assert [int(each) for each in sums] == [3, 3]
    assert asked == [frozenset({INT8_ARRAY})]
    await database.close()


async def test_types_that_may_be_others_elsewhere_are_asked_about_by_each_session(
    postgres: Server, asked: list[frozenset[int]]
) -> None:
    database = await Database.open(await a_database(postgres), CLOCK, connections=4)
    await database.ask("CREATE TYPE colour AS ENUM ('red')")
    await database.ask("SELECT $1::colour[]", ["red"])

    told = await in_two_sessions(database, "SELECT $1::colour[]", ["red"])

    assert told == [["red"], ["red"]]
    assert len(asked) == 2
    await database.close()
