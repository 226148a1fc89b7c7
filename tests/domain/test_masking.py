"""What varies from one failure to the next comes out as a mark; what a program says does not."""

import signal
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.masking import LOOKED_AT, MOST, is_symbol, masked

HANGS_SECONDS = 10  # of the CPU: what tries every way to read a text would take years
HEX = "0123456789abcdef"
BASE62 = string.ascii_letters + string.digits

numbers = st.integers(0, 10**12).map(str) | st.decimals(0, 10**6, places=2).map(str)
ids = (
    st.uuids().map(str)
    | st.text(HEX, min_size=12, max_size=64).filter(lambda text: not text.isalpha())
    | st.tuples(st.text(BASE62, min_size=24, max_size=40))
    .map(lambda pair: pair[0])
    .filter(lambda text: any(map(str.isdigit, text)))
)
emails = st.emails(domains=st.sampled_from(["example.com", "mail.example.co.uk"])).filter(
    lambda text: all(c in BASE62 + "@._+-" for c in text)
)
addresses = st.ip_addresses().map(str)
times = st.datetimes().map(
    lambda at: f"{at.replace(year=2000 + at.year % 100).isoformat(timespec='milliseconds')}Z"
)
urls = st.tuples(numbers, ids).map(lambda two: f"https://partner.example/v1/orders/{two[0]}?token={two[1]}")
KINDS = {
    "order": numbers,
    "id": ids,
    "from": emails,
    "at": addresses,
    "on": times,
    "see": urls,
}


@given(data=st.data())
def test_texts_that_differ_in_what_varies_come_out_alike(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))

    def text() -> str:
        return "it failed: " + "; ".join(f"{name} {data.draw(KINDS[name])}" for name in names)

    assert masked(text()) == masked(text())


@given(st.text(max_size=3 * LOOKED_AT))
def test_whatever_comes_a_masked_text_is_one_short_line_without_a_digit(text: str) -> None:
    found = masked(text)

    assert len(found) <= MOST
    assert found == found.strip()
    assert found.isprintable()
    assert not any(map(str.isdecimal, found))


@given(st.text(string.ascii_letters + " ,.'", min_size=1, max_size=50))
def test_words_stay(text: str) -> None:
    words = " ".join(word for word in text.split() if len(word) < 16)

    assert masked(words) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Order 123 not found", "Order # not found"),
        ("-5 is not between 1 and 1,234.56", "# is not between # and #"),
        ("for john.smith+x@example.co.uk", "for <email>"),
        ("cus_3MtwBwLkdIwHuix28a3tqPa, rec_0e7xk2m4q9v1c", "cus_#, rec_#"),
        ("3f2a9c1b 0x1F DEADBEE1", "# # #"),
        ("mac 00:1b:44:11:3a:b7", "mac #"),
        ("10.0.0.1:8080, [2001:db8::1]:443 and ::1", "<ip>, <ip> and <ip>"),
        ("fe80::1%eth0", "<ip>"),
        ("std::string", "std::string"),
        ("Fri, 02 Jan 2026 03:04:05 GMT", "<time>"),
        ("Jan  2 03:04:05 2026", "<time>"),
        ("2026-01-02 03:04:05.123 +01:00", "<time>"),
        ("at 03:04:05", "at <time>"),
        (
            "https://user:pw@a.example:8443/v1/orders/12/items?token=abc#x.",
            "https://a.example:#/v#/orders/#/items",
        ),
        ("https://10.1.2.3/ok", "https://<ip>/ok"),
        ("password=hunter and more", "password=# and more"),
        ("{'token': 'hunter'}", "{'token': '#'}"),
        ("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", "#.#"),
        ("SQLIntegrityConstraintViolationException", "SQLIntegrityConstraintViolationException"),
        ("Error1205 in sha256, HTTP/1.1", "Error# in sha#, HTTP/#"),
        ("错误123发生 ١٢٣", "错误#发生 #"),
        ("two\n\tlines\x00 \x1b[31m", "two lines [#m"),
        ("", ""),
    ],
)
def test_what_varies_is_marked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_a_long_id_pushes_nothing_out() -> None:
    assert masked(f"token {'a1' * 500} is wrong") == masked("token a1b2c3d4 is wrong") == "token # is wrong"


@pytest.mark.parametrize(
    "text",
    ["card_declined", "invalid_grant", "ORA-00942", "E1205", "40P01", "urn:problem:a", "PERMISSION_DENIED"],
)
def test_what_a_program_chose_is_a_symbol(text: str) -> None:
    assert is_symbol(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two words",
        "123456",
        "order-1234567",
        "3f2a9c1b",
        "a" * 65,
        "MtwBwLkdIwHuixaatqPa",
        "a\n",
        "https://a/b",
        "é",
    ],
)
def test_an_id_or_a_sentence_is_none(text: str) -> None:
    assert not is_symbol(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda n, part=part: part * n
        for part in ("a@", "1.", "::", "-", "0:", "Jan ", "password=", "a.", "https://", "1-", "a1")
    ],
)
def test_no_text_is_read_in_every_way_there_is(make: Callable[[int], str]) -> None:
    text = make(LOOKED_AT)
    was = signal.signal(signal.SIGVTALRM, _hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_SECONDS)
    try:
        assert len(masked(text)) <= MOST
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, was)


def _hangs(*_: object) -> None:
    raise AssertionError("it does not come to an end")
