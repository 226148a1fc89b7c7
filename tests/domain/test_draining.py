"""What a release would do."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.draining import RATES, Arrivals, ceiling, healthy_rate, simulate
from redrive.domain.health import Tally
from tests.factories import NOW

PER_SECOND = st.floats(0.001, 10_000)


def a_tally(succeeded: int, failed: int) -> Tally:
    return Tally(NOW, succeeded, failed, timedelta(seconds=1))


def test_a_backlog_drains_at_what_is_sent_beyond_what_arrives() -> None:
    found = simulate(12_000, arrivals_per_second=10.0, asked=50.0)

    at = {drain.rate_per_second: drain for drain in found.drains}
    assert list(at) == [5.0, 20.0, 50.0, 100.0]
    assert at[5.0].drain_seconds is None
    assert at[20.0].drain_seconds == 1_200
    assert at[50.0].drain_seconds == 300
    assert (at[50.0].delay_seconds, at[5.0].delay_seconds) == (240, 2_400)


def test_the_integrations_own_limits_bound_what_is_sent() -> None:
    found = simulate(1_000, arrivals_per_second=0.0, ceiling_per_second=10.0)

    assert [drain.sends_per_second for drain in found.drains] == [5.0, 10.0, 10.0]
    assert [drain.drain_seconds for drain in found.drains] == [200, 100, 100]


def test_what_the_receiver_took_before_is_proven() -> None:
    found = simulate(10, arrivals_per_second=0.0, healthy_per_second=20.0)

    assert [drain.is_proven for drain in found.drains] == [True, True, False]
    assert not any(drain.is_proven for drain in simulate(10, arrivals_per_second=0.0).drains)


def test_no_backlog_is_drained_at_once() -> None:
    found = simulate(0, arrivals_per_second=1_000.0)

    assert {(drain.drain_seconds, drain.delay_seconds) for drain in found.drains} == {(0.0, 0.0)}


@given(backlog=st.integers(1, 10**9), arrivals=st.floats(0, 10_000), asked=PER_SECOND)
def test_a_higher_rate_is_never_slower(backlog: int, arrivals: float, asked: float) -> None:
    drains = simulate(backlog, arrivals_per_second=arrivals, asked=asked).drains

    assert [drain.rate_per_second for drain in drains] == sorted({*RATES, asked})
    for slow, fast in pairwise(drains):
        assert fast.delay_seconds <= slow.delay_seconds
        if slow.drain_seconds is not None:
            assert fast.drain_seconds is not None
            assert fast.drain_seconds <= slow.drain_seconds


def test_the_most_that_a_receiver_took_is_of_a_minute_in_which_it_was_well() -> None:
    assert healthy_rate([a_tally(60, 0), a_tally(120, 1), a_tally(600, 600), a_tally(0, 0)]) == 2.0
    assert healthy_rate([a_tally(0, 5), a_tally(5, 5)]) is None


def test_a_ceiling_is_made_of_places_and_of_the_rate() -> None:
    average = timedelta(milliseconds=200)

    assert ceiling(16, None, average) == 80.0
    assert ceiling(16, 50.0, average) == 50.0
    assert ceiling(16, 50.0, None) == 50.0
    assert ceiling(16, None, None) is None


def test_arrivals_are_counted_over_the_time_they_took() -> None:
    assert Arrivals(90, NOW - timedelta(seconds=45)).per_second(NOW) == 2.0
    assert Arrivals(0, NOW).per_second(NOW) == 0.0
