"""What is told, when, and how often."""

from datetime import timedelta
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redrive.domain.alerting import (
    Kind,
    Message,
    Sign,
    State,
    Thresholds,
    decide,
    signs_of_containment,
    signs_of_growth,
    windows_to_count,
)
from redrive.domain.traffic import Containment, Mode, Traffic
from tests.factories import NOW, an_integration

QUIET = timedelta(minutes=60)
THRESHOLDS = Thresholds(dead_letters=10, window=timedelta(minutes=5), quiet=QUIET)
NOTHING = State(NOW)


def a_sign(
    *, is_on: bool = True, kind: Kind = Kind.BREAKER_OPENED, minute: int = 0, about: str = "a"
) -> Sign:
    return Sign(kind, about, NOW + timedelta(minutes=minute), is_on, {"n": minute})


def after(state: State, *signs: Sign, minute: int = 0) -> State:
    """The next state, a version later, as it is kept."""
    now = NOW + timedelta(minutes=minute)
    return replace(decide(state, signs, now=now, quiet=QUIET), version=state.version + 1)


def told(state: State) -> list[tuple[str, str]]:
    return [(message.alert.integration_id, message.payload()["state"]) for message in state.outbox]


def test_what_begins_is_told_and_that_it_is_over_too() -> None:
    begun = after(NOTHING, a_sign())
    still = after(begun, minute=1)
    over = after(still, a_sign(is_on=False, minute=2), minute=2)

    assert [told(each) for each in (begun, still, over)] == [[("a", "raised")], [], [("a", "resolved")]]


def test_the_same_is_told_of_each_integration_and_each_kind() -> None:
    state = after(NOTHING, a_sign(), a_sign(about="b"), a_sign(kind=Kind.JOB_HALTED))

    assert sorted(told(state)) == [("a", "raised"), ("a", "raised"), ("b", "raised")]


def test_what_begins_again_soon_is_told_when_it_still_is_after_a_while() -> None:
    state = after(NOTHING, a_sign())
    state = after(state, a_sign(is_on=False, minute=1), minute=1)
    again = after(state, a_sign(minute=2), minute=2)
    late = after(again, minute=60)

    assert (told(again), told(late)) == ([], [("a", "raised")])
    assert late.outbox[0].alert.since == NOW + timedelta(minutes=2)


def test_that_it_is_over_is_not_told_of_what_was_not_told() -> None:
    state = after(NOTHING, a_sign())
    state = after(state, a_sign(is_on=False, minute=1), minute=1)
    state = after(state, a_sign(minute=2), minute=2)

    assert told(after(state, a_sign(is_on=False, minute=3), minute=3)) == []


def test_what_goes_on_without_news_is_told_once() -> None:
    state = after(NOTHING, a_sign())

    assert told(after(state, minute=600)) == []


def test_more_of_the_same_is_told_after_a_while() -> None:
    state = after(NOTHING, a_sign())
    more = after(state, a_sign(minute=1), minute=1)
    later = after(more, minute=61)

    assert (told(more), told(later)) == ([], [("a", "raised")])
    assert later.outbox[0].alert.facts == {"n": 1}


def test_the_end_of_what_nobody_knew_is_nothing() -> None:
    assert after(NOTHING, a_sign(is_on=False)).alerts == ()


def test_what_is_over_and_was_told_long_ago_is_forgotten() -> None:
    state = after(NOTHING, a_sign())
    state = after(state, a_sign(is_on=False, minute=1), minute=1)

    assert (len(state.alerts), after(state, minute=60).alerts) == (1, ())


def test_a_decision_that_is_made_again_says_the_same_under_the_same_name() -> None:
    first, second = (after(NOTHING, a_sign(), a_sign(about="b")) for _ in range(2))

    assert first == second


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90), st.sampled_from("ab")), max_size=20))
def test_each_message_has_a_name_of_its_own_and_raised_and_resolved_take_turns(
    steps: list[tuple[bool, int, str]],
) -> None:
    state, minute, messages = NOTHING, 0, list[tuple[int, Message]]()
    for is_on, wait, about in steps:
        minute += wait
        state = after(state, a_sign(is_on=is_on, minute=minute, about=about), minute=minute)
        messages += ((minute, message) for message in state.outbox)

    assert len({message.key for _, message in messages}) == len(messages)
    for about in "ab":
        said = [(at, message.is_over) for at, message in messages if message.alert.integration_id == about]
        raised = [at for at, is_over in said if not is_over]
        assert [is_over for _, is_over in said[:1]] in ([], [False])
        assert not any(before and following for (_, before), (_, following) in pairwise(said))
        assert all(later - earlier >= 60 for earlier, later in pairwise(raised))


