"""A store against a plain model of an item's life: whatever happens in whatever order, both agree."""

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.delivery import Claim, Delivery, Item, Resolution
from redrive.domain.ids import ItemId
from redrive.domain.item import DEAD, TRANSITIONS, Finish, Status, Step
from redrive.domain.sharing import Lane, whole
from redrive.store.port import Accepted, EventFilter, QueueFilter
from redrive.store.postgres import PostgresStore
from redrive.store.sqlite.connection import ask
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    REFUSED,
    a_delivery,
    a_replay,
    a_result,
    an_event,
    an_import,
    an_intake,
    later,
)
from tests.postgres import Server
from tests.store.under_test import (
    PostgresUnderTest,
    SqliteUnderTest,
    StoreUnderTest,
    add_integration,
    processes,
    sqlite_under_test,
)

Answer = TypeVar("Answer")
MOST_ITEMS = 4  # few, so that much happens to each


@dataclass
class Life:
    """What the model knows of an item."""

    delivery: Delivery
    status: Status = Status.PENDING
    cycle: int = 1
    attempt: int = 0
    max_attempts: int = 3
    owner: int | None = None
    due_at: datetime = NOW
    resolved: bool = False
    recorded: list[tuple[int, int]] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    claims: int = 0
    gifts: int = 0  # claims given back

    @property
    def is_open(self) -> bool:
        return self.status not in DEAD and self.status is not Status.SUCCEEDED

    def stands(self, claim: Claim) -> bool:
        """Whether *claim* is the right to make the attempt under way."""
        mine = (claim.owner, claim.cycle, claim.attempt)
        return self.is_open and mine == (self.owner, self.cycle, self.attempt)

    def move(self, status: Status) -> None:
        assert status in TRANSITIONS[self.status], f"{self.status} to {status}"
        self.status = status

    def begin_cycle(self, max_attempts: int, due_at: datetime, event: int) -> None:
        self.move(Status.REPLAYED)
        self.cycle, self.attempt, self.max_attempts = self.cycle + 1, 0, max_attempts
        self.claims = self.gifts = 0
        self.due_at = due_at
        self.events.append(event)


users = st.sampled_from([None, None, None, 0, 1])  # None: the process that made the claim
either = st.integers(0, 1)  # which process does it


