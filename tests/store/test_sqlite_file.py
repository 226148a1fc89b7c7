"""What is SQLite's own: the file, its owner, its settings and its schema."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

import apsw
import pytest

from redrive.domain.sharing import whole
from redrive.store.migration import Migration, migrations
from redrive.store.port import StoreOwned, StoreUnavailable
from redrive.store.sqlite import schema
from redrive.store.sqlite.connection import connect, connect_to_read
from redrive.store.sqlite.file import take_lock
from redrive.store.sqlite.schema import prepare
from tests.factories import a_delivery
from tests.store.under_test import (
    OffsetClock,
    SqliteUnderTest,
    accept,
    add_integration,
    claim_all,
    sqlite_under_test,
)

HOLDER = """
import asyncio, sys
from pathlib import Path
from redrive.clock import SystemClock
from redrive.store.sqlite import SqliteStore

async def hold():
    store = await SqliteStore.open(Path(sys.argv[1]), SystemClock())
    print(await store.enter(), flush=True)
    sys.stdin.read()

asyncio.run(hold())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "redrive.db"


# the owner


async def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path, path: Path) -> None:
    async with sqlite_under_test(tmp_path) as first, sqlite_under_test(tmp_path) as second:
        await first.enter()

        with pytest.raises(StoreOwned, match=rf"redrive serve, pid {os.getpid()}\b"):
            await second.enter()


