"""The writer thread: group commit, undoing, full disks; and what a reader sees meanwhile."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import apsw
import pytest

from redrive.domain.delivery import Delivery
from redrive.store.port import StoreInconsistent, StoreUnavailable
from redrive.store.sqlite import read
from redrive.store.sqlite.connection import ask
from tests.factories import a_claim, a_delivery, a_result, an_intake
from tests.store.under_test import SqliteUnderTest, accept, add_integration, sqlite_under_test

DEADLINE = 10


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteUnderTest]:
    async with sqlite_under_test(tmp_path) as store:
        yield store


class Commits:
    """Counts commits, and can hold the writer before its next one."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = Event()

    async def watch(self, store: SqliteUnderTest) -> None:
        def hook() -> bool:
            self.count += 1
            return False

        await store._writer.run(lambda connection: connection.set_commit_hook(hook))
        self.count = 0

    async def hold(self, store: SqliteUnderTest) -> asyncio.Task[bool]:
        """Keep the writer in a unit of work until the gate opens."""
        entered = Event()

        def wait(connection: apsw.Connection) -> bool:
            entered.set()
            return self.gate.wait(DEADLINE)

        task = asyncio.create_task(store._writer.run(wait))
        assert await asyncio.to_thread(entered.wait, DEADLINE)
        return task


async def test_what_queued_while_the_last_commit_ran_is_committed_at_once(store: SqliteUnderTest) -> None:
    number = await add_integration(store)
    commits = Commits()
    await commits.watch(store)
    held = await commits.hold(store)

    verbs = [asyncio.create_task(accept(store, a_delivery(number))) for _ in range(200)]
    await asyncio.to_thread(lambda: None)  # let every one of them hand its work over
    commits.gate.set()
    await asyncio.gather(held, *verbs)

    assert commits.count == 2


async def test_a_unit_that_fails_undoes_itself_alone(store: SqliteUnderTest) -> None:
    number = await add_integration(store)
    first, other, kept = (a_delivery(number) for _ in range(3))
    twin = a_delivery(number, id=first.id)
    commits = Commits()
    held = await commits.hold(store)

    batches = ([first], [other, twin], [kept])
    verbs = [asyncio.create_task(accept(store, *batch)) for batch in batches]
    await asyncio.to_thread(lambda: None)
    commits.gate.set()
    done = await asyncio.gather(held, *verbs, return_exceptions=True)

    assert [type(result) for result in done[1:]] == [type(None), StoreInconsistent, type(None)]
    assert [await is_stored(store, d) for d in (first, other, kept)] == [True, False, True]


async def test_a_caller_that_goes_away_does_not_take_its_write_back(store: SqliteUnderTest) -> None:
    number = await add_integration(store)
    delivery = a_delivery(number)
    commits = Commits()
    held = await commits.hold(store)

    verb = asyncio.create_task(accept(store, delivery))
    await asyncio.to_thread(lambda: None)
    verb.cancel()
    commits.gate.set()
    await asyncio.gather(held, verb, return_exceptions=True)
    await store.keep("anything", b"")  # a commit later

    assert verb.cancelled()
    assert await is_stored(store, delivery)


async def test_what_was_handed_over_before_a_close_is_written(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as store:
        number = await add_integration(store)
        given = [a_delivery(number) for _ in range(50)]
        verbs = [asyncio.create_task(accept(store, delivery)) for delivery in given]
        await asyncio.to_thread(lambda: None)
    await asyncio.gather(*verbs)

    async with sqlite_under_test(tmp_path) as store:
        assert [await is_stored(store, delivery) for delivery in given] == [True] * 50


async def test_a_question_is_answered_from_one_snapshot(store: SqliteUnderTest) -> None:
    number = await add_integration(store)
    await accept(store, first := a_delivery(number))
    asked, written = Event(), Event()

    def look_twice(connection: apsw.Connection) -> list[int]:
        before = len(ask(connection, "SELECT id FROM live"))
        asked.set()
        assert written.wait(DEADLINE)
        return [before, len(ask(connection, "SELECT id FROM live"))]

    looking = asyncio.create_task(store._read(look_twice))
    assert await asyncio.to_thread(asked.wait, DEADLINE)
    await accept(store, second := a_delivery(number))
    written.set()

    assert await looking == [1, 1]
    assert [await is_stored(store, d) for d in (first, second)] == [True, True]


async def test_a_question_that_fails_does_not_spoil_the_next(store: SqliteUnderTest) -> None:
    number = await add_integration(store)
    await accept(store, delivery := a_delivery(number))
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await store._read(lambda c: ask(c, "SELECT nothing FROM nowhere"))

    assert await is_stored(store, delivery)


async def test_a_full_database_changes_nothing_and_works_again_once_there_is_room(
    store: SqliteUnderTest,
) -> None:
    number, owner = await add_integration(store), await store.enter()
    await store.accept([an_intake(small := a_delivery(number), owner=owner)])
    await store._writer.run(lambda c: c.pragma("max_page_count", c.pragma("page_count")))
    large = [a_delivery(number, payload=b"x" * 200_000, idempotency_key="key") for _ in range(2)]

    with pytest.raises(StoreUnavailable, match="full") as caught:
        await accept(store, large[0])
    still_there = await store.item(number, small.id)
    await store._writer.run(lambda c: c.pragma("max_page_count", 1_000_000))
    await accept(store, large[1])

    assert not caught.value.fatal
    assert still_there is not None
    assert [await is_stored(store, d) for d in large] == [False, True]
    assert list(await store.record(owner, [a_result(a_claim(small, owner=owner))])) == [True]


async def test_a_commit_that_fails_on_a_full_database_is_undone_for_all_that_share_it(
    store: SqliteUnderTest,
) -> None:
    number = await add_integration(store)
    await store._writer.run(lambda c: c.pragma("max_page_count", c.pragma("page_count") + 20))
    small, large = a_delivery(number), a_delivery(number, payload=b"x" * 200_000)
    commits = Commits()
    held = await commits.hold(store)

    verbs = [asyncio.create_task(accept(store, delivery)) for delivery in (small, large)]
    await asyncio.to_thread(lambda: None)
    commits.gate.set()
    done = await asyncio.gather(held, *verbs, return_exceptions=True)

    assert [type(result) for result in done[1:]] == [StoreUnavailable] * 2
    assert [await is_stored(store, d) for d in (small, large)] == [False, False]


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from redrive.store.port import StoreUnavailable
from tests.factories import a_delivery, an_intake
from tests.store.under_test import add_integration, sqlite_under_test

async def main():
    async with sqlite_under_test(Path(sys.argv[1])) as store:
        number, owner = await add_integration(store), await store.enter()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
        stored, refused = [], []
        while not refused:
            delivery = a_delivery(number, payload=b"x" * 50_000)
            try:
                await store.accept([an_intake(delivery)])
                stored.append(delivery)
            except StoreUnavailable as error:
                assert not error.fatal, error
                refused.append(delivery)
        try:
            await store.accept([an_intake(a_delivery(number, payload=b"x" * 50_000))])
        except StoreUnavailable:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await store.accept([an_intake(late := a_delivery(number, payload=b"x" * 50_000))])
        assert await store.renew(owner)
        for delivery in (*stored, late):
            item = await store.item(number, delivery.id)
            assert item is not None and item.delivery == delivery
        assert await store.item(number, refused[0].id) is None
        print(len(stored))

asyncio.run(main())
"""


def test_a_file_that_cannot_grow_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) > 0


async def is_stored(store: SqliteUnderTest, delivery: Delivery) -> bool:
    return await store._read(read.item, delivery.integration, delivery.id) is not None
