# ruff: noqa: RUF001 - digits of other scripts are what some cases are about
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.outcome import (
    ALWAYS_RETRYABLE,
    NEVER_RETRYABLE,
    RETRYABLE_NETWORK_CODES,
    Answer,
    Failed,
    Reach,
    Succeeded,
    classify,
    is_retryable,
    is_retryable_status,
)

DEFAULT = frozenset(RETRYABLE_NETWORK_CODES)
NONE: frozenset[str] = frozenset()
HOUR = timedelta(hours=1)


def test_every_status_has_one_class() -> None:
    for status in range(1000):
        answer = Answer(status, (), b"body")

        outcome = classify(answer, retry_after=HOUR)

        assert outcome.answer == answer
        assert outcome.reach is Reach.ANSWERED
        assert isinstance(outcome, Succeeded) is (200 <= status <= 299), status
        if isinstance(outcome, Failed):
            check_failure(outcome, status)


def check_failure(outcome: Failed, status: int) -> None:
    retryable = status in (408, 429) or 500 <= status <= 599
    assert outcome.code == (f"HTTP_{status}" if 100 <= status <= 599 else "PROTOCOL_ERROR")
    assert is_retryable(outcome.code, NONE) is retryable is is_retryable_status(status), status
    assert outcome.retry_after == (HOUR if retryable else None)
    assert str(status) in outcome.detail


@pytest.mark.parametrize("status", [199, 300, 407, 409, 428, 430, 499, 600])
def test_the_neighbours_of_a_class_are_outside_it(status: int) -> None:
    outcome = classify(Answer(status, (), b""))

    assert isinstance(outcome, Failed)
    assert not is_retryable(outcome.code, DEFAULT)


def test_a_body_cut_short_changes_nothing() -> None:
    assert isinstance(classify(Answer(200, (), b"", truncated=True)), Succeeded)


@pytest.mark.parametrize("code", RETRYABLE_NETWORK_CODES)
def test_a_network_code_is_worth_a_retry_when_the_integration_says_so(code: str) -> None:
    assert is_retryable(code, DEFAULT)
    assert not is_retryable(code, DEFAULT - {code})


@pytest.mark.parametrize("code", sorted(ALWAYS_RETRYABLE))
def test_some_codes_are_always_worth_a_retry(code: str) -> None:
    assert is_retryable(code, NONE)


@pytest.mark.parametrize("code", sorted(NEVER_RETRYABLE))
def test_some_codes_never_are_whatever_the_integration_says(code: str) -> None:
    assert not is_retryable(code, DEFAULT | {code})


def test_the_default_codes_are_those_of_the_contract() -> None:
    assert set(RETRYABLE_NETWORK_CODES) == set(
        "ECONNRESET ECONNREFUSED ECONNABORTED EPIPE EHOSTUNREACH ENETUNREACH ETIMEDOUT EAI_AGAIN".split()
    )
    assert {"RESPONSE_TIMEOUT", "DNS_NOT_FOUND", "LEASE_EXPIRED"} == ALWAYS_RETRYABLE


@given(st.text() | st.from_regex(r"HTTP_.{0,5}") | st.integers().map(lambda n: f"HTTP_{n}"))
def test_any_code_is_one_or_the_other(code: str) -> None:
    assert is_retryable(code, DEFAULT) in (True, False)


@pytest.mark.parametrize(
    "code",
    [
        "HTTP_",
        "HTTP_5",
        "HTTP_5000",
        "HTTP_5OO",
        "HTTP_ 500",
        "HTTP_+500",
        "HTTP_5_00",
        "HTTP_٥٠٠",
        "http_500",
    ],
)
def test_a_code_that_only_resembles_a_status_is_not_retryable(code: str) -> None:
    assert not is_retryable(code, DEFAULT)


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [
        ((), ""),
        ((("Content-Type", "a/b"),), "a/b"),
        ((("X", "1"), ("CONTENT-TYPE", "a/b"), ("content-type", "c/d")), "a/b"),
    ],
)
def test_an_answer_knows_its_content_type(headers: tuple[tuple[str, str], ...], content_type: str) -> None:
    assert Answer(200, headers, b"").content_type == content_type
