"""Replays of many on the command line: what is asked, how it is shown, and with which code it ends."""

from typing import Any

import pytest

from redrive.cli import watching
from redrive.cli.errors import ExitCode
from tests.cli.terminal import Terminal, on_a_terminal
from tests.client.peer import Peer

PLACE = "/platform/integrations/billing"
ROOT = f"{PLACE}/recovery/replays"
NAME = "rpl_0e7xk2m4q9v1c"
INSTANT = "2026-01-02T03:04:05.000Z"


def a_replay(state: str = "planned", **progress: Any) -> dict[str, Any]:
    counts = dict.fromkeys("waiting in_flight succeeded failed skipped cancelled".split(), 0)
    was_run = state != "planned"
    options = {
        "reason": "it is back",
        "incident": "INC-442",
        "rate": 20.0,
        "concurrency": None,
        "canary": {"size": 5, "share": 1.0},
        "halt_if": {"share": 0.5, "last": 20},
        "order": "oldest",
        "require_healthy": False,
    }
    return {
        "replay_id": NAME,
        "integration_id": "billing",
        "state": state,
        "because": None,
        "waits_for": None,
        "filter": {"status": "dlq", "group": None, "failure_code": "HTTP_503"},
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
        "updated_by": "bob",
        "updated_at": INSTANT,
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


def a_plan_of_nothing(**skipped: int) -> dict[str, Any]:
    nothing = {"eligible": 0, "total": sum(skipped.values()), "skipped": skipped, "duplicate_risk": {}}
    replay = a_replay()
    return {"replay": replay | {"plan": replay["plan"] | nothing}}


CLOSED: dict[str, Any] = {"state": "closed", "until": None}
OPEN: dict[str, Any] = {"state": "open", "until": INSTANT}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            ({"containment": None, "waiting": 58, "in_flight": 2}, {"breaker": OPEN}),
            "60 items are still to be sent by themselves (breaker open, next trial 03:04:05Z);",
        ),
        (
            ({"containment": None, "waiting": 1, "in_flight": 0}, {"breaker": CLOSED}),
            "1 item is still to be sent by itself; redrive integration health billing\n",
        ),
        (
            ({"containment": {"mode": "hold"}, "waiting": 5, "in_flight": 0}, {"breaker": CLOSED}),
            "5 items are held, for it is contained; redrive integration containment billing\n",
        ),
    ],
    ids=["broken", "busy", "contained"],
)
@pytest.mark.parametrize("words", ["replay plan billing", "queue list billing --status dlq"])
def test_where_nothing_is_dead_it_is_said_what_is_open(
    terminal: Terminal, peer: Peer, words: str, found: tuple[dict[str, Any], dict[str, Any]], told: str
) -> None:
    peer.answer({"queue": [], "next_cursor": None} | a_plan_of_nothing())
    for answer in found:
        peer.answer(answer)

    ended = terminal.run(*words.split())

    assert ended.code == ExitCode.OK
    assert f"note: nothing dead matches: {told}" in ended.err


@pytest.mark.parametrize("containment", [None, {"mode": "hold"}])
def test_where_nothing_is_open_either_nothing_is_noted(
    terminal: Terminal, peer: Peer, containment: dict[str, str] | None
) -> None:
    peer.answer({"queue": [], "next_cursor": None})
    peer.answer({"containment": containment, "waiting": 0, "in_flight": 0})
    peer.answer({"breaker": {"state": "closed", "until": None}})

    ended = terminal.run("queue", "list", "billing", "--status", "failed")

    assert ended.err == "Nothing matches.\n"


def test_whoever_may_not_look_is_still_told_what_was_asked(terminal: Terminal, peer: Peer) -> None:
    peer.answer(a_plan_of_nothing(), 201)
    peer.problem(403, "AUTH-403-FORBIDDEN")

    ended = terminal.run("replay", "plan", "billing")

    assert (ended.code, ended.err) == (ExitCode.OK, "")


