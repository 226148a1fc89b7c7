"""`redrive queue edit`: what is sent, what is told, and a key for whoever has to ask again."""

import pytest

from tests.cli.terminal import Terminal
from tests.client.peer import Peer

DONE = {
    "recovery": {"recovery_id": "rec_2", "edit_of": "rec_1", "status": "pending"},
    "edited": True,
    "reason": "a typo",
    "changes": [{"op": "replace", "path": "/payload/n", "value": 2, "was": 1}],
    "changes_omitted": 7,
    "request_id": "req-1",
}


def test_a_correction_goes_byte_for_byte_and_its_changes_are_told(peer: Peer, terminal: Terminal) -> None:
    peer.answer(DONE, 201)

    ended = terminal.run(
        "queue", "edit", "b", "rec_1", "--reason", "a typo", "--payload", '{ "n": 2.00 }',
        "--header", "X-Team: a", "--incident", "INC-1", "--idempotency-key", "k",
    )  # fmt: skip

    assert ended.code == 0
    assert peer.last.body == (
        b'{"reason":"a typo","incident":"INC-1","payload":{ "n": 2.00 },"headers":{"X-Team":"a"}}'
    )
    assert peer.last.headers["idempotency-key"] == "k"
    assert ended.out.splitlines()[-2:] == ["  replace /payload/n", "  … and 7 more"]
    assert "rec_2" in ended.out


def test_headers_are_taken_away_only_when_that_is_said(peer: Peer, terminal: Terminal) -> None:
    peer.answer(DONE, 201)
    terminal.run("queue", "edit", "b", "rec_1", "--reason", "a typo", "--payload", "1")
    as_they_are = peer.last.json()
    peer.answer(DONE, 201)
    terminal.run("queue", "edit", "b", "rec_1", "--reason", "a typo", "--no-headers")

    assert as_they_are == {"reason": "a typo", "payload": 1}
    assert peer.last.json() == {"reason": "a typo", "headers": {}}


def test_what_is_no_json_is_not_sent(peer: Peer, terminal: Terminal) -> None:
    ended = terminal.run("queue", "edit", "b", "rec_1", "--reason", "a", "--payload", "{broken")

    assert ended.code == 2
    assert "--payload is not JSON" in ended.err
    assert not peer.received


def test_some_headers_and_none_exclude_each_other(terminal: Terminal) -> None:
    ended = terminal.run("queue", "edit", "b", "rec_1", "--reason", "a", "--no-headers", "--header", "A: b")

    assert ended.code == 2


@pytest.mark.parametrize(("given", "key"), [(("--idempotency-key", "k"), "k"), ((), "cli-")])
def test_whoever_was_not_answered_is_told_how_to_ask_again(
    peer: Peer, terminal: Terminal, given: tuple[str, ...], key: str
) -> None:
    peer.problem(503, "INT-503-DEPENDENCY-UNAVAILABLE")

    ended = terminal.run("queue", "edit", "b", "rec_1", "--reason", "a typo", "--payload", "1", *given)

    assert ended.code == 8
    assert f"--idempotency-key {key}" in ended.err
