"""What is not a valid body is refused with a pointer to what is wrong, and nothing of it is stored."""

import base64
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.service import INTEGRATIONS, Partner, Service, a_delivery, an_import, with_payload
from tests.api.shapes import PROBLEM
from tests.api.wire import JSON, a_request, exchange

INVALID, TOO_LARGE = "INT-400-INVALID-PAYLOAD", "INT-413-TOO-LARGE"
MIB = 1 << 20
Check = Callable[[], None]

NOT_JSON = {
    "empty": b"",
    "blank": b" \r\n\t",
    "truncated": b'{"event_type":"a","payload":{"b":',
    "truncated in a string": b'{"event_type":"a","payload":"b',
    "trailing": b'{"event_type":"a","payload":1}x',
    "two values": b'{"event_type":"a","payload":1}{"event_type":"a","payload":1}',
    "trailing NUL": b'{"event_type":"a","payload":1}\x00',
    "trailing comma": b'{"event_type":"a","payload":1,}',
    "comment": b'{"event_type":"a",/* */"payload":1}',
    "single quotes": b"{'event_type':'a','payload':1}",
    "NaN": b'{"event_type":"a","payload":NaN}',
    "Infinity": b'{"event_type":"a","payload":-Infinity}',
    "leading zero": b'{"event_type":"a","payload":01}',
    "bare point": b'{"event_type":"a","payload":1.}',
    "plus": b'{"event_type":"a","payload":+1}',
    "hexadecimal": b'{"event_type":"a","payload":0x1}',
    "raw newline in a string": b'{"event_type":"a","payload":"b\nc"}',
    "raw NUL in a string": b'{"event_type":"a","payload":"b\x00c"}',
    "bad escape": b'{"event_type":"a","payload":"\\x"}',
    "half a surrogate pair": b'{"event_type":"a","payload":"\\ud800"}',
    "second half first": b'{"event_type":"a","payload":"\\udc00\\ud800"}',
    "half a surrogate pair in a name": b'{"event_type":"a","payload":1,"\\ud800":1}',
    "not UTF-8": b'{"event_type":"a","payload":"\xff"}',
    "Latin-1": '{"event_type":"a","payload":"é"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"event_type":"a","payload":"\xed\xa0\x80"}',
    "overlong UTF-8": b'{"event_type":"a","payload":"\xc0\xaf"}',
    "byte order mark": b"\xef\xbb\xbf" + with_payload(b"1"),
    "UTF-16": with_payload(b"1").decode().encode("utf-16"),
    "UTF-16 without mark": with_payload(b"1").decode().encode("utf-16-le"),
    "UTF-32": with_payload(b"1").decode().encode("utf-32"),
    "100,000 brackets": b"[" * 100_000,
    "100,000 brackets in the payload": with_payload(b"[" * 100_000 + b"]" * 100_000),
    "100,000 objects in the payload": with_payload(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "an array": b"[]",
    "a string": b'"a"',
    "null": b"null",
    "a name twice": b'{"event_type":"a","payload":1,"payload":2}',
    "a name twice, once escaped": b'{"event_type":"a","payload":1,"p\\u0061yload":2}',
}  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize(
    "call", ["deliveries", "batch", "queue", "replay_url", "resolve_url", "url", "create"]
)
def test_a_body_that_is_not_strict_json_is_refused(
    service: Service, quiet: Partner, unchanged: Check, call: str, body: bytes
) -> None:
    path, method = INTEGRATIONS, "PATCH" if call == "url" else "POST"
    if call != "create":
        found = getattr(quiet, call)
        path = found("rec_0000000000000") if callable(found) else found

    reply = service.admin.send(method, path, body, JSON)

    if len(body) > 65_536 and call in ("replay_url", "resolve_url", "url", "create"):
        assert (reply.status, reply.error_code) == (413, TOO_LARGE)
        return
    assert (reply.status, reply.error_code) == (400, INVALID), reply
    assert reply.json().keys() == PROBLEM | {"errors"}
    assert reply.json()["errors"][0]["detail"]
    unchanged()


TYPES: list[tuple[tuple[tuple[str, str], ...], str | None]] = [
    ((), "Content-Type"),
    ((("Content-Type", ""),), "Content-Type"),
    ((("Content-Type", "text/plain"),), "Content-Type"),
    ((("Content-Type", "application/json; charset=utf-16"),), "Content-Type"),
    ((("Content-Type", "application/json; charset=latin-1"),), "Content-Type"),
    ((("Content-Type", "application/jsonx"),), "Content-Type"),
    ((("Content-Type", "application/problem+json"),), "Content-Type"),
    ((("Content-Type", "multipart/form-data"),), "Content-Type"),
    ((JSON, ("Content-Encoding", "gzip")), "Content-Encoding"),
    ((JSON, ("Content-Encoding", "br")), "Content-Encoding"),
    ((("Content-Type", "application/json;charset=UTF-8"),), None),
    ((("Content-Type", 'APPLICATION/JSON; charset="utf-8"'),), None),
    ((JSON, ("Content-Encoding", "identity")), None),
]


@pytest.mark.parametrize(("headers", "pointer"), TYPES)
def test_the_type_of_a_body_must_be_json(
    service: Service, quiet: Partner, headers: tuple[tuple[str, str], ...], pointer: str | None
) -> None:
    reply = service.admin.send("POST", quiet.deliveries, with_payload(b"1"), *headers)

    if pointer is None:
        assert reply.status == 202
    else:
        assert (reply.error_code, reply.pointers) == (INVALID, [pointer])
        assert quiet.items() == []


def test_a_payload_of_one_byte_more_than_a_mebibyte_is_too_large(
    service: Service, quiet: Partner, unchanged: Check
) -> None:
    reply = service.admin.send("POST", quiet.deliveries, with_payload(b'"' + b"x" * (MIB - 1) + b'"'), JSON)

    assert (reply.status, reply.error_code) == (413, TOO_LARGE)
    unchanged()


def test_one_payload_too_large_fails_alone(service: Service, quiet: Partner) -> None:
    reply = quiet.service.admin.post(quiet.batch, {"deliveries": [a_delivery("x" * MIB), a_delivery()]})

    refused, accepted = reply.json()["deliveries"]
    assert (refused["status"], refused["error_code"]) == (413, TOO_LARGE)
    assert [item["recovery_id"] for item in quiet.items()] == [accepted["recovery_id"]]


@pytest.mark.parametrize(
    ("call", "size"), [("deliveries", 2 * MIB), ("batch", 33 * MIB), ("queue", 2 * MIB), ("url", 100_000)]
)
@pytest.mark.parametrize("framing", ["announced", "sent", "chunked"])
def test_a_body_too_large_is_refused(
    quiet: Partner, unchanged: Check, call: str, size: int, framing: str
) -> None:
    service = quiet.service
    path, method = getattr(quiet, call), "PATCH" if call == "url" else "POST"
    headers = (("Authorization", f"Bearer {service.admin.token}"), JSON)
    body = with_payload(b'"' + b"x" * size + b'"')
    match framing:
        case "announced":
            request = a_request(method, path, None, (*headers, ("Content-Length", str(len(body)))))
        case "sent":
            request = a_request(method, path, body, headers)
        case _:
            head = a_request(method, path, None, (*headers, ("Transfer-Encoding", "chunked")))
            request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    reply = exchange(service.port, request)

    assert (reply.status, reply.error_code) == (413, TOO_LARGE)
    assert reply.header("connection") == "close"
    unchanged()


def test_a_body_cut_short_stores_nothing(service: Service, quiet: Partner, unchanged: Check) -> None:
    headers = (("Authorization", f"Bearer {service.admin.token}"), JSON, ("Content-Length", "9999"))
    request = a_request("POST", quiet.deliveries, None, headers) + with_payload(b"1")

    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass  # whatever it says, until it closes
    unchanged()


@pytest.mark.parametrize("chunks", [1, 7, 5000])
def test_a_body_in_chunks_is_one_body(service: Service, quiet: Partner, chunks: int) -> None:
    body = with_payload(b'"' + b"x" * 200_000 + b'"')
    step = -(-len(body) // chunks)
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    headers = (("Authorization", f"Bearer {service.admin.token}"), JSON, ("Transfer-Encoding", "chunked"))
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)

    reply = exchange(service.port, a_request("POST", quiet.deliveries, None, headers) + coded + b"0\r\n\r\n")

    assert reply.status == 202
    assert quiet.items()[0]["payload_snapshot"]["size"] == 200_002


def in_base64(text: Any, content_type: Any = "a/b") -> dict[str, Any]:
    return {"event_type": "a", "payload_base64": text, "content_type": content_type}


ENVELOPES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("nothing", {}, ["/event_type", "/payload"]),
    ("no payload", {"event_type": "a"}, ["/payload"]),
    ("no event_type", {"payload": 1}, ["/event_type"]),
    ("unknown field", a_delivery(extra=1), ["/extra"]),
    ("unknown fields", a_delivery(**{"x/y": 1, "a~b": 2}), ["/a~0b", "/x~1y"]),
    ("idempotency_key in the body", a_delivery(idempotency_key="k"), ["/idempotency_key"]),
    ("event_type a number", a_delivery(event_type=1), ["/event_type"]),
    ("event_type null", a_delivery(event_type=None), ["/event_type"]),
    ("event_type empty", a_delivery(event_type=""), ["/event_type"]),
    ("event_type long", a_delivery(event_type="x" * 129), ["/event_type"]),
    ("event_type with NUL", a_delivery(event_type="a\0b"), ["/event_type"]),
    ("event_type with newline", a_delivery(event_type="a\nb"), ["/event_type"]),
    ("event_type padded", a_delivery(event_type=" a"), ["/event_type"]),
    ("payload and payload_base64", a_delivery(payload_base64="AA=="), ["/payload_base64"]),
    ("payload and content_type", a_delivery(content_type="a/b"), ["/content_type"]),
    ("base64 without type", {"event_type": "a", "payload_base64": "AA=="}, ["/content_type"]),
    ("headers a list", a_delivery(headers=[]), ["/headers"]),
    ("headers null", a_delivery(headers=None), ["/headers"]),
    ("header a number", a_delivery(headers={"X-A": 1}), ["/headers"]),
    ("header with CRLF", a_delivery(headers={"X-A": "b\r\nX-B: c"}), ["/headers/X-A"]),
    ("header with NUL", a_delivery(headers={"X-A": "b\0"}), ["/headers/X-A"]),
    ("header padded", a_delivery(headers={"X-A": " b"}), ["/headers/X-A"]),
    ("header empty", a_delivery(headers={"X-A": ""}), ["/headers/X-A"]),
    ("header not ASCII", a_delivery(headers={"X-A": "é"}), ["/headers/X-A"]),
    ("header long", a_delivery(headers={"X-A": "x" * 4097}), ["/headers/X-A"]),
    ("header name with CRLF", a_delivery(headers={"X-A\r\nX-B": "c"}), ["/headers/X-A\r\nX-B"]),
    ("header name with space", a_delivery(headers={"X A": "c"}), ["/headers/X A"]),
    ("header name with colon", a_delivery(headers={"X-A:": "c"}), ["/headers/X-A:"]),
    ("header name empty", a_delivery(headers={"": "c"}), ["/headers/"]),
    ("header names alike", a_delivery(headers={"X-A": "c", "x-a": "d"}), ["/headers"]),
    ("headers too many", a_delivery(headers={f"X-{n}": "c" for n in range(33)}), ["/headers"]),
    *(
        (f"reserved {name}", a_delivery(headers={name: "x"}), [f"/headers/{name}"])
        for name in (
            "Host Content-Length TRANSFER-ENCODING Connection keep-alive TE Trailer Upgrade Expect"
            " traceparent tracestate X-Request-Id User-Agent Content-Type"
            " webhook-id Webhook-Signature webhook-anything"
        ).split()
    ),
    *(
        (f"base64 {text!r}", in_base64(text), ["/payload_base64"])
        for text in ("AA", "AA=", "A", "====", "AA==AA==", "A A=", "AA==\n", "-_-_", "é", None, 1)
    ),
    *(
        (f"type {text!r}", in_base64("AA==", text), ["/content_type"])
        for text in ("", "a", "a/", "/b", "a/b\r\nX: y", "a /b", "a/b;é", "x" * 300, 1)
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "pointers"), [case[1:] for case in ENVELOPES], ids=[case[0] for case in ENVELOPES]
)
@pytest.mark.parametrize("call", ["deliveries", "batch", "queue"])
def test_an_invalid_envelope_is_refused_with_a_pointer(
    quiet: Partner, call: str, document: dict[str, Any], pointers: list[str]
) -> None:
    if call == "batch":
        if "idempotency_key" in document:
            return  # which an element of a batch may have
        reply = quiet.service.admin.post(quiet.batch, {"deliveries": [a_delivery(), document]})
        accepted, refused = reply.json()["deliveries"]
        assert [item["recovery_id"] for item in quiet.items()] == [accepted["recovery_id"]]
        pointers = [f"/deliveries/1{pointer}" for pointer in pointers]
    else:
        given = document | {"status": "dlq"} if call == "queue" else document
        refused = quiet.service.admin.post(getattr(quiet, call), given).json()
        assert quiet.items() == []

    assert (refused["status"], refused["error_code"]) == (400, INVALID)
    assert [fault["pointer"] for fault in refused["errors"]] == pointers


