"""What is to be thought of a receiver, from what came of attempts and probes."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.breaker import CLOSED
from redrive.domain.health import ENOUGH, Facts, Probe, Tallies, Tally, Verdict, diagnosed
from tests.factories import NOW

MINUTE = timedelta(minutes=1)
OPEN = CLOSED.opened(NOW, chance=0.5)


def a_tally(succeeded: int, failed: int, *, ago: float = 0) -> Tally:
    return Tally(NOW - ago * MINUTE, succeeded, failed, timedelta(seconds=1))


def facts(*tallies: Tally, **fields: Any) -> Facts:
    values: dict[str, Any] = {
        "now": NOW,
        "tallies": Tallies(tallies),
        "breaker": CLOSED,
        "throttled_until": None,
        "probe": None,
        "gone_at": None,
        "is_contained": False,
    }
    return Facts(**values | fields)


def a_probe(*, ago: float = 1, succeeded: bool = True, **fields: Any) -> Probe:
    code = None if succeeded else "HTTP_503"
    return Probe(NOW - ago * MINUTE, "ada", succeeded=succeeded, failure_code=code, **fields)


@pytest.mark.parametrize(
    ("succeeded", "failed", "verdict"),
    [
        (100, 0, Verdict.HEALTHY),
        (100, 4, Verdict.HEALTHY),
        (95, 5, Verdict.DEGRADED),
        (51, 49, Verdict.DEGRADED),
        (50, 50, Verdict.FAILING),
        (0, 100, Verdict.FAILING),
        (0, 0, Verdict.UNKNOWN),
    ],
)
def test_the_share_of_recent_attempts_that_failed_decides(
    succeeded: int, failed: int, verdict: Verdict
) -> None:
    assert diagnosed(facts(a_tally(succeeded, failed))).verdict is verdict


def test_the_shortest_time_with_enough_outcomes_is_diagnosed_by() -> None:
    old = a_tally(0, 100, ago=30)

    recovered = diagnosed(facts(old, a_tally(ENOUGH, 0, ago=1)))
    too_few = diagnosed(facts(old, a_tally(ENOUGH - 1, 0, ago=1)))

    assert recovered.verdict is Verdict.HEALTHY
    assert recovered.reasons == ("0 of 5 attempts failed in the last 5 minutes",)
    assert too_few.verdict is Verdict.FAILING
    assert too_few.reasons == ("100 of 104 attempts failed in the last 60 minutes",)


def test_what_is_older_than_an_hour_tells_nothing() -> None:
    assert diagnosed(facts(a_tally(100, 0, ago=60))).verdict is Verdict.UNKNOWN


@given(succeeded=st.integers(0, 1000), failed=st.integers(0, 1000), more=st.integers(0, 1000))
def test_more_failures_never_make_it_better(succeeded: int, failed: int, more: int) -> None:
    order = [Verdict.HEALTHY, Verdict.DEGRADED, Verdict.FAILING]
    if not succeeded + failed:
        return

    few = diagnosed(facts(a_tally(succeeded, failed))).verdict
    many = diagnosed(facts(a_tally(succeeded, failed + more))).verdict

    assert order.index(many) >= order.index(few)


def test_an_open_breaker_is_failing_whatever_came_before() -> None:
    found = diagnosed(facts(a_tally(100, 0), breaker=OPEN))

    assert found.verdict is Verdict.FAILING
    assert found.reasons[0] == "the breaker is open: nothing but a trial is sent"


# probes


def test_a_probe_after_an_outage_is_newer_evidence() -> None:
    outage = a_tally(0, 100, ago=10)

    assert diagnosed(facts(outage, probe=a_probe())).verdict is Verdict.HEALTHY
    assert diagnosed(facts(outage, probe=a_probe(succeeded=False))).verdict is Verdict.FAILING


def test_a_probe_decides_where_nothing_else_is_known() -> None:
    assert diagnosed(facts(probe=a_probe())).verdict is Verdict.HEALTHY
    assert diagnosed(facts(probe=a_probe(succeeded=False))).verdict is Verdict.FAILING


def test_what_ended_since_outweighs_a_probe() -> None:
    since = a_tally(0, ENOUGH, ago=0.5)

    assert diagnosed(facts(since, probe=a_probe(ago=1))).verdict is Verdict.FAILING


def test_a_probe_of_long_ago_or_of_which_nobody_knows_decides_nothing() -> None:
    unknown = Probe(NOW, "ada", failure_detail="nobody knows")

    assert diagnosed(facts(probe=a_probe(ago=15))).verdict is Verdict.UNKNOWN
    assert diagnosed(facts(probe=unknown)).verdict is Verdict.UNKNOWN


def test_a_probe_says_what_it_asked() -> None:
    by_item = diagnosed(facts(probe=a_probe(recovery_id="rec_1")))

    assert by_item.reasons[0] == "a trial with rec_1 succeeded, and little has ended since"
    assert diagnosed(facts(probe=a_probe())).reasons[0].startswith("the health URL succeeded")


# asked to be left alone, gone, contained


def test_a_throttle_is_no_good_health_until_it_is_over() -> None:
    well = a_tally(100, 0)

    assert diagnosed(facts(well, throttled_until=NOW + MINUTE)).verdict is Verdict.DEGRADED
    assert diagnosed(facts(well, throttled_until=NOW)).verdict is Verdict.HEALTHY


def test_one_that_is_gone_is_told_of_until_it_takes_something_again() -> None:
    gone = diagnosed(facts(a_tally(100, 0), gone_at=NOW - MINUTE))
    back = diagnosed(facts(a_tally(100, 0), gone_at=NOW - MINUTE, tallies=Tallies((a_tally(9, 0),), NOW)))

    assert gone.verdict is Verdict.DEGRADED
    assert "410" in gone.reasons[-1]
    assert back.verdict is Verdict.HEALTHY


def test_what_is_contained_is_diagnosed_all_the_same() -> None:
    found = diagnosed(facts(a_tally(100, 0), is_contained=True))

    assert found.verdict is Verdict.HEALTHY
    assert found.reasons[-1] == "it is contained: nothing is sent but probes"
