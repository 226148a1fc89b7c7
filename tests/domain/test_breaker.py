"""The breaker as a value: when it opens, for how long, and what ends it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.breaker import (
    CLOSED,
    FIRST_SECONDS,
    JITTER,
    MOST_SECONDS,
    Breaker,
    BreakerState,
    Seen,
    Sign,
    Watch,
    open_seconds,
    sign_of,
    throttled_for,
)
from redrive.domain.outcome import Failed, Reach
from tests.factories import NOW, OUTAGE, REFUSAL, SUCCESS, TIMEOUT

MIDDLE = 0.5  # a chance that moves nothing
CHANCES = st.floats(0, 1, exclude_max=True)
WATCH = Watch()


def a_failure(code: str, retry_after: float | None = None) -> Failed:
    asked = None if retry_after is None else timedelta(seconds=retry_after)
    return Failed(code, "it failed", Reach.ANSWERED, None, asked)


def seen(outcomes: int, failures: int, *, again: int = 1, seconds: float = 30) -> Seen:
    return Seen(outcomes, failures, again, seconds)


# when it opens


@given(outcomes=st.integers(0, 19), again=st.integers(0, 19), seconds=st.floats(0, 1e6))
def test_too_few_outcomes_open_nothing(outcomes: int, again: int, seconds: float) -> None:
    assert not WATCH.is_outage(Seen(outcomes, outcomes, again, seconds))


@given(outcomes=st.integers(20, 10_000), seconds=st.floats(0, 4.999))
def test_a_bad_moment_opens_nothing(outcomes: int, seconds: float) -> None:
    assert not WATCH.is_outage(Seen(outcomes, outcomes, outcomes, seconds))


@given(outcomes=st.integers(20, 10_000))
def test_what_a_retry_cures_opens_nothing(outcomes: int) -> None:
    assert not WATCH.is_outage(seen(outcomes, outcomes, again=0))


def test_the_share_that_failed_decides() -> None:
    assert [WATCH.is_outage(seen(100, failures)) for failures in (0, 79, 80, 100)] == [
        False,
        False,
        True,
        True,
    ]


@given(outcomes=st.integers(0, 10_000))
def test_a_share_of_zero_turns_it_off(outcomes: int) -> None:
    assert not Watch(failure_share=0.0).is_outage(seen(outcomes, outcomes, again=outcomes))


@given(
    outcomes=st.integers(0, 200),
    failures=st.integers(0, 200),
    again=st.integers(0, 200),
    seconds=st.floats(0, 60),
    more=st.integers(0, 50),
)
def test_more_failures_never_keep_it_closed(
    outcomes: int, failures: int, again: int, seconds: float, more: int
) -> None:
    few = Seen(max(outcomes, failures), failures, again, seconds)
    many = Seen(few.outcomes + more, few.failures + more, again + more, seconds)

    assert WATCH.is_outage(many) or not WATCH.is_outage(few)


# for how long


@given(trips=st.integers(1, 1_000), chance=CHANCES)
def test_it_opens_for_longer_each_time_and_never_for_more_than_the_most(trips: int, chance: float) -> None:
    seconds = open_seconds(trips, chance=chance)

    assert (1 - JITTER) * FIRST_SECONDS <= seconds <= (1 + JITTER) * MOST_SECONDS
    assert open_seconds(trips + 1, chance=chance) >= seconds


def test_it_opens_for_ten_seconds_then_twice_as_long_up_to_five_minutes() -> None:
    assert [open_seconds(trips, chance=MIDDLE) for trips in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]


def test_one_that_closed_a_while_ago_begins_anew() -> None:
    before = Breaker(BreakerState.CLOSED, NOW, None, NOW - timedelta(minutes=3), 4)

    soon = before.opened(NOW + timedelta(seconds=MOST_SECONDS - 1), chance=MIDDLE)
    later = before.opened(NOW + timedelta(seconds=MOST_SECONDS), chance=MIDDLE)

    assert (soon.trips, soon.opened_at) == (5, before.opened_at)
    assert (later.trips, later.opened_at) == (1, NOW + timedelta(seconds=MOST_SECONDS))


# the trial


@given(trips=st.integers(0, 20), chance=CHANCES)
def test_a_trial_that_succeeds_always_closes_it(trips: int, chance: float) -> None:
    opened = Breaker(BreakerState.OPEN, NOW, NOW, NOW, trips)

    closed = opened.trying(NOW, 25).after(Sign.WELL, NOW, chance=chance)

    assert closed.is_closed
    assert not closed.may_try(NOW + timedelta(days=365))


@given(trips=st.integers(1, 20), chance=CHANCES)
def test_a_trial_that_fails_opens_it_for_longer(trips: int, chance: float) -> None:
    opened = Breaker(BreakerState.OPEN, NOW, NOW, NOW, trips)

    again = opened.trying(NOW, 25).after(Sign.ILL, NOW, chance=chance)

    assert (again.state, again.trips, again.opened_at) == (BreakerState.OPEN, trips + 1, NOW)
    assert again.until == NOW + timedelta(seconds=open_seconds(trips + 1, chance=chance))


def test_a_trial_that_tells_nothing_is_followed_by_another() -> None:
    told = CLOSED.opened(NOW, chance=MIDDLE).trying(NOW, 25).after(Sign.NONE, NOW, chance=MIDDLE)

    assert (told.state, told.trips) == (BreakerState.OPEN, 1)
    assert told.may_try(NOW)


@given(seconds=st.floats(0.1, 100), chance=CHANCES)
def test_nobody_tries_before_its_time_nor_beside_another_trial(seconds: float, chance: float) -> None:
    opened = CLOSED.opened(NOW, chance=chance)
    assert opened.until is not None
    trying = opened.trying(opened.until, seconds)

    assert not opened.may_try(opened.until - timedelta(milliseconds=1))
    assert opened.may_try(opened.until)
    assert not trying.may_try(opened.until)
    assert trying.may_try(opened.until + timedelta(seconds=seconds))


# what an outcome tells


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ECONNREFUSED", Sign.ILL),
        ("EAI_AGAIN", Sign.ILL),
        ("DNS_NOT_FOUND", Sign.ILL),
        ("TLS_ERROR", Sign.ILL),
        ("RESPONSE_TIMEOUT", Sign.ILL),
        ("PROTOCOL_ERROR", Sign.ILL),
        ("HTTP_500", Sign.ILL),
        ("HTTP_429", Sign.ILL),
        ("HTTP_408", Sign.ILL),
        ("HTTP_404", Sign.WELL),
        ("HTTP_410", Sign.WELL),
        ("HTTP_301", Sign.WELL),
        ("LEASE_EXPIRED", Sign.NONE),
        ("BLOCKED_ADDRESS", Sign.NONE),
    ],
)
def test_only_what_speaks_of_the_receivers_health_counts(code: str, told: Sign) -> None:
    assert sign_of(a_failure(code)) is told


def test_an_answer_that_refuses_is_a_sign_of_life() -> None:
    signs = [sign_of(outcome) for outcome in (SUCCESS, REFUSAL, OUTAGE, TIMEOUT)]

    assert signs == [Sign.WELL, Sign.WELL, Sign.ILL, Sign.ILL]


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (a_failure("HTTP_429", 30), 30),
        (a_failure("HTTP_503", 30), 30),
        (a_failure("HTTP_503", 86_400), 3600),
        (a_failure("HTTP_500", 30), None),
        (a_failure("HTTP_429"), None),
    ],
)
def test_a_retry_after_throttles_for_an_hour_at_most(failure: Failed, seconds: float | None) -> None:
    asked = throttled_for(failure)

    assert (None if asked is None else asked.total_seconds()) == seconds