def test_duplicate_header_names_in_a_body_are_refused(service: Service, quiet: Partner) -> None:
    body = b'{"event_type":"a","payload":1,"headers":{"X-A":"1","X-A":"2"}}'

    reply = service.admin.send("POST", quiet.deliveries, body, JSON)

    assert reply.pointers == ["/headers"]


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_holds_1_to_1000(quiet: Partner, unchanged: Check, count: int) -> None:
    reply = quiet.service.admin.post(quiet.batch, {"deliveries": [a_delivery()] * count})

    assert (reply.error_code, reply.pointers) == (INVALID, ["/deliveries"])
    unchanged()


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({}, ["/deliveries"]),
        ({"deliveries": None}, ["/deliveries"]),
        ({"deliveries": {}}, ["/deliveries"]),
        ({"deliveries": [], "more": 1}, ["/more"]),
    ],
)
def test_a_batch_that_is_none_is_refused(
    quiet: Partner, unchanged: Check, document: dict[str, Any], pointers: list[str]
) -> None:
    reply = quiet.service.admin.post(quiet.batch, document)

    assert reply.error_code == INVALID
    assert set(pointers) <= set(reply.pointers)
    unchanged()


def test_a_batch_of_1000_with_bad_elements_answers_each_in_order(quiet: Partner) -> None:
    good = [a_delivery(n) for n in range(1_000)]
    batch: list[Any] = [*good]
    batch[0], batch[500], batch[999] = 1, [], a_delivery(idempotency_key="not one")

    reply = quiet.service.admin.post(quiet.batch, {"deliveries": batch})

    shown = reply.json()["deliveries"]
    refused = {at: one["errors"][0]["pointer"] for at, one in enumerate(shown) if "error_code" in one}
    assert reply.status == 202
    assert refused == {0: "/deliveries/0", 500: "/deliveries/500", 999: "/deliveries/999/idempotency_key"}
    for at in (1, 499, 998):
        assert quiet.item(shown[at]["recovery_id"])["payload_snapshot"]["body"] == at


