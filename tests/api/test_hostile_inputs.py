# ruff: noqa: RUF001 - digits and letters of other scripts are what some rows are about
"""The table an auditor reads: concrete hostile inputs, each with the exact outcome, on both stores.

What is refused leaves nothing behind. Each topic has more in a file of its own: bodies, reasons, imports
(`test_bad_bodies`), paths and queries (`test_paths_and_queries`), bytes that are not HTTP
(`test_hostile_callers`), tokens (`test_access`, `test_jwt`), keys (`test_idempotency`), secrets
(`test_secrets`), URLs (`tests/domain/test_target`), addresses (`tests/delivery/test_guard`), receivers that
misbehave (`tests/delivery/test_http`).
"""

import base64
import string
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest

from redrive.domain.target import MAX_URL
from tests.api.receiver import Answer
from tests.api.service import (
    EVENTS,
    INTEGRATIONS,
    NEVER,
    Service,
    a_delivery,
    an_import,
    with_payload,
)
from tests.api.shapes import PROBLEM, REQUEST_ID, TRACEPARENT
from tests.api.wire import JSON, Header, as_json

Outcome = tuple[int, str]
Case = tuple[str, Any, str | None]  # what it is, what varies, and what the answer points at

INVALID: Outcome = (400, "INT-400-INVALID-PAYLOAD")
UNAUTHENTICATED: Outcome = (401, "AUTH-401-UNAUTHENTICATED")
NO_INTEGRATION: Outcome = (404, "INT-404-NOT-FOUND")
NO_ITEM: Outcome = (404, "INT-404-RECOVERY-NOT-FOUND")
NO_PATH: Outcome = (404, "INT-404-PATH-NOT-FOUND")
NO_METHOD: Outcome = (405, "INT-405-METHOD-NOT-ALLOWED")
NOT_NOW: Outcome = (409, "INT-409-RECOVERY-REPLAY-CONFLICT")
CONFLICT: Outcome = (409, "INT-409-CONFLICT")
TOO_LARGE: Outcome = (413, "INT-413-TOO-LARGE")


ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"  # base64 of URLs


class Row(NamedTuple):
    """A request and its exact outcome. The path may name parts of the `place` in braces.

    `pointer`: where a 400 says that something is wrong; several have spaces between them.
    """

    what: str
    method: str
    path: str
    body: bytes | None
    headers: tuple[Header, ...]
    outcome: Outcome
    pointer: str | None


def rows(method: str, path: str, cases: Iterable[Case], outcome: Outcome = INVALID) -> Iterator[Row]:
    """One request with many bodies."""
    for what, body, pointer in cases:
        yield Row(what, method, path, as_json(body), (JSON,), outcome, pointer)


def queries(path: str, cases: Iterable[Case], outcome: Outcome = INVALID) -> Iterator[Row]:
    """Many queries of one list."""
    for what, query, pointer in cases:
        yield Row(what, "GET", f"{path}?{query}", None, (), outcome, pointer)


def paths(method: str, cases: Iterable[tuple[str, str, str | None, Outcome]]) -> Iterator[Row]:
    """Many paths."""
    body, headers = (b'{"reason":"a"}', (JSON,)) if method == "POST" else (None, ())
    for what, path, pointer, outcome in cases:
        yield Row(what, method, path, body, headers, outcome, pointer)


def headers(cases: Iterable[tuple[str, tuple[Header, ...], str | None, Outcome]]) -> Iterator[Row]:
    """One good delivery with many headers."""
    for what, given, pointer, outcome in cases:
        yield Row(what, "POST", "{deliveries}", with_payload(b"1"), given, outcome, pointer)


def an_integration(**fields: Any) -> dict[str, Any]:
    return {"integration_id": "never-made", "url": "https://partner.example/", **fields}


def shown_by(auth_mode: str, **credentials: Any) -> dict[str, Any]:
    return an_integration(auth_mode=auth_mode, credentials=credentials)


def oauth2(**fields: Any) -> dict[str, Any]:
    return shown_by(
        "oauth2",
        **{"token_url": "https://id.example/t", "client_id": "a", "client_secret": "b", **fields},
    )


def a_secret(size: int, prefix: str = "whsec_") -> str:
    return prefix + base64.b64encode(bytes(size)).decode()


def in_base64(encoded: str, content_type: str) -> dict[str, str]:
    return {"event_type": "a", "payload_base64": encoded, "content_type": content_type}


def deep(opening: bytes, closing: bytes) -> bytes:
    return with_payload(opening * 100_000 + b"1" + closing * 100_000)


def key(text: str) -> tuple[Header, ...]:
    return (JSON, ("Idempotency-Key", text))


