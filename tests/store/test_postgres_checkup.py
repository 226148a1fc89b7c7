"""What `redrive doctor` finds out about a PostgreSQL server: each remark against a real one in that state."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from redrive.clock import SystemClock
from redrive.store.port import StoreUnavailable
from redrive.store.postgres import Plan, PostgresStore, check_up, diagnose, prepare
from redrive.store.postgres.checkup import Facts, Holder
from redrive.store.postgres.diagnosis import Remark
from tests.postgres import Server, a_database, a_server
from tests.store.under_test import add_integration

CLOCK = SystemClock()
PLAN = Plan(processes=1, connections=10, timeout_seconds=15, lease_seconds=15)


@pytest.fixture(scope="module")
def sound() -> Iterator[Server]:
    """A server that keeps what it was given."""
    with a_server(durable=True) as server:
        yield server


@pytest.fixture
async def url(sound: Server) -> str:
    """A new database on it, with a schema."""
    url = await a_database(sound)
    await prepare(url, CLOCK)
    return url


class FastClock(SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(seconds=5)


async def remarks(url: str, plan: Plan = PLAN) -> dict[str, Remark]:
    return told(await check_up(url, CLOCK), plan)


def told(facts: Facts, plan: Plan = PLAN) -> dict[str, Remark]:
    return {remark.name: remark for remark in diagnose(facts, plan)}


def failed(found: dict[str, Remark]) -> list[str]:
    return [name for name, remark in found.items() if not remark.ok]


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def a_process(url: str, *, sends: bool = True) -> AsyncIterator[tuple[PostgresStore, int]]:
    store = await PostgresStore.open(url, CLOCK, sends=sends)
    try:
        yield store, await store.enter()
    finally:
        await store.close()


async def test_a_sound_server_has_nothing_wrong(url: str) -> None:
    async with a_process(url) as (store, _):
        found = await remarks(url)

    assert failed(found) == []
    assert found["PostgreSQL"].detail == store.describe()["version"]
    assert found["schema"].detail == "of this version"
    assert "(sends)" in found["processes"].detail


async def test_looking_at_an_empty_database_leaves_it_empty(sound: Server) -> None:
    url = await a_database(sound)

    found = await remarks(url)

    assert failed(found) == []
    assert found["schema"].detail.startswith("none yet")
    assert not (await check_up(url, CLOCK)).server.has_schema


async def test_a_server_that_loses_what_it_was_given_is_found(postgres: Server) -> None:
    found = await remarks(await a_database(postgres))

    assert failed(found) == ["fsync", "full_page_writes", "synchronous_commit"]


async def test_a_database_may_have_synchronous_commit_of_its_own(sound: Server, postgres: Server) -> None:
    unsafe = await remarks(await a_database(sound, synchronous_commit="off"))
    safe = await remarks(await a_database(postgres, synchronous_commit="on"))

    assert failed(unsafe) == ["synchronous_commit"]
    assert "SET synchronous_commit = on" in unsafe["synchronous_commit"].detail
    assert safe["synchronous_commit"].ok


async def test_a_server_that_only_reads_is_found() -> None:
    with a_server(durable=True) as server:
        read_only = await remarks(await a_database(server, default_transaction_read_only="on"))
        server.stop()
        server.demote()
        server.start()
        standby = await remarks(server.url())

    assert failed(read_only) == failed(standby) == ["primary"]
    assert "RESET default_transaction_read_only" in read_only["primary"].detail
    assert "standby" in standby["primary"].detail


async def test_a_role_that_may_not_create_tables_is_told_what_it_lacks(sound: Server) -> None:
    url = await a_database(sound)
    await execute(url, "CREATE ROLE guest LOGIN")
    await execute(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on

    found = await remarks(url.replace("postgres@", "guest@"))

    assert failed(found) == ["schema"]
    assert 'GRANT CREATE ON SCHEMA "public" TO "guest"' in found["schema"].detail


async def test_a_search_path_that_leads_nowhere_is_found(sound: Server) -> None:
    found = await remarks(await a_database(sound, search_path="nowhere"))

    assert failed(found) == ["schema"]


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("DELETE FROM migration", "run `redrive migrate`"),
        ("INSERT INTO migration VALUES (9999, 'later', 'x', 0)", "which this version does not know"),
    ],
)
async def test_a_schema_of_another_version_is_found(url: str, change: str, advice: str) -> None:
    await execute(url, change)

    found = await remarks(url)

    assert failed(found) == ["schema"]
    assert advice in found["schema"].detail
    assert "lanes" not in found, "what the tables of another version mean, nobody knows"


async def test_a_clock_that_differs_is_found(url: str) -> None:
    found = told(await check_up(url, FastClock()))

    assert failed(found) == ["clock"]
    assert found["clock"].detail.startswith("5.0 s ahead of the database's")


async def test_more_connections_than_the_server_takes_are_found(url: str) -> None:
    few = await remarks(url, replace(PLAN, processes=17))
    many = await remarks(url, replace(PLAN, processes=18))

    assert few["connections"].ok
    assert failed(many) == ["connections"]
    assert many["connections"].detail.startswith("up to 198 for 18 processes (each 10 ")


async def test_every_live_process_counts_for_the_connections(url: str) -> None:
    async with a_process(url), a_process(url):
        found = await remarks(url)

    assert found["connections"].detail.startswith("up to 22 for 2 processes (each 10 ")


async def test_a_timeout_over_the_lease_is_explained(url: str) -> None:
    async with a_process(url) as (store, _):
        short = await remarks(url, replace(PLAN, timeout_seconds=5))
        await add_integration(store, timeout_seconds=60.0)
        long = await remarks(url, replace(PLAN, timeout_seconds=5))
        longer = await remarks(url, replace(PLAN, lease_seconds=61))

    plain = (
        "the work of a process that the database does not hear of for {} s (lease_seconds) goes to the others"
    )
    assert short["lease"] == Remark("lease", True, plain.format(15))
    assert longer["lease"] == Remark("lease", True, plain.format(61))
    assert long["lease"].ok
    assert "attempts may take longer (60 s), which is well: it is renewed" in long["lease"].detail


async def test_processes_of_which_none_sends_are_found(url: str) -> None:
    async with a_process(url, sends=False) as (store, _):
        await add_integration(store)
        found = await remarks(url)

    assert failed(found) == ["processes"]
    assert "(takes calls only)" in found["processes"].detail


async def test_processes_are_counted_and_have_the_names_that_an_operator_knows(url: str) -> None:
    async with a_process(url), a_process(url, sends=False):
        found = await remarks(url)

    name = f"pid {os.getpid()} on {socket.gethostname()}"
    assert found["processes"] == Remark("processes", True, f"2: {name} (sends), {name} (takes calls only)")


async def test_a_process_that_is_not_heard_of_is_told_of_but_not_counted(url: str) -> None:
    async with a_process(url):
        await execute(url, "UPDATE incarnation SET lease_until = redrive_now() - 300000")
        alone = await remarks(url)
        async with a_process(url, sends=False):
            beside = await remarks(url)

    assert failed(alone) == []
    assert alone["processes"].detail.startswith("none runs on this database; not heard of: pid ")
    assert "(its lease ended 5 min ago)" in alone["processes"].detail
    assert failed(beside) == ["processes"], "what takes calls only sends nothing in its place"


async def test_lanes_that_nobody_owns_while_somebody_could_are_found(url: str) -> None:
    async with a_process(url) as (store, owner):
        await add_integration(store)
        before = await remarks(url)
        await store.balance(owner)
        after = await remarks(url)
        await store.leave(owner)
    left = await remarks(url)

    assert failed(before) == ["lanes"]
    assert before["lanes"].detail.startswith(
        "1 of 1 (integrations, or shards of them) are owned by no process"
    )
    assert after["lanes"].detail.startswith("1 (one for each integration, ")
    assert failed(left) == [], "where no process runs, that is no wonder"


async def test_a_transaction_that_holds_a_snapshot_is_told_of(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"application_name": "a report"})
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT 1")
        found = await remarks(url)
    await connection.close()

    assert found["oldest transaction"].ok
    assert "(a report, idle in transaction)" in found["oldest transaction"].detail


@pytest.mark.parametrize(("seconds", "transactions"), [(301.0, 0), (None, 1_000_000)])
async def test_a_snapshot_that_is_held_for_long_is_found(
    url: str, seconds: float | None, transactions: int
) -> None:
    holder = Holder(who="somebody", seconds=seconds, transactions=transactions, remedy="SELECT end_it()")

    found = told(replace(await check_up(url, CLOCK), holder=holder))

    assert failed(found) == ["oldest transaction"]
    assert "end it (SELECT end_it())" in found["oldest transaction"].detail


async def test_partitions_that_end_soon_are_found(url: str) -> None:
    facts = await check_up(url, CLOCK)
    assert facts.content is not None
    last = await _partitions_of("audit", url)

    await execute(url, *(f"DROP TABLE {name}" for name in last[2:]))
    enough = await remarks(url)
    await execute(url, f"DROP TABLE {last[1]}")
    few = await remarks(url)

    assert min(facts.content.reaches.values()) - facts.now > timedelta(weeks=4)
    assert enough["partitions"].ok
    assert failed(few) == ["partitions"]
    assert few["partitions"].detail.startswith("audit has them up to ")


async def test_an_old_server_is_found(url: str) -> None:
    facts = await check_up(url, CLOCK)

    found = told(replace(facts, server=replace(facts.server, version="13.22", version_number=130022)))

    assert failed(found) == ["PostgreSQL"]


async def test_asynchronous_standbys_are_told_of(url: str) -> None:
    facts = await check_up(url, CLOCK)

    found = told(replace(facts, server=replace(facts.server, asynchronous_standbys=1)))

    assert found["synchronous_commit"].ok
    assert "can lose what was acknowledged" in found["synchronous_commit"].detail


async def test_a_server_that_does_not_answer_cannot_be_looked_at() -> None:
    with pytest.raises(StoreUnavailable):
        await check_up("postgresql://nobody@127.0.0.1:1/nothing", CLOCK)


async def _partitions_of(table: str, url: str) -> list[Any]:
    """Oldest first."""
    connection = await asyncpg.connect(url)
    try:
        sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass"
        return sorted(row[0] for row in await connection.fetch(sql, table))
    finally:
        await connection.close()
