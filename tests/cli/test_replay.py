"""Replays of many on the command line: what is asked, how it is shown, and with which code it ends."""

from typing import Any

import pytest

from redrive.cli import watching
from redrive.cli.errors import ExitCode
from tests.cli.terminal import Terminal
from tests.client.peer import Peer

ROOT = "/platform/integrations/billing/recovery/replays"
NAME = "rpl_0e7xk2m4q9v1c"
INSTANT = "2026-01-02T03:04:05.000Z"


def a_replay(state: str = "planned", **progress: Any) -> dict[str, Any]:
    counts = dict.fromkeys("waiting in_flight succeeded failed skipped cancelled".split(), 0)
    was_run = state != "planned"
    options = {"reason": "it is back", "incident": "INC-442", "rate": 20.0}
    return {
        "replay_id": NAME,
        "integration_id": "billing",
        "state": state,
        "because": None,
        "waits_for": None,
        "as_of": INSTANT,
        "expires_at": INSTANT,
        "plan": {
            "digest": "5c1e",
            "total": 1204,
            "eligible": 1187,
            "skipped": {"succeeded_since": 9, "looped": 8},
            "duplicate_risk": {"never_sent": 0, "refused": 1102, "ambiguous": 85},
            "oldest_at": INSTANT,
            "estimated_seconds": 60.0,
        },
        "options": options if was_run else None,
        "progress": counts
        | {"total": 1204, "outcomes_per_second": 0.0, "eta_seconds": None}
        | (progress or {"waiting": 1187, "skipped": 17}),
        "created_by": "ann",
        "created_at": INSTANT,
        "run_by": "ann" if was_run else None,
        "run_at": INSTANT if was_run else None,
        "run_request_id": "req-1" if was_run else None,
    }


def answered(peer: Peer, state: str = "planned", **progress: Any) -> None:
    peer.answer({"replay": a_replay(state, **progress)})


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.0)


def test_a_plan_is_shown_with_what_it_would_do_and_what_comes_next(terminal: Terminal, peer: Peer) -> None:
    answered(peer)

    ended = terminal.run("replay", "plan", "billing", "--status", "dlq", "--failure-code", "HTTP_503")

    assert ended.code == ExitCode.OK
    assert peer.last.json() == {"filter": {"status": "dlq", "failure_code": "HTTP_503"}}
    for told in (
        "eligible        1,187",
        "skipped         17 (succeeded_since 9, looped 8)",
        "duplicate risk  refused 1,102, ambiguous 85",
        "about           60 s",
    ):
        assert told in ended.out
    assert f"redrive replay run billing {NAME}" in ended.err


def test_items_can_be_named(terminal: Terminal, peer: Peer) -> None:
    answered(peer)

    terminal.run("replay", "plan", "billing", "rec_1", "rec_2")

    assert peer.last.json() == {"filter": {"recovery_ids": ["rec_1", "rec_2"]}}


def test_a_plan_is_run_by_its_digest_with_its_options(terminal: Terminal, peer: Peer) -> None:
    answered(peer)
    answered(peer, "canary", waiting=1187)

    ended = terminal.run(
        *("replay", "run", "billing", NAME, "--yes", "--reason", "it is back", "--incident", "INC-442"),
        *("--rate", "20", "--canary", "3", "--canary-share", "0.5", "--halt-if", "30%", "--halt-last", "10"),
        *("--order", "newest", "--idempotency-key", "click"),
    )

    assert ended.code == ExitCode.OK
    assert peer.last.headers["idempotency-key"] == "click"
    assert peer.last.json() == {
        "plan_digest": "5c1e",
        "reason": "it is back",
        "incident": "INC-442",
        "rate": 20.0,
        "canary": {"size": 3, "share": 0.5},
        "halt_if": {"share": 0.3, "last": 10},
        "order": "newest",
        "require_healthy": False,
    }
    assert f"redrive replay watch billing {NAME}" in ended.err


def test_nothing_is_run_off_a_terminal_without_yes(terminal: Terminal, peer: Peer) -> None:
    answered(peer)

    ended = terminal.run("replay", "run", "billing", NAME, "--reason", "it is back")

    assert ended.code == ExitCode.USAGE
    assert "--yes" in ended.err
    assert [one.method for one in peer.received] == ["GET"]