URLS: list[Case] = [
    (what, url, "/url")
    for what, url in [
        ("userinfo", "https://user:password@partner.example/"),
        ("a user alone", "https://user@partner.example/"),
        ("empty userinfo", "https://@partner.example/"),
        ("an address as userinfo", "https://partner.example@169.254.169.254/"),
        ("CR LF in the path", "https://partner.example/\r\nX-Evil: 1"),
        ("CR LF in the host", "https://partner\r\n.example/"),
        ("TAB in the host", "https://part\tner.example/"),
        ("NUL", "https://partner.example\0.evil.example/"),
        ("space in front", " https://partner.example/"),
        ("space in the path", "https://partner.example/a b"),
        ("backslash for slash", "https://partner.example\\@evil.example/"),
        ("backslashes", "https:\\\\partner.example\\"),
        ("fragment", "https://partner.example/#admin"),
        ("empty fragment", "https://partner.example/#"),
        ("% in the host", "https://partner%2eexample/"),
        ("%00 in the host", "https://partner.example%00.evil.example/"),
        ("full-width digits", "https://１２７.0.0.1/"),
        ("circled digits", "https://①②⑦.⓪.⓪.①/"),
        ("ideographic full stop", "https://127。0。0。1/"),
        ("Arabic digits", "https://١٢٧.0.0.1/"),
        ("hexadecimal IPv4", "https://0x7f000001/"),
        ("hexadecimal part", "https://0x7f.0.0.1/"),
        ("octal IPv4", "https://0177.0.0.1/"),
        ("decimal IPv4", "https://2130706433/"),
        ("short IPv4", "https://127.1/"),
        ("zero", "https://0/"),
        ("IPv4 with a dot at its end", "https://127.0.0.1./"),
        ("IPv4 of five parts", "https://127.0.0.1.1/"),
        ("IPv4 past 255", "https://127.0.0.256/"),
        ("IPv6 with a zone", "https://[fe80::1%25eth0]/"),
        ("IPv6 with a bare zone", "https://[fe80::1%eth0]/"),
        ("IPv6 without brackets", "https://::1/"),
        ("IPv6 that does not end", "https://[::1/"),
        ("IPvFuture", "https://[v1.fe80]/"),
        ("file:", "file:///etc/passwd"),
        ("gopher:", "gopher://127.0.0.1:6379/_FLUSHALL"),
        ("http+unix:", "http+unix://%2Frun%2Fdocker.sock/containers"),
        ("javascript:", "javascript:alert(1)"),
        ("data:", "data:text/plain,a"),
        ("scheme in capitals", "HTTPS://partner.example/"),
        ("no scheme", "//partner.example/"),
        ("no host", "https:///hooks"),
        ("a port alone", "https://:443/"),
        ("port 0", "https://partner.example:0/"),
        ("port 65536", "https://partner.example:65536/"),
        ("port with a sign", "https://partner.example:+443/"),
        ("negative port", "https://partner.example:-1/"),
        ("port in letters", "https://partner.example:https/"),
        ("port in Arabic digits", "https://partner.example:٤٤٣/"),
        ("no port behind the colon", "https://partner.example:/"),
        ("two ports", "https://partner.example:80:443/"),
        ("2,049 characters", "https://partner.example/" + "a" * (MAX_URL + 1 - 24)),
        ("IDN in Unicode", "https://münchen.example/"),
        ("a Cyrillic letter", "https://раrtner.example/"),
        ("soft hyphen", "https://part\u00adner.example/"),
        ("right-to-left override", "https://partner.example/\u202egpj"),
        ("label of 64", f"https://{'a' * 64}.example/"),
        ("empty label", "https://partner..example/"),
        ("label with a hyphen in front", "https://-partner.example/"),
        ("several hosts", "https://partner.example,evil.example/"),
        ("wildcard", "https://*.partner.example/"),
        ("template", "https://{host}.example/"),
        ("empty", ""),
        ("a number", 1),
    ]
]

# The address ranges that nobody opened to this service: REDRIVE_ALLOW_TARGETS is 127.0.0.0/8.
BLOCKED_TARGETS = [
    *(
        "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 168.63.129.16 169.254.1.1 169.254.169.254"
    ).split(),
    *("169.254.170.2 172.16.0.1 172.31.255.254 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1").split(),
    *("198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255").split(),
    *("[::] [::1] [::127.0.0.1] [::ffff:10.0.0.1] [::ffff:127.0.0.1] [::ffff:169.254.169.254]").split(),
    *("[::ffff:0:169.254.169.254] [64:ff9b::a9fe:a9fe] [64:ff9b::808:808] [64:ff9b:1::a9fe:a9fe]").split(),
    *("[64:ff9b:1:a9fe:a9:fe00::] [100::1] [2001::1] [2001:0:7f00:1::1] [2001:20::1] [2001:db8::1]").split(),
    *("[2002:7f00:1::1] [2002:a9fe:a9fe::1] [2606:4700::5efe:a00:1] [2606:4700::200:5efe:7f00:1]").split(),
    *(
        "[2620:4f:8000::1] [3fff::1] [4000::1] [5f00::1] [fc00::1] [fd00:ec2::254] [fe80::1] [fec0::1]"
    ).split(),
    *("[ff02::1] [ff0e::1]").split(),
]
# Where such a literal is refused: at sending (it becomes a failed item) or at registration (400 at /url).

SENT_HEADERS: list[Case] = [  # what an integration or a delivery wants sent along
    *(
        (f"reserved {name}", {name: "x"}, f"/headers/{name}")
        for name in (
            "Host Content-Length Transfer-Encoding Connection Keep-Alive TE Trailer Upgrade Expect"
            " Proxy-Authorization Accept-Encoding Content-Type traceparent tracestate X-Request-Id User-Agent"
            " webhook-id webhook-timestamp Webhook-Signature WEBHOOK-anything"
        ).split()
    ),
    ("value with CR LF", {"X-A": "b\r\nX-Evil: 1"}, "/headers/X-A"),
    ("value with LF", {"X-A": "b\nX-Evil: 1"}, "/headers/X-A"),
    ("value with NUL", {"X-A": "b\0c"}, "/headers/X-A"),
    ("value not ASCII", {"X-A": "naïve"}, "/headers/X-A"),
    ("value of spaces", {"X-A": "  "}, "/headers/X-A"),
    ("value of 4,097", {"X-A": "x" * 4_097}, "/headers/X-A"),
    ("name with CR LF", {"X-A\r\nX-Evil": "1"}, "/headers/X-A\r\nX-Evil"),
    ("name with a colon", {"X-A: 1": "b"}, "/headers/X-A: 1"),
    ("name with a space", {"X-A ": "b"}, "/headers/X-A "),
    ("name not ASCII", {"X-Ä": "b"}, "/headers/X-Ä"),
    ("empty name", {"": "b"}, "/headers/"),
    ("names alike", {"X-A": "b", "x-a": "c"}, "/headers"),
    ("33 headers", {f"X-{n}": "a" for n in range(33)}, "/headers"),
]