IMPORTS: list[tuple[str, dict[str, Any], list[str]]] = [
    *((f"status {status!r}", an_import(status=status), ["/status"]) for status in
      ("pending", "retrying", "succeeded", "replayed", "DLQ", "", None, 1)),
    ("no status", a_delivery(), ["/status"]),
    ("unknown field", an_import(cycle=2), ["/cycle"]),
    *((f"attempt_count {count!r}", an_import(attempt_count=count), ["/attempt_count"]) for count in
      (-1, 1_001, 1.5, "1", None, True, 10**30)),
    *((f"failure_code {code!r}", an_import(failure_code=code), ["/failure_code"]) for code in
      ("", "HTTP_99", "HTTP_600", "HTTP_0503", "http_503", "EWHATEVER", "HTTP_٥٠٣", 503)),
    *((f"failure_detail {text!r}", an_import(failure_detail=text), ["/failure_detail"]) for text in
      ("", " a", "a\nb", "a\0", "x" * 2_001, 1)),
    *((f"last_http_status {code!r}", an_import(last_http_status=code), ["/last_http_status"]) for code in
      (0, 99, 600, "503", 503.5, True)),
    *((f"occurred_at {text!r}", an_import(occurred_at=text), ["/occurred_at"]) for text in
      ("", "yesterday", "2026-03-01", "2026-03-01T14:02:11", "2026-02-30T14:02:11Z", "2026-03-01 14:02:11Z",
       "2026-03-01T25:02:11Z", "٢٠٢٦-03-01T14:02:11Z", "0001-01-01T00:00:00+01:00", 1_772_373_731)),
    *((repr(snapshot)[:60], an_import(last_http_status=500, response_snapshot=snapshot), [pointer])
      for snapshot, pointer in [
          (1, "/response_snapshot"),
          ([], "/response_snapshot"),
          ({}, "/response_snapshot/body"),
          ({"body": "x", "more": 1}, "/response_snapshot"),
          ({"body": 1}, "/response_snapshot/body"),
          ({"body": "x", "encoding": "hex"}, "/response_snapshot/encoding"),
          ({"body": "x", "encoding": "base64"}, "/response_snapshot/body"),
          ({"body": "x" * 65_537}, "/response_snapshot/body"),
          ({"body": "x", "status": 99}, "/response_snapshot/status"),
          ({"body": "x", "status": "500"}, "/response_snapshot/status"),
          ({"body": "x", "headers": {}}, "/response_snapshot/headers"),
          ({"body": "x", "truncated": "no"}, "/response_snapshot/truncated"),
      ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "pointers"), [case[1:] for case in IMPORTS], ids=[case[0] for case in IMPORTS]
)
def test_an_invalid_import_is_refused_with_a_pointer(
    quiet: Partner, unchanged: Check, document: dict[str, Any], pointers: list[str]
) -> None:
    reply = quiet.service.admin.post(quiet.queue, document)

    assert (reply.status, reply.error_code) == (400, INVALID)
    assert reply.pointers == pointers
    unchanged()


def test_a_name_twice_in_an_imported_answer_is_refused(service: Service, quiet: Partner) -> None:
    twice = b'{"status":500,"body":"a","body":"b"}'
    body = b'{"event_type":"a","payload":1,"status":"dlq","response_snapshot":%b}' % twice

    reply = service.admin.send("POST", quiet.queue, body, JSON)

    assert (reply.status, reply.pointers) == (400, ["/response_snapshot"])


REASONS: dict[str, Any] = {
    "empty": "", "a space": " ", "blank": "\u3000", "no-break space": "\u00a0", "padded before": " a",
    "padded after": "a ", "padded with a tab": "a\t", "257 long": "x" * 257, "newline": "a\nb", "NUL": "a\0b",
    "escape": "a\x1bb", "delete": "a\x7fb", "C1": "a\x85b", "U+2028": "a\u2028b", "U+2029": "a\u2029b",
    "a number": 1, "null": None, "a list": ["a"],
}  # fmt: skip


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS.keys())
@pytest.mark.parametrize("verb", ["replay", "resolve"])
def test_an_invalid_reason_is_refused(quiet: Partner, verb: str, reason: Any) -> None:
    recovery_id = quiet.hand_over()
    before = quiet.facts()

    reply = getattr(quiet, verb)(recovery_id, reason)

    assert (reply.status, reply.error_code) == (400, INVALID)
    assert reply.pointers == ["/reason"]
    assert quiet.facts() == before


