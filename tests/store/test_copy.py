"""From a file to PostgreSQL: all of it is there afterwards, or nothing, and goes on from where it stood."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

import apsw
import asyncpg
import pytest
from msgspec.structs import replace

from redrive.audit.record import Actor, EventType
from redrive.clock import SystemClock
from redrive.domain.access import Permission
from redrive.domain.delivery import Claim, Delivery, Erasure, Resolution
from redrive.domain.ids import ItemId, recovery_id
from redrive.domain.item import Status
from redrive.domain.sharing import Lane, whole
from redrive.store.port import (
    Duplicate,
    EventFilter,
    QueueFilter,
    Store,
    StoreInconsistent,
    StoreOwned,
    StoreUnavailable,
)
from redrive.store.postgres import PostgresStore, prepare
from redrive.store.postgres.load import load
from redrive.store.rows import Row
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.export import Export, exported
from redrive.store.tokens import Token
from redrive.store.transfer import Copied, Occupied
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    REFUSED,
    a_delivery,
    a_once,
    a_replay,
    an_event,
    an_id,
    an_import,
    an_intake,
    later,
    secrets,
)
from tests.postgres import Server, a_database
from tests.store.under_test import (
    SqliteUnderTest,
    accept,
    add_integration,
    changed,
    finish,
    sqlite_under_test,
)

Answer = TypeVar("Answer")
CLOCK = SystemClock()
TOKEN = Token("tok_1", "shop", frozenset({Permission.DELIVER}), NOW, NOW + timedelta(days=1), None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "redrive.db"


@pytest.fixture
async def url(postgres: Server) -> str:
    """An empty database."""
    return await a_database(postgres)


async def copy(path: Path, url: str) -> Sequence[Copied]:
    with exported(path) as source:
        return await load(url, source, lambda what, share: None)


async def fill(store: SqliteUnderTest) -> dict[str, Delivery]:
    """An item in each state there is, by the name of that state, and a row in every other table."""
    owner = await store.enter()
    one = await add_integration(store, "one", secrets=secrets("whsec_b25l", "whsec_dHdv"), auth_mode="hmac")
    two = await add_integration(store, "two", shards=3)
    [first, _] = await store.integrations()
    assert await store.update_integration(changed(first, name="Renamed"), [an_event()])

    async def claimed(**fields: Any) -> tuple[Delivery, Claim]:
        delivery = a_delivery(one, **fields)
        await store.accept([an_intake(delivery, owner=owner)])
        return delivery, Claim(delivery, owner, 1, 1, delivery.max_attempts, delivery.request_id)

    async def finished(step: Any, **fields: Any) -> Delivery:
        delivery, claim = await claimed(**fields)
        await finish(store, claim, step)
        return delivery

    items = {
        "pending": a_delivery(one),
        "of another": a_delivery(two, payload=bytes(range(256)), tracestate="a=b"),
        "keyed": a_delivery(one, idempotency_key="order-1", headers=(("x-a", "ä"), ("x-a", "2"))),
    }
    await accept(store, *items.values())
    items["succeeded"] = await finished(DONE)
    items["retrying"] = await finished(later(3600))
    items["failed"] = await finished(REFUSED)
    items["dlq"] = await finished(EXHAUSTED)
    items["claimed"], _ = await claimed()
    items["resolved"] = await finished(REFUSED)
    found = await store.item(one, items["resolved"].id)
    assert found is not None
    assert await store.resolve(found, Resolution(NOW, "ops", "it is obsolete"), an_event(), None)
    items["erased"] = await finished(DONE)
    found = await store.item(one, items["erased"].id)
    assert found is not None
    assert await store.erase(found, Erasure(NOW, "dpo", "request 4711"), an_event(), None)
    await store.meddle("INSERT INTO group_comment VALUES (1, ?, -5, 'ops', 'known')", one)
    await store.meddle("INSERT INTO replay_job VALUES (?, 7, 'running', 1, 'd', 0, '{}')", one)
    await store.meddle("INSERT INTO replay_item VALUES (?, 7, 8, 1, 3, 'failed', 'HTTP_404', 1, 1)", one)
    await store.meddle("INSERT INTO edit VALUES (?, 9, 8)", one)
    items["replayed"] = await finished(EXHAUSTED)
    items["replayed and claimed"] = await finished(EXHAUSTED)
    for name in ("replayed", "replayed and claimed"):
        event = an_event(EventType.REPLAYED, id=an_id(), target_id=recovery_id(items[name].id))
        assert await store.replay(a_replay(items[name], event=event), None)
    items["imported"] = a_delivery(two)
    await store.hand_over(an_import(items["imported"]), a_once())
    await store.meddle(
        "UPDATE live SET claimed_by = ?, attempt = 1 WHERE id = ?", owner, items["replayed and claimed"].id
    )
    await store.tokens.add(TOKEN, bytes(32))
    await store.keep("data_key", b"sealed")
    await store.note([an_event(actor=Actor("öps", "token", None), request_id=None)])
    return items


async def test_all_that_the_port_shows_is_the_same_on_both_sides(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        items = await fill(store)

    await copy(path, url)

    async with sqlite_under_test(path.parent) as old:
        new = await PostgresStore.open(url, CLOCK)
        for question in questions(items):
            assert await question(new) == await question(old)
        await new.close()


def questions(items: dict[str, Delivery]) -> Iterator[Callable[[Store], Awaitable[Any]]]:
    yield lambda store: store.integrations()
    yield lambda store: store.tokens.all()
    yield lambda store: store.tokens.find(bytes(32))
    yield lambda store: store.kept("data_key")
    yield lambda store: store.recall(b"scope")
    yield lambda store: store.last_id()
    yield lambda store: store.events(EventFilter(), limit=200, below=None)
    yield lambda store: store.events(EventFilter(request_id="req-1"), limit=2, below=None)
    yield lambda store: store.count_events(EventFilter(integration_id="acme"), most=100)
    for number in (1, 2):
        for status in (None, *Status):
            wanted = QueueFilter(status=status)
            yield methodcaller("queue", number, wanted, limit=50, below=None)
        yield methodcaller("queue", number, QueueFilter(failure_code="HTTP_404"), limit=9, below=None)
    for delivery in items.values():
        for verb in ("item", "history"):
            yield methodcaller(verb, delivery.integration, delivery.id)


async def test_every_row_and_every_byte_is_accounted_for(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        items = await fill(store)

    copied = {one.table: one.digest for one in await copy(path, url)}

    assert {name: digest.rows for name, digest in copied.items()} == counts(path)
    assert 0 not in counts(path).values(), "each table should have been tried"
    assert copied["delivery"].bytes == sum(
        len(delivery.payload) for name, delivery in items.items() if name != "erased"
    )


async def test_a_store_that_was_copied_goes_on_where_it_stood(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        items = await fill(store)
    await copy(path, url)
    assert await rows(url, "SELECT version FROM catalogue") == [(1,)]
    new = await PostgresStore.open(url, CLOCK)
    owner = await new.enter()

    balance = await new.balance(owner)
    claimed = await new.claim(owner, {whole(1): 50, whole(2): 50})

    assert owner == 2, "the number of the process that made claims in the file is nobody's"
    assert balance is not None
    assert balance.owned == {Lane(1, 1, 0), *(Lane(2, 3, shard) for shard in range(3))}
    orphans = {orphan.delivery.id: orphan for orphan in claimed.orphans}
    assert set(orphans) == {items[name].id for name in ("claimed", "replayed and claimed")}
    assert {orphan.attempt for orphan in orphans.values()} == {1}, "that attempt was counted already"
    assert {orphan.orphaned_at for orphan in orphans.values()} == {NOW}
    assert {claim.delivery for claim in claimed.claims} == {
        items[name] for name in ("pending", "of another", "keyed", "retrying", "replayed")
    }
    assert await add_integration(new, "three") == 3
    again = an_intake(a_delivery(1, idempotency_key="order-1", id=UNUSED))
    assert await new.accept([again]) == [Duplicate(items["keyed"].id)]
    assert [one.integration_id for one in await new.changed_integrations()] == ["one", "three", "two"]
    await new.close()


UNUSED = ItemId(1 << 58)


async def test_a_claim_lasted_no_longer_than_its_process_was_seen(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        owner = await store.enter()
        number = await add_integration(store)
        store.clock.move(7)
        await store.renew(owner)
        await store.accept([an_intake(a_delivery(number), owner=owner)])

    await copy(path, url)

    [row] = await rows(url, "SELECT claimed_by, claimed_at FROM live")
    assert row == (1, int((NOW + timedelta(seconds=7)).timestamp() * 1000))


async def test_an_empty_file_can_be_copied_and_served(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent):
        pass

    copied = await copy(path, url)

    assert {one.digest.rows for one in copied} == {0}
    new = await PostgresStore.open(url, CLOCK)
    assert await new.enter() == 1
    assert await add_integration(new) == 1
    await new.close()


async def test_a_database_with_a_schema_may_be_copied_to(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)
    await prepare(url, CLOCK)

    await copy(path, url)

    assert await rows(url, "SELECT count(*) FROM delivery") == [(13,)]


# refusals


async def test_a_file_that_a_service_runs_on_is_not_copied(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await store.enter()

        with pytest.raises(StoreOwned, match="in use by redrive serve, pid "):
            await copy(path, url)


async def test_no_service_starts_on_a_file_while_it_is_copied(path: Path) -> None:
    async with sqlite_under_test(path.parent) as store:
        with exported(path), pytest.raises(StoreOwned, match="in use by redrive copy, pid "):
            await store.enter()


async def test_a_file_of_another_version_is_not_copied(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await store.meddle("DELETE FROM migration")

    with pytest.raises(StoreUnavailable, match="run `redrive migrate`"):
        await copy(path, url)


@pytest.mark.parametrize("what", ["an integration", "a token", "a process"])
async def test_a_database_that_is_not_empty_is_left_as_it_is(path: Path, url: str, what: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)
    there = await PostgresStore.open(url, CLOCK)
    match what:
        case "an integration":
            await add_integration(there)
        case "a token":
            await there.tokens.add(replace(TOKEN, token_id="tok_2"), bytes(32))
        case _:
            await there.enter()
    await there.close()

    with pytest.raises(Occupied, match="the database is not empty"):
        await copy(path, url)

    assert await rows(url, "SELECT count(*) FROM delivery") == [(0,)]


async def test_what_is_not_the_same_when_it_is_read_back_is_not_kept(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)
    await prepare(url, CLOCK)
    await execute(url, CHANGE_A_RECORD)

    with pytest.raises(StoreInconsistent, match="audit: 9 rows"):
        await copy(path, url)

    assert await rows(url, "SELECT count(*) FROM integration") == [(0,)]


CHANGE_A_RECORD = """
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.record = replace(NEW.record, 'ö', 'o'); RETURN NEW; END $$;
CREATE TRIGGER meddle BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION meddle()
"""


@pytest.mark.parametrize("stage", ["copying audit", "comparing audit"])
async def test_a_copy_that_is_interrupted_leaves_nothing(path: Path, url: str, stage: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)
    copying: asyncio.Task[Any]

    def interrupt(what: str, share: float) -> None:
        if what == stage:
            copying.cancel()  # as Ctrl-C does

    with exported(path) as source:
        copying = asyncio.create_task(load(url, source, interrupt))
        with pytest.raises(asyncio.CancelledError):
            await copying

    assert await rows(url, "SELECT to_regclass('delivery')") == [(None,)]
    await copy(path, url)


async def test_a_file_that_cannot_be_read_on_leaves_nothing(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)

    with exported(path) as source, pytest.raises(StoreUnavailable):
        await load(url, Broken(source), lambda what, share: None)

    assert await rows(url, "SELECT to_regclass('delivery')") == [(None,)]


async def test_nobody_sees_or_adds_anything_until_all_is_there(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await fill(store)
    await prepare(url, CLOCK)
    seen: list[Row] = []
    add = "INSERT INTO incarnation (process, started_at, lease_until) VALUES ('late', 0, 0)"

    def look(what: str, share: float) -> None:
        if what == "copying audit":
            seen.extend(meanwhile(lambda: rows(url, "SELECT count(*) FROM integration")))
            with pytest.raises(asyncpg.LockNotAvailableError):
                meanwhile(lambda: execute(url, "SET lock_timeout = '10ms'", add))

    with exported(path) as source:
        await load(url, source, look)

    assert seen == [(0,)]


async def test_text_that_postgresql_does_not_take_is_told(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent) as store:
        await store.note([an_event(target_id="a\0b")])

    with pytest.raises(StoreInconsistent, match="PostgreSQL does not take what is stored"):
        await copy(path, url)


# the two schemas


async def test_every_table_of_a_file_is_copied_with_every_column_there(path: Path, url: str) -> None:
    async with sqlite_under_test(path.parent):
        pass
    await prepare(url, CLOCK)

    with exported(path) as source:
        for table in source.tables():
            sql = f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
            assert {name for (name,) in await rows(url, sql)} == set(source.columns(table)), table
        made_anew = {"lane", "catalogue", "duty", "incarnation", "migration", "failure_count"}
        assert await tables(url) - set(source.tables()) == made_anew


class Broken(Export):
    """Ends in the middle of the audit."""

    def __init__(self, whole: Export) -> None:
        super().__init__(whole._connection)

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        found = super().rows(table, columns)
        if table == "audit":
            yield next(found)
            raise StoreUnavailable("the disk is gone")
        yield from found


def meanwhile(ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Ask beside the loop that is busy."""
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(lambda: asyncio.run(ask())).result()


async def rows(url: str, sql: str) -> list[Row]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    """Those that are no part of another."""
    sql = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    return {name for (name,) in await rows(url, f"{sql} AND NOT relispartition")}


def counts(path: Path) -> dict[str, int]:
    """How many rows each table of the file has, but those of its processes and its schema."""
    with closing(apsw.Connection(str(path))) as connection:
        names = [name for (name,) in ask(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
        kept = [n for n in names if n not in ("incarnation", "migration") and not n.startswith("sqlite_")]
        return {name: ask(connection, f"SELECT count(*) FROM {name}")[0][0] for name in kept}
