from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.errors import InvalidPayload
from redrive.domain.headers import check_headers
from redrive.domain.integration import (
    ACCEPTING,
    Defaults,
    Lifecycle,
    check_integration,
    is_line,
)
from tests.factories import an_integration


def faults_of(**fields: Any) -> list[str]:
    """Where check_integration finds something wrong."""
    try:
        check_integration(fields, allow_http=False)
    except InvalidPayload as error:
        return [fault.pointer for fault in error.faults]
    return []


GOOD: dict[str, list[Any]] = {
    "integration_id": ["a", "0", "a" * 64, "a.b_c-d", "0-9", "a--b..c"],
    "name": ["A", "Acme é", "x" * 128, "👩\u200d🚀", None],
    "url": ["https://a.example/x", None],
    "health_url": ["https://a.example/up", None],
    "timeout_seconds": [0.1, 15, 60, 60.0, None],
    "max_attempts": [1, 100, None],
    "base_delay_seconds": [0.001, 86_400, None],
    "max_delay_seconds": [0.001, 86_400, None],
    "jitter": [0, 0.0, 1, 1.0, None],
    "concurrency": [1, 10_000, None],
    "rate_per_second": [0.001, 100_000, None],
    "retryable_network_codes": [[], ["EPIPE"], ["EPIPE", "ECONNRESET"], None],
    "headers": [{}, {"X-A": "1"}, None],
}
BAD: dict[str, list[Any]] = {
    "integration_id": ["", "A", "é", "a" * 65, "-a", "a-", ".a", "a.", "_a", "a_", "a b", "a/b", "a\n", "٣",
    "a%"],
    "name": ["", " ", " a", "a ", "a\nb", "a\tb", "\x00", "a\u2028b", "a\u202eb", "\ud800", "x" * 129],
    "url": ["", "http://a.example", "https://127.1", "https://a.example/#f"],
    "health_url": ["", "http://a.example"],
    "timeout_seconds": [0, 0.09, 60.1, -1, float("nan"), float("inf"), float("-inf")],
    "max_attempts": [0, -1, 101, 10**30],
    "base_delay_seconds": [0, -1, 86_401, float("nan")],
    "max_delay_seconds": [0, 0.0009, float("inf")],
    "jitter": [-0.1, 1.1, float("nan")],
    "concurrency": [0, 10_001],
    "rate_per_second": [0, 100_001, float("nan")],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(f, value) for f, values in GOOD.items() for value in values])
def test_a_good_value_is_let_through(field: str, value: Any) -> None:
    assert faults_of(**{field: value}) == []


@pytest.mark.parametrize(("field", "value"), [(f, value) for f, values in BAD.items() for value in values])
def test_a_bad_value_is_pointed_at(field: str, value: Any) -> None:
    assert faults_of(**{field: value}) == [f"/{field}"]


@pytest.mark.parametrize("code", ["EWHATEVER", "TLS_ERROR", "BLOCKED_ADDRESS", "epipe", "", "HTTP_404"])
def test_only_network_codes_that_may_be_retried_are_taken(code: str) -> None:
    assert faults_of(retryable_network_codes=["EPIPE", code]) == ["/retryable_network_codes"]


def test_every_fault_is_told_at_once() -> None:
    found = faults_of(
        integration_id="A",
        name="",
        url="x",
        health_url="x",
        jitter=2,
        headers={"host": "x"},
    )

    assert set(found) == {
        "/integration_id", "/name", "/url", "/health_url", "/jitter", "/headers/host",
    }  # fmt: skip


def test_nothing_given_is_nothing_wrong() -> None:
    assert faults_of() == []


# headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-A": "1"},
        {"!#$%&'*+.^_`|~09azAZ-": "x"},
        {"Authorization": "Bearer x"},
        {"a": "x" * 4_096},
        {"a": "b c\td"},
        {"x" * 128: "1"},
        {f"x-{n}": "1" for n in range(32)},
    ],
    ids=range(8),
)
def test_good_headers_have_no_fault(headers: dict[str, str]) -> None:
    assert check_headers(headers) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a:b",
        "a\n",
        "\r\nX",
        "é",
        "a\x00",
        "(a)",
        "a,b",
        "a/b",
        "a@b",
        "[a]",
        "a=b",
        "x" * 129,
        "٣",
    ],
)
def test_what_is_no_header_name_is_told(name: str) -> None:
    [fault] = check_headers({name: "1"})

    assert fault.detail == "not a header name"


