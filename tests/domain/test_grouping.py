"""Failures of one cause have one fingerprint; what rules hide is in no group's detail."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.delivery import Evidence
from redrive.domain.grouping import (
    MEANING,
    Cause,
    FailureClass,
    cause_elsewhere,
    cause_of,
    class_of,
    failed_elsewhere,
    why_grouped,
)
from redrive.domain.masking import MOST
from redrive.domain.outcome import (
    ALWAYS_RETRYABLE,
    NEVER_RETRYABLE,
    RETRYABLE_NETWORK_CODES,
    Answer,
    Failed,
    Outcome,
    Reach,
    Risk,
    risk_of,
)
from tests.factories import an_integration

ACME = an_integration("acme")
KIB_64 = 64 * 1024
NETWORK_CODES = sorted({*ALWAYS_RETRYABLE, *NEVER_RETRYABLE, *RETRYABLE_NETWORK_CODES})


def failed(body: bytes = b"", status: int = 503, *, truncated: bool = False) -> Failed:
    answer = Answer(status, (), body, truncated)
    return Failed(f"HTTP_{status}", f"the receiver answered {status}", Reach.ANSWERED, answer)


def detail_of(body: bytes, **fields: Any) -> str:
    return cause_of(an_integration(**fields), failed(body)).detail


# the fingerprint


def test_a_fingerprint_is_of_a_version_and_its_beginning_names_the_group() -> None:
    cause = cause_of(ACME, failed(b"it is down"))

    version, _, digest = cause.fingerprint.partition(":")
    assert (version, len(digest)) == ("v1", 64)
    assert cause.number == int.from_bytes(bytes.fromhex(digest)[:8], "big", signed=True)


def test_the_fingerprint_of_version_1_stays_as_it_is() -> None:
    """What this changes needs another version."""
    assert cause_of(ACME, failed(b"order 7 is gone")).fingerprint == (
        "v1:db8a23c57c1f9334b0d01afce8d6fe738b7066d46f67ca04824aef05d595c38e"
    )


OTHERS: Mapping[str, Cause] = {
    "integration": cause_of(an_integration("other"), failed(b"down")),
    "code": cause_of(ACME, failed(b"down", 500)),
    "detail": cause_of(ACME, failed(b"up")),
    "class": cause_of(ACME, Failed("ETIMEDOUT", "late", Reach.SENT)),
    "another class": cause_of(ACME, Failed("ETIMEDOUT", "late", Reach.NOT_SENT)),
}


def test_each_part_tells_causes_apart() -> None:
    fingerprints = {cause.fingerprint for cause in (cause_of(ACME, failed(b"down")), *OTHERS.values())}

    assert len(fingerprints) == 1 + len(OTHERS)


def test_what_the_integration_is_called_and_where_it_is_are_no_part_of_it() -> None:
    moved = an_integration("acme", name="Another", number=7)

    assert cause_of(moved, failed(b"down")) == cause_of(ACME, failed(b"down"))


def test_the_parts_cannot_run_into_each_other() -> None:
    one = Failed("HTTP_500", "a", Reach.ANSWERED, Answer(500, (), b'b","c'))
    two = Failed("HTTP_500", "a", Reach.ANSWERED, Answer(500, (), b'b\\",\\"c'))

    assert cause_of(ACME, one).fingerprint != cause_of(ACME, two).fingerprint


# the class


@pytest.mark.parametrize(
    ("code", "reach", "expected"),
    [
        ("DNS_NOT_FOUND", Reach.NOT_SENT, "dns"),
        ("EAI_AGAIN", Reach.NOT_SENT, "dns"),
        ("ECONNREFUSED", Reach.NOT_SENT, "connect"),
        ("EHOSTUNREACH", Reach.NOT_SENT, "connect"),
        ("ECONNRESET", Reach.NOT_SENT, "connect"),
        ("ECONNRESET", Reach.SENT, "reset"),
        ("EPIPE", Reach.SENT, "reset"),
        ("ETIMEDOUT", Reach.NOT_SENT, "timeout_connect"),
        ("RESPONSE_TIMEOUT", Reach.SENT, "timeout_read"),
        ("TLS_ERROR", Reach.NOT_SENT, "tls"),
        ("PROTOCOL_ERROR", Reach.ANSWERED, "protocol"),
        ("BLOCKED_ADDRESS", Reach.NOT_SENT, "egress_blocked"),
        ("LEASE_EXPIRED", Reach.SENT, "unknown"),
        ("HTTP_101", Reach.ANSWERED, "protocol"),
        ("HTTP_301", Reach.ANSWERED, "http_3xx"),
        ("HTTP_404", Reach.ANSWERED, "http_4xx"),
        ("HTTP_429", Reach.ANSWERED, "http_429"),
        ("HTTP_599", Reach.ANSWERED, "http_5xx"),
    ],
)
def test_a_failure_has_a_class(code: str, reach: Reach, expected: str) -> None:
    assert class_of(Failed(code, "", reach)) == expected


@pytest.mark.parametrize("code", [code for code in NETWORK_CODES if code != "LEASE_EXPIRED"])
@pytest.mark.parametrize("reach", Reach)
def test_every_code_of_ours_has_a_class_that_says_something(code: str, reach: Reach) -> None:
    assert class_of(Failed(code, "", reach)) is not FailureClass.UNKNOWN


def test_every_class_has_a_meaning() -> None:
    assert set(MEANING) == set(FailureClass)


# the detail


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"error":{"type":"card_error","code":"declined","message":"No. 7"}}',
            "error.type=card_error, error.code=declined",
        ),
        (
            b'{"type":"https://a.example/out-of-credit","title":"You are"}',
            "type=https://a.example/out-of-credit",
        ),
        (b'{"type":"about:blank","title":"Not Found"}', "title=Not Found"),
        (b'{"error":"invalid_grant","error_description":"of 7"}', "error=invalid_grant"),
        (b'{"Code":"NoSuchKey"}', "code=NoSuchKey"),
        (b'\xef\xbb\xbf{"code":"bom"}', "code=bom"),
        (b'{"errors":[{"code":"E1205"},{"code":"no"}]}', "errors.code=E1205"),
        (b'[{"code":4711}]', "code=4711"),
        (b'{"code":123456789}', "code=#"),
        (b'{"code":"ord-123456789"}', "code=ord-#"),
        (b'{"error":true,"message":"Order 12 is gone"}', "message=Order # is gone"),
        (b'{"error":{"message":"Order 12 is gone"}}', "message=Order # is gone"),
        (b'{"ok":false,"order":12}', '{"ok":false,"order":#}'),
        (b"\xef\xbb\xbfOrder 12 is gone", "Order # is gone"),
        (b"<!doctype html><html><head><title>502 Bad Gateway</title>", "# Bad Gateway"),
        (b"<error>Order 12</error>", "<error>Order #</error>"),
        (b"\x1f\x8b\x08\x00compressed", "the receiver answered 503"),
        (b"a\0b", "the receiver answered 503"),
        (b"  \r\n ", "the receiver answered 503"),
        (b"", "the receiver answered 503"),
    ],
)
def test_the_answer_says_what_failed(body: bytes, expected: str) -> None:
    assert detail_of(body) == expected


def test_without_an_answer_our_own_sentence_does() -> None:
    refused = Failed("ECONNREFUSED", "10.0.0.1:8443 refused the connection", Reach.NOT_SENT)

    assert cause_of(ACME, refused).detail == "<ip> refused the connection"


def test_an_answer_that_is_sealed_at_rest_is_not_read() -> None:
    assert cause_of(ACME, failed(b"secret"), reads_answer=False).detail == "the receiver answered 503"


@given(first=st.integers(0, 10**9), second=st.integers(0, 10**9), key=st.sampled_from(["order", "at", "id"]))
def test_bodies_that_differ_in_a_number_are_one_cause(first: int, second: int, key: str) -> None:
    bodies = [
        json.dumps({key: n, "error": {"message": f"{key} {n} is gone"}}).encode() for n in (first, second)
    ]

    assert cause_of(ACME, failed(bodies[0])) == cause_of(ACME, failed(bodies[1]))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * KIB_64,
        b'{"error":' * 7_000,
        b'{"error":[' * 6_000,
        b'{"a":1,' * 9_000,
        b'{"type":"' + b"a" * KIB_64,
        b'{"type":"' + b"a" * (KIB_64 - 11) + b'"}',
        b'{"code":' + b"9" * (KIB_64 - 9) + b"}",
        b'{"code":1e999}',
        b'{"code":"\\ud800"}',
        b'{"type":"\xff"}',
        b"<title>" * 9_000,
        b"\xf0\x9f\x98\x80" * (KIB_64 // 4),
        b"{" + b",".join(b'"%d":"error"' % n for n in range(4_000)) + b"}",
    ],
    ids=range(13),
)
@pytest.mark.parametrize("pointers", [(), ("/type", "/*/error")])
def test_a_hostile_body_is_some_short_line(body: bytes, pointers: tuple[str, ...]) -> None:
    found = detail_of(body[:KIB_64], redact_pointers=pointers)

    assert 0 < len(found) <= MOST
    assert found.isprintable()


@given(st.binary(max_size=300))
def test_whatever_is_answered_has_a_cause(body: bytes) -> None:
    cause = cause_of(ACME, failed(body))

    assert len(cause.detail) <= MOST
    assert cause.detail.isprintable()


# what rules hide

secrets = st.text("ghijklmnopqrstuvwxyz", min_size=12, max_size=12)
members = st.sampled_from(["type", "code", "error", "errors", "title", "message", "detail", "name"])
trees = st.recursive(
    st.just("SECRET") | st.just("plain"),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(members, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def pointers_to_secrets(tree: object, at: str = "") -> list[str]:
    match tree:
        case "SECRET":
            return [at]
        case list():
            return [found for n, each in enumerate(tree) for found in pointers_to_secrets(each, f"{at}/{n}")]
        case dict():
            return [
                found for name, each in tree.items() for found in pointers_to_secrets(each, f"{at}/{name}")
            ]
    return []


@given(tree=st.dictionaries(members, trees, min_size=1, max_size=4), secret=secrets)
def test_what_rules_hide_is_in_no_detail(tree: dict[str, object], secret: str) -> None:
    pointers = tuple(pointers_to_secrets(tree))
    body = json.dumps(tree).replace("SECRET", secret).encode()

    assert secret not in detail_of(body, redact_pointers=pointers or ("/nothing",))


def test_what_rules_cannot_be_applied_to_is_not_read() -> None:
    for body in (b"secret words", b'{"error":"secret"', b'{"error":"secret"}x'):
        assert detail_of(body, redact_pointers=("/error",)) == "the receiver answered 503"


def test_what_rules_do_not_hide_still_tells_failures_apart() -> None:
    assert (
        detail_of(b'{"error":{"code":"gone","who":"x"}}', redact_pointers=("/error/who",))
        == "error.code=gone"
    )


# why


def test_a_group_says_why_it_is_one() -> None:
    assert why_grouped(cause_of(ACME, failed(b"down"))) == (
        "the receiver failed at it (class http_5xx), the code is HTTP_503, and it says “down”; fingerprint v1"
    )


# what others tell of their attempts


@pytest.mark.parametrize(
    ("last", "risk", "kind", "detail"),
    [
        (Evidence("HTTP_503", "order 7 is gone", 503), Risk.REFUSED, "http_5xx", "order # is gone"),
        (Evidence(None, None, 404), Risk.REFUSED, "http_4xx", ""),
        (
            Evidence("HTTP_500", None, 500, answer=Answer(500, (), b"oh 7")),
            Risk.AMBIGUOUS,
            "http_5xx",
            "oh #",
        ),
        (
            Evidence("HTTP_500", "see 7", 500, answer=Answer(500, (), b"")),
            Risk.AMBIGUOUS,
            "http_5xx",
            "see #",
        ),
        (Evidence("ECONNREFUSED"), Risk.NEVER_SENT, "connect", ""),
        (Evidence("DNS_NOT_FOUND"), Risk.NEVER_SENT, "dns", ""),
        (Evidence("TLS_ERROR"), Risk.NEVER_SENT, "tls", ""),
        (Evidence("ECONNRESET"), Risk.AMBIGUOUS, "reset", ""),
        (Evidence("ETIMEDOUT"), Risk.AMBIGUOUS, "timeout_read", ""),
        (Evidence("RESPONSE_TIMEOUT"), Risk.AMBIGUOUS, "timeout_read", ""),
    ],
)
def test_evidence_from_elsewhere_is_read_like_our_own(
    last: Evidence, risk: Risk, kind: str, detail: str
) -> None:
    cause, told = cause_elsewhere(ACME, last), failed_elsewhere(last)

    assert cause is not None
    assert told is not None
    assert (risk_of(told), cause.failure_class, cause.detail) == (risk, kind, detail)


@pytest.mark.parametrize("last", [Evidence(), Evidence(last_http_status=200), Evidence(failure_detail="hm")])
def test_of_what_nothing_is_known_there_is_no_cause(last: Evidence) -> None:
    assert cause_elsewhere(ACME, last) is None


# risk


@pytest.mark.parametrize(
    ("code", "reach", "risk"),
    [
        ("ECONNREFUSED", Reach.NOT_SENT, Risk.NEVER_SENT),
        ("HTTP_503", Reach.NOT_SENT, Risk.NEVER_SENT),  # of a token endpoint
        ("HTTP_404", Reach.ANSWERED, Risk.REFUSED),
        ("HTTP_429", Reach.ANSWERED, Risk.REFUSED),
        ("HTTP_503", Reach.ANSWERED, Risk.REFUSED),
        ("HTTP_500", Reach.ANSWERED, Risk.AMBIGUOUS),
        ("HTTP_504", Reach.ANSWERED, Risk.AMBIGUOUS),
        ("PROTOCOL_ERROR", Reach.ANSWERED, Risk.AMBIGUOUS),
        ("RESPONSE_TIMEOUT", Reach.SENT, Risk.AMBIGUOUS),
        ("ECONNRESET", Reach.SENT, Risk.AMBIGUOUS),
    ],
)
def test_what_sending_again_would_risk_is_how_far_it_got(code: str, reach: Reach, risk: Risk) -> None:
    assert risk_of(Failed(code, "", reach)) is risk


def test_outcomes_are_those_this_is_about() -> None:
    assert Failed in get_args(Outcome)