BODIES: list[Case] = [  # of a delivery, byte for byte
    ("empty", b"", ""),
    ("a brace", b"{", ""),
    ("an array", b"[]", ""),
    ("null", b"null", ""),
    ("NaN", with_payload(b"NaN"), ""),
    ("Infinity", with_payload(b"-Infinity"), ""),
    ("trailing garbage", with_payload(b"1") + b"}", ""),
    ("trailing NUL", with_payload(b"1") + b"\0", ""),
    ("two documents", with_payload(b"1") * 2, ""),
    ("trailing comma", b'{"event_type":"a","payload":1,}', ""),
    ("comment", b'{"event_type":"a",/**/"payload":1}', ""),
    ("byte order mark", b"\xef\xbb\xbf" + with_payload(b"1"), ""),
    ("UTF-16", with_payload(b"1").decode().encode("utf-16"), ""),
    ("UTF-16 without a mark", with_payload(b"1").decode().encode("utf-16-be"), ""),
    ("UTF-32", with_payload(b"1").decode().encode("utf-32"), ""),
    ("not UTF-8", with_payload(b'"\xff"'), ""),
    ("overlong UTF-8", with_payload(b'"\xc0\xae"'), ""),
    ("surrogate in UTF-8", with_payload(b'"\xed\xa0\x80"'), ""),
    ("lone surrogate", with_payload(b'"\\ud800"'), ""),
    ("a name twice", b'{"event_type":"a","payload":1,"payload":2}', ""),
    ("a name twice, once escaped", b'{"event_type":"a","payload":1,"p\\u0061yload":2}', ""),
    ("a header twice", b'{"event_type":"a","payload":1,"headers":{"X-A":"1","X-A":"2"}}', "/headers"),
    ("100,000 brackets", b"[" * 100_000, ""),
    ("100,000 arrays deep", deep(b"[", b"]"), ""),
    ("100,000 objects deep", deep(b'{"a":', b"}"), ""),
    ("unknown field force", a_delivery(force=True), "/force"),
    ("unknown field __proto__", a_delivery(__proto__={}), "/__proto__"),
    ("a server's field", a_delivery(recovery_id="rec_0000000000000"), "/recovery_id"),
    ("event_type 1e400", b'{"event_type":1e400,"payload":1}', "/event_type"),
    ("event_type a list", a_delivery(event_type=["a"]), "/event_type"),
    ("event_type with a line break", a_delivery(event_type="a\nb"), "/event_type"),
    ("event_type with an escape code", a_delivery(event_type="\x1b[2Ja"), "/event_type"),
    ("event_type of 129", a_delivery(event_type="a" * 129), "/event_type"),
    ("base64 that is none", in_base64("A", "a/b"), "/payload_base64"),
    ("base64 of URLs", in_base64("-_-_", "a/b"), "/payload_base64"),
    ("content_type with CR LF", in_base64("", "a/b\r\nX-Evil: 1"), "/content_type"),
]  # fmt: skip

REASONS: list[Case] = [
    (what, {"reason": reason}, "/reason")
    for what, reason in [
        ("empty", ""),
        ("a space", " "),
        ("only spaces", "   "),
        ("no-break space", "\u00a0"),
        ("ideographic space", "\u3000"),
        ("257 characters", "x" * 257),
        ("257 emoji", "😀" * 257),
        ("space at its end", "a "),
        ("line break", "a\nb"),
        ("CR", "a\rb"),
        ("line separator", "a\u2028b"),
        ("NUL", "a\0b"),
        ("escape code", "a\x1b[31mb"),
        ("C1 control", "a\x9bb"),
        ("right-to-left override", "a\u202eb"),
        ("zero-width space", "a\u200bb"),
        ("byte order mark", "\ufeffa"),
        ("a number", 1),
        ("null", None),
        ("a list", ["a"]),
    ]
]
REASONS += [
    ("lone surrogate", b'{"reason":"a\\ud800b"}', ""),
    ("no reason", {}, "/reason"),
    ("unknown field force", {"reason": "a", "force": True}, "/force"),
    ("the reason twice", b'{"reason":"a","reason":"b"}', ""),
    ("an array", [], ""),
    ("1e400", b'{"reason":1e400}', "/reason"),
]

FIELDS: list[Case] = [  # of an integration
    ("NaN", b'{"integration_id":"never-made","url":"https://a.example/","jitter":NaN}', ""),
    ("1e400", b'{"integration_id":"never-made","url":"https://a.example/","jitter":1e400}', "/jitter"),
    ("attempts without end", an_integration(max_attempts=10**30), "/max_attempts"),
    ("no attempt", an_integration(max_attempts=0), "/max_attempts"),
    ("half an attempt", an_integration(max_attempts=1.5), "/max_attempts"),
    ("attempts true", an_integration(max_attempts=True), "/max_attempts"),
    ("a timeout of an hour", an_integration(timeout_seconds=3_600), "/timeout_seconds"),
    ("negative delay", an_integration(base_delay_seconds=-1), "/base_delay_seconds"),
    ("concurrency of a million", an_integration(concurrency=10**6), "/concurrency"),
    ("no rate", an_integration(rate_per_second=0), "/rate_per_second"),
    ("too many shards", an_integration(shards=65), "/shards"),
    ("method GET", an_integration(method="GET"), "/method"),
    ("method with CR LF", an_integration(method="POST / HTTP/1.1\r\n"), "/method"),
    ("TLS faults retried", an_integration(retryable_network_codes=["TLS_ERROR"]), "/retryable_network_codes"),
    ("unknown lifecycle", an_integration(lifecycle_status="deleted"), "/lifecycle_status"),
    ("health_url of a file", an_integration(health_url="file:///etc/passwd"), "/health_url"),
    ("health_url with userinfo", an_integration(health_url="https://a:b@c.example/"), "/health_url"),
    ("id with ..", an_integration(integration_id=".."), "/integration_id"),
    ("id with a slash", an_integration(integration_id="a/b"), "/integration_id"),
    ("id in capitals", an_integration(integration_id="Never-Made"), "/integration_id"),
    ("id of a Cyrillic letter", an_integration(integration_id="раrtner"), "/integration_id"),
    ("id of 65", an_integration(integration_id="x" * 65), "/integration_id"),
    ("id with a line break", an_integration(integration_id="never-made\n"), "/integration_id"),
    ("name with an escape code", an_integration(name="\x1b]0;a\x07"), "/name"),
    ("a server's field", an_integration(created_at="2026-03-01T14:02:11Z"), "/created_at"),
    ("the sealed secrets", an_integration(secrets=[]), "/secrets"),
    ("verification off", an_integration(verify=False), "/verify"),
]  # fmt: skip