def test_a_state_is_read_as_it_was_written() -> None:
    state = after(NOTHING, a_sign(), a_sign(about="b"))

    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state


def test_many_dead_letters_are_a_sign_and_half_as_many_end_it() -> None:
    def signs(state: State, count: int) -> list[bool]:
        return [sign.is_on for sign in growth(state, count)]

    growing = after(NOTHING, *growth(NOTHING, 11))

    assert [signs(NOTHING, count) for count in (10, 11)] == [[], [True]]
    assert [signs(growing, count) for count in (11, 10, 6, 5, 0)] == [[True], [], [], [False], [False]]
    assert growing.outbox[0].payload()["facts"] == {
        "dead_letters": 11,
        "is_exact": True,
        "within_minutes": 5,
    }


def growth(state: State, *counts: int) -> list[Sign]:
    """What so many in windows of five minutes say, the last of which ends now."""
    counted = [
        (NOW - timedelta(minutes=2.5) * (len(counts) - 1 - at), {"a": count})
        for at, count in enumerate(counts)
    ]
    return signs_of_growth(state, counted, 1_000, thresholds=THRESHOLDS)


def test_what_grew_while_nobody_looked_is_told_and_then_that_it_is_over() -> None:
    begun = after(NOTHING, *growth(NOTHING, 3, 400, 0, 0))
    over = after(begun, *growth(begun, 0))

    assert [told(each) for each in (begun, over)] == [[("a", "raised")], [("a", "resolved")]]
    assert begun.outbox[0].alert.facts["dead_letters"] == 400
    assert begun.outbox[0].alert.since == NOW - timedelta(minutes=5)


def test_what_was_told_before_nobody_looked_is_not_told_again() -> None:
    known = after(NOTHING, *growth(NOTHING, 11))

    later = after(known, *growth(known, 11, 2, 0, 0), minute=200)

    assert told(later) == [("a", "resolved")]


def test_windows_are_counted_as_if_somebody_had_looked_all_the_time() -> None:
    window = timedelta(minutes=10)

    for minutes in (1, 5, 7, 60):
        looked_at = NOW - timedelta(minutes=minutes)
        ends = windows_to_count(looked_at, NOW, window)
        assert ends[-1] == NOW
        assert ends[0] - window <= looked_at - window / 2
        assert all(after - before == window / 2 for before, after in pairwise(ends))
        assert looked_at < ends[0]
    assert len(windows_to_count(NOW - timedelta(days=400), NOW, window)) == 48


def test_a_containment_tells_that_it_expires_that_it_did_and_that_it_is_over() -> None:
    contained = Containment(Mode.HOLD, "an outage", "ada", "ada", NOW, NOW + timedelta(hours=1), "req-1")
    warned = replace(contained, is_warned=True)
    state, heard = NOTHING, []

    for containment in (
        contained,
        warned,
        warned,
        replace(warned, probes=1),
        replace(warned, probes=2),
        None,
    ):
        one = an_integration("a", traffic=Traffic(containment))
        state = after(state, *signs_of_containment(state, [one], now=NOW))
        heard.append([(m.alert.kind.value, m.payload()["state"]) for m in state.outbox])

    assert heard == [
        [],
        [("containment_expiring", "raised")],
        [],
        [("containment_expiring", "resolved"), ("containment_expired", "raised")],
        [],
        [("containment_expired", "resolved")],
    ]


def test_the_owner_of_a_containment_is_told_that_nothing_is_left_to_probe_with() -> None:
    contained = Containment(Mode.HOLD, "an outage", "ada", "ada", NOW, NOW + timedelta(hours=1), "req-1")
    traffic = Traffic(replace(contained, probes=1))

    [without] = signs_of_containment(NOTHING, [an_integration(traffic=traffic)], now=NOW)
    url = "https://acme.example/alive"
    [having] = signs_of_containment(NOTHING, [an_integration(traffic=traffic, health_url=url)], now=NOW)

    assert "give it a health_url" in without.facts["advice"]
    assert "advice" not in having.facts