@pytest.mark.parametrize("text", ["150%", "half", "-1", "5%%"])
def test_what_is_no_share_is_refused(terminal: Terminal, peer: Peer, text: str) -> None:
    ended = terminal.run("replay", "run", "billing", NAME, "--reason", "x", "--yes", f"--halt-if={text}")

    assert ended.code == ExitCode.USAGE
    assert "--halt-if" in ended.err
    assert not peer.received


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("completed", ExitCode.OK),
        ("completed_with_failures", ExitCode.FAILURES),
        ("halted", ExitCode.HALTED),
        ("cancelled", ExitCode.HALTED),
    ],
)
def test_a_job_is_watched_until_it_ends_and_its_end_is_the_exit_code(
    terminal: Terminal, peer: Peer, state: str, code: ExitCode
) -> None:
    answered(peer, "running", waiting=2, outcomes_per_second=19.8, eta_seconds=11.0)
    answered(peer, "running", waiting=1, in_flight=1)
    answered(peer, state, succeeded=1184, failed=3)

    ended = terminal.run("replay", "watch", "billing", NAME)

    assert ended.code == code
    told = dict(line.split("  ", 1) for line in ended.out.splitlines())
    assert told["failed again"].strip() == "3"
    assert len(peer.received) == 3


def test_each_look_is_a_line_for_programs(terminal: Terminal, peer: Peer) -> None:
    answered(peer, "running", waiting=1)
    answered(peer, "completed", succeeded=1)

    ended = terminal.run("replay", "watch", "billing", NAME, "--output", "jsonl")

    assert [line["state"] for line in ended.lines()] == ["running", "completed"]


def test_ctrl_c_detaches_and_says_how_to_cancel(
    terminal: Terminal, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    answered(peer, "running", waiting=1)

    ended = terminal.run("replay", "watch", "billing", NAME)

    assert ended.code == ExitCode.INTERRUPTED
    assert f"redrive replay cancel billing {NAME}" in ended.err


def test_a_plan_that_was_not_run_cannot_be_watched(terminal: Terminal, peer: Peer) -> None:
    answered(peer)

    assert terminal.run("replay", "watch", "billing", NAME).code == ExitCode.CONFLICT


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_job_is_steered(terminal: Terminal, peer: Peer, verb: str) -> None:
    answered(peer, "paused", waiting=5)

    ended = terminal.run("replay", verb, "billing", NAME)

    assert (ended.code, peer.last.path, peer.last.json()) == (0, f"{ROOT}/{NAME}/{verb}", {})


@pytest.mark.parametrize(("word", "rate"), [("50", 50.0), ("none", None)])
def test_a_job_is_paced(terminal: Terminal, peer: Peer, word: str, rate: float | None) -> None:
    answered(peer, "running", waiting=5)

    terminal.run("replay", "rate", "billing", NAME, word)

    assert (peer.last.path, peer.last.json()) == (f"{ROOT}/{NAME}/rate", {"rate": rate})


def test_jobs_and_items_are_listed(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"replays": [a_replay("running", waiting=3, succeeded=7)], "next_cursor": None})
    item = {"recovery_id": "rec_1", "state": "failed", "reason": "HTTP_503", "duplicate_risk": "refused"}
    peer.answer({"items": [item | {"first_attempt_at": INSTANT}], "next_cursor": "on"})

    jobs = terminal.run("replay", "list", "billing")
    items = terminal.run("replay", "items", "billing", NAME, "--state", "failed")

    assert NAME in jobs.out
    assert "running" in jobs.out
    assert peer.last.path == f"{ROOT}/{NAME}/items?state=failed"
    assert "HTTP_503" in items.out
    assert "--cursor on" in items.err


def test_a_stale_plan_is_a_conflict(terminal: Terminal, peer: Peer) -> None:
    answered(peer)
    peer.problem(409, "INT-409-CONFLICT", "since the plan was made, 3 of 10 items have moved on")

    ended = terminal.run("replay", "run", "billing", NAME, "--reason", "x", "--yes")

    assert ended.code == ExitCode.CONFLICT
    assert "moved on" in ended.err
