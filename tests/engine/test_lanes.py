"""The pace of lanes: concurrency, rate, ramp, and the reserve for small lanes."""

from datetime import UTC, datetime, timedelta
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.sharing import Lane, whole
from redrive.engine.lanes import LATE, Draining, Lanes, Pace

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_lane(lanes: Lanes, number: int, *, concurrency: int = 100, rate: float | None = None) -> Pace:
    lane = lanes.pace(whole(number))
    lane.configure(concurrency, rate, sends=True)
    return lane


def test_a_lane_may_start_what_its_concurrency_leaves() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1, concurrency=5)

    lanes.take(lane, 3)

    assert lanes.allowance(lane, 0.0) == 2


def test_a_greedy_lane_leaves_half_of_the_slots() -> None:
    lanes = Lanes(100)
    greedy, other = a_lane(lanes, 1, concurrency=1000), a_lane(lanes, 2, concurrency=1000)
    lanes.take(greedy, lanes.allowance(greedy, 0.0))

    assert (greedy.in_flight, lanes.allowance(greedy, 0.0)) == (50, 0)
    assert lanes.allowance(other, 0.0) == 25


@given(greedy=st.integers(1, 30))
def test_greedy_lanes_settle_at_equal_shares(greedy: int) -> None:
    lanes = Lanes(600)
    everyone = [a_lane(lanes, number, concurrency=1000) for number in range(greedy)]
    for turn in range(2_000):
        taker = everyone[turn % greedy]
        lanes.take(taker, lanes.allowance(taker, 0.0))
        lanes.sent(max(everyone, key=lambda lane: lane.in_flight))
        lanes.recorded()

    shares = [lane.in_flight for lane in everyone]
    assert max(shares) - min(shares) <= 2
    assert lanes.slots - lanes.busy >= max(shares) - 2


@given(
    slots=st.integers(1, 600),
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["take", "sent", "recorded"])), max_size=200),
)
def test_the_slots_are_never_exceeded(slots: int, steps: list[tuple[int, str]]) -> None:
    lanes = Lanes(slots)
    unrecorded = 0
    for number, step in steps:
        lane = a_lane(lanes, number, concurrency=50)
        if step == "take":
            lanes.take(lane, lanes.allowance(lane, 0.0))
        elif step == "sent" and lane.in_flight:
            lanes.sent(lane)
            unrecorded += 1
        elif step == "recorded" and unrecorded:
            lanes.recorded()
            unrecorded -= 1

        assert 0 <= lanes.busy <= slots
        assert lanes.in_flight + unrecorded == lanes.busy
        assert lane.in_flight <= 50


def test_the_last_slot_is_given_to_a_lane_that_has_none() -> None:
    lanes = Lanes(8)
    for number in range(3):
        greedy = a_lane(lanes, number)
        lanes.take(greedy, lanes.allowance(greedy, 0.0))

    assert lanes.slots - lanes.busy == 1
    assert lanes.allowance(a_lane(lanes, 9), 0.0) == 1


@given(
    split=st.integers(1, 8),
    rate=st.floats(0.5, 500.0),
    steps=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60),
)
def test_the_parts_of_a_rate_allow_the_whole_and_its_burst_and_one_more_for_each(
    split: int, rate: float, steps: list[float]
) -> None:
    parts = [Pace(Lane(1, split, shard)) for shard in range(split)]
    for part in parts:
        part.configure(1_000_000, part.lane.of_rate(rate), sends=True)

    now, started, least = 1.0, 0, inf  # of what was started before, less what the rate allowed until then
    for step in steps:
        now += step
        least = min(least, started - rate * now)
        for part in parts:
            started += (room := part.room(now))
            part.tokens -= room

        assert started - rate * now - least <= rate / 10 + split + 1e-6


def test_a_rate_starts_empty_and_fills_with_time() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1, rate=100.0)

    assert lanes.allowance(lane, 200.0) == 0
    assert lanes.allowance(lane, 200.05) == 5
    lanes.take(lane, 5)
    assert lanes.allowance(lane, 200.05) == 0


def test_a_rate_saves_up_no_more_than_a_tenth_of_a_second() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1, rate=100.0)
    lanes.allowance(lane, 100.0)

    assert lanes.allowance(lane, 200.0) == 10