SECRETS: list[Case] = [  # of an integration
    ("secret without prefix", an_integration(secret="A" * 43), "/secret"),
    ("secret of 23 bytes", an_integration(secret=a_secret(23)), "/secret"),
    ("secret of 65 bytes", an_integration(secret=a_secret(65)), "/secret"),
    ("secret in base64 of URLs", an_integration(secret="whsec_" + "-_" * 20), "/secret"),
    ("secret with a line break", an_integration(secret=a_secret(32) + "\n"), "/secret"),
    ("a public key as secret", an_integration(secret="whpk_" + "A" * 43 + "="), "/secret"),
    ("a seed of 31 bytes", an_integration(secret=a_secret(31, "whsk_")), "/secret"),
    ("a seed with a foreign public key", an_integration(secret=a_secret(64, "whsk_")),
     "/secret"),
    ("an unknown scheme", an_integration(signature_scheme="v2"), "/signature_scheme"),
    ("a scheme not the secret's", an_integration(secret=a_secret(32), signature_scheme="v1a"),
     "/signature_scheme"),
    ("a secret nobody signs with", an_integration(auth_mode="none", secret=a_secret(32)), "/secret"),
    ("an unknown auth_mode", an_integration(auth_mode="digest"), "/auth_mode"),
    ("credentials for hmac", shown_by("hmac", token="a"), "/credentials"),
    ("no credentials", an_integration(auth_mode="bearer"), "/credentials"),
    ("credentials of another mode", shown_by("bearer", username="a"), "/credentials /credentials/token"),
    ("one credential too many", shown_by("bearer", token="a", more="b"), "/credentials"),
    ("a credential that is no text", shown_by("bearer", token=1), "/credentials"),
    ("token with CR LF", shown_by("bearer", token="a\r\nX-Evil: 1"), "/credentials/token"),
    ("token with a space", shown_by("bearer", token="a b"), "/credentials/token"),
    ("token not ASCII", shown_by("bearer", token="ä"), "/credentials/token"),
    ("user with a colon", shown_by("basic", username="a:b", password="c"), "/credentials/username"),
    ("password with a line break", shown_by("basic", username="a", password="b\nc"), "/credentials/password"),
    ("header Host", shown_by("header", name="Host", value="a"), "/credentials/name"),
    ("header webhook-id", shown_by("header", name="webhook-id", value="a"), "/credentials/name"),
    ("header name with CR LF", shown_by("header", name="X\r\nY", value="a"), "/credentials/name"),
    ("header value with CR LF", shown_by("header", name="X", value="a\r\nY: b"), "/credentials/value"),
    ("token_url of a file", oauth2(token_url="file:///etc/passwd"), "/credentials/token_url"),
    ("token_url with userinfo", oauth2(token_url="https://a:b@id.example/"), "/credentials/token_url"),
    ("token_url in decimal", oauth2(token_url="https://2852039166/"), "/credentials/token_url"),
    ("scope with a line break", oauth2(scope="a\nb"), "/credentials/scope"),
    ("client_secret with NUL", oauth2(client_secret="a\0"), "/credentials/client_secret"),
    ("client_auth unknown", oauth2(client_auth="none"), "/credentials/client_auth"),
    ("certificate that is none", shown_by("mtls", certificate="a", private_key="b"),
     "/credentials/certificate /credentials/private_key"),
]  # fmt: skip

ROTATIONS: list[Case] = [
    ("negative overlap", {"overlap_seconds": -1}, "/overlap_seconds"),
    ("overlap of a year", {"overlap_seconds": 31_536_000}, "/overlap_seconds"),
    ("overlap past 64 bits", {"overlap_seconds": 2**64}, "/overlap_seconds"),
    ("overlap in words", {"overlap_seconds": "60"}, "/overlap_seconds"),
    ("overlap 1e400", b'{"overlap_seconds":1e400}', "/overlap_seconds"),
    ("secret without prefix", {"secret": "A" * 43}, "/secret"),
    ("secret of 23 bytes", {"secret": a_secret(23)}, "/secret"),
    ("secret a list", {"secret": [a_secret(32)]}, "/secret"),
    ("scheme not the secret's", {"secret": a_secret(32), "signature_scheme": "v1a"}, "/signature_scheme"),
    ("unknown field", {"secrets": []}, "/secrets"),
    ("secret twice", b'{"secret":null,"secret":null}', ""),
    ("an array", [], ""),
]