class LifeOfItems(RuleBasedStateMachine):
    """Two processes, of which one at a time may be dead, and a person."""

    claims: Bundle[Claim] = Bundle("claims")
    runner: asyncio.Runner
    stores: Sequence[StoreUnderTest]  # each process's own
    store: StoreUnderTest  # an onlooker's
    claims_hand_out_orphans: ClassVar[bool]
    is_contained = False

    def enter_stores(self) -> None:
        """Open, or empty, the stores."""
        raise NotImplementedError

    def leave_stores(self) -> None:
        """Close what `enter_stores` opened."""

    def catch_up(self, which: int) -> None:
        """Let a process know what others did, as sweeps and handed over lanes do in time."""

    async def next_due(self) -> Mapping[Lane, datetime]:
        """As the onlooker sees it."""
        return await self.store.next_due(self.owners[0])

    async def places(self) -> dict[int, tuple[bool, bool, int | None]]:
        """Of each item: is it among the living, is it among the dead, who claims it."""
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.enter_stores()
        self.number: int = self.do(add_integration(self.store))
        self.owners: list[int] = [self.do(self.stores[0].enter()), self.do(self.stores[1].join())]
        self.process_of = {owner: which for which, owner in enumerate(self.owners)}
        self.lives: dict[ItemId, Life] = {}
        self.statuses = itertools.cycle(Status)  # one a step, for every list costs a question
        self.other_events: list[int] = []  # of no item

    def teardown(self) -> None:
        self.leave_stores()

    def do(self, verb: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(verb)

    # what happens

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(which=either, max_attempts=st.integers(1, 3))
    def accept(self, which: int, max_attempts: int) -> None:
        delivery = a_delivery(self.number, max_attempts=max_attempts)
        [verdict] = self.do(self.stores[which].accept([an_intake(delivery)]))
        assert verdict == Accepted(claimed=False)
        self.catch_up(1 - which)
        self.keep(Life(delivery, max_attempts=max_attempts))

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(target=claims, which=either, max_attempts=st.integers(1, 3))
    def accept_as_mine(self, which: int, max_attempts: int) -> Any:
        owner = self.owners[which]
        delivery = a_delivery(self.number, max_attempts=max_attempts)
        [verdict] = self.do(self.stores[which].accept([an_intake(delivery, owner=owner)]))
        assert verdict == Accepted(claimed=not self.is_contained)
        if self.is_contained:
            self.keep(Life(delivery, max_attempts=max_attempts))
            return multiple()
        life = Life(delivery, attempt=1, max_attempts=max_attempts, owner=owner, claims=1)
        self.keep(life)
        return Claim(delivery, owner, 1, 1, max_attempts, delivery.request_id)

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(status=st.sampled_from(sorted(DEAD)))
    def hand_over(self, status: Status) -> None:
        given = an_import(a_delivery(self.number, max_attempts=3), status, attempt_count=2)
        self.do(self.store.hand_over(given, None))
        self.keep(Life(given.delivery, status=status, attempt=2, claims=2, events=[given.event.id]))

    @rule(target=claims, which=either, limit=st.integers(1, 4))
    def claim(self, which: int, limit: int) -> Any:
        owner, now = self.owners[which], self.store.clock.now()
        waiting = sorted(filter(self.waits, self.lives.values()), key=by_due)
        due = [] if self.is_contained else [life for life in waiting if life.due_at <= now][:limit]
        rest = [life for life in waiting if life not in due]

        claimed = self.do(self.stores[which].claim(owner, {whole(self.number): limit}))

        assert deliveries(claimed.claims) == [life.delivery for life in due if life.owner is None]
        assert deliveries(claimed.orphans) == [life.delivery for life in due if life.owner is not None]
        assert claimed.next_due == {whole(self.number): rest[0].due_at if rest else None}
        for claim in claimed.claims:
            life = self.lives[claim.delivery.id]
            life.attempt, life.claims = life.attempt + 1, life.claims + 1
        for claim in (*claimed.claims, *claimed.orphans):
            life = self.lives[claim.delivery.id]
            life.owner = owner
            assert life.stands(claim)
            assert claim.max_attempts == life.max_attempts
        return multiple(*claimed.claims, *claimed.orphans)

    @rule(claim=claims, by=users, step=st.sampled_from([DONE, REFUSED, EXHAUSTED, later(0), later(60)]))
    def record(self, claim: Claim, by: int | None, step: Step) -> None:
        """Whatever claim there ever was, by whoever; one that does not stand must change nothing."""
        claim = self.used_by(claim, by)
        life = self.lives[claim.delivery.id]
        if claim.attempt >= claim.max_attempts and not isinstance(step, Finish):
            step = EXHAUSTED  # as next_step decides
        event = an_event(EventType.REPROCESS_FAILED, target_id=claim.recovery_id)

        which = self.process_of[claim.owner]
        [recorded] = self.do(self.stores[which].record(claim.owner, [a_result(claim, step, events=(event,))]))

        assert recorded == (life.stands(claim) and claim.owner in self.owners)
        if recorded:
            life.move(step.status)
            life.owner = None
            life.recorded.append((claim.cycle, claim.attempt))
            life.events.append(event.id)
            if not isinstance(step, Finish):
                life.due_at = step.due_at
                self.catch_up(1 - which)
            self.was_recorded(life, step)

    @rule(claim=claims, by=users)
    def give_back(self, claim: Claim, by: int | None) -> None:
        claim = self.used_by(claim, by)
        life = self.lives[claim.delivery.id]

        which = self.process_of[claim.owner]
        self.do(self.stores[which].give_back(claim.owner, [claim]))
        self.catch_up(1 - which)

        if life.stands(claim) and claim.owner in self.owners:
            life.owner, life.attempt, life.gifts = None, life.attempt - 1, life.gifts + 1

    @precondition(lambda self: not self.is_contained)
    @rule(target=claims, which=either)
    def die_and_be_survived(self, which: int) -> Any:
        """One lease ends; the other process takes over what it was doing; a new process joins."""
        dead, survivor = self.owners[which], self.owners[1 - which]
        others = (None, survivor)  # a predecessor may have left orphans too
        orphans = {life.delivery.id for life in self.lives.values() if life.owner not in others}
        self.do(self.store.expire(dead))

        self.catch_up(1 - which)
        adopted = self.do(self.stores[1 - which].rescue(survivor))

        assert sorted(claim.delivery.id for claim in adopted) == sorted(orphans)
        for claim in adopted:
            life = self.lives[claim.delivery.id]
            life.owner = survivor
            assert life.stands(claim)
        self.begin_again(which)
        return multiple(*adopted)

    @rule(which=either)
    def lose_the_lease_before_anybody_adopts(self, which: int) -> None:
        """Its claims stay where they are; nothing it does counts any more."""
        dead = self.owners[which]
        self.do(self.store.expire(dead))
        assert not self.do(self.stores[which].renew(dead))
        claimed = self.do(self.stores[which].claim(dead, {whole(self.number): 5}))
        assert [*claimed.claims, *claimed.orphans] == []
        self.catch_up(1 - which)
        self.begin_again(which)

    @precondition(lambda self: self.lives)
    @rule(
        data=st.data(),
        which=either,
        cycle_off=st.sampled_from([0, 0, 0, 1]),
        max_attempts=st.integers(1, 3),
    )
    def replay(self, data: st.DataObject, which: int, cycle_off: int, max_attempts: int) -> None:
        life = self.lives[data.draw(st.sampled_from(sorted(self.lives)))]
        judged = data.draw(st.sampled_from([*sorted(DEAD), life.status]))
        replay = a_replay(
            life.delivery,
            judged,
            cycle=life.cycle + cycle_off,
            max_attempts=max_attempts,
            request_id=f"replay-{life.cycle}",
            opened_at=self.store.clock.now(),
        )

        replayed = self.do(self.stores[which].replay(replay, None))

        may_be = not (life.resolved or self.is_contained or self.is_spoken_for(life))
        assert replayed == (life.status in DEAD and judged is life.status and cycle_off == 0 and may_be)
        if replayed:
            life.begin_cycle(max_attempts, replay.opened_at, replay.event.id)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        life = self.lives[data.draw(st.sampled_from(sorted(self.lives)))]
        judged = replace(
            self.do(self.item(life)), status=data.draw(st.sampled_from([*sorted(DEAD), life.status]))
        )
        event = an_event(EventType.RESOLVED)

        resolved = self.do(self.store.resolve(judged, Resolution(NOW, "ops", "done"), event, None))

        assert resolved == (life.status in DEAD and judged.status is life.status and not life.resolved)
        if resolved:
            life.resolved = True
            life.events.append(event.id)

    @rule(seconds=st.sampled_from([1, 30, 60]))
    def wait(self, seconds: int) -> None:
        self.store.clock.move(seconds)

    # what always holds

    @invariant()
    def the_store_and_the_model_agree(self) -> None:
        self.do(self.compare())

    async def compare(self) -> None:
        for life in self.lives.values():
            await self.compare_item(life)
        await self.compare_places()
        await self.compare_events()
        await self.compare_lists()

    async def compare_item(self, life: Life) -> None:
        found = await self.store.history(self.number, life.delivery.id)
        assert found is not None
        item, history = found
        assert (item.status, item.cycle, item.attempt_count, item.max_attempts) == (
            life.status,
            life.cycle,
            life.attempt,
            life.max_attempts,
        )
        assert (item.resolution is not None) == life.resolved
        waits = life.status is Status.RETRYING and life.owner is None
        assert item.next_retry_at == (life.due_at if waits else None)
        assert item.delivery == life.delivery
        attempts = [(a.cycle, a.attempt) for a in history]
        assert attempts == sorted(life.recorded), "an attempt was recorded that nobody made, or forgotten"
        in_cycle = [cycle for cycle, _ in attempts if cycle == life.cycle]
        assert len(in_cycle) <= life.claims - life.gifts == life.attempt <= life.max_attempts

    async def compare_places(self) -> None:
        """Every item is in exactly one place."""
        assert await self.places() == {
            number: (life.is_open, life.status in DEAD, life.owner) for number, life in self.lives.items()
        }

    async def compare_events(self) -> None:
        """Every recorded result left its event, and nothing else did."""
        events = (await self.store.events(EventFilter(), limit=10_000, below=None)).rows
        kept = sorted(event.id for event in events if not is_creation(event))
        of_items = [number for life in self.lives.values() for number in life.events]
        assert kept == sorted([*of_items, *self.other_events])

    async def compare_lists(self) -> None:
        waiting = [life.due_at for life in self.lives.values() if self.waits(life)]
        assert await self.next_due() == ({whole(self.number): min(waiting)} if waiting else {})
        for wanted in (None, next(self.statuses)):
            page = await self.store.queue(self.number, QueueFilter(status=wanted), limit=500, below=None)
            found = [(item.delivery.id, item.status) for item in page.rows]
            lives = [(n, life.status) for n, life in self.lives.items() if wanted in (None, life.status)]
            assert found == sorted(lives, reverse=True)

    def is_spoken_for(self, life: Life) -> bool:
        """Whether it waits in a job that runs."""
        return False

    def was_recorded(self, life: Life, step: Step) -> None:
        """What else follows when an attempt ends."""

    def waits(self, life: Life) -> bool:
        """Whether a claim would take it once it is due."""
        orphaned = self.claims_hand_out_orphans and life.owner not in self.owners
        return life.is_open and (life.owner is None or orphaned)

    def begin_again(self, which: int) -> None:
        """A new process in place of a dead one."""
        self.owners[which] = self.do(self.stores[which].join())
        self.process_of[self.owners[which]] = which

    def used_by(self, claim: Claim, which: int | None) -> Claim:
        return claim if which is None else replace(claim, owner=self.owners[which])

    def keep(self, life: Life) -> None:
        life.due_at = life.delivery.created_at
        self.lives[life.delivery.id] = life

    async def item(self, life: Life) -> Item:
        item = await self.store.item(self.number, life.delivery.id)
        assert item is not None
        return item


def by_due(life: Life) -> tuple[datetime, ItemId]:
    return life.due_at, life.delivery.id


def is_creation(event: AuditEvent) -> bool:
    return event.event_type is EventType.UPDATED  # what add_integration leaves


def deliveries(claims: Sequence[Claim]) -> list[Delivery]:
    return [claim.delivery for claim in claims]


WHERE_EVERYTHING_IS = (
    "SELECT d.id, l.id IS NOT NULL, x.id IS NOT NULL, l.claimed_by"
    " FROM delivery d LEFT JOIN live l ON l.id = d.id LEFT JOIN dead x ON x.id = d.id"
)


class OnSqlite(LifeOfItems):
    """A new file for each run; it takes one process, so both share its store."""

    claims_hand_out_orphans = False
    store: SqliteUnderTest

    def enter_stores(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.store = self.do(self.stack.enter_async_context(sqlite_under_test(Path(directory))))
        self.stores = [self.store, self.store]

    def leave_stores(self) -> None:
        self.do(self.stack.aclose())
        self.runner.close()

    async def places(self) -> dict[int, tuple[bool, bool, int | None]]:
        rows = await self.store._read(lambda connection: ask(connection, WHERE_EVERYTHING_IS))
        return {number: (bool(live), bool(dead), owner) for number, live, dead, owner in rows}


class OnPostgres(LifeOfItems):
    """Each process has cursors of its own, so each has its own store; one schema serves all runs."""

    claims_hand_out_orphans = True
    store: PostgresUnderTest
    stores: Sequence[PostgresUnderTest]

    def enter_stores(self) -> None:
        self.do(self.store.meddle(EMPTY))
        self.store.clock.offset = timedelta()

    def catch_up(self, which: int) -> None:
        take_whole(self.stores[which], self.number)

    async def next_due(self) -> Mapping[Lane, datetime]:
        take_whole(self.store, self.number)
        return await PostgresStore.next_due(self.store, self.owners[0])

    async def places(self) -> dict[int, tuple[bool, bool, int | None]]:
        rows = await self.store._database.ask(WHERE_EVERYTHING_IS)
        return {number: (live, dead, owner) for number, live, dead, owner in rows}


EMPTY = """
DELETE FROM live; DELETE FROM dead; DELETE FROM cycle; DELETE FROM attempt; DELETE FROM imported;
DELETE FROM replay_job; DELETE FROM replay_item;
DELETE FROM delivery; DELETE FROM audit; DELETE FROM lane; DELETE FROM integration; DELETE FROM incarnation;
"""


def take_whole(store: PostgresUnderTest, number: int) -> None:
    """As if the lane had just been acquired. Whose it is does not matter: claims are fenced without it."""
    store._cursors.follow(frozenset())
    store._cursors.follow(frozenset({whole(number)}))


QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture
def on_postgres(postgres: Server) -> Iterator[type[LifeOfItems]]:
    """Its runs share an event loop, because they share connections."""
    stack = AsyncExitStack()

    async def enter() -> None:
        another = await stack.enter_async_context(processes(postgres.url()))
        OnPostgres.store, *OnPostgres.stores = [await another() for _ in range(3)]

    with asyncio.Runner() as runner:
        OnPostgres.runner = runner
        runner.run(enter())
        yield OnPostgres
        runner.run(stack.aclose())


def test_a_store_on_sqlite_and_its_model_live_the_same_lives() -> None:
    run_state_machine_as_test(OnSqlite, settings=settings(QUIET, max_examples=80, stateful_step_count=30))


def test_a_store_on_postgresql_and_its_model_live_the_same_lives(on_postgres: type[LifeOfItems]) -> None:
    run_state_machine_as_test(on_postgres, settings=settings(QUIET, max_examples=25, stateful_step_count=30))


@pytest.mark.long
def test_a_store_on_sqlite_and_its_model_live_the_same_long_lives() -> None:
    run_state_machine_as_test(OnSqlite, settings=settings(QUIET, max_examples=1500, stateful_step_count=60))


@pytest.mark.long
def test_a_store_on_postgresql_and_its_model_live_the_same_long_lives(
    on_postgres: type[LifeOfItems],
) -> None:
    run_state_machine_as_test(on_postgres, settings=settings(QUIET, max_examples=300, stateful_step_count=60))