def test_a_lane_that_waits_for_slots_and_not_for_its_rate_asks_for_no_time() -> None:
    lanes = Lanes(1)
    hanging, limited = a_lane(lanes, 1), a_lane(lanes, 2, rate=50.0)
    lanes.allowance(limited, 100.0)
    lanes.take(hanging)
    lanes.due(whole(2), NOW)

    assert list(lanes.collect(NOW)) == [limited]
    assert lanes.allowance(limited, 101.0) == 0
    assert lanes.seconds_to_next(NOW, 101.0) is None


def test_timeouts_halve_what_may_be_in_flight_and_answers_widen_it_again() -> None:
    lane = Pace(whole(1))
    lane.configure(16, None, sends=True)

    rooms = []
    for _ in range(5):
        lane.narrow()
        rooms.append(lane.room(0.0))
    lane.widen()

    assert (rooms, lane.room(0.0)) == ([8, 4, 2, 1, 1], 2)


def test_a_lane_that_waits_for_its_rate_says_when_to_look_again() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1, rate=4.0)
    lanes.due(whole(1), NOW)
    assert list(lanes.collect(NOW)) == [lane]
    lanes.allowance(lane, 100.0)

    assert lanes.seconds_to_next(NOW, 100.0) == 0.25


def test_a_lane_that_sends_again_starts_with_one_and_doubles() -> None:
    lane = Pace(whole(1))
    lane.configure(8, None, sends=True)
    lane.configure(8, None, sends=False)
    assert lane.room(0.0) == 0

    lane.configure(8, None, sends=True)

    rooms = [lane.room(0.0)]
    for _ in range(4):
        for _ in range(rooms[-1]):
            lane.widen()
        rooms.append(lane.room(0.0))
    assert rooms == [1, 2, 4, 8, 8]


def test_lanes_are_served_in_the_order_their_work_became_due() -> None:
    lanes = Lanes(100)
    first, second, later = (a_lane(lanes, number) for number in (1, 2, 3))
    lanes.due(whole(2), NOW + timedelta(seconds=1))
    lanes.due(whole(1), NOW)
    lanes.due(whole(3), NOW + timedelta(seconds=9))

    assert list(lanes.collect(NOW + timedelta(seconds=2))) == [first, second]
    assert lanes.seconds_to_next(NOW + timedelta(seconds=2), 0.0) == 7.0
    assert later.next_due is not None


def test_a_lane_that_was_served_goes_to_the_back() -> None:
    lanes = Lanes(100)
    first, second = a_lane(lanes, 1), a_lane(lanes, 2)
    lanes.due(whole(1), NOW)
    lanes.due(whole(2), NOW)
    list(lanes.collect(NOW))

    lanes.served(first)
    lanes.due(whole(1), NOW)

    assert list(lanes.collect(NOW)) == [second, first]


def test_an_earlier_due_time_replaces_a_later_one() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1)
    lanes.due(whole(1), NOW + timedelta(seconds=5))

    lanes.due(whole(1), NOW + timedelta(seconds=1))

    assert list(lanes.collect(NOW + timedelta(seconds=2))) == [lane]


def test_only_an_earlier_due_time_is_news() -> None:
    lanes = Lanes(100)

    news = [lanes.due(whole(1), NOW + timedelta(seconds=seconds)) for seconds in (5, 5, 6, 4)]

    assert news == [True, False, False, True]


def test_a_busy_lane_with_a_far_off_retry_keeps_two_entries_at_most() -> None:
    lanes = Lanes(100)
    lane = a_lane(lanes, 1)
    lengths = set()
    for turn in range(1_000):  # each turn serves what is due, and is told again of the retry
        now = NOW + timedelta(milliseconds=turn)
        lanes.due(whole(1), now)
        list(lanes.collect(now))
        lanes.served(lane)
        lanes.due(whole(1), NOW + timedelta(hours=24))
        lengths.add(len(lanes._later))

    assert max(lengths) <= 2


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["due", "due", "served", "wait"]), st.integers(0, 9)),
        min_size=40,
        max_size=60,
    )
)
def test_the_heap_never_loses_a_lane_and_never_outgrows_two_entries_a_lane(
    steps: list[tuple[int, str, int]],
) -> None:
    lanes, now, earliest = Lanes(100), NOW, dict[int, datetime]()
    for number, step, seconds in steps:
        lane = a_lane(lanes, number)
        if step == "due":
            at = now + timedelta(seconds=seconds)
            lanes.due(whole(number), at)
            earliest[number] = min(at, earliest.get(number, at))
        elif step == "served":
            lanes.served(lane)
            earliest.pop(number, None)
        else:
            now += timedelta(seconds=seconds)

        ready = {pace.lane.integration for pace in lanes.collect(now)}
        later = [at for at in earliest.values() if at > now]
        wait = lanes.seconds_to_next(now, 0.0)
        assert ready == {number for number, at in earliest.items() if at <= now}
        assert not later or (wait is not None and wait <= (min(later) - now).total_seconds())
        assert len(lanes._later) <= 2 * len(lanes._paces)