@pytest.mark.parametrize(
    "reason", ["x", "x" * 256, "😀" * 256, "é ü", 'don\'t "quote" \\ / <b>', "👩\u200d🔧 fixed it"]
)
@pytest.mark.parametrize("verb", ["replay", "resolve"])
def test_a_reason_of_up_to_256_characters_is_kept_as_it_is(quiet: Partner, verb: str, reason: str) -> None:
    recovery_id = quiet.hand_over()

    reply = getattr(quiet, verb)(recovery_id, reason)

    assert (reply.status, reply.json()["reason"]) == (200, reason)
    assert quiet.service.events(target_id=recovery_id)[-1]["metadata"]["reason"] == reason


@pytest.mark.parametrize(
    "body", [{}, {"reason": "a", "force": True}, {"Reason": "a"}, {"reason": "a", "reasons": 1}]
)
@pytest.mark.parametrize("verb", ["replay_url", "resolve_url"])
def test_a_replay_and_a_resolve_take_a_reason_and_nothing_else(quiet: Partner, verb: str, body: Any) -> None:
    recovery_id = quiet.hand_over()
    before = quiet.facts()

    reply = quiet.service.admin.post(getattr(quiet, verb)(recovery_id), body)

    assert (reply.status, reply.error_code) == (400, INVALID)
    assert quiet.facts() == before


