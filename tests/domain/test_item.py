from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.errors import Conflict, ReplayConflict
from redrive.domain.item import (
    DEAD,
    FREE,
    OPEN,
    TRANSITIONS,
    Finish,
    Place,
    RetryAt,
    Status,
    check_original,
    check_replay,
    check_resolve,
    next_step,
    open_status,
)
from redrive.domain.outcome import Answer, Failed, Outcome, Reach, Succeeded, classify, is_retryable
from redrive.domain.retry import RetryPolicy
from tests.domain.strategies import chances, outcomes, policies
from tests.factories import NOW, OUTAGE, REFUSAL, SUCCESS

CONTRACT = {  # §2, word for word
    "pending": "succeeded retrying failed dlq",
    "retrying": "succeeded retrying failed dlq",
    "replayed": "succeeded retrying failed dlq",
    "failed": "replayed",
    "dlq": "replayed",
    "succeeded": "",
}


def test_the_state_machine_is_the_contract_and_nothing_else() -> None:
    assert {status: set(after) for status, after in TRANSITIONS.items()} == {
        status: set(after.split()) for status, after in CONTRACT.items()
    }


def test_every_status_is_open_dead_or_succeeded() -> None:
    assert {*OPEN, *DEAD, Status.SUCCEEDED} == set(Status)
    assert not OPEN & DEAD
    assert not TRANSITIONS[Status.SUCCEEDED]


# after an attempt


@given(outcomes(), st.integers(1, 200), st.integers(1, 100), policies(), chances)
def test_every_outcome_has_a_step_and_it_is_the_one_the_contract_asks_for(
    outcome: Outcome, attempt: int, max_attempts: int, policy: RetryPolicy, chance: float
) -> None:
    step = next_step(outcome, attempt, max_attempts, policy, now=NOW, chance=chance)

    assert all(step.status in TRANSITIONS[status] for status in OPEN)
    if isinstance(outcome, Succeeded):
        assert step == Finish(Status.SUCCEEDED)
    elif not is_retryable(outcome.code, policy.network_codes):
        assert step == Finish(Status.FAILED)
    elif attempt >= max_attempts:
        assert step == Finish(Status.DLQ)
    else:
        delay = policy.delay(attempt, chance=chance)
        assert step == RetryAt(NOW + max(delay, outcome.retry_after or timedelta(0)))


def test_every_http_status_has_its_step() -> None:
    for status in range(1000):
        outcome = classify(Answer(status, (), b""))

        step = next_step(outcome, 1, 5, RetryPolicy(), now=NOW, chance=0.5)

        if 200 <= status <= 299:
            assert step.status is Status.SUCCEEDED, status
        elif status in (408, 429) or 500 <= status <= 599:
            assert step == RetryAt(NOW + timedelta(seconds=1)), status
        else:
            assert step.status is Status.FAILED, status


@pytest.mark.parametrize(
    ("attempt", "status"), [(1, Status.RETRYING), (4, Status.RETRYING), (5, Status.DLQ), (6, Status.DLQ)]
)
def test_the_last_attempt_of_a_cycle_ends_it(attempt: int, status: Status) -> None:
    assert next_step(OUTAGE, attempt, 5, RetryPolicy(), now=NOW, chance=0).status is status


def test_the_limit_is_the_cycles_own_not_that_of_the_policy_of_the_day() -> None:
    policy = RetryPolicy(max_attempts=1)

    assert next_step(OUTAGE, 1, 2, policy, now=NOW, chance=0).status is Status.RETRYING


@pytest.mark.parametrize("attempt", [1, 5])
def test_a_refusal_is_final_whatever_is_left(attempt: int) -> None:
    assert next_step(REFUSAL, attempt, 5, RetryPolicy(), now=NOW, chance=0) == Finish(Status.FAILED)


@pytest.mark.parametrize("attempt", [1, 5, 6])
def test_a_success_is_a_success_on_whichever_attempt(attempt: int) -> None:
    assert next_step(SUCCESS, attempt, 5, RetryPolicy(), now=NOW, chance=0) == Finish(Status.SUCCEEDED)


@pytest.mark.parametrize(("asked", "due"), [(0, 1), (0.5, 1), (1, 1), (90, 90), (86_400, 86_400)])
def test_what_the_receiver_asked_for_counts_when_it_is_later_also_past_max_delay(
    asked: float, due: float
) -> None:
    outcome = Failed("HTTP_429", "", Reach.ANSWERED, None, timedelta(seconds=asked))

    step = next_step(outcome, 1, 5, RetryPolicy(jitter=0), now=NOW, chance=0)

    assert step == RetryAt(NOW + timedelta(seconds=due))


def test_an_integration_decides_which_network_codes_are_worth_a_retry() -> None:
    outcome = Failed("ECONNRESET", "", Reach.SENT)
    none = RetryPolicy(network_codes=frozenset())

    assert next_step(outcome, 1, 5, RetryPolicy(), now=NOW, chance=0).status is Status.RETRYING
    assert next_step(outcome, 1, 5, none, now=NOW, chance=0).status is Status.FAILED


@pytest.mark.parametrize(
    ("cycle", "finished", "status"),
    [(1, 0, "pending"), (1, 1, "retrying"), (2, 0, "replayed"), (2, 3, "retrying")],
)
def test_an_open_status_is_what_its_history_makes_it(cycle: int, finished: int, status: str) -> None:
    assert open_status(cycle=cycle, attempts_finished=finished) == status


# by a person


@pytest.mark.parametrize("status", Status)
def test_only_a_dead_item_is_replayed(status: Status) -> None:
    if status in DEAD:
        check_replay(status)
        return

    with pytest.raises(ReplayConflict) as caught:
        check_replay(status)

    assert (caught.value.previous_status, caught.value.requested_status) == (status, "replayed")


@pytest.mark.parametrize("status", sorted(DEAD))
def test_a_resolved_item_is_not_replayed(status: Status) -> None:
    with pytest.raises(Conflict, match="resolved"):
        check_replay(status, resolved=True)


@pytest.mark.parametrize("status", Status)
def test_only_a_dead_item_is_resolved_and_only_once(status: Status) -> None:
    if status in DEAD:
        check_resolve(status, resolved=False)
    else:
        with pytest.raises(Conflict):
            check_resolve(status, resolved=False)

    with pytest.raises(Conflict):
        check_resolve(status, resolved=True)
    for place in (Place(edited_as="rec_1"), Place(superseded_by="rec_1")):
        with pytest.raises(Conflict):
            check_resolve(status, resolved=False, place=place)


@pytest.mark.parametrize("status", Status)
def test_a_copy_is_sent_only_in_the_place_of_a_dead_item_that_nobody_closed(status: Status) -> None:
    if status in DEAD:
        check_original(status, resolved=False, place=FREE)
    else:
        with pytest.raises(Conflict):
            check_original(status, resolved=False, place=FREE)

    with pytest.raises(Conflict):
        check_original(status, resolved=True, place=FREE)
    for place in (Place(edited_as="rec_1"), Place(superseded_by="rec_1")):
        with pytest.raises(Conflict):
            check_original(status, resolved=False, place=place)
