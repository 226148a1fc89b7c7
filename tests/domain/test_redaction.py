"""What a rule hides, and that whatever it cannot be applied to is hidden as a whole."""

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain import redaction
from redrive.domain.redaction import REDACTED, check_rules, redacted_json

DOCUMENT = (
    b'{"card":{"number":"4111","exp":"12/30"},"items":[{"name":"a","n":1},{"name":"b","n":2}],"a/b":{"~":1}}'
)
CARD = {"number": "4111", "exp": "12/30"}


@pytest.mark.parametrize(
    ("pointers", "hidden"),
    [
        ([], []),
        (["/card/number"], ["4111"]),
        (["/card"], ["4111", "12/30", "exp"]),
        (["/card/*"], ["4111", "12/30"]),
        (["/items/*/name"], ['"a"', '"b"']),
        (["/items/1/name"], ['"b"']),
        (["/items/*"], ['"a"', '"b"', '"n"']),
        (["/items/2", "/items/01", "/items/-", "/nothing/at/all", "/card/number/deeper"], []),
        (["/a~1b/~0"], ['"~":1']),
        (["/card/number", "/items/0"], ["4111", '"a"']),
    ],
)
def test_a_pointer_hides_what_it_leads_to_and_nothing_else(pointers: list[str], hidden: list[str]) -> None:
    shown = redacted_json(DOCUMENT, pointers)

    assert shown is not None
    text = shown.decode()
    assert [each for each in hidden if each in text] == []
    if not hidden:
        assert json.loads(shown) == json.loads(DOCUMENT)


def test_the_rest_stays_as_it_is() -> None:
    shown = redacted_json(DOCUMENT, ["/card/number"])

    assert shown is not None
    assert json.loads(shown) == json.loads(DOCUMENT) | {"card": CARD | {"number": REDACTED}}


@pytest.mark.parametrize("number", ["1.10", "1E400", "-0.0", "123456789012345678901234567890", "0.1e-7"])
def test_numbers_stay_as_they_are_written(number: str) -> None:
    shown = redacted_json(b'{"a":%b,"b":1}' % number.encode(), ["/b"])

    assert shown == b'{"a":%b,"b":"[REDACTED]"}' % number.encode()


def test_of_a_name_that_stands_twice_neither_value_is_shown() -> None:
    shown = redacted_json(b'{"a":"secret 1","a":"secret 2"}', ["/a"])

    assert shown == b'{"a":"[REDACTED]"}'


@pytest.mark.parametrize(
    "body", [b"", b"{", b"secret", b"\xff", b'{"a":1', b'{"a":NaN}', b"[" * 100_000, b"\xef\xbb\xbf{}"]
)
def test_what_is_not_json_is_not_shown(body: bytes) -> None:
    assert redacted_json(body, ["/a"]) is None


def test_rules_that_fan_out_are_one_walk() -> None:
    """64 rules that all may apply at each place: a place is looked at once, however many lead there."""
    ways = ["/" + "/".join(way) + "/*/z" for way in product("a*", repeat=6)]
    body = b'{"a":' * 6 + b"[" + b",".join([b'{"z":1,"y":2}'] * 20_000) + b"]" + b"}" * 6

    shown = redacted_json(body, ways)

    assert shown is not None
    assert shown.count(b"[REDACTED]") == 20_000
    assert shown.count(b'"y":2') == 20_000


def test_where_rules_lead_too_many_ways_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MOST_WAYS", 2)
    document = b'{"a":{"a":{"a":1}},"b":{"a":{"a":1}}}'

    assert redacted_json(document, ["/a/a/a"]) is not None
    assert redacted_json(document, ["/*/a/a", "/a/*/a", "/b/a/*", "/a/a/b"]) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(document=st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=4), data=st.data())
def test_whatever_a_pointer_is_made_of_it_hides_that_member_alone(
    document: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(document)))
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    expected = document | (dict.fromkeys(document, REDACTED) if name == "*" else {name: REDACTED})

    shown = redacted_json(json.dumps(document).encode(), [pointer])

    assert shown is not None
    assert json.loads(shown) == expected


@pytest.mark.parametrize(
    ("pointers", "headers", "where"),
    [
        (["card"], [], ["/redact_pointers/0"]),
        ([""], [], ["/redact_pointers/0"]),
        (["/a", "/a~2"], [], ["/redact_pointers/1"]),
        (["/a\n"], [], ["/redact_pointers/0"]),
        (["/a" * 33], [], ["/redact_pointers/0"]),
        (["/" + "a" * 512], [], ["/redact_pointers/0"]),
        ([], ["Set Cookie"], ["/redact_headers/0"]),
        (["/a"] * 65, [], ["/redact_pointers"]),
        (["/a", "/", "/a/*/~0~1"], ["Set-Cookie"], []),
    ],
)
def test_a_rule_that_is_none_is_pointed_at(pointers: list[str], headers: list[str], where: list[str]) -> None:
    assert [fault.pointer for fault in check_rules(pointers, headers)] == where
