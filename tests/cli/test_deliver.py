"""`redrive deliver` and `redrive queue import`: bytes as they are, every line accounted for."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.cli.lines import Line, Rejection, read_lines
from tests.cli.terminal import Terminal, on_a_terminal
from tests.client.peer import Canned, Peer

TAKEN = {"recovery_id": "rec_1", "status": "pending"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


def lines_of(*payloads: str) -> bytes:
    return b"".join(b'{"event_type":"t","payload":%s}\n' % payload.encode() for payload in payloads)


def sent(peer: Peer) -> list[list[Any]]:
    """The payloads of each batch that was sent."""
    return [[one["payload"] for one in request.json()["deliveries"]] for request in peer.received]


def test_one_delivery_goes_byte_for_byte(peer: Peer, terminal: Terminal) -> None:
    peer.answer({**TAKEN, "request_id": "req-1"}, 202)

    ended = terminal.run(
        "deliver", "b", "--event-type", "t", "--payload", '{ "n": 1.00 }', "--header", "X-Team: a:b",
        "--idempotency-key", "k", "--request-id", "req-1",
    )  # fmt: skip

    assert ended.code == 0
    assert ended.out == "recovery_id  rec_1\nstatus       pending\nrequest_id   req-1\n"
    assert peer.last.body == b'{"event_type":"t","payload":{ "n": 1.00 },"headers":{"X-Team":"a:b"}}'
    assert peer.last.headers["idempotency-key"] == "k"
    assert peer.last.headers["x-request-id"] == "req-1"


def test_a_key_that_was_used_before_is_told(peer: Peer, terminal: Terminal) -> None:
    body = json.dumps({**TAKEN, "request_id": "req-1"}).encode()
    peer.answers.append(Canned(202, body, {"Idempotency-Replayed": "true"}))

    ended = terminal.run("deliver", "b", "--event-type", "t", "--payload", "1", "--idempotency-key", "k")

    assert "duplicate    yes\n" in ended.out


@pytest.mark.parametrize("given", ["event-type", "payload"])
def test_what_is_missing_of_a_delivery_is_named(terminal: Terminal, given: str) -> None:
    ended = terminal.run("deliver", "b", f"--{given}", "1")

    [missing] = {"event-type", "payload"} - {given}
    assert f"--{missing} is missing" in ended.err


def test_a_person_is_told_how_to_look_at_the_delivery(peer: Peer) -> None:
    peer.answer({**TAKEN, "request_id": "req-1"}, 202)

    printed = on_a_terminal("deliver", "b", "--event-type", "t", "--payload", "1")

    assert "next: redrive queue show b rec_1" in printed


def test_rejections_for_one_reason_are_told_once(peer: Peer, terminal: Terminal, file: Path) -> None:
    file.write_bytes(lines_of("1", "2", "3", "4"))
    for detail in ("bad", "bad", "worse"):
        peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=[{"pointer": "/status", "detail": detail}])
    peer.answer(TAKEN, 201)

    ended = terminal.run("queue", "import", "b", "--file", str(file))

    assert [line.split() for line in ended.out.splitlines()[-2:]] == [
        ["1-2", "/status:", "bad", "INT-400-INVALID-PAYLOAD"],
        ["3", "/status:", "worse", "INT-400-INVALID-PAYLOAD"],
    ]


def test_a_payload_that_is_not_json_goes_as_base64(peer: Peer, terminal: Terminal, file: Path) -> None:
    file.write_bytes(b"\x00\xff\r\n")
    peer.answer(TAKEN, 202)

    terminal.run("deliver", "b", "--event-type", "t", "--payload", f"@{file}", "--content-type", "image/x")

    assert peer.last.json() == {"event_type": "t", "payload_base64": "AP8NCg==", "content_type": "image/x"}


def test_a_file_goes_in_batches_and_its_payloads_byte_for_byte(
    peer: Peer, terminal: Terminal, file: Path
) -> None:
    file.write_bytes(lines_of('{ "a":1.0 }', "1e400") + b"\n" + lines_of('"\\u00e9 \xe9"'))
    peer.answer({"deliveries": [TAKEN, TAKEN | {"duplicate": True}]}, 202)
    peer.answer({"deliveries": [TAKEN]}, 202)

    ended = terminal.run("deliver", "b", "--file", str(file), "--batch", "2", "--key-prefix", "run")

    first, second = peer.received
    assert b'"payload_json"' not in first.body
    assert b'"payload":{ "a":1.0 }' in first.body
    assert b'"payload":1e400' in first.body
    assert '"payload":"\\u00e9 \xe9"'.encode() in second.body
    assert [one["idempotency_key"] for one in first.json()["deliveries"]] == ["run-1", "run-2"]
    assert second.json()["deliveries"][0]["idempotency_key"] == "run-4"
    assert (ended.code, ended.out) == (0, "accepted    2\nduplicates  1\nrejected    0\n")


def test_a_line_keeps_its_own_key() -> None:
    text = b'{"event_type":"t","payload":1,"idempotency_key":"mine"}'

    [line] = read_lines(io.BytesIO(text), "p")

    assert isinstance(line, Line)
    assert line.for_batch()["idempotency_key"] == "mine"


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b'{"payload":1}',
        b'{"event_type":"t"}',
        b'{"event_type":"t","payload":1,"payload_base64":""}',
        b'{"event_type":"t","payload":1,"payload_json":1}',
        b'{"event_type":"t","payload":"\xff"}',
        b'{"event_type":"t","payload":NaN}',
        b'{"event_type":"t","payload":1} {}',
        b'{"event_type":"t","payload":1,"idempotency_key":7}',
        b'{"event_type":"t","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda text: text[:40].decode("latin-1"),
)
def test_a_malformed_line_is_told_by_its_number_and_not_sent(text: bytes) -> None:
    [rejection] = read_lines(io.BytesIO(b"\n" + text), None)

    assert isinstance(rejection, Rejection)
    assert rejection.line == 2
    assert rejection.detail


@given(
    st.recursive(st.none() | st.text() | st.integers() | st.floats(allow_nan=False), st.lists, max_leaves=5)
)
def test_a_payload_is_cut_out_of_its_line_as_it_stands(payload: Any) -> None:
    text = json.dumps(payload, ensure_ascii=True, indent=None, separators=(" , ", " : ")).encode()

    [line] = read_lines(io.BytesIO(b'{"event_type":"t","payload":' + text + b"}"), None)

    assert isinstance(line, Line) or b"Infinity" in text
    if isinstance(line, Line):
        assert line.for_batch()["payload_json"].strip() == text.strip()


def test_what_was_not_taken_is_told_by_line_and_exits_6(peer: Peer, terminal: Terminal, file: Path) -> None:
    file.write_bytes(lines_of("1") + b"{oops\n" + lines_of("3"))
    fault = {"pointer": "/deliveries/1/event_type", "detail": "bad\x1b[2J"}
    refused = {"error_code": "INT-400-INVALID-PAYLOAD", "detail": "all of it", "errors": [fault]}
    peer.answer({"deliveries": [TAKEN, refused]}, 202)

    ended = terminal.run("deliver", "b", "--file", str(file))

    assert sent(peer) == [[1, 3]]
    assert ended.code == 6
    assert "accepted    1\nduplicates  0\nrejected    2\n" in ended.out
    assert "   2  not a JSON object" in ended.out
    assert "   3  /event_type: bad\\x1b[2J" in ended.out


def test_lines_that_spoil_a_batch_are_named_and_the_others_sent(
    peer: Peer, terminal: Terminal, file: Path
) -> None:
    file.write_bytes(lines_of("1", "2", "3"))
    errors = [{"pointer": "/deliveries/1/event_type", "detail": "too long"}]
    peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=errors)
    peer.answer({"deliveries": [TAKEN, TAKEN]}, 202)

    ended = terminal.run("deliver", "b", "--file", str(file), "--output", "json")

    assert sent(peer) == [[1, 2, 3], [1, 3]]
    rejection = {"line": 2, "error_code": "INT-400-INVALID-PAYLOAD", "detail": "/event_type: too long"}
    assert ended.json() == {"accepted": 2, "duplicates": 0, "rejected": 1, "rejections": [rejection]}
    assert ended.code == 6


def test_a_batch_that_is_too_large_is_halved_until_the_line_is_found(
    peer: Peer, terminal: Terminal, file: Path
) -> None:
    file.write_bytes(lines_of("1", "2", "3"))
    peer.problem(413, "INT-413-TOO-LARGE")
    peer.answer({"deliveries": [TAKEN]}, 202)
    peer.problem(413, "INT-413-TOO-LARGE")
    peer.problem(413, "INT-413-TOO-LARGE")
    peer.answer({"deliveries": [TAKEN]}, 202)

    ended = terminal.run("deliver", "b", "--file", str(file), "--output", "jsonl")

    assert sent(peer) == [[1, 2, 3], [1], [2, 3], [2], [3]]
    assert [(line["line"], "recovery_id" in line) for line in ended.lines()] == [
        (1, True),
        (2, False),
        (3, True),
    ]


def test_a_fault_of_the_call_itself_rejects_no_line(peer: Peer, terminal: Terminal, file: Path) -> None:
    file.write_bytes(lines_of("1", "2"))
    peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=[{"pointer": "/integration_id", "detail": "bad"}])

    ended = terminal.run("deliver", "B!", "--file", str(file))

    assert (ended.code, ended.out, len(peer.received)) == (2, "", 1)


def test_a_service_that_goes_away_halfway_leaves_the_count(
    peer: Peer, terminal: Terminal, file: Path
) -> None:
    file.write_bytes(lines_of("1", "2"))
    peer.answer({"deliveries": [TAKEN]}, 202)
    peer.problem(503, "INT-503-DEPENDENCY-UNAVAILABLE")

    ended = terminal.run("deliver", "b", "--file", str(file), "--batch", "1", "--key-prefix", "p")

    assert ended.code == 8
    assert "accepted    1" in ended.out
    assert "run the same command again" in ended.err


def test_too_much_at_once_is_waited_out(
    peer: Peer, terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("redrive.cli.patience.time.sleep", pauses.append)
    file.write_bytes(lines_of("1"))
    for seconds in ("3", "9999"):
        peer.answers.append(Canned(429, b'{"error_code":"INT-429-RATE-LIMITED"}', {"Retry-After": seconds}))
    peer.answer({"deliveries": [TAKEN]}, 202)

    ended = terminal.run("deliver", "b", "--file", str(file))

    assert ended.code == 0
    assert pauses == [3, 30]


def test_lines_come_from_standard_input_too(
    peer: Peer, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines_of("7"))))
    peer.answer({"deliveries": [TAKEN]}, 202)

    ended = terminal.run("deliver", "b", "--file", "-")

    assert (ended.code, sent(peer)) == (0, [[7]])


def test_an_import_goes_line_by_line_with_its_evidence(peer: Peer, terminal: Terminal, file: Path) -> None:
    file.write_bytes(
        b'{"event_type":"t","payload": 1.0,"status":"dlq","response_snapshot":{"body": 2.0 }}\n'
        b'{"event_type":"t","payload":2,"status":"sent"}\n'
    )
    peer.answer({"recovery_id": "rec_1", "status": "dlq"}, 201)
    peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=[{"pointer": "/status", "detail": "failed or dlq"}])

    ended = terminal.run("queue", "import", "b", "--file", str(file), "--key-prefix", "m", "--output", "json")

    first, second = peer.received
    assert first.body == b'{"event_type":"t","payload":1.0,"status":"dlq","response_snapshot":{"body": 2.0 }}'
    assert [r.headers["idempotency-key"] for r in (first, second)] == ["m-1", "m-2"]
    assert ended.code == 6
    assert ended.json()["rejections"][0]["line"] == 2


AWAY = {
    "unavailable": [Canned(503, b'{"error_code":"INT-503-DEPENDENCY-UNAVAILABLE"}')],
    "gone": [Canned(hangs_up=True)],
    "too busy for too long": [Canned(429, b"{}", {"Retry-After": "0"})] * 11,
}


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
@pytest.mark.parametrize("how", AWAY)
def test_an_import_that_is_cut_short_says_what_was_done(
    peer: Peer, terminal: Terminal, file: Path, how: str, output: str
) -> None:
    file.write_bytes(lines_of("1") + b"{oops\n" + lines_of("3", "4"))
    peer.answer({"recovery_id": "rec_1", "status": "dlq"}, 201)
    peer.answers += AWAY[how]

    ended = terminal.run("queue", "import", "b", "--file", str(file), "--output", output)

    assert ended.code == 8
    assert "send only the others" in ended.err
    match output:
        case "table":
            assert "accepted    1\nduplicates  0\nrejected    1\n" in ended.out
        case "json":
            assert (ended.json()["accepted"], ended.json()["rejections"][0]["line"]) == (1, 2)
        case _:
            assert [line["line"] for line in ended.lines()] == [1, 2]