IMPORTS: list[Case] = [
    ("succeeded", an_import(status="succeeded"), "/status"),
    ("replayed", an_import(status="replayed"), "/status"),
    ("no status", a_delivery(), "/status"),
    ("attempts below 0", an_import(attempt_count=-1), "/attempt_count"),
    ("attempts past 1,000", an_import(attempt_count=10**9), "/attempt_count"),
    ("a code nobody knows", an_import(failure_code="HTTP_777"), "/failure_code"),
    ("a code in Arabic digits", an_import(failure_code="HTTP_٥٠٣"), "/failure_code"),
    ("a detail of two lines", an_import(failure_detail="a\nb"), "/failure_detail"),
    ("status 99", an_import(last_http_status=99), "/last_http_status"),
    ("status 600", an_import(last_http_status=600), "/last_http_status"),
    ("an answer without status", an_import(response_snapshot={"body": "a"}), "/response_snapshot/status"),
    ("an answer of status 0", an_import(last_http_status=500, response_snapshot={"body": "a", "status": 0}),
     "/response_snapshot/status"),
    ("an answer of 64 KiB and one", an_import(response_snapshot={"body": "a" * 65_537, "status": 500}),
     "/response_snapshot/body"),
    ("an answer in base64 that is none",
     an_import(response_snapshot={"body": "?", "encoding": "base64", "status": 500}),
     "/response_snapshot/body"),
    ("a local time", an_import(occurred_at="2026-03-01T14:02:11"), "/occurred_at"),
    ("30 February", an_import(occurred_at="2026-02-30T14:02:11Z"), "/occurred_at"),
    ("before year 1", an_import(occurred_at="0001-01-01T00:00:00+01:00"), "/occurred_at"),
    ("the future it may not know", an_import(next_retry_at="2026-02-28T14:02:11Z"), "/next_retry_at"),
    ("a cycle of its own", an_import(cycle=2), "/cycle"),
    ("a recovery_id of its own", an_import(recovery_id="rec_0000000000000"), "/recovery_id"),
]  # fmt: skip

BATCHES: list[Case] = [
    ("none", {"deliveries": []}, "/deliveries"),
    ("1,001", {"deliveries": [a_delivery()] * 1_001}, "/deliveries"),
    ("a number", {"deliveries": 1}, "/deliveries"),
    ("a field more", {"deliveries": [a_delivery()], "atomic": False}, "/atomic"),
    ("the list twice", b'{"deliveries":[],"deliveries":[]}', ""),
]

QUERIES: list[Case] = [  # of both lists
    ("limit 0", "limit=0", "limit"),
    ("limit -1", "limit=-1", "limit"),
    ("limit ٣", "limit=%D9%A3", "limit"),
    ("limit full-width 1", "limit=%EF%BC%91", "limit"),
    ("limit 1e9", "limit=1e9", "limit"),
    ("limit 1000000000", "limit=1000000000", "limit"),
    ("limit 201", "limit=201", "limit"),
    ("limit +5", "limit=+5", "limit"),
    ("limit %2B5", "limit=%2B5", "limit"),
    ("limit 1_0", "limit=1_0", "limit"),
    ("limit 0x10", "limit=0x10", "limit"),
    ("limit 1.0", "limit=1.0", "limit"),
    ("limit 01", "limit=01", "limit"),
    ("limit of 5,000 digits", "limit=" + "9" * 5_000, "limit"),
    ("limit twice", "limit=1&limit=2", "limit"),
    ("limit twice, once encoded", "l%69mit=1&limit=1", "limit"),
    ("limit as a list", "limit[]=1", "limit[]"),
    ("limit empty", "limit=", "limit"),
    ("unknown", "offset=1", "offset"),
    ("unknown and empty", "&", ""),
    ("without a name", "=1", ""),
    ("not UTF-8", "event_type=%ff", ""),
    ("NUL", "event_type=a%00", "event_type"),
    ("SQL", "since=2026-03-01'%20OR%201=1--", "since"),
    ("instant with a bare plus", "since=2026-03-01T14:02:11+01:00", "since"),
    ("instant in Arabic digits", "since=%D9%A2026-03-01T14:02:11Z", "since"),
    ("instant past year 9999", "until=9999-12-31T23:59:59-01:00", "until"),
    ("cursor of 22 letters", "cursor=" + "A" * 22, "cursor"),
    ("cursor of NUL", "cursor=%00", "cursor"),
    ("cursor not ASCII", "cursor=%C3%A9", "cursor"),
    ("cursor twice", "cursor={cursor}&cursor={cursor}", "cursor"),
    ("cursor with a bit flipped", "cursor={forged}", "cursor"),
    ("cursor with a letter more", "cursor={cursor}A", "cursor"),
    ("cursor with its padding", "cursor={cursor}%3D%3D", "cursor"),
    ("cursor with letters that base64 passes over", "cursor={cursor}....", "cursor"),
    ("cursor with other unused bits", "cursor={unused}", "cursor"),
]

CURSORS: list[Case] = [  # made by us, for another question
    ("of another filter", "status=dlq&cursor={cursor}", "cursor"),
    ("of another flag", "held=false&cursor={cursor}", "cursor"),
    ("of another integration", "cursor={cursor_elsewhere}", "cursor"),
    ("of the events", "cursor={cursor_of_events}", "cursor"),
]

