# ruff: noqa: RUF001 - digits of other scripts are what some cases are about
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.ids import (
    GROUP_ID,
    ID_EPOCH,
    RECOVERY_ID,
    IdSequence,
    event_id,
    first_id_at,
    group_id,
    instant_of,
    parse_group_id,
    parse_recovery_id,
    recovery_id,
)
from tests.domain.strategies import instants
from tests.factories import NOW

MILLISECOND = timedelta(milliseconds=1)
ids = st.integers(0, (1 << 63) - 1)


@given(ids)
def test_an_id_survives_its_text(number: int) -> None:
    assert parse_recovery_id(recovery_id(number)) == number


@pytest.mark.parametrize("write", [recovery_id, event_id])
@given(number=ids)
def test_a_text_is_as_a_recovery_id_must_be(write: Callable[[int], str], number: int) -> None:
    text = write(number)

    assert RECOVERY_ID.fullmatch(text)
    assert len(text) == 17


@given(ids, ids)
def test_texts_sort_as_their_ids_do(one: int, other: int) -> None:
    assert (recovery_id(one) < recovery_id(other)) == (one < other)


@given(ids)
def test_an_event_is_never_taken_for_an_item(number: int) -> None:
    assert parse_recovery_id(event_id(number)) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "rec_", "rec_0",
        "0" * 13, "rec_" + "0" * 12, "rec_" + "0" * 14, "rec_8" + "0" * 12, "rec_z" + "0" * 12,
        "REC_" + "0" * 13, "rec-" + "0" * 13, "rec_" + "A" + "0" * 12, "rec_0" + "i" * 12, "rec_0" + "l" * 12,
        "rec_0" + "o" * 12, "rec_0" + "u" * 12, "rec_" + "٠" * 13, " rec_" + "0" * 13,
        "rec_" + "0" * 13 + "\n",
        "rec_rec_" + "0" * 13, "rec_" + "-" * 13,
    ],
)  # fmt: skip
def test_what_no_item_can_be_called_is_none(text: str) -> None:
    assert parse_recovery_id(text) is None


@given(st.text(max_size=20) | st.from_regex(r"rec_[0-9a-z]{13}", fullmatch=True))
def test_a_text_names_one_id_or_none(text: str) -> None:
    number = parse_recovery_id(text)

    assert number is None or recovery_id(number) == text


@given(instants)
def test_the_first_id_of_an_instant_is_the_smallest_made_then_or_later(instant: datetime) -> None:
    first = first_id_at(instant)

    assert instant_of(first) >= instant
    assert instant_of(first) - instant < MILLISECOND
    assert first == 0 or instant_of(first - 1) < instant


@given(instants, st.integers(0, 1023))
def test_an_id_knows_when_it_was_made(instant: datetime, slot: int) -> None:
    made = started(slot).next(instant)

    assert instant_of(made) <= instant < instant_of(made) + MILLISECOND
    assert made >= first_id_at(instant_of(made))


def test_an_instant_outside_the_range_of_ids_is_their_end() -> None:
    assert first_id_at(ID_EPOCH - timedelta(days=1)) == 0
    assert first_id_at(ID_EPOCH) == 0
    assert first_id_at(ID_EPOCH + timedelta(days=365 * 1_000)) < 1 << 63


@given(st.lists(st.integers(-5_000, 5_000), max_size=50), st.integers(0, 1023))
def test_ids_only_grow_also_when_the_clock_steps_back(steps: list[int], slot: int) -> None:
    sequence, now, made = started(slot), NOW, []
    for step in steps:
        now += step * MILLISECOND
        made.append(sequence.next(now))

    assert all(before < after for before, after in pairwise(made))
    assert all(number >> 12 & 0x3FF == slot for number in made)


@pytest.mark.parametrize("before", [NOW, ID_EPOCH - timedelta(days=1)])
def test_more_than_a_millisecond_holds_flow_into_the_next(before: datetime) -> None:
    sequence = IdSequence()
    first = sequence.next(NOW)
    made = [first, *(sequence.next(before) for _ in range(10_000))]

    assert all(one < other for one, other in pairwise(made))
    assert instant_of(made[4095]) == NOW
    assert instant_of(made[4096]) == NOW + MILLISECOND
    assert instant_of(made[-1]) == NOW + 2 * MILLISECOND


def test_a_sequence_starts_above_what_is_in_use() -> None:
    used = IdSequence().next(NOW + timedelta(hours=1))
    sequence = IdSequence()
    sequence.start(0, used)

    assert used < sequence.next(NOW) < sequence.next(NOW)


def started(slot: int) -> IdSequence:
    sequence = IdSequence()
    sequence.start(slot, above=-1)
    return sequence


def test_sequences_of_two_slots_never_meet() -> None:
    one, other = started(1), started(2)

    assert not {one.next(NOW) for _ in range(5_000)} & {other.next(NOW) for _ in range(5_000)}


@given(slot=st.integers(0, 1023), other=st.integers(0, 1023), seen=st.integers(-3, 3), made=st.integers(0, 3))
def test_a_sequence_follows_what_it_saw(slot: int, other: int, seen: int, made: int) -> None:
    sequence, elsewhere = started(slot), started(other)
    before = [sequence.next(NOW) for _ in range(made)]
    read = elsewhere.next(NOW + seen * MILLISECOND)

    sequence.follow(read)

    assert sequence.next(NOW) > max(read, *before, 0)


@given(above=st.integers(-3, 3), seen=st.lists(st.integers(-3, 3), max_size=4))
def test_a_sequence_that_made_nothing_yet_follows_all_it_saw(above: int, seen: list[int]) -> None:
    elsewhere, sequence = started(2), IdSequence()
    used = elsewhere.next(NOW + above * MILLISECOND)
    read = [IdSequence().next(NOW + one * MILLISECOND) for one in seen]
    sequence.start(1, used)

    for number in (*read, 0):
        sequence.follow(number)

    assert sequence.next(NOW) > max(used, *read, 0)


def test_a_sequence_does_not_run_ahead_of_the_clock_by_what_is_long_past() -> None:
    sequence = started(1)
    sequence.follow(started(2).next(NOW - timedelta(hours=1)))

    assert instant_of(sequence.next(NOW)) == NOW


@pytest.mark.parametrize("number", [0, 1, -1, (1 << 63) - 1, -(1 << 63), 0x0123456789ABCDEF])
def test_a_group_has_a_name_that_leads_back_to_its_number(number: int) -> None:
    name = group_id(number)

    assert GROUP_ID.fullmatch(name)
    assert len(name) == len("grp_") + 13
    assert parse_group_id(name) == number


@pytest.mark.parametrize(
    "text", ["", "grp_", "rec_0000000000000", "grp_g000000000000", "grp_00000000000", "grp_000000000000u"]
)
def test_what_no_group_can_be_called_names_none(text: str) -> None:
    assert parse_group_id(text) is None