INTEGRATION_FAULTS: list[tuple[str, Any, str]] = [
    *(("url", url, "/url") for url in
      ("", "x", "ftp://a.example/", "//a.example", "https://", "https://user:pw@a.example/", "https://a.example/#x",
       "https://a.example/ x", "https://a.example/\r\n", "https://é.example/", "http://0x7f.1/", "http://127.1/",
       "http://2130706433/", "https://a.example:0/", "https://a.example:65536/", "https://a_b..c/", "http://[::1",
       "https://a.example/\\", "https://a.example/" + "x" * 2_048, 1, None)),
    *(("name", name, "/name") for name in ("", " a", "a\n", "x" * 129, 1, None)),
    *(("method", method, "/method") for method in ("GET", "DELETE", "post", "", 1, None)),
    *(("auth_mode", mode, "/auth_mode") for mode in ("HMAC", "", "digest", 1, None)),
    *(("lifecycle_status", status, "/lifecycle_status") for status in ("ACTIVE", "deleted", "", 1, None)),
    *(("timeout_seconds", value, "/timeout_seconds") for value in (0, -1, 60.1, "15", True)),
    *(("max_attempts", value, "/max_attempts") for value in (0, -1, 101, 1.5, "5", True, 10**30)),
    *(("base_delay_seconds", value, "/base_delay_seconds") for value in (0, -1, 86_401, "1")),
    *(("jitter", value, "/jitter") for value in (-0.1, 1.1, "0")),
    *(("concurrency", value, "/concurrency") for value in (0, 10_001, 1.5)),
    *(("rate_per_second", value, "/rate_per_second") for value in (0, -1, 10**6, "1")),
    ("retryable_network_codes", ["EWHATEVER"], "/retryable_network_codes"),
    ("retryable_network_codes", ["TLS_ERROR"], "/retryable_network_codes"),
    ("retryable_network_codes", "EPIPE", "/retryable_network_codes"),
    ("retryable_network_codes", [1], "/retryable_network_codes"),
    ("health_url", "x", "/health_url"),
    ("headers", {"X-A": "a\r\nb"}, "/headers/X-A"),
    ("headers", {"webhook-id": "a"}, "/headers/webhook-id"),
    ("headers", {"Authorization": 1}, "/headers"),
    ("secret", "plain", "/secret"),
    ("secret", "whsec_", "/secret"),
    ("secret", "whsec_" + base64.b64encode(b"x" * 23).decode(), "/secret"),
    ("secret", "whsec_" + base64.b64encode(b"x" * 65).decode(), "/secret"),
    ("secret", None, "/secret"),
    ("unknown", 1, "/unknown"),
    ("created_at", "2026-03-01T14:02:11Z", "/created_at"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "pointer"), INTEGRATION_FAULTS)