KEYS = [
    (what, key(text), pointer, INVALID)
    for what, text, pointer in [
        ("key empty", "", "Idempotency-Key"),
        ("key of quotes", '""', "Idempotency-Key"),
        ("key with a quote in front", '"a', "Idempotency-Key"),
        ("key with a quote inside", '"a"b"', "Idempotency-Key"),
        ("key with an escaped quote", '"a\\"b"', "Idempotency-Key"),
        ("key with parameters", '"a";q=1', "Idempotency-Key"),
        ("key with a space", "a b", "Idempotency-Key"),
        ("key with a TAB", "a\tb", "Idempotency-Key"),
        ("key not ASCII", "clé", "Idempotency-Key"),
        ("key of 256", "x" * 256, "Idempotency-Key"),
        ("key of 256 in quotes", f'"{"x" * 256}"', "Idempotency-Key"),
        ("key with DEL", "a\x7f", ""),
        ("key with NUL", "a\0", ""),
    ]
]
TYPES = [
    ("two keys", (*key("a"), ("Idempotency-Key", "b")), "Idempotency-Key", INVALID),
    ("the same key twice", (*key("a"), ("Idempotency-Key", "a")), "Idempotency-Key", INVALID),
    ("no type", (), "Content-Type", INVALID),
    ("a form", (("Content-Type", "application/x-www-form-urlencoded"),), "Content-Type", INVALID),
    ("text", (("Content-Type", "text/plain"),), "Content-Type", INVALID),
    ("JSON in UTF-16", (("Content-Type", "application/json; charset=utf-16"),), "Content-Type", INVALID),
    ("nearly JSON", (("Content-Type", "application/jsonp"),), "Content-Type", INVALID),
    ("two types in one", (("Content-Type", "application/json, text/html"),), "Content-Type", INVALID),
    ("gzip", (JSON, ("Content-Encoding", "gzip")), "Content-Encoding", INVALID),
    ("brotli", (JSON, ("Content-Encoding", "br")), "Content-Encoding", INVALID),
    ("deflate twice", (JSON, ("Content-Encoding", "deflate, deflate")), "Content-Encoding", INVALID),
    ("a length and chunks", (JSON, ("Transfer-Encoding", "chunked")), "", INVALID),
    ("two lengths", (JSON, ("Content-Length", "1")), "", INVALID),
    ("two hosts", (JSON, ("Host", "evil.example")), "", INVALID),
    ("a space before the colon", (JSON, ("X-A ", "b")), "", INVALID),
    ("a line that goes on", (JSON, ("X-A", "b\r\n c")), "", INVALID),
    ("a bare LF", (JSON, ("X-A", "b\nX-B: c")), "", INVALID),
    ("101 headers", (JSON, *((f"X-{n}", "a") for n in range(101))), "", INVALID),
    ("a header of 33,000", (JSON, ("X-A", "b" * 33_000)), "", INVALID),
    ("another token beside ours", (JSON, ("Authorization", "Bearer another")), None, UNAUTHENTICATED),
]  # fmt: skip

IDS = [
    ("id ..%2f", INTEGRATIONS + "/..%2fx", "integration_id", INVALID),
    ("id ..", INTEGRATIONS + "/..", "integration_id", INVALID),
    ("id in capitals", INTEGRATIONS + "/PARTNER", "integration_id", INVALID),
    ("id with NUL", INTEGRATIONS + "/a%00", "integration_id", INVALID),
    ("id encoded", INTEGRATIONS + "/%61", "integration_id", INVALID),
    ("id double-encoded", INTEGRATIONS + "/%2561", "integration_id", INVALID),
    ("id of 300", INTEGRATIONS + "/" + "a" * 300, "integration_id", INVALID),
    ("id with SQL", INTEGRATIONS + "/a'--", "integration_id", INVALID),
    ("id with a semicolon", INTEGRATIONS + "/a;b=c", "integration_id", INVALID),
    ("id unknown", INTEGRATIONS + "/nobody", None, NO_INTEGRATION),
    ("queue of an unknown id", INTEGRATIONS + "/nobody/recovery/queue", None, NO_INTEGRATION),
    ("recovery_id ..%2f", "{queue}/..%2fx", "recovery_id", INVALID),
    ("recovery_id in capitals", "{queue}/REC_0000000000000", "recovery_id", INVALID),
    ("recovery_id with NUL", "{queue}/rec_%00", "recovery_id", INVALID),
    ("recovery_id double-encoded", "{queue}/%2572ec_1", "recovery_id", INVALID),
    ("recovery_id of 300", "{queue}/" + "r" * 300, "recovery_id", INVALID),
    ("recovery_id in full-width", "{queue}/rec_%EF%BC%91", "recovery_id", INVALID),
    ("recovery_id unknown", "{queue}/rec_0000000000000", None, NO_ITEM),
    ("recovery_id past 63 bits", "{queue}/rec_zzzzzzzzzzzzz", None, NO_ITEM),
    ("recovery_id of an event", "{queue}/evt_0000000000000", None, NO_ITEM),
    ("another integration's item", "{queue}/{foreign}", None, NO_ITEM),
    ("an empty segment", "{one}//recovery/queue", None, NO_PATH),
    ("a slash at the end", "{queue}/", None, NO_PATH),
    ("a dot segment", "/platform/./integrations", None, NO_PATH),
    ("an encoded slash", "/platform%2Fintegrations", None, NO_PATH),
    ("capitals", "/Platform/Integrations", None, NO_PATH),
    ("a null byte file", "/platform/integrations%00.json", None, NO_PATH),
    ("a file", "/etc/passwd", None, NO_PATH),
    ("a fragment", "/healthz#a", "", INVALID),
    ("another host's URL", "http://evil.example/healthz", "", INVALID),
]

REPLAYS = [
    ("..%2f", "{queue}/..%2fx/replay", "recovery_id", INVALID),
    ("another integration's", "{queue}/{foreign}/replay", None, NO_ITEM),
    ("unknown", "{queue}/rec_0000000000000/replay", None, NO_ITEM),
    ("one that is pending", "{queue}/{pending}/replay", None, NOT_NOW),
    ("one that is replayed", "{queue}/{replayed}/replay", None, NOT_NOW),
    ("with a query", "{queue}/{dead}/replay?force=true", "force", INVALID),
    ("resolve one that is pending", "{queue}/{pending}/resolve", None, CONFLICT),
]

METHODS = [
    Row(f"{method} {path}", method, path, None, (), outcome, pointer)
    for method, path, outcome, pointer in [
        ("TRACE", "/healthz", NO_METHOD, None),
        ("PUT", "{one}", NO_METHOD, None),
        ("DELETE", "{one}", NO_METHOD, None),
        ("DELETE", "{queue}/{dead}", NO_METHOD, None),
        ("OPTIONS", "{deliveries}", NO_METHOD, None),
        ("GET", "{queue}/{dead}/replay", NO_METHOD, None),
        ("PROPFIND", "{queue}", NO_METHOD, None),
        ("CONNECT", "169.254.169.254:80", INVALID, ""),
        ("BREW", "/healthz", INVALID, ""),
        ("get", "/healthz", INVALID, ""),
    ]
]

