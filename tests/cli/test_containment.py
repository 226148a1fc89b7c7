"""Commands that contain and release."""

from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.client.peer import Peer

AT = "2026-01-02T03:04:05.678Z"
HELD: dict[str, Any] = {
    "mode": "hold", "reason": "vendor 5xx storm", "owner": "ann", "by": "ops", "since": AT, "until": AT,
    "incident": None, "request_id": "req-1", "failed_probes": 0, "next_probe_at": None,
}  # fmt: skip
SIMULATION = {
    "backlog": 1200,
    "rates": [{"rate_per_second": 5.0, "drain_seconds": 240.4, "new_traffic_delay_seconds": 240.4}],
}


def a_standing(**fields: Any) -> dict[str, Any]:
    return {
        "integration_id": "billing", "state": "contained", "containment": HELD, "release": None,
        "waiting": 7, "in_flight": 2, "request_id": "req-1",
    } | fields  # fmt: skip


def a_release(**fields: Any) -> dict[str, Any]:
    return {
        "integration_id": "billing", "released": True, "dry_run": False, "simulation": SIMULATION,
        "containment": None, "release": None, "reason": "it is back", "request_id": "req-1",
    } | fields  # fmt: skip


def test_everything_that_is_said_of_it_reaches_the_service(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_standing())

    ended = terminal.run(
        "integration", "contain", "billing", "--for", "2h", "--reason", "vendor 5xx storm", "--owner", "ann",
        "--mode", "reject", "--incident", "INC-4711", "--idempotency-key", "k",
    )  # fmt: skip

    assert ended.code == 0
    assert peer.last.path == "/platform/integrations/billing/containment"
    assert peer.last.headers["idempotency-key"] == "k"
    assert peer.last.json() == {
        "reason": "vendor 5xx storm", "owner": "ann", "for_seconds": 7200.0, "mode": "reject",
        "incident": "INC-4711",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "sent"), [("52w", "202"), ("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z")])
def test_its_end_may_be_an_instant_or_so_long_from_now(
    peer: Peer, terminal: Terminal, text: str, sent: str
) -> None:
    peer.answer(a_standing())

    terminal.run("integration", "contain", "billing", "--until", text, "--reason", "down")

    assert peer.last.json()["until"].startswith(sent)


def test_that_it_ran_out_and_its_receiver_was_not_well_is_shown(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_standing(containment=HELD | {"failed_probes": 2, "next_probe_at": AT}))

    ended = terminal.run("integration", "containment", "billing")

    assert ended.out.splitlines()[9:11] == ["failed_probes   2", "next_probe_at   2026-01-02 03:04:05Z"]


def test_how_it_stands_is_shown_as_facts(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_standing())

    ended = terminal.run("integration", "containment", "billing")

    assert ended.out.splitlines() == [
        "integration_id  billing",
        "state           contained",
        "mode            hold",
        "reason          vendor 5xx storm",
        "owner           ann",
        "by              ops",
        "since           2026-01-02 03:04:05Z",
        "until           2026-01-02 03:04:05Z",
        "request_id      req-1",
        "waiting         7",
        "in_flight       2",
    ]
    assert ended.err == ""


def test_what_is_not_confirmed_yet_is_said_beside_the_output(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_standing(state="containing"), 202)

    ended = terminal.run("integration", "contain", "billing", "--reason", "down")

    assert ended.code == 0
    assert "Not every process has confirmed yet" in ended.err


def test_a_duration_that_is_none_is_not_sent(peer: Peer, terminal: Terminal) -> None:
    ended = terminal.run("integration", "contain", "billing", "--reason", "down", "--for", "soon")

    assert ended.code == 2
    assert "--for: 'soon' is not a duration" in ended.err
    assert peer.received == []


def test_a_release_shows_what_it_means(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_release())

    ended = terminal.run("integration", "release", "billing", "--rate", "20", "--reason", "it is back")

    assert peer.last.path == "/platform/integrations/billing/containment/release"
    assert peer.last.json() == {"reason": "it is back", "rate_per_second": 20.0}
    assert ended.out.splitlines() == [
        "integration_id   billing",
        "released         yes",
        "rate_per_second  20",
        "backlog          1200",
        "AT RATE  DRAINED IN (S)  NEW TRAFFIC WAITS (S)",
        "      5             240                    240",
    ]


def test_a_dry_run_says_that_nothing_happened(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_release(released=False, dry_run=True))

    ended = terminal.run("integration", "release", "billing", "--dry-run", "--reason", "preview")

    assert peer.last.json() == {"reason": "preview", "dry_run": True}
    assert "Nothing was released" in ended.err


def test_a_refusal_is_a_conflict(peer: Peer, terminal: Terminal) -> None:
    peer.problem(409, "INT-409-CONFLICT", "the integration is not contained")

    ended = terminal.run("integration", "release", "billing", "--reason", "it is back")

    assert ended.code == 5
    assert "the integration is not contained" in ended.err


def test_programs_get_the_answer_as_it_was(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_standing())

    ended = terminal.run("integration", "containment", "billing", "--output", "jsonl")

    assert ended.lines() == [a_standing()]


def test_a_list_of_integrations_tells_which_are_contained(peer: Peer, terminal: Terminal) -> None:
    common = {"lifecycle_status": "active", "method": "POST", "url": "https://x.example", "auth_mode": "none"}
    rows = [
        common | {"integration_id": "billing", "containment": HELD, "name": "Billing"},
        common | {"integration_id": "crm", "containment": None, "name": "CRM"},
    ]
    peer.answer({"integrations": rows})

    ended = terminal.run("integration", "list")

    assert [line.split()[:3] for line in ended.out.splitlines()] == [
        ["INTEGRATION", "LIFECYCLE", "CONTAINED"], ["billing", "active", "hold"], ["crm", "active", "-"],
    ]  # fmt: skip
