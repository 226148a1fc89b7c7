"""A clock that follows another machine's."""

from datetime import timedelta

import pytest

from redrive.clock import FollowedClock, timed_bytes
from tests.factories import NOW
from tests.store.under_test import OffsetClock


@pytest.fixture
def here() -> OffsetClock:
    return OffsetClock()


@pytest.fixture
def followed(here: OffsetClock) -> FollowedClock:
    """Told, to a hundredth of a second, that it is an hour later there."""
    clock = FollowedClock(here)
    clock.follow(NOW + timedelta(hours=1), -0.01, 0.01)
    return clock


def seconds_apart(clock: FollowedClock, here: OffsetClock) -> float:
    return (clock.now() - here.now()).total_seconds()


def test_it_goes_on_as_the_steady_clock_does(followed: FollowedClock, here: OffsetClock) -> None:
    here.move(60)

    assert seconds_apart(followed, here) == 3600


def test_a_slow_answer_is_followed_when_the_sure_one_cannot_be_right(
    followed: FollowedClock, here: OffsetClock
) -> None:
    here.move(5)

    followed.follow(NOW + timedelta(hours=1, seconds=5.4), 4, 5)  # 3600.9 seconds apart, give or take 0.5

    assert seconds_apart(followed, here) == pytest.approx(3600.9)


def test_a_slow_answer_that_agrees_is_not_followed(followed: FollowedClock, here: OffsetClock) -> None:
    here.move(5)

    followed.follow(NOW + timedelta(hours=1, seconds=4.9), 4, 5)  # 3600.4 seconds apart, give or take 0.5

    assert seconds_apart(followed, here) == 3600


def test_an_answer_as_sure_is_followed(followed: FollowedClock, here: OffsetClock) -> None:
    here.move(5)

    followed.follow(NOW + timedelta(hours=1, seconds=4.995), 4.98, 5)

    assert seconds_apart(followed, here) == pytest.approx(3600.005)


def test_a_sure_answer_ages(followed: FollowedClock, here: OffsetClock) -> None:
    here.move(10_000)

    followed.follow(NOW + timedelta(hours=1, seconds=9_999.9), 9_999, 10_000)

    assert seconds_apart(followed, here) == pytest.approx(3600.4)


def test_a_clock_that_was_set_is_followed_at_once(followed: FollowedClock, here: OffsetClock) -> None:
    here.move(5)

    followed.follow(NOW, 4, 5)

    assert seconds_apart(followed, here) == pytest.approx(-4.5)


def test_what_is_unique_in_time_sorts_by_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (255, 256, 2**47):
        monkeypatch.setattr("time.time_ns", lambda at=milliseconds: at * 1_000_000)
        made.append(timed_bytes())

    assert made == sorted(made)
    assert {len(one) for one in made} == {16}
    assert timed_bytes() != timed_bytes()
