"""Groups of failures on the command line: what is asked of the service, and how its answers are shown."""

from typing import Any

import pytest

from redrive.cli.errors import ExitCode
from tests.cli.terminal import Terminal, on_a_terminal
from tests.client.peer import Peer

ROOT = "/platform/integrations/billing/recovery/groups"
GROUP: dict[str, Any] = {
    "group_id": "grp_5xk2m4q9v1c0e",
    "integration_id": "billing",
    "failure_class": "http_5xx",
    "failure_code": "HTTP_503",
    "detail": "error.code=busy",
    "fingerprint": "v1:00",
    "why_grouped": "the receiver failed at it",
    "failures": 12,
    "items": 10_000,
    "items_is_exact": False,
    "first_seen_at": "2026-01-01T00:00:00.000Z",
    "last_seen_at": "2026-01-02T00:00:00.000Z",
    "sample": "rec_0e7xk2m4q9v1c",
    "state": "open",
    "regressed": True,
    "acknowledged": None,
    "resolved": {"at": "2026-01-01T12:00:00.000Z", "by": "ann"},
    "muted_until": None,
}


def page(*groups: dict[str, Any], cursor: str | None = None) -> dict[str, Any]:
    return {"groups": list(groups), "next_cursor": cursor}


def test_groups_are_listed_with_what_waits_in_them(terminal: Terminal, peer: Peer) -> None:
    peer.answer(page(GROUP))

    ended = terminal.run("group", "list", "billing", "--state", "open")

    heading, row = ended.out.splitlines()
    assert ended.code == ExitCode.OK
    assert peer.last.path == f"{ROOT}?state=open"
    assert heading.split() == "GROUP STATE ITEMS FAILURES CODE CLASS LAST SEEN DETAIL".split()
    for told in (
        "grp_5xk2m4q9v1c0e",
        "open, regressed",
        "more than 10000",
        "12",
        "HTTP_503",
        "error.code=busy",
    ):
        assert told in row


def test_all_pages_are_one_list(terminal: Terminal, peer: Peer) -> None:
    peer.answer(page(GROUP, cursor="next"))
    peer.answer(page(GROUP))

    ended = terminal.run("group", "list", "billing", "--all", "--output", "jsonl")

    assert ended.lines() == [GROUP, GROUP]


def test_a_group_is_shown_with_why_and_what_was_written(terminal: Terminal, peer: Peer) -> None:
    comment = {"written_at": "2026-01-02T03:04:05.000Z", "written_by": "ann", "text": "two\nlines \x1b[31m"}
    peer.answer({"group": GROUP, "comments": [comment], "next_cursor": "older"})

    ended = terminal.run("group", "show", "billing", "grp_5xk2m4q9v1c0e", "--limit", "1")

    assert peer.last.path == f"{ROOT}/grp_5xk2m4q9v1c0e?limit=1"
    assert "the receiver failed at it" in ended.out
    assert "by ann at 2026-01-01 12:00:00Z" in ended.out
    assert "2026-01-02 03:04:05Z  ann\n  two\n  lines" in ended.out
    assert "\x1b" not in ended.out
    assert "--cursor older" in ended.err


@pytest.mark.parametrize(
    ("words", "verb", "body"),
    [
        (["acknowledge"], "acknowledge", {}),
        (["acknowledge", "--reason", "on it"], "acknowledge", {"reason": "on it"}),
        (["reopen", "--reason", "too soon"], "reopen", {"reason": "too soon"}),
        (["mute", "--until", "now"], "mute", {"until": None}),
        (["mute", "--until", "2100-01-01T00:00:00Z"], "mute", {"until": "2100-01-01T00:00:00Z"}),
    ],
)
def test_what_is_said_of_a_group_is_sent(
    terminal: Terminal, peer: Peer, words: list[str], verb: str, body: dict[str, Any]
) -> None:
    peer.answer({"group": GROUP})
    name, *options = words

    ended = terminal.run(
        "group", name, "billing", "grp_5xk2m4q9v1c0e", *options, "--idempotency-key", "key-1"
    )

    assert ended.code == ExitCode.OK
    assert f"{peer.last.method} {peer.last.path}" == f"POST {ROOT}/grp_5xk2m4q9v1c0e/{verb}"
    assert peer.last.json() == body
    assert peer.last.headers["idempotency-key"] == "key-1"
    assert "open, regressed" in ended.out


def test_a_duration_is_counted_from_now(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"group": GROUP})

    terminal.run("group", "mute", "billing", "grp_5xk2m4q9v1c0e", "--until", "52w", "--reason", "known")

    assert peer.last.json()["until"] > "2026-06-01T00:00:00.000Z"
    assert peer.last.json()["reason"] == "known"


def test_resolving_tells_how_many_items_were_closed(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"group": GROUP, "resolved_items": 7, "reason": "done"})

    ended = terminal.run("group", "resolve", "billing", "grp_5xk2m4q9v1c0e", "--reason", "done", "--yes")

    assert peer.last.json() == {"reason": "done"}
    assert "7" in ended.err


def test_nothing_is_closed_off_a_terminal_without_yes(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"group": GROUP, "comments": [], "next_cursor": None})

    ended = terminal.run("group", "resolve", "billing", "grp_5xk2m4q9v1c0e", "--reason", "done")

    assert ended.code == ExitCode.USAGE
    assert "give --yes" in ended.err
    assert [one.method for one in peer.received] == ["GET"]


@pytest.mark.parametrize(("typed", "calls"), [("yes\n", ["GET", "POST"]), ("no\n", ["GET"])])
def test_a_person_is_told_how_many_would_be_closed_and_asked(
    peer: Peer, typed: str, calls: list[str]
) -> None:
    peer.answer({"group": GROUP | {"items": 60, "items_is_exact": True}, "comments": [], "next_cursor": None})
    peer.answer({"group": GROUP, "resolved_items": 60, "reason": "done"})

    shown = on_a_terminal(*"group resolve billing grp_5xk2m4q9v1c0e --reason done".split(), typed=typed)

    assert "close 60 items for good? type yes to go on: " in shown
    assert [one.method for one in peer.received] == calls


def test_a_comment_is_sent_as_it_is(terminal: Terminal, peer: Peer) -> None:
    made = {"written_at": "2026-01-02T03:04:05.000Z", "written_by": "ann", "text": "ticket 4711"}
    peer.answer({"group_id": "grp_5xk2m4q9v1c0e", "comment": made}, 201)

    ended = terminal.run("group", "comment", "billing", "grp_5xk2m4q9v1c0e", "--text", "ticket 4711")

    assert peer.last.path == f"{ROOT}/grp_5xk2m4q9v1c0e/comment"
    assert peer.last.json() == {"text": "ticket 4711"}
    assert "2026-01-02 03:04:05Z" in ended.out


def test_the_queue_is_asked_by_group_and_risk(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"queue": [], "next_cursor": None})

    terminal.run("queue", "list", "billing", "--group", "grp_5xk2m4q9v1c0e", "--duplicate-risk", "never_sent")

    assert peer.last.path.endswith("?group=grp_5xk2m4q9v1c0e&duplicate_risk=never_sent")
