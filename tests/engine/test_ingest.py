"""Accepting many at once: what a caller who leaves, a bug, and a slow store may not spoil."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from redrive.domain.errors import RateLimited
from redrive.domain.item import Status
from redrive.domain.sharing import Lane
from redrive.engine.ingest import Receipt, Submission
from redrive.engine.once import Key, Told
from redrive.store.port import Intake, Once, QueueFilter, Store, StoreInconsistent, Verdict
from redrive.store.postgres import PostgresStore
from redrive.store.sqlite import SqliteStore
from tests.engine.conftest import DEADLINE_SECONDS, Harness, eventually, in_silence

A_KEY = Key.of("shop", "POST /batch", "key", b"body", secret=b"secret")
GOOD, POISON = Submission("made", b"1"), Submission("poison", b"1")
TWO = [Submission("made", b"1"), Submission("made", b"2")]


class Gate:
    """What a store accepts is stored, and kept to itself until the gate opens."""

    def __init__(self, store: Store) -> None:
        self._accept = store.accept
        self._open = asyncio.Event()
        self._waiting = 0

    async def accept(
        self, intakes: Sequence[Intake], tell: Callable[[Sequence[Verdict]], Once | None] | None = None
    ) -> Sequence[Verdict]:
        verdicts = await self._accept(intakes, tell)
        self._waiting += 1
        await self._open.wait()
        return verdicts

    def open(self) -> None:
        self._open.set()

    async def holds(self, count: int) -> None:
        """Return once *count* calls wait."""

        async def look() -> bool | None:
            return self._waiting == count or None

        await eventually(look)


@pytest.fixture
def gate(store: Store, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate(store)
    monkeypatch.setattr(store, "accept", gate.accept)
    return gate


@pytest.fixture
async def slow(gate: Gate, harness: Harness) -> AsyncIterator[Harness]:
    await harness.integration("a")
    yield harness
    gate.open()


@pytest.mark.parametrize("key", [None, A_KEY])
async def test_what_was_claimed_goes_out_when_its_caller_has_left(
    slow: Harness, gate: Gate, key: Key | None
) -> None:
    leaving = asyncio.create_task(accept(slow, key))
    await gate.holds(1)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.open()

    async def sent() -> bool | None:
        return slow.deliverer.sent("/a") == len(TWO) or None

    await eventually(sent)


async def test_a_drain_waits_for_a_batch_that_is_being_stored(slow: Harness, gate: Gate) -> None:
    accepting = asyncio.create_task(accept(slow))
    await gate.holds(1)

    draining = asyncio.create_task(slow.engine.drain())
    gate.open()

    assert await draining == 0
    assert slow.deliverer.sent("/a") == len(TWO)
    await accepting


async def test_batches_that_are_being_stored_leave_less_room(slow: Harness, gate: Gate) -> None:
    slow.engine.ingest.max_queued = 4
    storing = [asyncio.create_task(accept(slow)) for _ in range(2)]
    await gate.holds(2)

    with pytest.raises(RateLimited, match="4 deliveries wait"):
        await accept(slow)
    with pytest.raises(RateLimited):
        await slow.deliver("a")

    gate.open()
    await asyncio.gather(*storing)
    await accept(slow)


@pytest.mark.parametrize("key", [None, A_KEY])
async def test_a_batch_that_cannot_be_told_leaves_its_places_to_others(
    harness: Harness, key: Key | None
) -> None:
    await harness.integration("a", concurrency=2)

    def broken(_: object) -> Told:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await harness.engine.ingest.accept_batch(harness.call(), "a", TWO, render=broken, key=key)

    recovery_ids = await harness.deliver("a", 2)
    for recovery_id in recovery_ids:
        await harness.status("a", recovery_id, Status.SUCCEEDED)
    assert harness.deliverer.sent("/a") == 2


async def test_a_delivery_that_cannot_be_stored_fails_alone(poisonable: Harness) -> None:
    submissions = [GOOD] * 20
    submissions[3] = submissions[11] = POISON

    results = await accept_at_once(poisonable, *submissions)

    assert [at for at, result in enumerate(results) if isinstance(result, StoreInconsistent)] == [3, 11]
    receipts = [result for result in results if isinstance(result, Receipt)]
    assert len(receipts) == 18
    for receipt in receipts:
        await poisonable.status("a", receipt.recovery_id, Status.SUCCEEDED)
    assert poisonable.deliverer.sent("/a") == 18


async def test_what_could_not_be_stored_takes_no_place_in_its_lane(poisonable: Harness) -> None:
    await accept_at_once(poisonable, *[POISON] * 5)

    [receipt] = await accept_at_once(poisonable, GOOD)

    assert isinstance(receipt, Receipt)
    await poisonable.status("a", receipt.recovery_id, Status.SUCCEEDED)


async def test_a_batch_that_cannot_be_stored_is_stored_in_no_part(poisonable: Harness) -> None:
    accepting = poisonable.engine.ingest.accept_batch(
        poisonable.call(), "a", [GOOD, POISON], render=in_silence
    )

    batch, single = await asyncio.gather(accepting, accept_at_once(poisonable, GOOD), return_exceptions=True)

    assert isinstance(batch, StoreInconsistent)
    assert [type(one) for one in single] == [Receipt]  # type: ignore[union-attr]  # it raised nothing
    page = await poisonable.store.queue(poisonable.number("a"), QueueFilter(), limit=10, below=None)
    assert len(page.rows) == 1


POISON_SQLITE = """
CREATE TRIGGER poison BEFORE INSERT ON delivery WHEN new.event_type = 'poison'
BEGIN SELECT raise(ABORT, 'poison'); END
"""
POISON_POSTGRES = "ALTER TABLE delivery ADD CONSTRAINT poison CHECK (event_type <> 'poison')"


@pytest.fixture
async def poisonable(harness: Harness) -> Harness:
    """Whatever has the event type `poison` cannot be stored."""
    await harness.integration("a", concurrency=2)
    if isinstance(harness.store, SqliteStore):
        await harness.store._writer.run(lambda connection: connection.execute(POISON_SQLITE))
    elif isinstance(harness.store, PostgresStore):
        await harness.store._database.run(lambda session: session.execute(POISON_POSTGRES))
    return harness


async def accept_at_once(harness: Harness, *submissions: Submission) -> list[Receipt | BaseException]:
    """What became of each, handed over by a caller of its own in the same moment."""
    accept = harness.engine.ingest.accept
    return await asyncio.gather(
        *(accept(harness.call(), "a", one) for one in submissions), return_exceptions=True
    )


async def accept(harness: Harness, key: Key | None = None) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await harness.engine.ingest.accept_batch(harness.call(), "a", TWO, render=in_silence, key=key)


async def test_what_is_accepted_for_a_split_integration_falls_into_a_lane_of_ours(harness: Harness) -> None:
    number = (await harness.integration("split", shards=4)).number
    harness.engine.worker.owned.follow(frozenset({Lane(number, 4, 2)}))

    names = await harness.deliver("split", 5)

    items = [await harness.status("split", name, Status.SUCCEEDED) for name in names]
    assert {item.delivery.id % 4 for item in items} == {2}