def test_an_invalid_integration_is_refused_created_or_changed(
    quiet: Partner, unchanged: Check, field: str, value: Any, pointer: str
) -> None:
    service = quiet.service
    document = {"integration_id": "never-made", "url": "https://partner.example/", field: value}

    created = service.admin.post(INTEGRATIONS, document)
    changed = service.admin.patch(quiet.url, {field: value})

    for reply in (created, changed):
        assert (reply.status, reply.error_code) == (400, INVALID), reply
        assert [found[: len(pointer)] for found in reply.pointers] == [pointer]
    unchanged()


@pytest.mark.parametrize(
    "integration_id", ["", "A", "-a", "a-", ".a", "a_", "a/b", "a b", "é", "a\n", "x" * 65, 1, None]
)
def test_an_invalid_integration_id_is_refused(
    service: Service, unchanged: Check, integration_id: Any
) -> None:
    reply = service.admin.post(INTEGRATIONS, {"integration_id": integration_id, "url": "https://a.example/"})

    assert (reply.error_code, reply.pointers) == (INVALID, ["/integration_id"])
    unchanged()


@pytest.mark.parametrize("document", [{}, {"integration_id": "a"}, {"url": "https://a.example/"}])
def test_an_integration_without_id_or_url_is_refused(service: Service, document: Any) -> None:
    assert service.admin.post(INTEGRATIONS, document).error_code == INVALID


def test_a_change_of_nothing_is_refused(quiet: Partner, unchanged: Check) -> None:
    assert quiet.change().error_code == INVALID
    unchanged()


def test_the_integration_id_cannot_be_changed(quiet: Partner, unchanged: Check) -> None:
    assert quiet.change(integration_id="other").pointers == ["/integration_id"]
    unchanged()


def test_a_base_delay_longer_than_the_longest_delay_is_refused(quiet: Partner, unchanged: Check) -> None:
    assert quiet.change(base_delay_seconds=9, max_delay_seconds=8).pointers == ["/base_delay_seconds"]
    unchanged()


def test_every_fault_is_told_at_once(quiet: Partner) -> None:
    document = json.dumps(
        {"event_type": "", "payload_base64": "?", "headers": {"Host": "a"}, "x": 1}
    ).encode()

    reply = quiet.service.admin.send("POST", quiet.deliveries, document, JSON)

    assert set(reply.pointers) == {"/x", "/event_type", "/payload_base64", "/content_type", "/headers/Host"}