@pytest.mark.parametrize(
    "value", ["", " ", " a", "a ", "\ta", "a\t", "a\nb", "a\r\nb: c", "\x00", "a\x7f", "é", "x" * 4_097]
)
def test_what_is_no_header_value_is_told(value: str) -> None:
    [fault] = check_headers({"a": value})

    assert "visible ASCII" in fault.detail


@pytest.mark.parametrize(
    "name",
    """Host Content-Length Transfer-Encoding Connection Keep-Alive TE Trailer Upgrade Expect
    Proxy-Authorization Proxy-Connection traceparent tracestate X-Request-Id User-Agent
    Accept-Encoding Content-Type webhook-id Webhook-Timestamp webhook-signature webhook-anything""".split(),
)
def test_what_is_ours_or_the_connections_to_set_is_refused_in_any_case(name: str) -> None:
    for spelled in (name, name.lower(), name.upper()):
        [fault] = check_headers({spelled: "1"})

        assert "set by redrive" in fault.detail


def test_a_name_twice_in_two_cases_is_told() -> None:
    [fault] = check_headers({"x-a": "1", "X-A": "2"})

    assert fault.pointer == "/headers"


def test_too_many_headers_are_told() -> None:
    [fault] = check_headers({f"x-{n}": "1" for n in range(33)})

    assert fault.pointer == "/headers"


def test_a_pointer_is_escaped() -> None:
    assert [fault.pointer for fault in check_headers({"a~/b": "1"}, "/deliveries/0/headers")] == [
        "/deliveries/0/headers/a~0~1b"
    ]


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5))
def test_headers_without_a_fault_cannot_break_out_of_their_line(headers: dict[str, str]) -> None:
    if check_headers(headers):
        return

    assert all(c == "\t" or " " <= c <= "~" for c in "".join((*headers, *headers.values())))


# lines


@pytest.mark.parametrize("text", ["a", "é", "a b", "x" * 10, "日本", "👩\u200d🚀", "a\u0301"])
def test_a_line_is_plain_text(text: str) -> None:
    assert is_line(text, 10)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", " a", "a ", "\ta", "a\n", "a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x7fb", "a\x85b",
        "a\u2028b", "a\u2029b",
        "a\u202eb", "a\u200bb", "a\ufeffb", "a\xa0b", "\u3000a", "a\ud800", "x" * 11,
    ],
)  # fmt: skip
def test_what_is_no_line_is_refused(text: str) -> None:
    assert not is_line(text, 10)


@given(st.text(max_size=20))
def test_a_line_shows_as_one_line(text: str) -> None:
    assert not is_line(text, 20) or (text.splitlines() == [text] and text.strip() == text)


# what is in force


def test_what_an_integration_says_counts_and_the_rest_is_the_default() -> None:
    defaults = Defaults(max_attempts=7, jitter=0.5)
    own = an_integration(max_attempts=3, jitter=0.0, retryable_network_codes=())

    policy = defaults.policy(own)

    assert (policy.max_attempts, policy.jitter, policy.network_codes) == (3, 0.0, frozenset())
    assert policy.base_delay_seconds == defaults.base_delay_seconds
    assert defaults.policy(an_integration()).max_attempts == 7


@pytest.mark.parametrize(
    ("lifecycle", "accepts", "sends"),
    [("draft", False, False), ("active", True, True), ("paused", True, False), ("retired", False, False)],
)
def test_a_lifecycle_says_what_is_accepted_and_sent(lifecycle: str, *, accepts: bool, sends: bool) -> None:
    integration = an_integration(lifecycle_status=Lifecycle(lifecycle))

    assert (integration.lifecycle_status in ACCEPTING, integration.sends) == (accepts, sends)
