"""Jobs: what may follow what, what is eligible, which few go first, and how many go now."""

from collections import Counter
from datetime import timedelta
from math import ceil, inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redrive.domain.errors import Conflict
from redrive.domain.ids import EventId, ItemId, JobId
from redrive.domain.item import Status
from redrive.domain.replay import (
    ACTIVE,
    MOST_CANARY,
    OVER,
    RELEASING,
    TRANSITIONS,
    Canary,
    HaltIf,
    ItemState,
    Job,
    Options,
    Plan,
    Progress,
    ReplayState,
    Wanted,
    check_options,
    check_transition,
    eta_seconds,
    resumed,
)
from redrive.domain.replay_judging import Candidate, Kin, Skip, Waiting, judge, judge_again
from redrive.domain.replay_pace import (
    MOST_AT_ONCE,
    Become,
    Decision,
    Figures,
    Release,
    Tried,
    Wait,
    decide,
    refill,
)
from redrive.domain.replay_plan import Drafting, estimate_seconds
from tests.factories import NOW

STATES = st.sampled_from(ItemState)
COUNTS = st.integers(0, 10_000)


def a_job(**fields: Any) -> Job:
    """One that runs, without a canary."""
    values: dict[str, Any] = {
        "id": JobId(1),
        "integration": 1,
        "state": ReplayState.RUNNING,
        "wanted": Wanted(),
        "as_of": NOW,
        "expires_at": NOW + timedelta(minutes=15),
        "planned_by": "ops",
        "request_id": "req-1",
        "setting": {},
        "plan": Plan("digest", {}, {2: 100}, None, None, ()),
        "options": an_option(),
        "changed_at": NOW,
        "changed_by": "ops",
        "canary_passed": True,
    }
    return Job(**values | fields)


def an_option(**fields: Any) -> Options:
    values: dict[str, Any] = {"reason": "it is back", "canary": Canary(0)}
    return Options(**values | fields)


def figures(**fields: Any) -> Figures:
    values: dict[str, Any] = {
        "has_waiting": True,
        "in_flight": 0,
        "untold": 0,
        "told_in_last_second": 0,
        "last": (),
        "canary": (),
        "sends": True,
    }
    return Figures(**values | fields)


def a_candidate(number: int = 1, **fields: Any) -> Candidate:
    values: dict[str, Any] = {
        "cycle": 1,
        "risk": 2,
        "died_at": NOW,
        "is_resolved": False,
        "is_busy": False,
        "event_type": "order.paid",
        "size": 10,
    }
    return Candidate(ItemId(number), **values | fields)


# states


def test_a_job_that_is_over_stays_so() -> None:
    assert all(not TRANSITIONS[state] for state in OVER)
    assert OVER.isdisjoint(ACTIVE)
    assert ACTIVE | OVER | {ReplayState.PLANNING, ReplayState.PLANNED} == set(ReplayState)


def test_every_state_is_reached_from_planning() -> None:
    reached, edge = set(), {ReplayState.PLANNING}
    while edge:
        reached |= edge
        edge = {after for before in edge for after in TRANSITIONS[before]} - reached
    assert reached == set(ReplayState)


@pytest.mark.parametrize("before", ReplayState)
@pytest.mark.parametrize("after", ReplayState)
def test_only_the_transitions_of_the_table_are_allowed(before: ReplayState, after: ReplayState) -> None:
    job = a_job(state=before)

    if after in TRANSITIONS[before]:
        check_transition(job, after)
    else:
        with pytest.raises(Conflict, match=job.replay_id):
            check_transition(job, after)


def test_a_paused_canary_goes_on_as_canary_and_any_other_as_it_ran() -> None:
    canary = a_job(state=ReplayState.PAUSED, options=an_option(canary=Canary(3)), canary_passed=False)

    assert resumed(canary) is ReplayState.CANARY
    assert resumed(replace(canary, canary_passed=True)) is ReplayState.RUNNING
    assert resumed(a_job(state=ReplayState.PAUSED)) is ReplayState.RUNNING


def test_a_plan_has_expired_before_anyone_wrote_that_down() -> None:
    job = a_job(state=ReplayState.PLANNED)

    assert job.shown_state(job.expires_at - timedelta(milliseconds=1)) is ReplayState.PLANNED
    assert job.shown_state(job.expires_at) is ReplayState.EXPIRED
    assert replace(job, state=ReplayState.RUNNING).shown_state(job.expires_at) is ReplayState.RUNNING


