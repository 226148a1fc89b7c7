"""The life of items, with jobs that replay them and containment: whatever happens in whatever order."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.ids import EventId, ItemId
from redrive.domain.item import DEAD, Finish, Status, Step
from redrive.domain.replay import ItemState, Job, Plan, ReplayState
from redrive.domain.replay_plan import Frozen
from redrive.domain.traffic import Traffic
from redrive.store.replays import Batch, Next
from tests.factories import DONE, EXHAUSTED, a_job, an_event, contained, later, run
from tests.store.test_life import QUIET, Life, LifeOfItems, OnPostgres, OnSqlite, either, on_postgres

__all__ = ["on_postgres"]
MOST_JOBS = 8


@dataclass
class Work:
    """What the model knows of a job: of each item the cycle that was planned, and what became of it."""

    job: Job
    cycles: dict[ItemId, int]
    states: dict[ItemId, ItemState]

    @property
    def runs(self) -> bool:
        return self.job.state is ReplayState.RUNNING


class RecoveringLife(LifeOfItems):
    """Operators plan, run and cancel jobs, and contain and release the integration."""

    @initialize()
    def open(self) -> None:
        super().open()
        self.works: list[Work] = []
        self.is_contained = False
        for status in (Status.DLQ, Status.FAILED, Status.DLQ):  # what there is to recover
            self.hand_over(status)

    @rule(which=either, step=st.sampled_from([DONE, DONE, EXHAUSTED, later(0)]))
    def attempt(self, which: int, step: Step) -> None:
        """On whatever is due."""
        claimed: Any = self.claim(which, limit=4)
        for claim in claimed.values:
            self.record(claim, by=None, step=step)

    # jobs

    @precondition(lambda self: self.lives and len(self.works) < MOST_JOBS)
    @rule(data=st.data())
    def plan_and_run(self, data: st.DataObject) -> None:
        """Whatever is named, dead or not: what is not as it was planned must not be replayed."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.lives)), min_size=1, unique=True))
        cycles = {item: self.lives[item].cycle for item in chosen}
        job = a_job(self.number)
        self.do(self.store.replays.add_job(job))
        rows = [Frozen(item, cycle, 2, None) for item, cycle in cycles.items()]
        assert self.do(self.store.replays.freeze(job, rows))
        plan = Plan(f"digest of {job.id}", {}, {2: len(rows)}, None, None, ())
        job = replace(job, state=ReplayState.PLANNED, plan=plan, version=job.version + 1)
        assert self.do(self.store.replays.change_job(job, []))
        job = run(job)
        assert self.do(self.store.replays.change_job(job, []))
        self.works.append(Work(job, cycles, dict.fromkeys(chosen, ItemState.WAITING)))

    @precondition(lambda self: self.works)
    @rule(data=st.data(), which=either)
    def release_some(self, data: st.DataObject, which: int) -> None:
        """By a process that lives or is dead, under the job as it is or was."""
        work = data.draw(st.sampled_from(self.works))
        owner = data.draw(st.sampled_from([*[self.owners[which]] * 3, *sorted(self.process_of)]))
        batch = self.do(self.batch(work, most=data.draw(st.integers(1, 4))))

        released = self.do(self.stores[self.process_of[owner]].replays.release(owner, batch))

        may = work.runs and owner in self.owners and not self.is_contained
        if not may:
            assert released is None
            return
        planned = [one for one in batch.items if self.is_as_planned(work, one.item)]
        assert released == frozenset(one.item for one in planned)
        for one in planned:
            self.lives[one.item].begin_cycle(batch.max_attempts, batch.opened_at, one.event.id)
            work.states[one.item] = ItemState.IN_FLIGHT
        for item, _ in batch.skipped:
            work.states[item] = ItemState.SKIPPED
        for process in range(2):
            self.catch_up(process)

    @precondition(lambda self: any(work.runs for work in self.works))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        is_stale = data.draw(st.integers(0, 3)) > 0
        work = data.draw(st.sampled_from([work for work in self.works if work.runs]))
        version = work.job.version + (0 if is_stale else 1)
        over = replace(work.job, state=ReplayState.CANCELLED, version=version)

        assert self.do(self.store.replays.change_job(over, [])) is not is_stale

        if not is_stale:
            work.job = over
            while self.do(self.store.replays.sweep(over, 1)):
                pass
            waiting = [item for item, state in work.states.items() if state is ItemState.WAITING]
            work.states |= dict.fromkeys(waiting, ItemState.CANCELLED)

    # containment

    @rule(chance=st.integers(0, 7))
    def contain_or_release(self, chance: int) -> None:
        if chance and not self.is_contained:
            return
        [integration] = self.do(self.store.integrations())
        old = integration.traffic
        new = Traffic(version=old.version + 1) if self.is_contained else contained(old)
        event = an_event(EventType.RELEASED if self.is_contained else EventType.CONTAINED)
        assert self.do(self.store.steer(integration, new, [event])) is not None
        self.is_contained = not self.is_contained
        self.other_events.append(event.id)

    # what always holds

    @invariant()
    def each_job_is_the_sum_of_its_outcomes(self) -> None:
        for work in self.works:
            progress = self.do(self.store.replays.progress(work.job))
            counted = Counter(state.value for state in work.states.values())
            found = {state.value: getattr(progress, state.value) for state in ItemState}
            assert found == {state.value: counted[state.value] for state in ItemState}
            assert progress.total == len(work.states)

    # of the model

    async def batch(self, work: Work, *, most: int) -> Batch:
        """What the stepper would release: of what waits, as it stands, what is as it was planned."""
        found = await self.store.replays.next_waiting(work.job, "oldest", None, most)
        items, skipped = [], []
        for one in found:
            if one.status is None or one.cycle != one.planned_cycle or one.is_resolved:
                skipped.append((one.item, "moved on"))
                continue
            event = an_event(EventType.REPLAYED, target_type="recovery_item", target_id=f"item {one.item}")
            event = replace(event, id=EventId(max(event.id, (one.head or 0) + 1)))
            items.append(Next(one.item, one.status, one.cycle, one.head, event))
        return Batch(work.job, 3, self.store.clock.now(), items, skipped)

    def is_as_planned(self, work: Work, item: ItemId) -> bool:
        life = self.lives[item]
        is_dead = life.status in DEAD and not life.resolved and life.cycle == work.cycles[item]
        return is_dead and work.states[item] is ItemState.WAITING

    def is_spoken_for(self, life: Life) -> bool:
        item = life.delivery.id
        return any(work.runs and work.states.get(item) is ItemState.WAITING for work in self.works)

    def was_recorded(self, life: Life, step: Step) -> None:
        """The job that opened the cycle is told; none, if a person did."""
        item = life.delivery.id
        for work in self.works:
            is_its = work.states.get(item) is ItemState.IN_FLIGHT and life.cycle == work.cycles[item] + 1
            if is_its and isinstance(step, Finish):
                done = step.status is Status.SUCCEEDED
                work.states[item] = ItemState.SUCCEEDED if done else ItemState.FAILED


class RecoveringOnSqlite(RecoveringLife, OnSqlite):
    """On a file."""


class RecoveringOnPostgres(RecoveringLife, OnPostgres):
    """On PostgreSQL."""


def test_jobs_on_sqlite_and_their_model_live_the_same_lives() -> None:
    run_state_machine_as_test(
        RecoveringOnSqlite, settings=settings(QUIET, max_examples=80, stateful_step_count=40)
    )


def test_jobs_on_postgresql_and_their_model_live_the_same_lives(on_postgres: type[LifeOfItems]) -> None:
    run_state_machine_as_test(
        RecoveringOnPostgres, settings=settings(QUIET, max_examples=25, stateful_step_count=40)
    )


@pytest.mark.long
def test_jobs_on_sqlite_and_their_model_live_the_same_long_lives() -> None:
    run_state_machine_as_test(
        RecoveringOnSqlite, settings=settings(QUIET, max_examples=1500, stateful_step_count=80)
    )


@pytest.mark.long
def test_jobs_on_postgresql_and_their_model_live_the_same_long_lives(on_postgres: type[LifeOfItems]) -> None:
    run_state_machine_as_test(
        RecoveringOnPostgres, settings=settings(QUIET, max_examples=300, stateful_step_count=80)
    )
