"""What is told of a correction: each change, and nothing that is hidden."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.delivery import Delivery
from redrive.domain.editing import MOST_CHANGES, MOST_VALUE, correction
from redrive.domain.redaction import REDACTED
from tests.factories import a_delivery

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab/~", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)


def _sent(payload: Any, **fields: Any) -> Delivery:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return a_delivery(payload=raw, **fields)


def _told(was: Delivery, now: Delivery, *pointers: str, is_open: bool = True) -> dict[str, Any]:
    return correction(was, now, pointers=pointers, is_open=is_open)


def test_each_change_tells_where_what_it_is_now_and_what_it_was() -> None:
    was = {"order": {"id": 7, "old": True}, "lines": [1, 2, 3], "same": 1}
    now = {"order": {"id": "7", "new": None}, "lines": [1, 4], "same": 1}

    told = _told(_sent(was), _sent(now))

    assert told == {
        "changes": [
            {"op": "replace", "path": "/payload/lines/1", "value": 4, "was": 2},
            {"op": "remove", "path": "/payload/lines/2", "was": 3},
            {"op": "replace", "path": "/payload/order/id", "value": "7", "was": 7},
            {"op": "add", "path": "/payload/order/new", "value": None},
            {"op": "remove", "path": "/payload/order/old", "was": True},
        ]
    }


@given(_JSON, _JSON)
def test_the_operations_make_the_one_from_the_other(was: Any, now: Any) -> None:
    told = _told(_sent({"it": was}), _sent({"it": now}))

    made = {"payload": {"it": was}}
    for change in told["changes"]:
        _apply(made, change)
    assert json.dumps(made["payload"], sort_keys=True) == json.dumps({"it": now}, sort_keys=True)


def _apply(document: Any, change: dict[str, Any]) -> None:
    *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in change["path"].split("/")[1:]]
    within = document
    for step in steps:
        within = within[int(step) if isinstance(within, list) else step]
    place: Any = int(last) if isinstance(within, list) else last
    match change["op"]:
        case "remove":
            assert within.pop(place) == change["was"]
        case "add" if isinstance(within, list):
            within.insert(place, change["value"])
        case "add":
            within[place] = change["value"]
        case _:
            assert within[place] == change["was"]
            within[place] = change["value"]


def test_what_a_rule_hides_shows_that_it_changed_and_no_more() -> None:
    was = {"card": {"number": "4111"}, "who": [{"name": "Ann", "n": 1}]}
    now = {"card": {"number": "4222", "cvc": "123"}, "who": [{"name": "Bea", "n": 2}, {"name": "Cid"}]}

    told = _told(_sent(was), _sent(now), "/card", "/who/*/name")

    assert told["changes"] == [
        {"op": "replace", "path": "/payload/card", "value": REDACTED, "was": REDACTED},
        {"op": "replace", "path": "/payload/who/0/n", "value": 2, "was": 1},
        {"op": "replace", "path": "/payload/who/0/name", "value": REDACTED, "was": REDACTED},
        {"op": "add", "path": "/payload/who/1", "value": {"name": REDACTED}},
    ]


def test_of_headers_the_names_are_told() -> None:
    was, now = (
        _sent(1, headers=(("X-Gone", "a"), ("X-Key", "b"))),
        _sent(1, headers=(("X-Key", "c"), ("X-New", "d"))),
    )

    told = _told(was, now)

    assert told["changes"] == [
        {"op": "remove", "path": "/headers/X-Gone", "was": REDACTED},
        {"op": "replace", "path": "/headers/X-Key", "value": REDACTED, "was": REDACTED},
        {"op": "add", "path": "/headers/X-New", "value": REDACTED},
    ]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (_sent(b"<a/>", content_type="text/xml"), _sent(b"<b/>", content_type="text/xml")),
        (_sent(b"{}", content_type="text/plain"), _sent(b"{}", content_type="application/json")),
        (_sent(b"{} "), _sent(b"{}")),
        (_sent(b"[1e400]"), _sent(b'["1e400"]')),
        (_sent(b"{"), _sent(b"{}")),
        (_sent(b'"\\ud800"'), _sent(b"1")),
    ],
    ids=["other types", "the type alone", "blanks", "a number too large", "not JSON", "half a character"],
)
def test_of_other_payloads_size_and_digest_are_told(was: Delivery, now: Delivery) -> None:
    told = _told(was, now)

    assert told["changes"] == [
        {"op": "replace", "path": "/payload", "value": _bytes_of(now), "was": _bytes_of(was)}
    ]


def test_no_digest_is_told_of_what_a_rule_might_hide() -> None:
    told = _told(_sent(b"1234", content_type="text/plain"), _sent(b"5678", content_type="text/plain"), "/pin")

    assert told["changes"][0]["was"] == {"content_type": "text/plain", "size": 4}


def test_nothing_is_told_of_content_that_is_sealed() -> None:
    told = _told(_sent({"a": 1}), _sent({"a": 2}), is_open=False)

    assert told == {"changes": [{"op": "replace", "path": "/payload", "value": REDACTED, "was": REDACTED}]}


def test_a_long_value_is_told_by_its_size_and_of_many_changes_how_many_more_there_are() -> None:
    now = ["x" * MOST_VALUE, *range(MOST_CHANGES)]

    told = _told(_sent([]), _sent(now))

    assert told["changes"][0] == {"op": "add", "path": "/payload/0", "value_size": MOST_VALUE + 2}
    assert (len(told["changes"]), told["changes_omitted"]) == (MOST_CHANGES, 1)


def test_the_same_again_is_no_change() -> None:
    assert _told(_sent({"a": 1}), _sent({"a": 1})) == {"changes": []}


def _bytes_of(delivery: Delivery) -> dict[str, Any]:
    digest = sha256(delivery.payload).hexdigest()
    return {"content_type": delivery.content_type, "size": len(delivery.payload), "sha256": digest}
