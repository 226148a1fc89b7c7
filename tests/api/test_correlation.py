"""X-Request-Id, traceparent and tracestate: accepted, echoed, stored, and carried on."""

import re

import pytest

from tests.api.loops import until
from tests.api.service import INTEGRATIONS, Partner, Service
from tests.api.shapes import REQUEST_ID, TRACEPARENT
from tests.api.wire import exchange

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.mark.parametrize("request_id", ["a", "req-1", "A.b_c:d-9", "x" * 128])
def test_a_valid_request_id_is_echoed_in_header_and_body(service: Service, request_id: str) -> None:
    for path in ("/healthz", "/nowhere", INTEGRATIONS):
        reply = service.admin.get(path, ("X-Request-Id", request_id))

        assert reply.header("x-request-id") == request_id
        assert reply.json()["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id",
    ["", "x" * 129, "a b", "a/b", "a,b", "\u00e9", "\u00c3\u00a9", "a\tb", "{}", "a\x0bb", "a%0Ab"],
)
def test_an_invalid_request_id_is_replaced(service: Service, request_id: str) -> None:
    reply = service.admin.get("/healthz", ("X-Request-Id", request_id))

    if reply.status == 400:  # the HTTP parser refuses control characters itself
        assert request_id not in reply.body.decode()
        return
    assert reply.header("x-request-id") == REQUEST_ID
    assert reply.json()["request_id"] == reply.header("x-request-id")


def test_a_repeated_request_id_is_replaced(service: Service) -> None:
    reply = service.admin.get("/healthz", ("X-Request-Id", "one"), ("X-Request-Id", "two"))

    assert reply.header("x-request-id") == REQUEST_ID


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r\n ", b"\r"])
def test_a_newline_in_a_request_id_injects_nothing(service: Service, newline: bytes) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: a" + newline + b"X-Evil: b\r\n\r\n"

    reply = exchange(service.port, request)

    assert reply.header("x-evil") is None
    assert reply.status == 400 or reply.header("x-request-id") in ("a", REQUEST_ID)


def test_two_calls_without_a_request_id_get_two(service: Service) -> None:
    first, second = (service.nobody.get("/healthz").header("x-request-id") for _ in range(2))

    assert first != second


def test_a_valid_traceparent_is_echoed(service: Service) -> None:
    assert service.nobody.get("/healthz", ("traceparent", GIVEN)).header("traceparent") == GIVEN


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        f"00-{TRACE_ID}-{PARENT_ID}",
        f"00-{TRACE_ID}-{PARENT_ID}-1",
        f"00-{TRACE_ID}-{PARENT_ID}-0g",
        f"00-{TRACE_ID}-{PARENT_ID}-01-",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[1:]}-{PARENT_ID}-01",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"0-{TRACE_ID}-{PARENT_ID}-01",
        f"00_{TRACE_ID}_{PARENT_ID}_01",
        f"00-{TRACE_ID}-{PARENT_ID}-01,00-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-\u00b90",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(service: Service, traceparent: str) -> None:
    reply = service.nobody.get("/healthz", ("traceparent", traceparent))

    assert reply.header("traceparent") == TRACEPARENT
    assert TRACE_ID not in (reply.header("traceparent") or "")


def test_a_repeated_traceparent_starts_a_new_trace(service: Service) -> None:
    reply = service.nobody.get("/healthz", ("traceparent", GIVEN), ("traceparent", GIVEN))

    assert TRACE_ID not in (reply.header("traceparent") or "")


def test_a_later_version_of_traceparent_keeps_its_trace(service: Service) -> None:
    later = f"cc-{TRACE_ID}-{PARENT_ID}-01-what-the-future-holds"

    assert service.nobody.get("/healthz", ("traceparent", later)).header("traceparent") == GIVEN


def test_an_attempt_carries_the_trace_as_a_new_span_and_the_request_id(partner: Partner) -> None:
    state = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    recovery_id = partner.deliver(
        1, ("X-Request-Id", "carried-1"), ("traceparent", GIVEN), ("tracestate", state)
    )

    item = partner.becomes(recovery_id, "succeeded")
    [sent] = partner.received
    assert (item["request_id"], item["traceparent"]) == ("carried-1", GIVEN)
    assert sent.header("x-request-id") == "carried-1"
    assert sent.header("tracestate") == state
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-01", sent.header("traceparent") or "")
    assert PARENT_ID not in (sent.header("traceparent") or "")


def test_each_attempt_is_a_span_of_its_own_and_is_remembered(partner: Partner) -> None:
    partner.answers(503, 503, 200)
    recovery_id = partner.deliver(1, ("traceparent", GIVEN))

    partner.becomes(recovery_id, "succeeded")
    spans = [(sent.header("traceparent") or "").split("-")[2] for sent in partner.received]
    assert len(set(spans)) == 3
    assert [attempt["span_id"] for attempt in partner.show(recovery_id)["attempts"]] == spans


def test_several_tracestate_headers_are_carried_as_one_list(partner: Partner) -> None:
    partner.deliver(1, ("traceparent", GIVEN), ("tracestate", "a=1"), ("tracestate", "b=2"))

    [sent] = until(lambda: partner.received)
    assert (sent.header("tracestate") or "").replace(" ", "") == "a=1,b=2"


@pytest.mark.parametrize(
    "state", ["=1", "a", "a=1,a=2", "A=1", "a=\u00e9", ",".join(f"k{n}=1" for n in range(33))]
)
def test_a_malformed_tracestate_is_left_out(partner: Partner, state: str) -> None:
    partner.deliver(1, ("traceparent", GIVEN), ("tracestate", state))

    [sent] = until(lambda: partner.received)
    assert sent.header("tracestate") is None
    assert TRACE_ID in (sent.header("traceparent") or "")


def test_a_tracestate_without_its_traceparent_is_left_out(partner: Partner) -> None:
    partner.deliver(1, ("tracestate", "a=1"))

    [sent] = until(lambda: partner.received)
    assert sent.header("tracestate") is None


def test_a_replay_carries_its_own_request_id_and_the_trace_of_the_delivery(partner: Partner) -> None:
    replaying = f"00-{'1' * 32}-{'2' * 16}-00"
    recovery_id = partner.hand_over(("X-Request-Id", "first-call"), ("traceparent", GIVEN))

    partner.replay(recovery_id, "it is back", ("X-Request-Id", "second-call"), ("traceparent", replaying))

    item = partner.becomes(recovery_id, "succeeded")
    [sent] = partner.received
    assert sent.header("x-request-id") == "second-call"
    assert TRACE_ID in (sent.header("traceparent") or "")
    assert (item["request_id"], item["traceparent"]) == ("second-call", GIVEN)
    replayed, succeeded = partner.service.events(request_id="second-call")
    assert (replayed["traceparent"], succeeded["traceparent"]) == (replaying, GIVEN)
    assert {event["source_request_id"] for event in (replayed, succeeded)} == {"first-call"}
