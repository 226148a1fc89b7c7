# ruff: noqa: RUF001 - digits of other scripts are what some cases are about
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.retry import MAX_RETRY_AFTER, RetryPolicy, parse_retry_after
from tests.domain.strategies import chances, instants, policies

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)  # half a minute before the dates of RFC 9110
HALF_A_MINUTE = timedelta(seconds=30)
MICROSECOND = timedelta(microseconds=1)


# backoff


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (100, 60), (10**9, 60)]
)
def test_a_delay_doubles_up_to_its_maximum(attempt: int, seconds: float) -> None:
    assert RetryPolicy(jitter=0).delay(attempt, chance=0.7) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("chance", "seconds"), [(0, 0.8), (0.25, 0.9), (0.5, 1), (0.75, 1.1)])
def test_chance_places_the_jitter(chance: float, seconds: float) -> None:
    assert RetryPolicy().delay(1, chance=chance) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("chance", "seconds"), [(0, 48), (0.5, 60), (0.999_999_999, 72)])
def test_jitter_comes_after_the_maximum(chance: float, seconds: float) -> None:
    assert RetryPolicy().delay(50, chance=chance) == timedelta(seconds=seconds)


@given(policies(), st.integers(1, 10**9), chances)
def test_a_delay_is_the_contracts_formula_within_its_jitter(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    whole = min(policy.max_delay_seconds, policy.base_delay_seconds * 2 ** min(attempt - 1, 200))

    delay = policy.delay(attempt, chance=chance)

    assert delay >= timedelta(seconds=whole * (1 - policy.jitter)) - MICROSECOND
    assert delay <= timedelta(seconds=whole * (1 + policy.jitter)) + MICROSECOND


@given(policies(), st.integers(1, 300), chances)
def test_a_later_attempt_never_waits_less(policy: RetryPolicy, attempt: int, chance: float) -> None:
    assert policy.delay(attempt, chance=chance) <= policy.delay(attempt + 1, chance=chance)


# Retry-After


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        ("007", 7),
        ("120", 120),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 18, 86_400),
        ("9" * 20, 86_400),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
        ("Sun Nov  6 08:49:37 1994", 30),
        ("Sun Nov 06 08:49:37 1994", 30),
        ("Sun, 06 Nov 1994 08:49:08 GMT", 1),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 52),  # a leap second is taken for the one before
        ("Mon, 07 Nov 1994 08:49:08 GMT", 86_400),
        ("Sat, 31 Dec 2050 23:59:59 GMT", 86_400),
    ],
)
def test_retry_after_is_read_by_its_grammar_and_capped_at_a_day(text: str, seconds: float) -> None:
    assert parse_retry_after(text, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", " 5", "5 ", "\t5", "5\n", "5\r\n", "+5", "-1", "-0", "1_0", "1.0", "1,5", "1e3", "0x10",
        "٣", "³", "５", "five", "5s", "5;q=1", "5, 5", "inf", "nan", "None", "\x005",
        # dates that lie back, or are now
        "Sun, 06 Nov 1994 08:49:07 GMT",
        "Sun, 06 Nov 1994 08:49:06 GMT",
        "Sunday, 06-Nov-93 08:49:37 GMT",
        "Sunday, 06-Nov-45 08:49:37 GMT",  # over 50 years ahead: RFC 9110 makes it 1945
        "Sun Nov  6 08:49:37 1993",
        "Sun, 06 Nov 0001 08:49:37 GMT",
        # dates that are none
        "Thu, 31 Feb 1995 00:00:00 GMT",
        "Wed, 29 Feb 1995 00:00:00 GMT",
        "Sun, 00 Nov 1995 00:00:00 GMT",
        "Sun, 32 Dec 1995 00:00:00 GMT",
        "Sun, 06 Nov 0000 00:00:00 GMT",
        "Sun, 06 Nov 1995 24:00:00 GMT",
        "Sun, 06 Nov 1995 23:60:00 GMT",
        "Sun, 06 Nov 1995 23:59:61 GMT",
        "Sun, 06 Nov 1995 23:59:99 GMT",
        # another grammar
        "Sun, 06 nov 1995 08:49:37 GMT",
        "sun, 06 Nov 1995 08:49:37 GMT",
        "SUN, 06 NOV 1995 08:49:37 GMT",
        "Sun, 06 Nov 1995 08:49:37 gmt",
        "Sun, 06 Nov 1995 08:49:37 UTC",
        "Sun, 06 Nov 1995 08:49:37 +0000",
        "Sun, 06 Nov 1995 08:49:37",
        "Sun, 6 Nov 1995 08:49:37 GMT",
        "Sun, 06 Nov 95 08:49:37 GMT",
        "Sun, 06 Nov 1995 8:49:37 GMT",
        "Sun, 06 November 1995 08:49:37 GMT",
        "Sun  06 Nov 1995 08:49:37 GMT",
        "Sun, 06  Nov 1995 08:49:37 GMT",
        " Sun, 06 Nov 1995 08:49:37 GMT",
        "Sun, 06 Nov 1995 08:49:37 GMT ",
        "Sun, 06 Nov 1995 08:49:37 GMT\n",
        "Sun, ٠6 Nov 1995 08:49:37 GMT",
        "Sunday, 06-Nov-1995 08:49:37 GMT",
        "Sun, 06-Nov-95 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1995",
        "Sun Nov  6 08:49:37 1995 GMT",
        "1995-11-06T08:49:37Z",
    ],
)  # fmt: skip
def test_a_malformed_or_past_retry_after_is_ignored(text: str) -> None:
    assert parse_retry_after(text, NOW) is None


def test_a_two_digit_year_is_read_near_now() -> None:
    text = "Sunday, 06-Nov-44 08:49:37 GMT"

    assert parse_retry_after(text, NOW) == MAX_RETRY_AFTER  # 2044: fifty years ahead exactly


@given(st.text(max_size=60), instants)
def test_no_text_breaks_the_reader_or_asks_for_more_than_a_day(text: str, now: datetime) -> None:
    asked = parse_retry_after(text, now)

    assert asked is None or timedelta(0) <= asked <= MAX_RETRY_AFTER


@given(st.integers(0, 10**30), instants)
def test_every_number_of_seconds_is_understood(seconds: int, now: datetime) -> None:
    assert parse_retry_after(str(seconds), now) == timedelta(seconds=min(seconds, 86_400))


@given(st.integers(1, 86_400), instants)
def test_every_date_ahead_is_understood_in_all_three_forms(seconds: int, now: datetime) -> None:
    now = now.replace(microsecond=0)
    due = now + timedelta(seconds=seconds)

    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
        assert parse_retry_after(due.strftime(form), now) == timedelta(seconds=seconds), form
