"""A store against a plain model of an item's life: whatever happens in whatever order, both agree."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

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

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.delivery import Claim, Delivery, Item, Resolution
from redrive.domain.ids import ItemId
from redrive.domain.item import DEAD, TRANSITIONS, Finish, Status, Step
from redrive.store.port import Accepted, EventFilter, QueueFilter
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
from tests.store.under_test import SqliteUnderTest, add_integration, attempts_of, sqlite_under_test

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


users = st.sampled_from([None, None, None, 0, 1])  # None: the process that made the claim


class LifeOfItems(RuleBasedStateMachine):
    """Two processes, of which one at a time may be dead, and a person."""

    claims: Bundle[Claim] = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.store: SqliteUnderTest = self.do(
            self.stack.enter_async_context(sqlite_under_test(Path(directory)))
        )
        self.number: int = self.do(add_integration(self.store))
        self.owners: list[int] = [self.do(self.store.enter()), self.do(self.store.join())]
        self.lives: dict[ItemId, Life] = {}

    def teardown(self) -> None:
        self.do(self.stack.aclose())
        self.runner.close()

    def do(self, verb: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(verb)

    # what happens

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(max_attempts=st.integers(1, 3))
    def accept(self, max_attempts: int) -> None:
        delivery = a_delivery(self.number, max_attempts=max_attempts)
        [verdict] = self.do(self.store.accept([an_intake(delivery)]))
        assert verdict == Accepted(claimed=False)
        self.keep(Life(delivery, max_attempts=max_attempts))

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(target=claims, which=st.integers(0, 1), max_attempts=st.integers(1, 3))
    def accept_as_mine(self, which: int, max_attempts: int) -> Claim:
        owner = self.owners[which]
        delivery = a_delivery(self.number, max_attempts=max_attempts)
        [verdict] = self.do(self.store.accept([an_intake(delivery, owner=owner)]))
        assert verdict == Accepted(claimed=True)
        life = Life(delivery, attempt=1, max_attempts=max_attempts, owner=owner, claims=1)
        self.keep(life)
        return Claim(delivery, owner, 1, 1, max_attempts, delivery.request_id)

    @precondition(lambda self: len(self.lives) < MOST_ITEMS)
    @rule(status=st.sampled_from(sorted(DEAD)))
    def hand_over(self, status: Status) -> None:
        given = an_import(a_delivery(self.number, max_attempts=3), status, attempt_count=2)
        self.do(self.store.hand_over(given, None))
        self.keep(Life(given.delivery, status=status, attempt=2, claims=2, events=[given.event.id]))

    @rule(target=claims, which=st.integers(0, 1), limit=st.integers(1, 4))
    def claim(self, which: int, limit: int) -> Any:
        owner, now = self.owners[which], self.store.clock.now()
        waiting = [life for life in self.lives.values() if life.is_open and life.owner is None]
        due = sorted((life for life in waiting if life.due_at <= now), key=by_due)
        rest = due[limit:] + sorted((life for life in waiting if life.due_at > now), key=by_due)

        claimed = self.do(self.store.claim(owner, {self.number: limit}))

        assert [claim.delivery for claim in claimed.claims] == [life.delivery for life in due[:limit]]
        assert claimed.next_due == {self.number: rest[0].due_at if rest else None}
        for claim in claimed.claims:
            life = self.lives[claim.delivery.id]
            life.owner, life.attempt, life.claims = owner, life.attempt + 1, life.claims + 1
            assert life.stands(claim)
            assert claim.max_attempts == life.max_attempts
        return multiple(*claimed.claims)

    @rule(claim=claims, by=users, step=st.sampled_from([DONE, REFUSED, EXHAUSTED, later(0), later(60)]))
    def record(self, claim: Claim, by: int | None, step: Step) -> None:
        """Whatever claim there ever was, by whoever; one that does not stand must change nothing."""
        claim = self.used_by(claim, by)
        life = self.lives[claim.delivery.id]
        if claim.attempt >= claim.max_attempts and not isinstance(step, Finish):
            step = EXHAUSTED  # as next_step decides
        event = an_event(EventType.REPROCESS_FAILED, target_id=claim.recovery_id)

        [recorded] = self.do(self.store.record(claim.owner, [a_result(claim, step, events=(event,))]))

        assert recorded == (life.stands(claim) and claim.owner in self.owners)
        if recorded:
            life.move(step.status)
            life.owner = None
            life.recorded.append((claim.cycle, claim.attempt))
            life.events.append(event.id)
            if not isinstance(step, Finish):
                life.due_at = step.due_at

    @rule(claim=claims, by=users)
    def give_back(self, claim: Claim, by: int | None) -> None:
        claim = self.used_by(claim, by)
        life = self.lives[claim.delivery.id]

        self.do(self.store.give_back(claim.owner, [claim]))

        if life.stands(claim) and claim.owner in self.owners:
            life.owner, life.attempt, life.gifts = None, life.attempt - 1, life.gifts + 1

    @rule(target=claims, which=st.integers(0, 1))
    def die_and_be_survived(self, which: int) -> Any:
        """One lease ends; the other process takes over what it was doing; a new process joins."""
        dead, survivor = self.owners[which], self.owners[1 - which]
        others = (None, survivor)  # a predecessor may have left orphans too
        orphans = {life.delivery.id for life in self.lives.values() if life.owner not in others}
        self.do(self.store.expire(dead))

        adopted = self.do(self.store.rescue(survivor))

        assert sorted(claim.delivery.id for claim in adopted) == sorted(orphans)
        for claim in adopted:
            life = self.lives[claim.delivery.id]
            life.owner = survivor
            assert life.stands(claim)
        self.owners[which] = self.do(self.store.join())
        return multiple(*adopted)

    @rule(which=st.integers(0, 1))
    def lose_the_lease_before_anybody_adopts(self, which: int) -> None:
        """Its claims stay where they are; nothing it does counts any more."""
        dead = self.owners[which]
        self.do(self.store.expire(dead))
        assert not self.do(self.store.renew(dead))
        assert list(self.do(self.store.claim(dead, {self.number: 5})).claims) == []
        self.owners[which] = self.do(self.store.join())

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), cycle_off=st.sampled_from([0, 0, 0, 1]), max_attempts=st.integers(1, 3))
    def replay(self, data: st.DataObject, cycle_off: int, max_attempts: int) -> None:
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

        replayed = self.do(self.store.replay(replay, None))

        assert replayed == (
            life.status in DEAD and judged is life.status and cycle_off == 0 and not life.resolved
        )
        if replayed:
            life.move(Status.REPLAYED)
            life.cycle, life.attempt, life.max_attempts = life.cycle + 1, 0, max_attempts
            life.claims = life.gifts = 0
            life.due_at = replay.opened_at
            life.events.append(replay.event.id)

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
        item = await self.item(life)
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
        found = await attempts_of(self.store, self.number, life.delivery.id)
        attempts = [(a.cycle, a.attempt) for a in found]
        assert attempts == sorted(life.recorded), "an attempt was recorded that nobody made, or forgotten"
        in_cycle = [cycle for cycle, _ in attempts if cycle == life.cycle]
        assert len(in_cycle) <= life.claims - life.gifts == life.attempt <= life.max_attempts

    async def compare_places(self) -> None:
        """Every item is in exactly one place."""
        places = await self.store._read(where_everything_is)
        assert places == {
            number: (life.is_open, life.status in DEAD, life.owner) for number, life in self.lives.items()
        }

    async def compare_events(self) -> None:
        """Every recorded result left its event, and nothing else did."""
        events = (await self.store.events(EventFilter(), limit=10_000, below=None)).rows
        kept = sorted(event.id for event in events if not is_creation(event))
        assert kept == sorted(number for life in self.lives.values() for number in life.events)

    async def compare_lists(self) -> None:
        waiting = [life.due_at for life in self.lives.values() if life.is_open and life.owner is None]
        assert await self.store.next_due(self.owners[0]) == ({self.number: min(waiting)} if waiting else {})
        for wanted in (None, *Status):
            page = await self.store.queue(self.number, QueueFilter(status=wanted), limit=500, below=None)
            found = [(item.delivery.id, item.status) for item in page.rows]
            lives = [(n, life.status) for n, life in self.lives.items() if wanted in (None, life.status)]
            assert found == sorted(lives, reverse=True)

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


def where_everything_is(connection: Any) -> dict[int, tuple[bool, bool, int | None]]:
    sql = (
        "SELECT d.id, l.id IS NOT NULL, x.id IS NOT NULL, l.claimed_by"
        " FROM delivery d LEFT JOIN live l ON l.id = d.id LEFT JOIN dead x ON x.id = d.id"
    )
    return {number: (bool(live), bool(dead), owner) for number, live, dead, owner in ask(connection, sql)}


QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def test_a_store_and_its_model_live_the_same_lives() -> None:
    run_state_machine_as_test(LifeOfItems, settings=settings(QUIET, max_examples=150, stateful_step_count=30))


@pytest.mark.long
def test_a_store_and_its_model_live_the_same_long_lives() -> None:
    run_state_machine_as_test(
        LifeOfItems, settings=settings(QUIET, max_examples=1500, stateful_step_count=60)
    )