@given(st.builds(Progress, *[COUNTS] * 6), st.sampled_from(ReplayState))
def test_what_is_shown_sums_to_what_was_counted(counted: Progress, state: ReplayState) -> None:
    shown = a_job(state=state).shown(counted)

    assert shown.total == counted.total
    assert shown.done == counted.done
    assert not (state in OVER and shown.waiting)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"rate": 0.0}, "/rate"),
        ({"rate": float("nan")}, "/rate"),
        ({"concurrency": 0}, "/concurrency"),
        ({"canary": Canary(MOST_CANARY + 1)}, "/canary/size"),
        ({"canary": Canary(-1)}, "/canary/size"),
        ({"canary": Canary(5, share=0.0)}, "/canary/share"),
        ({"halt_if": HaltIf(1.5)}, "/halt_if/share"),
        ({"halt_if": HaltIf(last=0)}, "/halt_if/last"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(fields: dict[str, Any], where: str) -> None:
    assert [pointer for pointer, _ in check_options(an_option(**fields))] == [where]
    assert check_options(an_option()) == []


def test_nobody_tells_an_eta_from_a_few_outcomes() -> None:
    job = a_job()

    assert eta_seconds(job, Progress(waiting=10, succeeded=9), 5.0) is None
    assert eta_seconds(job, Progress(waiting=10, succeeded=10), 0.0) is None
    assert eta_seconds(job, Progress(waiting=10, in_flight=10, succeeded=10), 5.0) == 4.0
    assert eta_seconds(replace(job, state=ReplayState.PAUSED), Progress(10, 0, 10), 5.0) is None


# planning


@pytest.mark.parametrize(
    ("fields", "skip"),
    [
        ({}, None),
        ({"event_type": None}, Skip.NOT_FOUND),
        ({"is_erased": True, "is_resolved": True}, Skip.ERASED),
        ({"is_open": True, "cycle": 0}, Skip.UNFINISHED),
        ({"cycle": 0, "died_at": None}, Skip.SUCCEEDED_SINCE),
        ({"is_resolved": True}, Skip.RESOLVED),
        *[({"kin": kin}, Skip(kin)) for kin in Kin],
        ({"cycle": 3}, None),
        ({"cycle": 4}, Skip.LOOPED),
        ({"died_at": NOW + timedelta(milliseconds=1)}, Skip.DIED_SINCE),
        ({"is_busy": True}, Skip.IN_ANOTHER_JOB),
    ],
)
def test_each_item_is_eligible_or_skipped_for_a_reason(fields: dict[str, Any], skip: Skip | None) -> None:
    one = a_candidate(**fields)

    assert judge(one, as_of=NOW, sends=True) is skip
    assert judge(one, as_of=NOW, sends=False) is (skip or Skip.CONTAINED)


def a_waiting_item(**fields: Any) -> Waiting:
    """Dead, as it was planned."""
    values: dict[str, Any] = {
        "item": ItemId(1),
        "planned_cycle": 2,
        "status": Status.DLQ,
        "cycle": 2,
        "attempt": 5,
        "failure_code": "HTTP_503",
        "is_resolved": False,
        "is_open": False,
        "is_erased": False,
        "request_id": "req-1",
        "same_request": False,
        "kin": None,
        "head": EventId(1),
        "head_digest": "ab",
    }
    return Waiting(**values | fields)


@pytest.mark.parametrize(
    ("fields", "skip"),
    [
        ({}, None),
        ({"request_id": None, "is_erased": True}, Skip.NOT_FOUND),
        ({"is_erased": True, "is_resolved": True}, Skip.ERASED),
        ({"is_open": True, "status": None, "cycle": 0}, Skip.REPLAYED_SINCE),
        ({"status": None, "cycle": 0}, Skip.SUCCEEDED_SINCE),
        ({"cycle": 3, "is_resolved": True}, Skip.REPLAYED_SINCE),
        ({"is_resolved": True, "kin": Kin.COPY}, Skip.RESOLVED),
        *[({"kin": kin, "same_request": True}, Skip(kin)) for kin in Kin],
        ({"same_request": True}, Skip.SAME_REQUEST),
        ({"planned_cycle": 4, "cycle": 4}, None),  # a loop is no reason once somebody planned it
    ],
)
def test_each_item_that_waited_is_replayed_or_skipped_for_a_reason(
    fields: dict[str, Any], skip: Skip | None
) -> None:
    assert judge_again(a_waiting_item(**fields)) is skip


CANDIDATES = st.lists(
    st.builds(
        a_candidate,
        st.integers(1, 1 << 40),
        cycle=st.integers(0, 5),
        risk=st.integers(1, 3),
        size=st.integers(0, 10),
        event_type=st.sampled_from(["a", "b", "c", None]),
        is_resolved=st.booleans(),
    ),
    unique_by=lambda one: one.id,
    max_size=60,
)


def drafted(candidates: list[Candidate], chunk: int = 7) -> Plan:
    draft = Drafting(b"head", as_of=NOW, sends=True)
    for at in range(0, len(candidates), chunk):
        draft.add(candidates[at : at + chunk])
    return draft.finish(None)


@given(CANDIDATES)
def test_a_plan_counts_every_item_once(candidates: list[Candidate]) -> None:
    plan = drafted(candidates)

    reasons = [judge(one, as_of=NOW, sends=True) for one in candidates]
    assert plan.total == len(candidates)
    assert plan.eligible == reasons.count(None)
    assert plan.skipped == Counter(reason.value for reason in reasons if reason is not None)
    eligible = [one for one, reason in zip(candidates, reasons, strict=True) if reason is None]
    assert plan.risks == Counter(one.risk for one in eligible)
    assert plan.oldest == min((one.id for one in eligible), default=None)


@given(CANDIDATES, st.integers(1, 9))
def test_a_digest_stands_for_the_set_and_not_for_how_it_was_read(
    candidates: list[Candidate], chunk: int
) -> None:
    assert drafted(candidates).digest == drafted(candidates, chunk).digest
    assert drafted(candidates).digest != drafted([*candidates, a_candidate(1 << 50)]).digest


@given(CANDIDATES)
def test_a_canary_is_of_eligible_items_each_once(candidates: list[Candidate]) -> None:
    plan = drafted(candidates)

    eligible = {one.id for one in candidates if judge(one, as_of=NOW, sends=True) is None}
    assert len(plan.canary) == len(set(plan.canary)) == min(len(eligible), MOST_CANARY)
    assert set(plan.canary) <= eligible


def test_the_first_of_a_canary_are_of_each_kind_and_of_each_extreme() -> None:
    ordinary = [a_candidate(number, event_type="order.paid", size=10) for number in range(10, 60)]
    large = a_candidate(30, event_type="order.paid", size=1000)
    rare = a_candidate(5, event_type="order.lost", size=7)
    candidates = [rare, *(large if one.id == 30 else one for one in ordinary)]

    plan = drafted(candidates)

    assert plan.canary[0] == large.id  # of the most frequent kind
    assert rare.id in plan.canary[:2]
    assert {10, 59} <= set(plan.canary[:6])  # its oldest, its newest


def test_an_estimate_is_of_the_tightest_limit_that_is_known() -> None:
    assert estimate_seconds(100, rate=None, concurrency=10, mean_seconds=None) is None
    assert estimate_seconds(100, rate=20.0, concurrency=10, mean_seconds=None) == 5.0
    assert estimate_seconds(100, rate=20.0, concurrency=1, mean_seconds=0.5) == 50.0


# pace


FIGURES = st.builds(
    figures,
    has_waiting=st.booleans(),
    in_flight=COUNTS,
    untold=COUNTS,
    told_in_last_second=COUNTS,
    last=st.lists(st.booleans(), max_size=20).map(tuple),
    canary=st.lists(
        st.builds(Tried, st.integers(1, 99).map(ItemId), STATES, st.booleans(), st.booleans()),
        max_size=12,
        unique_by=lambda one: one.id,
    ).map(tuple),
    sends=st.booleans(),
)
OPTIONS = st.builds(
    an_option,
    rate=st.none() | st.floats(0.001, 10_000),
    concurrency=st.none() | st.integers(1, 100),
    canary=st.builds(Canary, st.integers(1, 10), st.floats(0.1, 1.0)),
    halt_if=st.builds(HaltIf, st.floats(0, 1), st.integers(1, 20)),
)
SAVED = st.floats(0, 1_000) | st.just(inf)


@given(FIGURES, OPTIONS, SAVED, st.integers(1, 1_000), st.sampled_from(sorted(RELEASING)))
def test_no_step_goes_past_a_limit_or_outside_the_table(
    now: Figures, options: Options, saved: float, limit: int, state: ReplayState
) -> None:
    job = a_job(state=state, options=options, canary_passed=state is ReplayState.RUNNING)

    decision = decide(job, now, saved=saved, limit=limit)

    if isinstance(decision, Become):
        assert decision.state in TRANSITIONS[state]
        assert decision.because
    elif isinstance(decision, Release):
        assert now.sends
        assert 1 <= decision.count <= min(saved, MOST_AT_ONCE)
        if options.concurrency is not None:
            assert now.in_flight + decision.count <= options.concurrency
        else:
            assert now.untold + decision.count <= 2 * limit + now.told_in_last_second
        if state is ReplayState.CANARY:
            tried = [one for one in now.canary if one.state not in (ItemState.WAITING, ItemState.SKIPPED)]
            assert decision.items is not None
            assert len(tried) + decision.count <= options.canary.size
    else:
        assert decision.seconds > 0


@given(FIGURES, OPTIONS, SAVED)
def test_a_canary_passes_only_when_all_of_it_is_known_and_enough_succeeded(
    now: Figures, options: Options, saved: float
) -> None:
    job = a_job(state=ReplayState.CANARY, options=options, canary_passed=False)

    decision = decide(job, now, saved=saved, limit=16)

    tried = [one for one in now.canary if one.state not in (ItemState.WAITING, ItemState.SKIPPED)]
    if decision == Become(ReplayState.RUNNING, getattr(decision, "because", "")):
        assert all(one.is_told for one in tried)
        good = sum(not one.has_failed for one in tried)
        size = min(options.canary.size, len(tried))
        assert good >= ceil(options.canary.share * size) - (len(tried) - size)


@given(st.lists(st.booleans(), max_size=40), st.floats(0, 1), st.integers(1, 20))
def test_a_job_halts_exactly_when_more_than_its_share_of_the_last_failed(
    outcomes: list[bool], share: float, last: int
) -> None:
    job = a_job(options=an_option(halt_if=HaltIf(share, last)))
    latest = tuple(outcomes[:last])

    decision = decide(job, figures(last=latest), saved=inf, limit=16)

    is_halted = isinstance(decision, Become) and decision.state is ReplayState.HALTED
    assert is_halted is (len(latest) == last and sum(latest) > share * last)


@pytest.mark.parametrize("state", [ReplayState.RUNNING, ReplayState.CANARY])
def test_one_item_at_a_time_goes_before_a_breaker_that_is_not_closed(state: ReplayState) -> None:
    job = a_job(state=state, options=an_option(canary=Canary(2)))
    few = (
        Tried(ItemId(1), ItemState.WAITING, False, False),
        Tried(ItemId(2), ItemState.WAITING, False, False),
    )

    first = decide(job, figures(canary=few), saved=inf, limit=16, tries=True)
    then = decide(job, figures(canary=few, in_flight=1), saved=inf, limit=16, tries=True)

    assert isinstance(first, Release)
    assert first.count == 1
    assert isinstance(then, Wait)


@pytest.mark.parametrize("state", [ReplayState.RUNNING, ReplayState.CANARY])
@pytest.mark.parametrize("rate", [None, 0.001, 1000.0])
@pytest.mark.parametrize("tries", [False, True])
def test_a_job_whose_integration_does_not_send_looks_again_in_a_second(
    state: ReplayState, rate: float | None, *, tries: bool
) -> None:
    job = a_job(state=state, options=an_option(rate=rate, canary=Canary(2)))
    few = tuple(Tried(ItemId(at), ItemState.WAITING, False, False) for at in (1, 2))

    decision = decide(job, figures(sends=False, canary=few), saved=0.0, limit=16, tries=tries)

    assert decision == Wait(1.0)


def test_a_job_that_its_rate_holds_looks_again_when_that_allows_the_next() -> None:
    def wait(rate: float, saved: float) -> Decision:
        return decide(a_job(options=an_option(rate=rate)), figures(), saved=saved, limit=16)

    assert wait(8.0, 0.2) == Wait(0.1)
    assert wait(0.001, 0.0) == Wait(0.25)
    assert wait(1000.0, 0.0) == Wait(0.025)


def test_a_wait_that_goes_on_is_for_longer_each_time_and_any_other_begins_anew() -> None:
    growing, steady = Wait(0.25, 2.0), Wait(0.025)

    assert growing.after(None) == growing.after((steady, 0.025)) == 0.25
    assert [growing.after((growing, last)) for last in (0.25, 1.5, 2.0)] == [0.5, 2.0, 2.0]
    assert steady.after((steady, 0.025)) == 0.025


def test_a_job_is_done_when_nothing_waits_and_nothing_is_in_flight() -> None:
    assert isinstance(decide(a_job(), figures(has_waiting=False, in_flight=1), saved=inf, limit=1), Wait)
    done = decide(a_job(), figures(has_waiting=False), saved=inf, limit=1)
    assert isinstance(done, Become)
    assert done.state is ReplayState.COMPLETED


@given(st.floats(0.1, 10_000), st.lists(st.floats(0, 2), max_size=50))
def test_no_more_than_the_rate_is_ever_saved_up_and_a_ramp_only_slows(
    rate: float, waits: list[float]
) -> None:
    saved, running, gained = 0.0, 0.0, 0.0
    for wait in waits:
        running += wait
        before = saved
        saved = refill(saved, rate, seconds=wait, running_for=running)
        gained += max(0.0, saved - before)
        assert saved <= max(1.0, rate / 4)
    assert gained <= rate * running * (1 + 1e-9)


def test_without_a_rate_nothing_is_counted() -> None:
    assert refill(0.0, None, seconds=1, running_for=1) == inf
    assert refill(inf, 8.0, seconds=1, running_for=10) == 2.0
