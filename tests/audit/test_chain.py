from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redrive.audit.chain import Record, Whereabouts, Wrong, check_end
from redrive.audit.record import EventType, digest_of
from redrive.domain.ids import EventId, parse_recovery_id, recovery_id
from redrive.domain.item import Status
from tests.audit.chains import a_chain, findings, rewritten, stored
from tests.factories import an_event, an_id

lengths = st.integers(2, 8)


@given(st.integers(1, 12))
def test_a_chain_that_nobody_touched_is_whole(length: int) -> None:
    assert findings(a_chain(length)) == []


@given(lengths, st.data())
def test_a_record_that_was_altered_is_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 1))

    chain[at] = rewritten(chain[at], result="failure")

    [found] = findings(chain)
    assert (found.kind, found.event_id) == (Wrong.ALTERED, chain[at].event_id)


@given(lengths, st.data())
def test_a_digest_that_was_altered_names_its_record(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 1))

    chain[at] = replace(chain[at], digest=digest_of(b"another"))

    [found] = findings(chain)
    assert (found.kind, found.event_id) == (Wrong.ALTERED, chain[at].event_id)


@given(lengths, st.data())
def test_a_record_that_was_altered_together_with_its_digest_is_named(
    length: int, data: st.DataObject
) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 2))

    chain[at] = rewritten(chain[at], covers=True, result="failure")

    [found] = findings(chain)
    assert found.kind is Wrong.MISSING
    assert f"or {chain[at].event_id} was altered together with its digest" in found.detail


@given(lengths, st.data())
def test_a_record_whose_digest_was_taken_away_is_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 1))

    chain[at] = replace(chain[at], digest=None)

    assert {(found.kind, found.event_id) for found in findings(chain)} == {
        (Wrong.ALTERED, chain[at].event_id)
    }


@given(lengths, st.data())
def test_a_place_where_a_record_is_missing_is_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 2))

    del chain[at]

    [found] = findings(chain)
    assert (found.kind, found.event_id) == (Wrong.MISSING, chain[at].event_id)
    if at:
        assert f"between {chain[at - 1].event_id} and {chain[at].event_id} is missing" in found.detail


@given(lengths, st.data())
def test_records_that_changed_places_are_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    one, other = data.draw(st.permutations(range(length)))[:2]
    a, b = chain[one], chain[other]

    chain[one] = replace(a, record=b.record, digest=b.digest)
    chain[other] = replace(b, record=a.record, digest=a.digest)

    moved = {found.event_id for found in findings(chain) if found.kind is Wrong.REORDERED}
    assert {a.event_id, b.event_id} <= moved


@given(lengths, st.data())
def test_lines_that_changed_places_are_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    one, other = sorted(data.draw(st.permutations(range(length)))[:2])

    chain[one], chain[other] = chain[other], chain[one]

    assert chain[other].event_id in {f.event_id for f in findings(chain) if f.kind is Wrong.REORDERED}


@given(lengths, st.data())
def test_a_record_that_was_added_is_named(length: int, data: st.DataObject) -> None:
    chain = a_chain(length)
    at = data.draw(st.integers(0, length - 2))
    names = None if at == 0 else chain[at - 1].digest
    number = EventId(chain[at].id - 1)
    added = rewritten(
        replace(chain[at], id=number),
        covers=True,
        id=number,
        previous=None if names is None else names.hex(),
        result="failure",
    )

    chain.insert(at, added)

    assert any(f.kind is Wrong.FORKED and added.event_id in f.detail for f in findings(chain))


def test_a_record_that_cannot_be_read_is_named() -> None:
    chain = a_chain(3)

    chain[1] = replace(chain[1], record=b"\xff{", digest=digest_of(b"\xff{"))

    assert (Wrong.ALTERED, chain[1].event_id) in [(f.kind, f.event_id) for f in findings(chain)]


def test_a_record_that_was_moved_to_another_item_is_named() -> None:
    chain = a_chain(2)
    [stranger] = a_chain(1)

    chain[1] = replace(stranger, target_id=chain[0].target_id)

    [found] = findings(chain)
    assert (found.kind, found.event_id) == (Wrong.REORDERED, stranger.event_id)


def test_a_chain_whose_beginning_was_forgotten_is_whole() -> None:
    chain = a_chain(4)
    number = parse_recovery_id(chain[0].target_id)
    assert number is not None

    assert findings(chain[2:], forgotten_before=number + 1) == []
    assert [found.kind for found in findings(chain[2:], forgotten_before=number)] == [Wrong.MISSING]


