"""Two verbs on one item at once: one is held before its commit, while the other runs into it.

Whatever the order, what is left must be what the two leave one after another: one wins, and all of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Claim, Delivery, Resolution
from redrive.domain.ids import recovery_id
from redrive.domain.integration import Integration, Lifecycle
from redrive.domain.item import Step
from redrive.domain.replay import Job, ReplayState
from redrive.domain.replay_plan import Frozen
from redrive.domain.sharing import whole
from redrive.domain.traffic import Mode, Release, Traffic
from redrive.store.port import Accepted, AlreadyAnswered, Result, StoreUnavailable
from redrive.store.postgres.store import LEASE_SECONDS
from redrive.store.replays import Batch, Next
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    OUTAGE,
    a_delivery,
    a_job,
    a_once,
    a_replay,
    a_result,
    an_event,
    an_import,
    an_intake,
    contained,
    later,
    run,
)
from tests.postgres import Server
from tests.store import under_test
from tests.store.left import what_is_left
from tests.store.under_test import (
    ClockedDatabase,
    PostgresUnderTest,
    a_dead_item,
    accept,
    add_integration,
    changed,
    claim_all,
)

PATIENCE_SECONDS = 10.0  # reached only by a broken test
_scenes = count(1)


class Hold:
    """A transaction that has done its work, and ends when it is told to."""

    def __init__(self, *, commits: bool) -> None:
        self.commits = commits
        self.backend = asyncio.get_running_loop().create_future()
        self.ends = asyncio.Event()


class HeldDatabase(ClockedDatabase):
    """The next session that writes does it in one transaction, and waits before the end of that."""

    hold: Hold | None = None

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        async with super()._session() as session:
            if (hold := self.hold) is None:
                yield session
                return
            async with session.transaction():
                yield session
                if await session.fetchval("SELECT pg_current_xact_id_if_assigned()") is None:
                    return  # it only looked
                self.hold = None
                hold.backend.set_result(session.get_server_pid())
                await hold.ends.wait()
                if not hold.commits:
                    raise ConnectionResetError("its session was ended")


@dataclass
class Process:
    """One of the two; what it writes bears its name."""

    name: str
    store: PostgresUnderTest
    owner: int


class Processes(NamedTuple):
    """The two, and one that sets the scene for them: what it claimed, their cursors have not passed."""

    one: Process
    other: Process
    aside: PostgresUnderTest


@dataclass
class Scene:
    """An integration of its own and, in most, an item; perhaps claimed by a process that stands aside."""

    name: str
    integration: Integration
    item: Delivery | None = None
    claim: Claim | None = None
    owner: int = 0
    job: Job | None = None  # that the item waits in

    @property
    def number(self) -> int:
        return self.integration.number


Given = Callable[[PostgresUnderTest, Scene], Awaitable[None]]
Verb = Callable[[Process, Scene], Coroutine[Any, Any, bool]]


# what there is when they begin


async def nothing(_: PostgresUnderTest, __: Scene) -> None:
    pass


async def due(store: PostgresUnderTest, scene: Scene) -> None:
    scene.item = a_delivery(scene.number)
    await accept(store, scene.item)


async def dead(store: PostgresUnderTest, scene: Scene) -> None:
    scene.item = await a_dead_item(store, await store.join(), scene.number)


async def claimed(store: PostgresUnderTest, scene: Scene) -> None:
    await due(store, scene)
    scene.owner = await store.join()
    [scene.claim] = await claim_all(store, scene.owner, scene.number)


async def lapsed(store: PostgresUnderTest, scene: Scene) -> None:
    """Claimed, and the lease ran out since; the two renewed theirs."""
    others = [row[0] for row in await store._database.ask("SELECT id FROM incarnation")]
    await claimed(store, scene)
    store.clock.move(LEASE_SECONDS + 1)
    for other in others:
        await store.renew(other)


async def orphaned(store: PostgresUnderTest, scene: Scene) -> None:
    await claimed(store, scene)
    await store.leave(scene.owner)


async def held(store: PostgresUnderTest, scene: Scene) -> None:
    """Due, and contained."""
    await due(store, scene)
    stored = await store.steer(scene.integration, contained(version=1), [])
    assert stored is not None
    scene.integration = replace(scene.integration, traffic=stored)


async def planned(store: PostgresUnderTest, scene: Scene) -> None:
    """Dead, and in a plan that may be run."""
    await dead(store, scene)
    assert scene.item is not None
    job = a_job(scene.number)
    await store.replays.add_job(job)
    assert await store.replays.freeze(job, [Frozen(scene.item.id, 1, 2, None)])
    scene.job = replace(job, state=ReplayState.PLANNED, version=2)
    assert await store.replays.change_job(scene.job, [])


async def jobbed(store: PostgresUnderTest, scene: Scene) -> None:
    """Dead, and waiting in a job that runs."""
    await planned(store, scene)
    assert scene.job is not None
    scene.job = run(scene.job)
    assert await store.replays.change_job(scene.job, [])


# what they do; each says whether it had its way


async def claims(process: Process, scene: Scene) -> bool:
    given = await process.store.claim(process.owner, {whole(scene.number): 10})
    return bool([*given.claims, *given.orphans])


async def finishes(process: Process, scene: Scene) -> bool:
    return await _records(process, scene, DONE)


async def retries(process: Process, scene: Scene) -> bool:
    return await _records(process, scene, later())


async def buries(process: Process, scene: Scene) -> bool:
    return await _records(process, scene, EXHAUSTED)


async def gives_back(process: Process, scene: Scene) -> bool:
    assert scene.claim is not None
    await process.store.give_back(scene.owner, [scene.claim])
    return True


async def expires(process: Process, _: Scene) -> bool:
    return await process.store.balance(process.owner) is not None


async def replays(process: Process, scene: Scene) -> bool:
    assert scene.item is not None
    event = an_event(EventType.REPLAYED, **_of(process, scene))
    return await process.store.replay(a_replay(scene.item, opened_by=process.name, event=event), None)


async def runs(process: Process, scene: Scene) -> bool:
    """The plan becomes a job, which releases what it found before."""
    assert scene.job is not None
    job = run(scene.job)
    batch = await _batch(process, scene, job)
    return await process.store.replays.change_job(job, []) and bool(
        await process.store.replays.release(process.owner, batch)
    )


async def lets_go(process: Process, scene: Scene) -> bool:
    """The job releases what waits."""
    assert scene.job is not None
    batch = await _batch(process, scene, scene.job)
    return bool(await process.store.replays.release(process.owner, batch))


async def halts(process: Process, scene: Scene) -> bool:
    """The job is stopped, and what waits in it swept."""
    assert scene.job is not None
    over = replace(scene.job, state=ReplayState.CANCELLED, version=scene.job.version + 1)
    if not await process.store.replays.change_job(over, []):
        return False
    await process.store.replays.sweep(over, 10)
    return True


async def _batch(process: Process, scene: Scene, job: Job) -> Batch:
    found = await process.store.replays.next_waiting(job, "oldest", None, 10)
    event = an_event(EventType.REPLAYED, **_of(process, scene))
    items = [
        Next(one.item, one.status, one.cycle, one.head, replace(event, previous=one.head_digest))
        for one in found
        if one.status
    ]
    return Batch(job, 5, NOW, items, ())


async def resolves(process: Process, scene: Scene) -> bool:
    assert scene.item is not None
    item = await process.store.item(scene.number, scene.item.id)
    assert item is not None
    event = an_event(EventType.RESOLVED, **_of(process, scene))
    return await process.store.resolve(item, Resolution(NOW, process.name, "by phone"), event, None)


async def pauses(process: Process, scene: Scene) -> bool:
    return await _moves_to(process, scene, Lifecycle.PAUSED)


async def contains(process: Process, scene: Scene) -> bool:
    return await _steers(process, scene, contained(scene.integration.traffic, by=process.name, version=1))


async def rejects(process: Process, scene: Scene) -> bool:
    traffic = contained(scene.integration.traffic, by=process.name, version=1, mode=Mode.REJECT)
    return await _steers(process, scene, traffic)


async def releases(process: Process, scene: Scene) -> bool:
    release = Release(5.0, NOW, process.name, "it is back")
    return await _steers(
        process, scene, Traffic(release=release, version=scene.integration.traffic.version + 1)
    )


async def retires(process: Process, scene: Scene) -> bool:
    return await _moves_to(process, scene, Lifecycle.RETIRED)


async def accepts(process: Process, scene: Scene) -> bool:
    given = a_delivery(scene.number, created_by=process.name, idempotency_key="key")
    [verdict] = await process.store.accept([an_intake(given, owner=process.owner)])
    return isinstance(verdict, Accepted)


async def accepts_once(process: Process, scene: Scene) -> bool:
    given = a_delivery(scene.number, created_by=process.name)
    once = a_once(scene.name.encode(), body=process.name.encode())
    try:
        await process.store.accept([an_intake(given, owner=process.owner)], lambda _: once)
    except AlreadyAnswered:
        return False
    return True


async def hands_over(process: Process, scene: Scene) -> bool:
    given = a_delivery(scene.number, created_by=process.name, idempotency_key="key")
    event = an_event(EventType.IMPORTED, **_of(process, scene) | {"target_id": recovery_id(given.id)})
    return isinstance(await process.store.hand_over(an_import(given, event=event), None), Accepted)


async def _records(process: Process, scene: Scene, step: Step) -> bool:
    assert scene.claim is not None
    event = an_event(EventType.RETRY_EXHAUSTED, **_of(process, scene))
    [recorded] = await process.store.record(scene.owner, [a_result(scene.claim, step, events=(event,))])
    return recorded


async def _moves_to(process: Process, scene: Scene, lifecycle: Lifecycle) -> bool:
    event = an_event(EventType.LIFECYCLE_CHANGED, **_of(process, scene) | {"target_id": scene.name})
    new = changed(scene.integration, lifecycle_status=lifecycle, name=process.name)
    return await process.store.update_integration(new, [event])


async def _steers(process: Process, scene: Scene, traffic: Traffic) -> bool:
    event = an_event(EventType.CONTAINED, **_of(process, scene) | {"target_id": scene.name})
    return await process.store.steer(scene.integration, traffic, [event]) is not None


def _of(process: Process, scene: Scene) -> dict[str, Any]:
    target = recovery_id(scene.item.id) if scene.item else scene.name
    return {"integration_id": scene.name, "target_id": target, "request_id": process.name}


@dataclass
class Case:
    """`waits`: whether the other has to wait for the end of what is held; `won`: which have their way."""

    given: Given
    held: Verb
    other: Verb
    waits: bool
    won: tuple[bool, bool]

    def __str__(self) -> str:
        return "-".join(part.__name__ for part in (self.given, self.held, self.other))


BOTH, FIRST = (True, True), (True, False)
CASES: Sequence[Case] = [
    Case(due, claims, claims, True, FIRST),
    Case(orphaned, claims, claims, True, FIRST),
    Case(claimed, finishes, claims, False, FIRST),
    Case(claimed, retries, claims, False, FIRST),
    Case(orphaned, claims, finishes, False, FIRST),
    Case(claimed, finishes, buries, True, FIRST),
    Case(claimed, buries, finishes, True, FIRST),
    Case(claimed, retries, finishes, True, FIRST),
    Case(claimed, finishes, retries, True, FIRST),
    Case(claimed, retries, retries, True, FIRST),
    Case(lapsed, finishes, expires, True, BOTH),
    Case(lapsed, expires, finishes, True, FIRST),
    Case(lapsed, retries, expires, True, BOTH),
    Case(lapsed, expires, retries, True, FIRST),
    Case(lapsed, gives_back, expires, True, BOTH),
    Case(lapsed, expires, gives_back, True, BOTH),
    Case(claimed, gives_back, claims, False, FIRST),
    Case(orphaned, claims, gives_back, False, BOTH),
    Case(claimed, gives_back, finishes, True, FIRST),
    Case(claimed, finishes, gives_back, True, BOTH),
    Case(claimed, gives_back, gives_back, True, BOTH),
    Case(dead, replays, replays, True, FIRST),
    Case(dead, replays, resolves, True, FIRST),
    Case(dead, resolves, replays, True, FIRST),
    Case(dead, resolves, resolves, True, FIRST),
    Case(jobbed, lets_go, lets_go, True, FIRST),
    Case(jobbed, lets_go, halts, True, BOTH),
    Case(jobbed, halts, lets_go, True, FIRST),
    Case(jobbed, lets_go, resolves, True, FIRST),
    Case(jobbed, resolves, lets_go, True, FIRST),
    Case(jobbed, lets_go, replays, False, FIRST),
    Case(jobbed, lets_go, contains, False, BOTH),
    Case(jobbed, contains, lets_go, False, BOTH),
    Case(planned, replays, runs, True, FIRST),
    Case(planned, runs, runs, True, FIRST),
    Case(due, pauses, claims, False, BOTH),
    Case(due, claims, pauses, False, BOTH),
    Case(nothing, pauses, accepts, False, BOTH),
    Case(nothing, accepts, pauses, False, BOTH),
    Case(dead, pauses, replays, False, BOTH),
    Case(dead, replays, pauses, False, BOTH),
    Case(nothing, pauses, retires, True, FIRST),
    Case(nothing, retires, accepts, False, BOTH),
    Case(nothing, accepts, retires, False, BOTH),
    Case(nothing, accepts, accepts, True, FIRST),
    Case(nothing, accepts, hands_over, True, FIRST),
    Case(nothing, hands_over, accepts, True, FIRST),
    Case(nothing, accepts_once, accepts_once, True, FIRST),
    Case(due, contains, claims, False, BOTH),
    Case(due, claims, contains, False, BOTH),
    Case(claimed, contains, finishes, False, BOTH),
    Case(claimed, contains, gives_back, False, BOTH),
    Case(nothing, contains, accepts, False, BOTH),
    Case(nothing, accepts, contains, False, BOTH),
    Case(nothing, rejects, accepts, False, BOTH),
    Case(nothing, accepts, rejects, False, BOTH),
    Case(nothing, rejects, hands_over, False, BOTH),
    Case(dead, contains, replays, False, BOTH),
    Case(dead, replays, contains, False, BOTH),
    Case(nothing, contains, contains, True, FIRST),
    Case(nothing, contains, rejects, True, FIRST),
    Case(nothing, contains, pauses, True, BOTH),
    Case(nothing, pauses, contains, True, BOTH),
    Case(held, releases, contains, True, FIRST),
    Case(held, contains, releases, True, FIRST),
    Case(held, releases, claims, False, (True, False)),
    Case(held, releases, accepts, False, BOTH),
]


@pytest.fixture
async def processes(postgres: Server) -> AsyncIterator[Processes]:
    async with under_test.processes(postgres.url()) as another:
        one, other = [await another(kind=HeldDatabase) for _ in range(2)]
        yield Processes(
            Process("alice", one, await one.enter()),
            Process("bob", other, await other.enter()),
            await another(),
        )


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_two_at_once_leave_what_they_leave_one_after_another(processes: Processes, case: Case) -> None:
    one, another, aside = processes
    possible = [
        await one_after_another(processes, case, (one, case.held), (another, case.other)),
        await one_after_another(processes, case, (another, case.other), (one, case.held)),
    ]
    scene = await a_scene(aside, case)

    has_waited, first, second = await interleaved(processes, scene, case, commits=True)

    assert has_waited == case.waits
    assert (first, second) == case.won
    assert await left(processes, scene) in (possible[:1] if case.waits else possible)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_what_is_rolled_back_leaves_all_to_the_other(processes: Processes, case: Case) -> None:
    alone = await a_scene(processes.aside, case)
    won_alone = await case.other(processes.other, alone)
    scene = await a_scene(processes.aside, case)

    has_waited, first, second = await interleaved(processes, scene, case, commits=False)

    assert has_waited == case.waits
    assert isinstance(first, StoreUnavailable)
    assert second is won_alone
    assert await left(processes, scene) == await left(processes, alone)


async def test_who_records_a_failure_waits_for_nobody_who_records_the_same(processes: Processes) -> None:
    one, another, aside = processes
    number = await add_integration(aside, "down")
    await one.store.record(one.owner, [await _failure(one, number)])  # the group is known
    first, second = [await _failure(process, number) for process in (one, another)]
    hold = one.store._database.hold = Hold(commits=True)  # type: ignore[attr-defined] # a HeldDatabase

    async with asyncio.timeout(PATIENCE_SECONDS):
        recording = asyncio.create_task(one.store.record(one.owner, [first]))
        await hold.backend
        recorded = await another.store.record(another.owner, [second])
        hold.ends.set()

    assert [list(recorded), list(await recording)] == [[True], [True]]
    [group] = (await aside.groups.page(number, None, limit=5, below=None)).rows
    assert (group.failures, group.sample) == (3, second.claim.delivery.id)


async def _failure(process: Process, number: int) -> Result:
    """An item that a process accepted and sent, and that failed for good."""
    delivery = a_delivery(number)
    await process.store.accept([an_intake(delivery, owner=process.owner)])
    claim = Claim(delivery, process.owner, 1, 1, delivery.max_attempts, delivery.request_id)
    return a_result(claim, EXHAUSTED, OUTAGE)


async def a_scene(store: PostgresUnderTest, case: Case) -> Scene:
    name = f"scene-{next(_scenes)}"
    number = await add_integration(store, name)
    [integration] = [one for one in await store.integrations() if one.number == number]
    scene = Scene(name, integration)
    await case.given(store, scene)
    return scene


async def one_after_another(processes: Processes, case: Case, *turns: tuple[Process, Verb]) -> Any:
    scene = await a_scene(processes.aside, case)
    for process, verb in turns:
        await verb(process, scene)
    return await left(processes, scene)


async def interleaved(
    processes: Processes, scene: Scene, case: Case, *, commits: bool
) -> tuple[bool, bool | BaseException, bool | BaseException]:
    """Whether the *other* had to wait until *held* ended, and what came of both."""
    one, another, _ = processes
    hold = one.store._database.hold = Hold(commits=commits)  # type: ignore[attr-defined] # a HeldDatabase
    async with asyncio.timeout(PATIENCE_SECONDS):
        first = asyncio.create_task(case.held(one, scene))
        backend = await hold.backend
        second = asyncio.create_task(case.other(another, scene))
        while not (second.done() or await is_waited_for(one.store, backend)):
            await asyncio.wait([second], timeout=0.01)
        has_waited = not second.done()
        hold.ends.set()
        done = await asyncio.gather(first, second, return_exceptions=True)
    return has_waited, *done


async def is_waited_for(store: PostgresUnderTest, backend: int) -> bool:
    """Whether another session waits for a lock that this one has."""
    sql = "SELECT FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
    return bool(await store._database.ask(sql, backend))


async def left(processes: Processes, scene: Scene) -> Any:
    """Of a scene."""
    names = {process.owner: process.name for process in processes[:2]}
    owners = {None: "nobody", scene.owner: "the claimant"} | names
    return await what_is_left(processes.aside, scene.name, scene.number, owners)
