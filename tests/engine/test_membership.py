"""A process among others: when it renews its lease."""

import asyncio
from collections.abc import Collection
from itertools import pairwise
from typing import Any, cast

import pytest

from redrive.delivery.port import Request
from redrive.domain.ids import IdSequence
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Outcome
from redrive.domain.sharing import Lane
from redrive.store.port import Balance, Store, StoreUnavailable
from tests.engine.clock import StandingClock
from tests.engine.conftest import Harness, answered, eventually


@pytest.mark.parametrize("lease", [3.0, 15.0])
async def test_a_lease_is_renewed_several_times_before_it_may_end(
    store: Store, clock: StandingClock, monkeypatch: pytest.MonkeyPatch, lease: float
) -> None:
    renewed_at: list[float] = []

    async def renew(_: int) -> float:
        renewed_at.append(clock.elapsed())
        return lease

    monkeypatch.setattr(store, "renew", renew)
    harness = Harness(store, clock)
    await harness.engine.start()

    async def looked_at() -> bool | None:
        clock.move(0.1)
        return renewed_at[-1] - renewed_at[0] > lease or None

    await eventually(looked_at)
    assert max(later - sooner for sooner, later in pairwise(renewed_at)) < lease / 5
    await harness.close()


@pytest.mark.parametrize("verb", ["renew", "last_id"])
async def test_a_process_that_cannot_join_leaves_no_incarnation_behind(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    membership, left = harness.engine.membership, []
    before = membership.worker.owner

    async def enter() -> int:
        return 7

    async def fail(*_: int) -> None:
        raise StoreUnavailable("the database is away")

    async def leave(owner: int) -> None:
        left.append(owner)
        await fail()

    for name, stand_in in {"enter": enter, verb: fail, "leave": leave}.items():
        monkeypatch.setattr(harness.store, name, stand_in)

    with pytest.raises(StoreUnavailable):
        await membership.join()

    assert left == [7]
    assert membership.worker.owner == before


class TwoLives:
    """A store whose first incarnation is buried while its lanes are being divided; the second has none."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.ids = IdSequence()
        self.lives = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def enter(self) -> int:
        self.lives += 1
        return self.lives

    async def renew(self, owner: int) -> float | None:
        return 15.0 if owner == 2 or not self.asked.is_set() else None

    async def balance(self, owner: int) -> Balance:
        if owner == 2:
            return Balance(frozenset())
        self.asked.set()
        await self.may_answer.wait()
        return Balance(frozenset({self.lane}))

    async def release(self, owner: int, lanes: Collection[Lane]) -> None:
        """Nobody is there to take them."""

    async def step_down(self, owner: int) -> None:
        """Nobody is there to send instead."""

    async def leave(self, owner: int) -> None:
        """Nobody is there to notice."""

    catalogue_version = 0

    async def follow(self, owner: int, version: int) -> None:
        """Nobody is there to wait for it."""

    async def last_id(self) -> int:
        return 0

    async def changed_integrations(self) -> list[Integration]:
        return []


async def test_what_an_ended_lease_owned_is_not_followed_under_the_next(harness: Harness) -> None:
    number = (await harness.integration("acme")).number
    membership, store = harness.engine.membership, TwoLives(Lane(number, 1, 0))
    harness.engine.catalogue.store = membership.store = cast("Store", store)
    await membership.join()
    dividing = asyncio.create_task(membership.balance())
    await store.asked.wait()

    renewing = asyncio.create_task(membership.renew())
    for _ in range(100):
        await asyncio.sleep(0)  # as far as it gets
    store.may_answer.set()
    await asyncio.gather(dividing, renewing)

    assert membership.worker.owner == 2
    assert not membership.worker.is_elsewhere(number, 0), "none of its lanes is ours"
    assert membership.worker.reserve(number, 0) is None


async def test_what_was_accepted_under_an_ended_lease_is_not_sent_under_the_next(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.integration("acme")
    accept, worker = harness.store.accept, harness.engine.worker

    async def accept_while_the_lease_ends(*given: Any) -> Any:
        verdicts = await accept(*given)
        worker.owned.owner += 1
        return verdicts

    monkeypatch.setattr(harness.store, "accept", accept_while_the_lease_ends)

    await harness.deliver("acme")

    await eventually(lambda: _when(worker.in_flight == 0))
    assert harness.deliverer.requests == []


async def test_a_process_that_drains_steps_down_before_its_last_attempt_has_ended(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped_down: list[int] = []

    async def step_down(owner: int) -> None:
        stepped_down.append(owner)

    monkeypatch.setattr(harness.store, "step_down", step_down)
    await harness.integration("slow")
    gate, worker = asyncio.Event(), harness.engine.worker

    async def when_told(_: Request) -> Outcome:
        await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/slow"] = when_told
    await harness.deliver("slow")
    await eventually(lambda: _when(harness.deliverer.requests))

    draining = asyncio.create_task(harness.engine.drain())
    await harness.in_time(lambda: _when(stepped_down))

    assert worker.in_flight == 1
    assert stepped_down[0] == worker.owner
    gate.set()
    assert await draining == 0


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_process_that_owns_several_lanes_has_no_more_of_each_in_flight_than_its_part(
    harness: Harness,
) -> None:
    number = (await harness.integration("split", concurrency=5, shards=2)).number
    lanes = [Lane(number, 2, 0), Lane(number, 2, 1)]
    worker, gate = harness.engine.worker, asyncio.Event()

    async def hold(_: Request) -> Outcome:
        await gate.wait()
        return answered(200)

    harness.deliverer.scripts["/split"] = hold

    names = await harness.deliver("split", 40)
    await eventually(lambda: _when(worker.lanes.in_flight == 5))

    assert [worker.lanes.pace(lane).in_flight for lane in lanes] == [3, 2], "each may go to another at once"
    gate.set()
    for name in names:
        await harness.status("split", name, Status.SUCCEEDED)


async def _when(is_so: object) -> bool | None:
    return True if is_so else None
