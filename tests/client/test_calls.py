"""Each method makes the call the contract names."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redrive.client import Answer, BadArgument, Client
from redrive.client.bodies import write_batch, write_delivery
from tests.client.peer import Canned, Peer

ROOT = "/platform/integrations"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPLAYS = f"{ROOT}/b/recovery/replays"
PAGE: dict[str, Any] = {name: [] for name in ("queue", "groups", "replays", "items", "events")} | {
    "next_cursor": None
}
Call = Callable[[Client], Answer | Iterator[Any]]


CALLS: list[tuple[Call, str, Any]] = [
    (lambda c: c.integrations(), f"GET {ROOT}", None),
    (lambda c: c.integration("b"), f"GET {ROOT}/b", None),
    (lambda c: c.create_integration(url="u"), f"POST {ROOT}", {"url": "u"}),
    (lambda c: c.update_integration("b", jitter=None), f"PATCH {ROOT}/b", {"jitter": None}),
    (lambda c: c.queue("b", status="dlq"), f"GET {ROOT}/b/recovery/queue?status=dlq", None),
    (lambda c: c.item("b", "r"), f"GET {ROOT}/b/recovery/queue/r", None),
    (lambda c: c.replay("b", "r", "why"), f"POST {ROOT}/b/recovery/queue/r/replay", {"reason": "why"}),
    (lambda c: c.resolve("b", "r", "why"), f"POST {ROOT}/b/recovery/queue/r/resolve", {"reason": "why"}),
    (lambda c: c.queue("b", group="g"), f"GET {ROOT}/b/recovery/queue?group=g", None),
    (lambda c: c.groups("b", state="open"), f"GET {ROOT}/b/recovery/groups?state=open", None),
    (lambda c: c.group("b", "g", limit=3), f"GET {ROOT}/b/recovery/groups/g?limit=3", None),
    (lambda c: c.acknowledge_group("b", "g"), f"POST {ROOT}/b/recovery/groups/g/acknowledge", {}),
    (
        lambda c: c.acknowledge_group("b", "g", "why"),
        f"POST {ROOT}/b/recovery/groups/g/acknowledge",
        {"reason": "why"},
    ),
    (
        lambda c: c.resolve_group("b", "g", "why"),
        f"POST {ROOT}/b/recovery/groups/g/resolve",
        {"reason": "why"},
    ),
    (lambda c: c.reopen_group("b", "g", "why"), f"POST {ROOT}/b/recovery/groups/g/reopen", {"reason": "why"}),
    (lambda c: c.mute_group("b", "g", None), f"POST {ROOT}/b/recovery/groups/g/mute", {"until": None}),
    (
        lambda c: c.mute_group("b", "g", datetime(2026, 1, 2, tzinfo=UTC), "why"),
        f"POST {ROOT}/b/recovery/groups/g/mute",
        {"until": "2026-01-02T00:00:00.000Z", "reason": "why"},
    ),
    (lambda c: c.comment_on_group("b", "g", "t"), f"POST {ROOT}/b/recovery/groups/g/comment", {"text": "t"}),
    (
        lambda c: c.edit("b", "r", "why", payload=None, headers={"X-A": "b"}, incident="INC-1"),
        f"POST {ROOT}/b/recovery/queue/r/edit",
        {"reason": "why", "payload": None, "headers": {"X-A": "b"}, "incident": "INC-1"},
    ),
    (
        lambda c: c.edit("b", "r", "why", headers={}),
        f"POST {ROOT}/b/recovery/queue/r/edit",
        {"reason": "why", "headers": {}},
    ),
    (
        lambda c: c.import_delivery("b", {"event_type": "t", "payload": 1, "status": "dlq"}),
        f"POST {ROOT}/b/recovery/queue",
        {"event_type": "t", "payload": 1, "status": "dlq"},
    ),
    (lambda c: c.containment("b"), f"GET {ROOT}/b/containment", None),
    (lambda c: c.integration_health("b"), f"GET {ROOT}/b/health", None),
    (lambda c: c.probe("b"), f"POST {ROOT}/b/probe", {}),
    (
        lambda c: c.probe("b", recovery_id="rec_1", reason="why"),
        f"POST {ROOT}/b/probe",
        {"recovery_id": "rec_1", "reason": "why"},
    ),
    (lambda c: c.contain("b", "why"), f"POST {ROOT}/b/containment", {"reason": "why"}),
    (
        lambda c: c.contain("b", "why", mode="reject", owner="ada", until=NOON, incident="4711"),
        f"POST {ROOT}/b/containment",
        {
            "reason": "why",
            "mode": "reject",
            "owner": "ada",
            "until": "2026-03-01T12:00:00.000Z",
            "incident": "4711",
        },
    ),
    (
        lambda c: c.contain("b", "why", for_seconds=60),
        f"POST {ROOT}/b/containment",
        {"reason": "why", "for_seconds": 60},
    ),
    (lambda c: c.release("b", "why"), f"POST {ROOT}/b/containment/release", {"reason": "why"}),
    (
        lambda c: c.release("b", "why", rate_per_second=5.0, dry_run=True),
        f"POST {ROOT}/b/containment/release",
        {"reason": "why", "rate_per_second": 5.0, "dry_run": True},
    ),
    (
        lambda c: c.deliver("b", event_type="t", payload=1, headers={"X-A": "b"}),
        f"POST {ROOT}/b/deliveries",
        {"event_type": "t", "payload": 1, "headers": {"X-A": "b"}},
    ),
    (
        lambda c: c.deliver_batch("b", [{"event_type": "t", "payload": 1}]),
        f"POST {ROOT}/b/deliveries/batch",
        {"deliveries": [{"event_type": "t", "payload": 1}]},
    ),
    (
        lambda c: c.rotate_secret("b", signature_scheme="v1a", overlap_seconds=60),
        f"POST {ROOT}/b/secrets/rotate",
        {"signature_scheme": "v1a", "overlap_seconds": 60},
    ),
    (lambda c: c.queue_all("b"), f"GET {ROOT}/b/recovery/queue?limit=200", None),
    (lambda c: c.erase("b", "r", "why"), f"POST {ROOT}/b/recovery/queue/r/erase", {"reason": "why"}),
    (lambda c: c.groups_all("b", limit=9), f"GET {ROOT}/b/recovery/groups?limit=9", None),
    (
        lambda c: c.plan_replay("b", status="dlq", since=NOON),
        f"POST {REPLAYS}",
        {"filter": {"status": "dlq", "since": "2026-03-01T12:00:00.000Z"}},
    ),
    (
        lambda c: c.run_replay("b", "5c1e", "why", rate=2.0),
        f"POST {REPLAYS}",
        {"plan_digest": "5c1e", "reason": "why", "rate": 2.0},
    ),
    (lambda c: c.replays("b", limit=3), f"GET {REPLAYS}?limit=3", None),
    (lambda c: c.replays_all("b"), f"GET {REPLAYS}?limit=200", None),
    (lambda c: c.replay_job("b", "j"), f"GET {REPLAYS}/j", None),
    (lambda c: c.replay_items("b", "j", state="failed"), f"GET {REPLAYS}/j/items?state=failed", None),
    (
        lambda c: c.replay_items_all("b", "j", state="failed"),
        f"GET {REPLAYS}/j/items?limit=200&state=failed",
        None,
    ),
    (lambda c: c.pause_replay("b", "j"), f"POST {REPLAYS}/j/pause", {}),
    (lambda c: c.resume_replay("b", "j"), f"POST {REPLAYS}/j/resume", {}),
    (lambda c: c.cancel_replay("b", "j"), f"POST {REPLAYS}/j/cancel", {}),
    (lambda c: c.pace_replay("b", "j", None), f"POST {REPLAYS}/j/rate", {"rate": None}),
    (lambda c: c.evidence("b", "r"), f"GET {ROOT}/b/recovery/queue/r/evidence", None),
    (
        lambda c: c.audit_export(incident="INC-1", until=NOON),
        "GET /platform/audit/export?incident=INC-1&until=2026-03-01T12%3A00%3A00.000Z",
        None,
    ),
    (lambda c: c.audit_events_all(actor="ann"), "GET /platform/audit/events?limit=200&actor=ann", None),
    (lambda c: c.audit_events(request_id="r"), "GET /platform/audit/events?request_id=r", None),
    (lambda c: c.health(), "GET /healthz", None),
    (lambda c: c.ready(), "GET /readyz", None),
]


@pytest.mark.parametrize(("call", "line", "body"), CALLS)
def test_a_method_makes_its_call(peer: Peer, client: Client, call: Call, line: str, body: Any) -> None:
    peer.answer(PAGE)

    list(call(client))  # an iterator asks when it is read

    assert f"{peer.last.method} {peer.last.path}" == line
    assert (peer.last.json() if peer.last.body else None) == body


def test_every_method_has_a_row() -> None:
    class Names:
        def __init__(self) -> None:
            self.called: set[str] = set()

        def __getattr__(self, name: str) -> Any:
            self.called.add(name)
            return lambda *_, **__: None

    names: Any = Names()
    for call, _, _ in CALLS:
        call(names)

    assert names.called == {name for name in dir(Client) if not name.startswith("_")} - {"close"}


def test_a_call_says_who_asks_and_under_which_ids(peer: Peer, client: Client) -> None:
    client.replay("b", "rec_1", "why", idempotency_key="k-1", request_id="req-7", traceparent="00-a-b-01")

    assert peer.last.headers["authorization"] == "Bearer rdr_secret"
    assert peer.last.headers["idempotency-key"] == "k-1"
    assert peer.last.headers["x-request-id"] == "req-7"
    assert peer.last.headers["traceparent"] == "00-a-b-01"
    assert peer.last.headers["content-type"] == "application/json"


def test_a_payload_given_as_bytes_is_sent_untouched(peer: Peer, client: Client) -> None:
    payload = b'{ "n": 1.0000000000000000001, "n": 2 ,"\\u00e9": "\xc3\xa9" }'

    client.deliver("b", event_type="t", payload_json=payload)

    assert peer.last.body == b'{"event_type":"t","payload":' + payload + b"}"


def test_a_batch_holds_payloads_and_written_deliveries_untouched(peer: Peer, client: Client) -> None:
    written = b'{"payload": 1e400 ,"event_type":"t"}'

    client.deliver_batch(
        "b", [written, {"event_type": "t", "payload_json": b" 1.50 ", "idempotency_key": "k"}]
    )

    assert peer.last.path == f"{ROOT}/b/deliveries/batch"
    assert peer.last.body == (
        b'{"deliveries":[' + written + b',{"event_type":"t","payload": 1.50 ,"idempotency_key":"k"}]}'
    )


@given(st.lists(st.text(max_size=20).map(lambda text: json.dumps({"t": text}).encode()), max_size=5))
@settings(max_examples=50)
def test_every_batch_is_json_that_holds_each_payload_verbatim(payloads: list[bytes]) -> None:
    body = write_batch([{"event_type": "t", "payload_json": payload} for payload in payloads])

    assert [one["payload"] for one in json.loads(body)["deliveries"]] == [json.loads(p) for p in payloads]
    assert body.count(b'{"event_type":"t","payload":') >= len(payloads)


def test_null_is_a_payload() -> None:
    assert write_delivery({"event_type": "t", "payload": None}) == b'{"event_type":"t","payload":null}'


def test_bytes_for_payload_base64_are_encoded(peer: Peer, client: Client) -> None:
    client.deliver("b", event_type="t", payload_base64=b"\x00\xff", content_type="application/octet-stream")

    assert peer.last.json() == {
        "event_type": "t",
        "payload_base64": "AP8=",
        "content_type": "application/octet-stream",
    }


def test_a_query_writes_flags_and_instants_as_the_service_reads_them(peer: Peer, client: Client) -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)

    client.queue("b", held=True, resolved=False, since=since, until=None, event_type="a&b")

    assert dict(parse_qsl(urlsplit(peer.last.path).query)) == {
        "held": "true",
        "resolved": "false",
        "since": "2026-01-02T03:04:05.678Z",
        "event_type": "a&b",
    }


def test_an_iterator_reads_every_page(peer: Peer, client: Client) -> None:
    peer.answer({"queue": [{"recovery_id": "c"}, {"recovery_id": "b"}], "next_cursor": "next"})
    peer.answer({"queue": [], "next_cursor": "last"})
    peer.answer({"queue": [{"recovery_id": "a"}], "next_cursor": None})

    found = [item["recovery_id"] for item in client.queue_all("b", status="dlq")]

    assert found == ["c", "b", "a"]
    assert [request.path.partition("?")[2] for request in peer.received] == [
        "limit=200&status=dlq",
        "limit=200&status=dlq&cursor=next",
        "limit=200&status=dlq&cursor=last",
    ]


def test_an_answer_keeps_the_text_it_came_as(peer: Peer, client: Client) -> None:
    peer.answers.append(Canned(200, b'{ "n": 1.0 }', {"Idempotency-Replayed": "true"}))

    answer = client.health()

    assert answer == {"n": 1.0}
    assert answer.raw == b'{ "n": 1.0 }'
    assert answer.is_repeated


def test_an_id_cannot_leave_its_place_in_the_path(peer: Peer, client: Client) -> None:
    client.item("a/../b", "x?y#z\n")

    assert peer.last.path == f"{ROOT}/a%2F..%2Fb/recovery/queue/x%3Fy%23z%0A"


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.integration(""),
        lambda c: c.integration(".."),
        lambda c: c.deliver("b", event_type="t"),
        lambda c: c.deliver("b", event_type="t", payload=1, payload_json=b"1"),
        lambda c: c.deliver("b", event_type="t", payload=b"bytes"),
        lambda c: c.deliver("b", event_type="t", payload=float("nan")),
        lambda c: c.deliver("b", event_type="t", payload="\ud800"),
        lambda c: c.replay("b", "r", "why", idempotency_key="a\r\nX: y"),
        lambda c: c.replay("b", "r", "why", request_id="ü"),
        lambda c: c.queue("b", since=datetime(2026, 1, 1)),  # noqa: DTZ001  # the mistake under test
    ],
)
def test_a_bad_argument_is_told_before_anything_is_sent(
    peer: Peer, client: Client, call: Callable[[Client], Answer]
) -> None:
    with pytest.raises(BadArgument):
        call(client)

    assert peer.received == []


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://u:p@x", "http://x:99999", "http://x?y"]
)
def test_what_is_not_the_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(BadArgument):
        Client(url)


def test_a_service_may_live_under_a_path(peer: Peer) -> None:
    with Client(f"{peer.url}/redrive/") as client:
        client.health()

    assert peer.last.path == "/redrive/healthz"
    assert "authorization" not in peer.last.headers
