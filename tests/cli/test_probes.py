"""Commands that ask how a receiver is."""

from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.client.peer import Peer

AT = "2026-01-02T03:04:05.678Z"


def a_probe(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "health_url", "at": AT, "by": "ada", "reason": None, "recovery_id": None,
        "outcome": "succeeded", "http_status": 200, "failure_code": None, "failure_detail": None,
        "duration_ms": 12.5,
    } | fields  # fmt: skip


def told(probe: dict[str, Any]) -> dict[str, Any]:
    return {"integration_id": "billing", "probe": probe, "request_id": "req-1"}


def health(**fields: Any) -> dict[str, Any]:
    outcomes = [
        {"minutes": minutes, "succeeded": 9, "failed": 1, "failure_share": 0.1, "average_ms": 20.25}
        for minutes in (5, 15, 60)
    ]
    breaker = {"state": "half_open", "changed_at": AT, "until": AT, "opened_at": AT, "trips": 2}
    return {
        "integration_id": "billing", "verdict": "failing",
        "reasons": ["the breaker is half open", "1 of 10 failed"],
        "outcomes": outcomes, "last_success_at": AT, "last_failure_at": None, "breaker": breaker,
        "throttled_until": None, "gone_at": None, "containment": None, "probe": a_probe(), "minutes": [],
        "request_id": "req-1",
    } | fields  # fmt: skip


def test_a_probe_of_the_health_url_needs_nothing_else(peer: Peer, terminal: Terminal) -> None:
    peer.answer(told(a_probe()))

    ended = terminal.run("integration", "probe", "billing")

    assert (peer.last.path, peer.last.json()) == ("/platform/integrations/billing/probe", {})
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "integration_id  billing",
        "outcome         succeeded",
        "kind            health_url",
        "http_status     200",
        "duration_ms     12.5",
        "by              ada",
    ]


def test_a_probe_with_an_item_says_which_and_why(peer: Peer, terminal: Terminal) -> None:
    peer.answer(told(a_probe(kind="item", recovery_id="rec_1", outcome="failed", failure_code="HTTP_503")))

    ended = terminal.run(
        "integration", "probe", "billing", "--recovery-id", "rec_1", "--reason", "is it back?",
        "--idempotency-key", "k",
    )  # fmt: skip

    assert peer.last.json() == {"recovery_id": "rec_1", "reason": "is it back?"}
    assert peer.last.headers["idempotency-key"] == "k"
    assert ended.code == 6
    assert "HTTP_503" in ended.out


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_a_probe_is_told_to_programs_as_the_service_did(peer: Peer, terminal: Terminal, output: str) -> None:
    peer.answer(told(a_probe(outcome="unknown")))

    ended = terminal.run("integration", "probe", "billing", "--output", output)

    assert ended.code == 6
    assert ended.json() == told(a_probe(outcome="unknown"))


def test_health_is_a_verdict_with_its_reasons_and_figures(peer: Peer, terminal: Terminal) -> None:
    peer.answer(health())

    ended = terminal.run("integration", "health", "billing")

    assert peer.last.path == "/platform/integrations/billing/health"
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "integration_id   billing",
        "verdict          failing",
        "because          the breaker is half open; 1 of 10 failed",
        "last_success_at  2026-01-02 03:04:05Z",
        "breaker          half open, no trial before 2026-01-02 03:04:05Z",
        "last_probe       succeeded at 2026-01-02 03:04:05Z, by ada",
        "LAST MINUTES  SUCCEEDED  FAILED  FAILED %  AVERAGE (MS)",
        "           5          9       1      10.0         20.25",
        "          15          9       1      10.0         20.25",
        "          60          9       1      10.0         20.25",
    ]


def test_health_of_one_that_nobody_tried_is_short(peer: Peer, terminal: Terminal) -> None:
    closed = {"state": "closed", "changed_at": None, "until": None, "opened_at": None, "trips": 0}
    nothing = {"minutes": 5, "succeeded": 0, "failed": 0, "failure_share": None, "average_ms": None}
    peer.answer(
        health(verdict="unknown", reasons=["nothing"], breaker=closed, probe=None, last_success_at=None,
               outcomes=[nothing])
    )  # fmt: skip

    ended = terminal.run("integration", "health", "billing")

    assert ended.out.splitlines() == [
        "integration_id  billing",
        "verdict         unknown",
        "because         nothing",
        "breaker         closed",
        "LAST MINUTES  SUCCEEDED  FAILED  FAILED %  AVERAGE (MS)",
        "           5          0       0         -             -",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "next: redrive integration update billing --health-url URL\n"),
        (("--recovery-id", "rec_1", "--reason", "x"), None),
    ],
)
def test_a_probe_that_has_no_url_to_ask_says_how_to_give_one(
    peer: Peer, terminal: Terminal, words: tuple[str, ...], told: str | None
) -> None:
    peer.problem(409, "INT-409-CONFLICT", "it cannot", instance="/platform/integrations/billing/probe")

    ended = terminal.run("integration", "probe", "billing", *words)

    assert ended.code == 5
    assert told in ended.err if told else "next:" not in ended.err
