"""The store behind PgBouncer in transaction mode: every transaction may come to another server process."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from redrive.audit.record import EventType
from redrive.clock import SystemClock
from redrive.domain.ids import IdSequence
from redrive.domain.item import Status
from redrive.domain.sharing import whole
from redrive.store.port import Accepted, EventFilter, QueueFilter
from redrive.store.postgres import PostgresStore
from tests.factories import DONE, REFUSED, a_delivery, a_once, a_replay, a_result, an_event, an_intake
from tests.postgres import Server, free_port
from tests.store.under_test import add_integration

DEADLINE_SECONDS = 20
SERVERS = 2  # fewer than callers at once: they are shared from one transaction to the next


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    """A database of its own: a schema of a search_path is not for poolers."""

    async def create() -> None:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute("DROP DATABASE IF EXISTS pooled")
        await connection.execute("CREATE DATABASE pooled")
        await connection.close()

    asyncio.run(create())
    return "pooled"


@pytest.fixture(scope="module")
def pooler(postgres: Server, database: str) -> Iterator[str]:
    """The address of a PgBouncer before the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.fail("PgBouncer is missing; install it (Debian: apt-get install pgbouncer)")
    with tempfile.TemporaryDirectory(prefix="redrive-pgbouncer-") as directory:
        port, settings = free_port(), Path(directory) / "settings.ini"
        settings.write_text(
            f"[databases]\n{database} = host=127.0.0.1 port={postgres.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
            f"pool_mode=transaction\ndefault_pool_size={SERVERS}\nmax_client_conn=100\n"
        )
        Path(directory).chmod(0o755)
        user = "nobody" if os.geteuid() == 0 else None
        process = subprocess.Popen([program, "-q", str(settings)], user=user, stderr=subprocess.DEVNULL)
        try:
            asyncio.run(answers(port))
            yield f"postgresql://postgres@127.0.0.1:{port}/{database}"
        finally:
            process.terminate()
            process.wait()


async def answers(port: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@pytest.fixture
async def store(pooler: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(pooler, SystemClock(), connections=8, is_pooled=True)
    yield store
    await store.close()


async def test_an_item_lives_its_life_through_a_pooler(store: PostgresStore) -> None:
    owner, number = await store.enter(), await add_integration(store, "pooled")
    given = [a_delivery(number, id=fresh_id(store)) for _ in range(20)]

    verdicts = await asyncio.gather(*(store.accept([an_intake(one, owner=owner)]) for one in given[:10]))
    batch = await store.accept([an_intake(one) for one in given[10:]], lambda _: a_once())
    claimed = await store.claim(owner, {whole(number): 100})
    failed = [a_result(claim, REFUSED, events=(an_event(id=fresh_id(store)),)) for claim in claimed.claims]
    recorded = await store.record(owner, failed)
    dead = failed[0].claim.delivery
    replay = a_replay(dead, Status.FAILED, event=an_event(EventType.REPLAYED, id=fresh_id(store)))
    replayed = await store.replay(replay, None)
    [again] = (await store.claim(owner, {whole(number): 1})).claims
    await store.record(owner, [a_result(again, DONE)])

    assert [verdict for [verdict] in verdicts] == [Accepted(claimed=True)] * 10
    assert list(batch) == [Accepted(claimed=False)] * 10
    assert list(recorded) == [True] * 10
    assert replayed
    seen = await store.history(number, dead.id)
    assert seen is not None
    assert (seen[0].status, [(a.cycle, a.attempt) for a in seen[1]]) == (Status.SUCCEEDED, [(1, 1), (2, 1)])
    page = await store.queue(number, QueueFilter(status=Status.FAILED), limit=50, below=None)
    assert len(page.rows) == 9
    assert await store.count_events(EventFilter(), most=1_000) >= 11
    assert await store.renew(owner)
    await store.leave(owner)


async def test_a_call_that_breaks_a_rule_leaves_nothing_behind_for_the_next(store: PostgresStore) -> None:
    number = await add_integration(store, "ruled")
    twice = a_delivery(number, id=fresh_id(store))
    await store.accept([an_intake(twice)])

    refused = await asyncio.gather(
        *(store.accept([an_intake(twice)]) for _ in range(8)), return_exceptions=True
    )

    assert all(isinstance(one, Exception) for one in refused)
    assert (await store.item(number, twice.id)) is not None
    assert await store.balance(await store.enter()) is not None


def fresh_id(store: PostgresStore, ids: IdSequence = IdSequence()) -> int:  # noqa: B008 - one for all tests
    return ids.next(store.clock.now())
