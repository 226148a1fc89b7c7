"""Containment as a value: when it warns, and when it is probed."""

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from redrive.domain.traffic import (
    CAUTIOUS_RATE,
    after_probe,
    cautious_rate,
    is_expiring,
    is_to_be_probed,
)
from tests.factories import NOW, a_containment


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


@pytest.mark.parametrize(("lasts", "warns_after"), [(240, 225), (60, 45), (20, 15), (1, 0.75)])
def test_it_warns_a_quarter_of_an_hour_before_its_end_or_a_quarter_of_its_time(
    lasts: float, warns_after: float
) -> None:
    given = a_containment(until=at(lasts))

    assert not is_expiring(given, at(warns_after) - timedelta(milliseconds=1))
    assert is_expiring(given, at(warns_after))
    assert not is_expiring(replace(given, is_warned=True), at(warns_after))


def test_it_is_probed_when_it_ends_and_then_when_that_was_decided() -> None:
    given = a_containment(until=at(60))

    assert not is_to_be_probed(given, at(59.9))
    assert is_to_be_probed(given, at(60))
    goes_on = after_probe(given, at(61))
    assert not is_to_be_probed(goes_on, at(61.9))
    assert is_to_be_probed(goes_on, at(62))


def test_after_each_probe_that_fails_it_waits_twice_as_long_up_to_an_hour() -> None:
    given, waits = a_containment(until=NOW), []

    for _ in range(40):
        given = after_probe(given, NOW)
        assert given.probe_at is not None
        waits.append((given.probe_at - NOW).total_seconds() / 60)

    assert waits == [1, 2, 4, 8, 16, 32] + [60] * 34


def test_nobody_is_released_faster_than_the_integration_allows() -> None:
    assert [cautious_rate(own) for own in (None, 100.0, 0.5)] == [CAUTIOUS_RATE, CAUTIOUS_RATE, 0.5]
