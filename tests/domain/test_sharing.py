"""How lanes are divided among processes, and limits among the shards of an integration."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.ids import IdSequence
from redrive.domain.sharing import Lane, divide, lane_of

members = st.sets(st.integers(1, 10_000), min_size=1, max_size=12)
lanes = st.sets(
    st.builds(lambda n, k, s: Lane(n, k, s % k), st.integers(1, 50), st.just(4), st.integers(0, 3)),
    max_size=60,
)
splits = st.integers(1, 64)


@given(lanes, members)
def test_every_lane_goes_to_one_member_and_none_has_more_than_its_even_share(
    given_lanes: set[Lane], given_members: set[int]
) -> None:
    owners = divide(given_lanes, given_members)

    assert owners.keys() == given_lanes
    assert set(owners.values()) <= given_members
    assert max(Counter(owners.values()).values(), default=0) <= -(-len(given_lanes) // len(given_members))


@given(splits, st.sets(st.integers(100, 200), max_size=30), members)
def test_the_lanes_of_a_split_integration_are_spread_over_all_members(
    split: int, others: set[int], given_members: set[int]
) -> None:
    lanes_of_it = [Lane(1, split, shard) for shard in range(split)]

    owners = divide([*lanes_of_it, *(Lane(number, 1, 0) for number in others)], given_members)

    parts = Counter(owners[lane] for lane in lanes_of_it)
    assert max(parts.values()) <= -(-split // len(given_members))


@given(lanes, st.permutations([3, 14, 15, 92, 65]))
def test_the_division_does_not_depend_on_the_order_of_what_is_known(
    given_lanes: set[Lane], order: list[int]
) -> None:
    assert divide(sorted(given_lanes, reverse=True), order) == divide(given_lanes, sorted(order))


def test_nobody_gets_anything_when_nobody_is_there() -> None:
    assert divide([Lane(1, 1, 0)], []) == {}


def test_one_member_more_moves_little_more_than_its_own_share() -> None:
    many = [Lane(number, 1, 0) for number in range(2_000)]

    before, after = divide(many, range(1, 11)), divide(many, range(1, 12))

    moved = sum(before[lane] != after[lane] for lane in many)
    assert moved < 1.5 * len(many) / 11


@given(splits, st.integers(0, 10_000))
def test_the_counts_of_all_shards_make_the_whole_or_one_each_when_it_is_too_small(
    split: int, whole: int
) -> None:
    parts = [Lane(1, split, shard).of_count(whole) for shard in range(split)]

    assert sum(parts) == max(whole, split) if whole >= split else set(parts) == {1}
    assert max(parts) - min(parts) <= 1


@given(splits, st.floats(0.001, 100_000))
def test_the_rates_of_all_shards_make_the_whole(split: int, rate: float) -> None:
    parts = [Lane(1, split, shard).of_rate(rate) for shard in range(split)]

    assert abs(sum(parts) - rate) < 1e-9 * rate
    assert len(set(parts)) == 1


@given(splits, st.integers(0, 2_000))
def test_ids_that_are_made_now_and_then_fall_into_every_lane(split: int, apart_ms: int) -> None:
    ids, now = IdSequence(), datetime(2026, 1, 1, tzinfo=UTC)
    made = [ids.next(now + n * timedelta(milliseconds=apart_ms)) for n in range(128 * split)]

    assert len({lane_of(1, split, item_id) for item_id in made}) == split