def test_a_lane_that_is_anothers_starts_nothing_and_is_forgotten_once_idle() -> None:
    lanes = Lanes(100)
    kept, busy, idle = (a_lane(lanes, number, rate=100.0) for number in (1, 2, 3))
    for lane in (kept, busy, idle):
        lanes.allowance(lane, 100.0)
        lanes.allowance(lane, 101.0)
        lanes.due(lane.lane, NOW)
    lanes.take(busy)

    lanes.keep([kept.lane])

    assert list(lanes.collect(NOW)) == [kept]
    assert (lanes.pace(busy.lane), lanes.in_flight) == (busy, 1)
    assert lanes.pace(idle.lane) is not idle


def test_the_lanes_of_one_integration_leave_half_of_the_slots_together() -> None:
    lanes = Lanes(100)
    greedy = [lanes.pace(Lane(1, 4, shard)) for shard in range(4)]
    for pace in greedy * 2:
        pace.configure(1000, None, sends=True)
        lanes.take(pace, lanes.allowance(pace, 0.0))

    assert lanes.in_flight == 50


def a_draining_lane(own_rate: float | None = None) -> Pace:
    """Released at NOW, to send its backlog at 10 a second."""
    lane = Pace(whole(1))
    lane.configure(8, own_rate, sends=False)
    lane.configure(8, own_rate, sends=True, release=Draining(NOW, 10.0))
    return lane


def test_a_lane_that_was_released_keeps_to_the_rate_of_that_and_begins_with_one() -> None:
    lane = a_draining_lane()

    assert (lane.room(100.0), lane.room(100.25), lane.room(101.0)) == (0, 1, 1)


def test_a_release_never_makes_a_lane_faster_than_its_own_rate() -> None:
    assert a_draining_lane(own_rate=2.0).rate_per_second == 2.0
    assert a_draining_lane(own_rate=50.0).rate_per_second == 10.0


def test_a_release_ends_when_what_is_left_was_not_due_when_it_began() -> None:
    lane = a_draining_lane(own_rate=50.0)

    lane.left(NOW)
    assert lane.rate_per_second == 10.0
    lane.left(NOW + timedelta(milliseconds=1))

    assert lane.rate_per_second == 50.0


def test_a_release_ends_when_nothing_is_left_and_does_not_come_back() -> None:
    lane = a_draining_lane()

    lane.left(None)
    lane.configure(8, None, sends=True, release=Draining(NOW, 10.0))

    assert lane.rate_per_second is None


def test_another_release_of_a_drained_lane_holds_again() -> None:
    lane = a_draining_lane()
    lane.left(None)

    lane.configure(8, None, sends=True, release=Draining(NOW + timedelta(hours=1), 5.0))

    assert lane.rate_per_second == 5.0


def test_a_lane_that_was_anothers_meanwhile_keeps_to_the_release_until_it_has_looked() -> None:
    lane = a_draining_lane()
    lane.left(None)

    lane.forget()

    assert lane.rate_per_second == 10.0


def test_a_release_that_is_over_does_not_come_back_with_the_lane() -> None:
    lane = a_draining_lane()
    lane.left(None)
    lane.configure(8, None, sends=True)

    lane.forget()

    assert lane.rate_per_second is None


def test_a_release_that_was_forgotten_holds_no_more() -> None:
    lane = a_draining_lane()

    lane.configure(8, None, sends=True)

    assert lane.rate_per_second is None


def test_a_lane_is_late_once_what_waits_in_it_has_waited_for_long_whoever_knows_of_it() -> None:
    lane = a_lane(Lanes(8), 1)
    assert not lane.is_late(NOW), "nothing waits"

    lane.left(NOW)
    lane.next_due = NOW + timedelta(seconds=1)  # when to look again
    assert not lane.is_late(NOW + LATE - timedelta(milliseconds=1))
    assert lane.is_late(NOW + LATE)

    lane.left(None)
    assert not lane.is_late(NOW + LATE)
    assert lane.is_late(NOW + timedelta(seconds=1) + LATE)

    lane.left(NOW)
    lane.forget()
    assert not lane.is_late(NOW + LATE)