def test_a_plan_of_what_is_contained_says_to_release_first(terminal: Terminal, peer: Peer) -> None:
    peer.answer(a_plan_of_nothing(contained=60), 201)

    ended = terminal.run("replay", "plan", "billing")

    assert "release it first, then plan again; redrive integration release billing" in ended.err


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


def test_a_person_sees_at_what_pace_it_would_go_and_is_asked(peer: Peer) -> None:
    answered(peer)

    words = f"replay run billing {NAME} --reason x --rate 20 --canary 3 --canary-share 50% --halt-if 10%"
    shown = on_a_terminal(*words.split(), typed="no\n")

    for told in (
        "rate            20 a second",
        "canary          3 first, of which 50% must succeed",
        "halt if         more than 10% of the last 20 failed",
        "replay 1,187 items? type 1187 to go on: ",
    ):
        assert told in shown
    assert [one.method for one in peer.received] == ["GET"]


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

    ended = terminal.run("replay", "watch", "billing", NAME)

    assert ended.code == ExitCode.CONFLICT
    assert f'redrive replay run billing {NAME} --reason "…"' in ended.err


def test_whoever_watched_a_job_that_failed_is_told_how_to_go_on(peer: Peer) -> None:
    answered(peer, "halted", failed=5, cancelled=30)

    shown = on_a_terminal("replay", "watch", "billing", NAME)

    assert f"redrive replay items billing {NAME} --state failed" in shown
    assert f"redrive replay plan billing --failures-of {NAME}" in shown


def test_the_line_of_a_job_that_runs_fits_a_terminal() -> None:
    progress = dict.fromkeys("waiting in_flight succeeded failed skipped cancelled".split(), 9_999)
    replay = a_replay("running", **progress, outcomes_per_second=119.8, eta_seconds=6_000.0)

    assert len(watching.told(replay)) <= 80 - len("  100%")
    assert watching.told(replay).endswith("eta 100 min")


def test_a_job_is_shown_as_it_was_asked_for(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"replay": a_replay("running", waiting=1) | {"waits_for": "breaker"}})

    ended = terminal.run("replay", "show", "billing", NAME)

    for told in (
        "running, waits for the breaker",
        "status: dlq, failure_code: HTTP_503",
        "20 a second",
        "5 first, of which 100% must succeed",
        "more than 50% of the last 20 failed",
    ):
        assert told in ended.out


def test_a_cancelled_job_says_who_did_it_and_not_what_was_before(terminal: Terminal, peer: Peer) -> None:
    peer.answer({"replay": a_replay("cancelled", cancelled=1) | {"because": "the canary passed"}})

    ended = terminal.run("replay", "show", "billing", NAME)

    assert "bob did so at 2026-01-02 03:04:05Z" in ended.out
    assert "the canary passed" not in ended.out


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
    heading, row = (line.split("  ") for line in jobs.out.splitlines())
    named = {"TOTAL", "OK", "FAILED", "SKIPPED", "CANCELLED", "LEFT"}
    assert named <= {word.strip() for word in heading}
    assert "running" in " ".join(row)
    assert peer.last.path == f"{ROOT}/{NAME}/items?state=failed"
    assert "HTTP_503" in items.out
    assert "--cursor on" in items.err


def test_a_stale_plan_is_a_conflict(terminal: Terminal, peer: Peer) -> None:
    answered(peer)
    peer.problem(409, "INT-409-CONFLICT", "since the plan was made, 3 of 10 items have moved on")

    ended = terminal.run("replay", "run", "billing", NAME, "--reason", "x", "--yes")

    assert ended.code == ExitCode.CONFLICT
    assert "moved on" in ended.err


def test_a_run_that_needs_a_healthy_receiver_names_the_probe(terminal: Terminal, peer: Peer) -> None:
    answered(peer)
    peer.problem(409, "INT-409-CONFLICT", "it is failing", instance=f"{PLACE}/recovery/replays")

    ended = terminal.run(*f"replay run billing {NAME} --reason x --yes --require-healthy".split())

    assert "next: redrive integration probe billing\n" in ended.err