LARGE = [
    *rows("POST", INTEGRATIONS, [("65 KiB", an_integration(name="x" * 65_536), None)], TOO_LARGE),
    *rows("POST", "{queue}/{dead}/replay", [("65 KiB", {"reason": "x" * 65_536}, None)], TOO_LARGE),
    *rows("POST", "{deliveries}", [("2 MiB", with_payload(b'"%b"' % (b"x" * (2 << 20))), None)], TOO_LARGE),
    *rows("POST", "{queue}", [("2 MiB", an_import(payload="x" * (2 << 20)), None)], TOO_LARGE),
]

REFUSED = [
    *rows("POST", INTEGRATIONS, [(f"url: {what}", an_integration(url=url), at) for what, url, at in URLS]),
    *rows("PATCH", "{one}", [(f"url: {what}", {"url": url}, at) for what, url, at in URLS]),
    *rows("POST", INTEGRATIONS, [(w, an_integration(headers=sent), at) for w, sent, at in SENT_HEADERS]),
    *rows("POST", "{deliveries}", [(w, a_delivery(headers=sent), at) for w, sent, at in SENT_HEADERS]),
    *rows("POST", INTEGRATIONS, FIELDS),
    *rows("POST", INTEGRATIONS, SECRETS),
    *rows("POST", "{one}/secrets/rotate", ROTATIONS),
    *rows("POST", "{deliveries}", BODIES),
    *rows("POST", "{batch}", BATCHES),
    *rows("POST", "{queue}", IMPORTS),
    *rows("POST", "{queue}/{dead}/replay", REASONS),
    *rows("POST", "{queue}/{dead}/resolve", REASONS),
    *queries("{queue}", QUERIES),
    *queries("{queue}", CURSORS),
    *queries(EVENTS, QUERIES),
    *headers(KEYS),
    *headers(TYPES),
    *paths("GET", IDS),
    *paths("POST", REPLAYS),
    *METHODS,
    *LARGE,
]  # fmt: skip


class Place:
    """An integration that sends nothing, with an item of each kind; the table's braces name its parts."""

    def __init__(self, service: Service) -> None:
        self.partner, elsewhere = (service.partner(rate_per_second=NEVER) for _ in range(2))
        replayed, foreign, _ = self.partner.hand_over(), elsewhere.hand_over(), elsewhere.hand_over()
        self.partner.replay(replayed)
        self.parts = {
            "one": self.partner.url,
            "deliveries": self.partner.deliveries,
            "batch": self.partner.batch,
            "queue": self.partner.queue,
            "dead": self.partner.hand_over(),
            "pending": self.partner.deliver(),
            "replayed": replayed,
            "foreign": foreign,
            "cursor_elsewhere": next_cursor(service, elsewhere.queue),
            "cursor_of_events": next_cursor(service, EVENTS),
        }
        cursor = next_cursor(service, self.partner.queue)
        flipped, last = cursor[:5] + ("A" if cursor[5] != "A" else "B"), ALPHABET.index(cursor[-1])
        self.parts |= {
            "cursor": cursor,
            "forged": flipped + cursor[6:],
            "unused": cursor[:-1] + ALPHABET[last ^ 1],  # 22 letters hold four bits more than 16 bytes
        }
        self._facts = self.partner.facts()

    def filled(self, path: str) -> str:
        return path.format(**self.parts)

    def has_changed(self) -> bool:
        """Whether anything was stored since this was last asked."""
        before, self._facts = self._facts, self.partner.facts()
        return before != self._facts


def next_cursor(service: Service, path: str) -> str:
    found: str = service.admin.get(f"{path}?limit=1").json()["next_cursor"]
    return found


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    return Place(service)


def test_the_table_has_what_was_asked_for() -> None:
    different = {(row.method, row.path, row.body, row.headers) for row in REFUSED}

    assert len(different) == len(REFUSED) >= 120


@pytest.mark.parametrize(
    "row", REFUSED, ids=[f"{n} {row.method} {row.path[:40]} {row.what}" for n, row in enumerate(REFUSED)]
)
def test_a_hostile_call_is_refused_and_leaves_nothing_behind(
    service: Service, place: Place, row: Row
) -> None:
    reply = service.admin.send(row.method, place.filled(row.path), row.body, *row.headers)

    assert not place.has_changed()
    assert (reply.status, reply.error_code) == row.outcome, reply
    assert reply.json().keys() >= PROBLEM
    if row.outcome is INVALID:
        assert " ".join(sorted({*reply.pointers})) == row.pointer


# What is accepted and comes to nothing: targets.

_names = count(1)


@pytest.mark.parametrize("host", BLOCKED_TARGETS)
@pytest.mark.parametrize("port", ["", ":8443"])
def test_what_is_at_a_blocked_address_is_refused_when_it_is_given(
    service: Service, host: str, port: str
) -> None:
    url = f"https://{host}{port}/latest/meta-data/"
    name = f"blocked-{next(_names)}"

    made = service.admin.post(INTEGRATIONS, {"integration_id": name, "url": url})

    assert (made.status, made.error_code, made.pointers) == (*INVALID, ["/url"])


# Who calls.