async def test_a_store_cannot_be_entered_twice(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as first:
        await first.enter()

        with pytest.raises(StoreOwned):
            await first.enter()


async def test_whoever_is_refused_changes_nothing(tmp_path: Path, path: Path) -> None:
    async with sqlite_under_test(tmp_path) as first, sqlite_under_test(tmp_path) as second:
        owner = await first.enter()

        with pytest.raises(StoreOwned):
            await second.enter()

        assert await first.renew(owner)
        assert count(path, "incarnation") == 1


@pytest.mark.parametrize("ending", ["leave", "close"])
async def test_the_next_may_enter_when_the_owner_is_gone(tmp_path: Path, ending: str) -> None:
    async with sqlite_under_test(tmp_path) as second:
        async with sqlite_under_test(tmp_path) as first:
            owner = await first.enter()
            if ending == "leave":
                await first.leave(owner)
                assert await second.enter() > owner
        if ending == "close":
            assert await second.enter() > owner


async def test_a_killed_owner_frees_the_file_and_leaves_its_work_to_the_next(
    tmp_path: Path, path: Path
) -> None:
    async with sqlite_under_test(tmp_path) as store:
        number = await add_integration(store)
        await accept(store, delivery := a_delivery(number))
        holder = await asyncio.to_thread(start_holder, path)
        try:
            other = int(await asyncio.to_thread(holder.stdout.readline))  # type: ignore[union-attr]  # piped
            await store.claim(other, {whole(number): 1})
            with pytest.raises(StoreOwned, match=rf"redrive serve, pid {holder.pid}\b"):
                await store.enter()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.communicate()

        owner = await store.enter()

        assert [claim.delivery for claim in (await store.adopt(owner, 10)).claims] == [delivery]
        assert not await store.renew(other)


def start_holder(path: Path) -> subprocess.Popen[str]:
    """Another process that enters the file and stays."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# durability and access


async def test_every_commit_is_synchronised_in_full_to_a_write_ahead_log(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as store:
        settings = await store._writer.run(
            lambda c: (c.pragma("journal_mode"), c.pragma("synchronous"), c.pragma("foreign_keys"))
        )

    assert settings == ("wal", 2, 1)


def test_a_file_that_takes_no_write_ahead_log_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="write-ahead log") as caught:
        connect(Path(":memory:"))

    assert caught.value.fatal


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_only_its_owner_may_read_any_of_its_files(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with sqlite_under_test(tmp_path / "data") as store:
            await store.enter()
            await add_integration(store)
            modes = {file.name: S_IMODE(file.stat().st_mode) for file in (tmp_path / "data").iterdir()}
    finally:
        os.umask(before)

    assert set(modes) == {"redrive.db", "redrive.db-wal", "redrive.db-shm", "redrive.db.lock"}
    assert set(modes.values()) == {0o600}
    assert S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_a_reader_cannot_write(tmp_path: Path, path: Path) -> None:
    async with sqlite_under_test(tmp_path):
        reader = connect_to_read(path)

        with pytest.raises(apsw.ReadOnlyError):
            reader.execute("DELETE FROM integration")

        reader.close()


def test_what_is_not_a_database_is_refused_for_good(path: Path) -> None:
    path.write_bytes(b"something else altogether" * 100)

    with pytest.raises(StoreUnavailable) as caught:
        prepare(path, OffsetClock())

    assert caught.value.fatal


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
async def test_a_file_that_went_away_is_noticed_and_fatal(tmp_path: Path, path: Path, how: str) -> None:
    async with sqlite_under_test(tmp_path) as store:
        owner = await store.enter()
        lose(path, how)

        with pytest.raises(StoreUnavailable, match="moved, deleted or replaced") as caught:
            await store.renew(owner)

    assert caught.value.fatal


@pytest.mark.parametrize("how", ["moved", "deleted"])
async def test_whoever_opens_a_file_that_went_away_is_told_so(tmp_path: Path, path: Path, how: str) -> None:
    async with sqlite_under_test(tmp_path) as store:
        lose(path, how)

        with pytest.raises(StoreUnavailable, match="moved, deleted or replaced") as caught:
            await store.integrations()

    assert caught.value.fatal


def lose(path: Path, how: str) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    if how == "deleted":
        path.with_suffix(".elsewhere").unlink()
    if how == "replaced":
        path.write_bytes(b"")


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as store:
        number = await add_integration(store)
        await store.keep("a key", b"sealed")
        await accept(store, delivery := a_delivery(number))

    async with sqlite_under_test(tmp_path) as store:
        item = await store.item(number, delivery.id)

        assert item is not None
        assert item.delivery == delivery
        assert await store.kept("a key") == b"sealed"


async def test_a_closed_store_takes_no_work(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as store:
        pass

    with pytest.raises(StoreUnavailable):
        await add_integration(store)


# the schema


@pytest.fixture
def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that an older version made: this one has a step more."""
    prepare(path, OffsetClock())
    newer = [*steps_of_sqlite(), Migration(9999, "9999_more.sql", "CREATE TABLE more (x);")]
    monkeypatch.setattr(schema, "migrations", lambda package: newer)
    return path


def test_a_new_file_gets_every_step(path: Path) -> None:
    first = prepare(path, OffsetClock())
    again = prepare(path, OffsetClock())

    assert first == [step.name for step in steps_of_sqlite()]
    assert again == []


def test_steps_are_numbered_without_a_gap() -> None:
    numbers = [step.number for step in steps_of_sqlite()]

    assert numbers == list(range(1, len(numbers) + 1))


async def test_whoever_works_beside_an_owner_leaves_an_old_file_as_it_is(old: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"lacks schema step 9999_more\.sql.*`redrive migrate`"):
        await SqliteUnderTest.open(old, OffsetClock())

    assert not has_table(old, "more")


async def test_whoever_enters_an_old_file_brings_it_up_to_this_version(old: Path) -> None:
    async with sqlite_under_test(old.parent, migrates=True) as store:
        assert not has_table(old, "more"), "it is not ours yet"

        await store.enter()

        assert has_table(old, "more")
        async with sqlite_under_test(old.parent):
            pass


async def test_an_old_file_that_is_owned_is_migrated_by_nobody_else(old: Path) -> None:
    with owned(old, "redrive serve"):
        async with sqlite_under_test(old.parent, migrates=True) as second:
            with pytest.raises(StoreOwned):
                await second.enter()
        with pytest.raises(StoreOwned, match=rf"in use by redrive serve, pid {os.getpid()}:"):
            schema.migrate(old, OffsetClock())

        assert not has_table(old, "more")

    assert schema.migrate(old, OffsetClock()) == ["9999_more.sql"]
    assert has_table(old, "more")


async def test_nobody_enters_a_file_while_it_is_migrated(path: Path) -> None:
    with owned(path, "redrive migrate"):
        async with sqlite_under_test(path.parent) as store:
            with pytest.raises(StoreOwned, match="in use by redrive migrate, pid"):
                await store.enter()


async def test_a_file_of_this_version_needs_no_migration_whoever_owns_it(path: Path) -> None:
    async with sqlite_under_test(path.parent) as store:
        await store.enter()

        assert schema.migrate(path, OffsetClock()) == []


def test_migrating_makes_a_new_file(path: Path) -> None:
    assert schema.migrate(path, OffsetClock()) == [step.name for step in steps_of_sqlite()]


UNKNOWN = {
    "from the future": ("INSERT INTO migration VALUES (9999, 'later', 'x', 0)", "schema step 9999"),
    "edited after it was applied": (
        "UPDATE migration SET checksum = 'another'",
        r"0001_\w+\.sql is not the one",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_a_schema_this_version_does_not_know_is_refused(path: Path, what: str) -> None:
    prepare(path, OffsetClock())
    sql, told = UNKNOWN[what]
    by_hand(path, sql)

    with pytest.raises(StoreUnavailable, match=told):
        await SqliteUnderTest.open(path, OffsetClock())
    async with sqlite_under_test(path.parent, migrates=True) as store:
        with pytest.raises(StoreUnavailable, match=told) as caught:
            await store.enter()
        assert caught.value.fatal
    with pytest.raises(StoreUnavailable, match=told):
        schema.migrate(path, OffsetClock())


def test_a_step_that_fails_leaves_nothing_of_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(path, OffsetClock())
    broken = Migration(9999, "9999_broken.sql", "CREATE TABLE half (x); CREATE TABLE half (x);")
    steps = [*steps_of_sqlite(), broken]
    monkeypatch.setattr(schema, "migrations", lambda package: steps)

    with pytest.raises(StoreUnavailable):
        schema.migrate(path, OffsetClock())

    assert not has_table(path, "half")
    assert count(path, "migration") == len(steps) - 1


async def test_adoption_takes_no_more_than_its_limit_at_a_time(path: Path) -> None:
    store = await SqliteUnderTest.open(path, OffsetClock())
    number, owner = await add_integration(store), await store.enter()
    given = [a_delivery(number) for _ in range(5)]
    await accept(store, *given)
    await claim_all(store, owner, number)
    await store.expire(owner)
    other = await store.join()

    parts = [(await store.adopt(other, 2)).claims for _ in range(4)]

    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert {claim.delivery for part in parts for claim in part} == set(given)
    await store.close()


async def test_an_alias_of_a_file_that_is_owned_is_refused_too(path: Path) -> None:
    owned = await SqliteUnderTest.open(path, OffsetClock())
    await owned.enter()
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    second = await SqliteUnderTest.open(alias, OffsetClock())

    with pytest.raises(StoreOwned):
        await second.enter()

    await second.close()
    await owned.close()


async def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(SqliteUnderTest.open(path, OffsetClock()) for _ in range(32)))

    for opened in stores:
        await opened.close()

    assert count(path, "migration") == len(steps_of_sqlite())


@contextmanager
def owned(path: Path, command: str) -> Iterator[None]:
    """*path* while somebody has its lock."""
    lock = take_lock(path, command)
    yield
    os.close(lock)


def steps_of_sqlite() -> list[Migration]:
    return migrations("redrive.store.sqlite")


def has_table(path: Path, name: str) -> bool:
    return count(path, f"sqlite_schema WHERE name = '{name}'") > 0


def by_hand(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def count(path: Path, table: str) -> int:
    connection = apsw.Connection(str(path))
    [(number,)] = connection.execute(f"SELECT count(*) FROM {table}")
    connection.close()
    return int(number)