def test_records_of_before_there_were_digests_are_no_findings() -> None:
    old = [replace(record, digest=None, record=of_old(record.record)) for record in a_chain(2)]
    new = a_chain(2, target_id=old[0].target_id)

    assert findings([*old, *new]) == []
    assert [f.kind for f in findings([*old, *a_chain(2, after="ab" * 32, target_id=old[0].target_id)])] == [
        Wrong.ALTERED
    ]


def test_what_is_no_item_is_not_chained() -> None:
    events = [an_event(), an_event()]
    records = [stored(event) for event in events]

    assert findings(records) == []
    records[1] = rewritten(records[1], result="failure")
    assert [found.kind for found in findings(records)] == [Wrong.ALTERED]


def of_old(record: bytes) -> bytes:
    fields = msgspec.json.decode(record)
    del fields["previous"]
    return msgspec.json.encode(fields)


# where an item is, and where its chain ends


def a_place(status: Status = Status.DLQ, **fields: Any) -> Whereabouts:
    values: dict[str, Any] = {"cycle": 1, "attempt_count": 5, "is_resolved": False}
    return Whereabouts(recovery_id(an_id()), status, **values | fields)


def a_last(where: Whereabouts, kind: EventType = EventType.RETRY_EXHAUSTED, **state: Any) -> Record:
    after = {
        "status": str(where.status),
        "cycle": where.cycle,
        "attempt_count": where.attempt_count,
        "resolved": where.is_resolved,
    }
    return stored(an_event(kind, after_state=after | state))


@pytest.mark.parametrize(
    "state", [{"status": "retrying"}, {"cycle": 2}, {"attempt_count": 4}, {"resolved": True}], ids=str
)
def test_an_item_must_be_where_its_last_record_leaves_it(state: dict[str, Any]) -> None:
    where = a_place()
    last = a_last(where, **state)

    assert check_end(where, a_last(where)) is None
    found = check_end(where, last)
    assert found is not None
    assert (found.kind, found.event_id) == (Wrong.MISSING, last.event_id)


@pytest.mark.parametrize(
    ("where", "is_missing"),
    [
        (a_place(Status.PENDING, attempt_count=0), False),
        (a_place(Status.SUCCEEDED, attempt_count=1), False),
        (a_place(Status.SUCCEEDED, attempt_count=1, is_erased=True), True),
        (a_place(Status.SUCCEEDED, attempt_count=2), True),
        (a_place(Status.SUCCEEDED, cycle=2, attempt_count=1), True),
        (a_place(Status.RETRYING, attempt_count=1), True),
        (a_place(Status.REPLAYED, cycle=2, attempt_count=0), True),
        (a_place(Status.FAILED, attempt_count=1), True),
    ],
)
def test_only_a_first_attempt_leaves_no_record(where: Whereabouts, *, is_missing: bool) -> None:
    number = parse_recovery_id(where.target_id)
    assert number is not None

    assert (check_end(where, None) is not None) is is_missing
    assert check_end(where, None, forgotten_before=number + 1) is None


def test_an_attempt_that_ended_after_the_last_record_shows() -> None:
    where = a_place(Status.RETRYING, attempt_count=2)
    last = a_last(where, EventType.RETRY_SCHEDULED)

    assert check_end(replace(where, last_attempt=(1, 2)), last) is None
    assert check_end(replace(where, last_attempt=(1, 3)), last) is not None


def test_a_failure_is_followed_by_what_it_led_to_unless_it_was_for_good() -> None:
    refused, dead = a_place(Status.FAILED), a_place()

    assert check_end(refused, a_last(refused, EventType.REPROCESS_FAILED)) is None
    assert check_end(dead, a_last(dead, EventType.REPROCESS_FAILED)) is not None


def test_what_was_erased_ends_with_its_erasure() -> None:
    where = a_place(is_resolved=True, is_erased=True)

    assert check_end(where, a_last(where, EventType.ERASED)) is None
    assert check_end(where, a_last(where, EventType.SUPERSEDED)) is None  # a copy of it arrived afterwards
    assert check_end(where, a_last(where, EventType.RESOLVED)) is not None


def test_a_record_that_tells_nothing_of_where_an_item_is_says_nothing_against_it() -> None:
    where = a_place()

    assert check_end(where, stored(an_event(after_state={"a": 1}))) is None