CALLERS: list[tuple[str, tuple[Header, ...]]] = [
    ("nobody", ()),
    ("no scheme", (("Authorization", "{token}"),)),
    ("no token", (("Authorization", "Bearer "),)),
    ("Basic", (("Authorization", "Basic dXNlcjpwYXNzd29yZA=="),)),
    ("a token nobody made", (("Authorization", "Bearer rdr_" + "A" * 44),)),
    ("SQL", (("Authorization", "Bearer ' OR '1'='1"),)),
    ("a token cut short", (("Authorization", "Bearer {token:.20}"),)),
    ("a token and more", (("Authorization", "Bearer {token}x"),)),
    ("a token not ASCII", (("Authorization", "Bearer é"),)),
    ("a token of 16 KiB", (("Authorization", "Bearer " + "a" * 16_384),)),
    ("a token in a cookie", (("Cookie", "token={token}; Authorization=Bearer {token}"),)),
    ("the token twice", (("Authorization", "Bearer {token}"), ("Authorization", "Bearer {token}"))),
    ("two tokens in one", (("Authorization", "Bearer {token}, Bearer {token}"),)),
    ("a proxy's word for it", (("X-Forwarded-User", "admin"), ("X-Forwarded-For", "127.0.0.1"))),
    ("a JWT that nobody signed", (("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."),)),
    ("a method in disguise", (("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/healthz"))),
]  # fmt: skip


@pytest.mark.parametrize("given", [case[1] for case in CALLERS], ids=[case[0] for case in CALLERS])
@pytest.mark.parametrize(("method", "path"), [("GET", "{queue}"), ("POST", "{deliveries}"), ("GET", EVENTS)])
def test_a_caller_who_is_not_known_is_told_nothing_and_changes_nothing(
    service: Service, place: Place, method: str, path: str, given: tuple[Header, ...]
) -> None:
    body = with_payload(b"1") if method == "POST" else None
    filled = [(name, value.format(token=service.admin.token)) for name, value in given]
    before = place.partner.facts()

    reply = service.nobody.send(method, place.filled(path), body, JSON, *filled)

    assert (reply.status, reply.error_code) == UNAUTHENTICATED
    assert reply.json().keys() == PROBLEM
    assert place.partner.facts() == before


# What a caller says of itself, and is not believed.

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"
TRACES = {
    "trace of zeros": (f"00-{'0' * 32}-{SPAN}-01",),
    "span of zeros": (f"00-{TRACE}-{'0' * 16}-01",),
    "version ff": (f"ff-{TRACE}-{SPAN}-01",),
    "capitals": (VALID.upper(),),
    "54 characters": (VALID[:-1],),
    "56 characters": (VALID + "0",),
    "more behind it": (VALID + "-00",),
    "twice": (VALID, VALID),
    "two in one": (f"{VALID},{VALID}",),
    "not hexadecimal": (VALID.replace("a", "g"),),
    "not ASCII": (VALID.replace("1", "¹"),),
    "empty": ("",),
}


@pytest.mark.parametrize("given", TRACES.values(), ids=TRACES.keys())
def test_a_trace_that_is_none_begins_a_new_one(service: Service, given: tuple[str, ...]) -> None:
    reply = service.nobody.get("/healthz", *(("traceparent", text) for text in given))

    assert reply.status == 200
    assert reply.header("traceparent") == TRACEPARENT
    assert TRACE not in str(reply.header("traceparent"))


STATES = {
    "33 members": ",".join(f"k{n}=v" for n in range(33)),
    "a key twice": "a=1,a=2",
    "a key in capitals": "A=1",
    "no value": "a=",
    "no key": "=1",
    "a member that is none": "a=1,b",
    "not ASCII": "a=é",
    "2,049 characters": ",".join(f"k{n}={'v' * 250}" for n in range(9)),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_tracestate_that_is_none_is_not_passed_on(service: Service, state: str) -> None:
    partner = service.partner()

    recovery_id = partner.deliver(1, ("traceparent", VALID), ("tracestate", state))

    partner.becomes(recovery_id, "succeeded")
    [sent] = partner.received
    assert sent.header("tracestate") is None
    assert str(sent.header("traceparent")).startswith(f"00-{TRACE}-")


REQUEST_IDS = {
    "empty": ("",),
    "129 characters": ("a" * 129,),
    "a space": ("a b",),
    "a slash": ("../../a",),
    "markup": ("<script>",),
    "a quote": ('a"b',),
    "not ASCII": ("é",),
    "twice": ("a", "a"),
    "two in one": ("a,b",),
}


@pytest.mark.parametrize("given", REQUEST_IDS.values(), ids=REQUEST_IDS.keys())
def test_a_request_id_that_is_none_is_replaced(service: Service, given: tuple[str, ...]) -> None:
    reply = service.nobody.get("/healthz", *(("X-Request-Id", text) for text in given))

    assert reply.header("x-request-id") == REQUEST_ID


# What a receiver says.

RETRY_AFTER = [
    *"1_0 +5 -1 1e3 1.5 0x10 ³ inf 5s 5; 2100-12-31T23:59:59Z".split(),
    "٣".encode().decode("latin-1"),
    "5, 5",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 31 Feb 2099 00:00:00 GMT",
    "Fri, 31 Dec 2100 23:59:59 +0000",
]


@pytest.mark.parametrize("asked", RETRY_AFTER)
def test_a_retry_after_that_is_none_is_ignored(service: Service, asked: str) -> None:
    partner = service.partner(max_attempts=1)
    partner.answers(Answer(503, headers=(("Retry-After", asked),)))

    recovery_id = partner.deliver()

    assert partner.becomes(recovery_id, "dlq")["failure_code"] == "HTTP_503"
    [attempt] = partner.show(recovery_id)["attempts"]
    assert attempt["retry_after_seconds"] is None


@pytest.mark.parametrize("asked", ["99999999999999999999", "86401", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_retry_after_past_a_day_is_a_day(service: Service, asked: str) -> None:
    partner = service.partner(max_attempts=1)
    partner.answers(Answer(429, headers=(("Retry-After", asked),)))

    recovery_id = partner.deliver()

    partner.becomes(recovery_id, "dlq")
    [attempt] = partner.show(recovery_id)["attempts"]
    assert attempt["retry_after_seconds"] == 86_400
