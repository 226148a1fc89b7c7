"""Commands that read from a service and act through it."""

import json
import re
import shlex
from typing import Any

import pytest

from redrive.cli.tables import Fit, column, fitted
from tests.cli.terminal import Terminal, on_a_terminal
from tests.client.peer import Canned, Peer

AT = "2026-01-02T03:04:05.678Z"
HOSTILE = "\x1b[31mred\x1b[0m\r\n[bold]x[/bold]\u202e"


def an_item(**fields: Any) -> dict[str, Any]:
    return {
        "recovery_id": "rec_1", "integration_id": "billing", "event_type": "invoice.paid", "status": "dlq",
        "cycle": 1, "attempt_count": 5, "max_attempts": 5, "failure_code": "HTTP_503", "updated_at": AT,
        "created_at": AT, "next_retry_at": None, "duplicate_risk": "refused", "held": False,
        "resolved": None, "request_id": "req-1",
    } | fields  # fmt: skip


def a_page(*items: dict[str, Any], next_cursor: str | None = None) -> dict[str, Any]:
    return {"integration_id": "billing", "queue": list(items), "next_cursor": next_cursor}


def test_a_queue_is_a_table_of_aligned_text(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_page(an_item(), an_item(recovery_id="rec_2日本", status="retrying", attempt_count=12)))

    ended = terminal.run("queue", "list", "billing")

    heading, *rows = ended.out.splitlines()
    assert heading == (
        "RECOVERY ID  STATUS    EVENT         ATTEMPTS  CYCLE  FAILURE   RISK     UPDATED              "
        " NEXT RETRY"
    )
    assert rows == [
        "rec_1        dlq       invoice.paid       5/5      1  HTTP_503  refused  2026-01-02 03:04:05Z  -",
        "rec_2日本    retrying  invoice.paid      12/5      1  HTTP_503  refused  2026-01-02 03:04:05Z  -",
    ]
    assert ended.err == ""


def test_every_filter_reaches_the_service(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_page(an_item()))

    terminal.run(
        "queue", "list", "billing", "--status", "dlq", "--failure-code", "HTTP_503", "--event-type", "t",
        "--held", "no", "--resolved", "yes", "--since", AT, "--until", AT, "--limit", "7", "--cursor", "c",
    )  # fmt: skip

    assert peer.last.path.partition("?")[2].replace("%3A", ":") == (
        f"status=dlq&failure_code=HTTP_503&event_type=t&held=false&resolved=true&since={AT}&until={AT}"
        "&limit=7&cursor=c"
    )


def test_a_page_says_how_to_go_on(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_page(an_item(), next_cursor="abc"))

    ended = terminal.run("queue", "list", "billing")

    assert ended.err == "There is more: --cursor abc, or --all.\n"


def test_nothing_found_leaves_standard_output_empty(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_page())

    ended = terminal.run("queue", "list", "billing")

    assert (ended.code, ended.out, ended.err) == (0, "", "Nothing matches.\n")


def test_json_is_what_the_service_said(peer: Peer, terminal: Terminal) -> None:
    peer.answers.append(Canned(200, b'{"queue": [], "next_cursor": null, "n": 1.00000000000000000001}'))

    ended = terminal.run("queue", "list", "billing", "--output", "json")

    assert ended.out == '{"queue": [], "next_cursor": null, "n": 1.00000000000000000001}\n'


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            ["queue", "list", "b"],
            "check that `redrive serve` runs, and --url or REDRIVE_URL; then run it again",
        ),
        (
            ["integration", "update", "b", "--name", "n"],
            "look before you repeat it: it may have taken effect",
        ),
    ],
    ids=["a read", "a change"],
)
def test_only_what_may_have_changed_something_is_to_be_looked_at_first(
    peer: Peer, terminal: Terminal, words: list[str], advice: str
) -> None:
    peer.answers += [Canned(hangs_up=True)] * 2

    ended = terminal.run(*words)

    assert ended.code == 8
    assert ended.err.splitlines()[1] == f"   next: {advice}"


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_all_of_it_is_every_page(peer: Peer, terminal: Terminal, output: str) -> None:
    peer.answer(a_page(an_item(), next_cursor="c"))
    peer.answer(a_page(an_item(recovery_id="rec_2")))

    ended = terminal.run("queue", "list", "billing", "--all", "--output", output)

    items = ended.json()["queue"] if output == "json" else ended.lines()
    assert [item["recovery_id"] for item in items] == ["rec_1", "rec_2"]


def test_the_page_of_an_item_shows_where_it_stands_and_its_evidence(peer: Peer, terminal: Terminal) -> None:
    attempt = {"cycle": 1, "attempt": 1, "started_at": AT, "duration_ms": 250.5}
    payload = {"content_type": "application/json", "encoding": "json", "body": {"a": 1}, "size": 7}
    response = {
        "status": 503, "content_type": "text/html", "encoding": "text", "size": 90, "truncated": True,
        "body": "\n".join(["<html>" + HOSTILE] * 30),
    }  # fmt: skip
    item = an_item(resolved={"reason": "gone"}, payload_snapshot=payload, response_snapshot=response)
    peer.answer({"recovery": item, "attempts": [attempt], "request_id": "req-now"})

    ended = terminal.run("queue", "show", "billing", "rec_1")

    assert "status       dlq, resolved\n" in ended.out
    assert "attempts     5 of 5 in cycle 1\n" in ended.out
    assert "2026-01-02 03:04:05Z  250.5" in ended.out
    assert "PAYLOAD (application/json, 7 bytes)\n  {\n" in ended.out
    assert "LAST ANSWER (HTTP 503, text/html, 90 bytes, cut short when it was received)" in ended.out
    assert "(--output json has all of it)" in ended.out
    assert "\x1b" not in ended.out
    assert "[bold]x[/bold]" in ended.out


def test_a_replay_says_what_changed_and_carries_a_key(peer: Peer, terminal: Terminal) -> None:
    peer.answer(
        {"previous_status": "dlq", "current_status": "replayed", "reason": "fixed", "request_id": "r-1"}
    )

    ended = terminal.run("queue", "replay", "billing", "rec_1", "--reason", "fixed", "--request-id", "r-1")

    assert peer.last.json() == {"reason": "fixed"}
    assert peer.last.headers["idempotency-key"].startswith("cli-")
    assert ended.out.splitlines() == [
        "recovery_id  rec_1", "was          dlq", "is           replayed", "reason       fixed",
        "request_id   r-1",
    ]  # fmt: skip
    assert ended.err == ""


def test_a_replay_of_unknown_outcome_can_be_repeated_with_curl_under_the_same_key(
    peer: Peer, terminal: Terminal
) -> None:
    peer.problem(503, "INT-503-DEPENDENCY-UNAVAILABLE", "the disk is full")

    ended = terminal.run("queue", "replay", "billing", "rec_1", "--reason", "it's fixed")

    *error, curl = ended.err.splitlines()
    words = shlex.split(curl)
    assert ended.code == 8
    assert words[:4] == ["curl", "-X", "POST", f"{peer.url}{peer.last.path}"]
    assert "Authorization: Bearer $REDRIVE_TOKEN" in words
    assert f"Idempotency-Key: {peer.last.headers['idempotency-key']}" in words
    assert json.loads(words[-1]) == {"reason": "it's fixed"}
    assert len(error) == 2


def test_a_replay_that_was_refused_says_no_more_than_why(peer: Peer, terminal: Terminal) -> None:
    peer.problem(409, "INT-409-RECOVERY-REPLAY-CONFLICT", "it is pending")

    ended = terminal.run("queue", "replay", "billing", "rec_1", "--reason", "why")

    assert (ended.code, len(ended.err.splitlines())) == (5, 2)


def test_a_replay_whose_answer_was_lost_names_its_key(peer: Peer, terminal: Terminal) -> None:
    peer.answers += [Canned(hangs_up=True)] * 2

    ended = terminal.run("queue", "replay", "billing", "rec_1", "--reason", "why", "--idempotency-key", "k-1")

    assert ended.code == 8
    assert "--idempotency-key k-1" in ended.err.splitlines()[1]
    assert [request.headers["idempotency-key"] for request in peer.received] == ["k-1", "k-1"]


def test_an_integration_is_added_with_what_was_said(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "billing", "secret": "whsec_x", "headers": {}, "request_id": "r"}, 201)

    ended = terminal.run(
        "integration", "add", "billing", "https://partner.example/hooks", "--header", "X-A: 1",
        "--max-attempts", "8", "--retryable-network-codes", "EPIPE,ECONNRESET",
        "--lifecycle-status", "paused",
    )  # fmt: skip

    assert peer.last.json() == {
        "integration_id": "billing", "url": "https://partner.example/hooks",
        "headers": {"X-A": "1"}, "max_attempts": 8, "retryable_network_codes": ["EPIPE", "ECONNRESET"],
        "lifecycle_status": "paused",
    }  # fmt: skip
    assert "secret           whsec_x\n" in ended.out
    assert "shown once" in ended.err


def test_a_secret_that_an_update_made_is_shown_as_well(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "billing", "secret": "whsec_x", "headers": {}, "request_id": "r"})

    ended = terminal.run("integration", "update", "billing", "--auth-mode", "hmac")

    assert "secret           whsec_x\n" in ended.out
    assert "shown once" in ended.err


def test_adding_what_is_there_points_to_update(peer: Peer, terminal: Terminal) -> None:
    peer.problem(409, "INT-409-CONFLICT", "there is one")

    ended = terminal.run("integration", "add", "billing", "https://x.example")

    assert (ended.code, "redrive integration update billing" in ended.err) == (5, True)


def test_an_integration_shows_where_its_breaker_stands(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "b", "breaker": {"state": "open", "until": None, "trips": 2}})

    ended = terminal.run("integration", "show", "b")

    assert re.search(r"^breaker +open$", ended.out, re.MULTILINE)


def test_an_integration_shows_what_is_not_set_and_no_header_value(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "b", "headers": {"X-Key": "s3cret"}, "health_url": None})

    ended = terminal.run("integration", "show", "b")

    assert "headers          X-Key: [REDACTED]\n" in ended.out
    assert "rate_per_second  -\n" in ended.out
    assert "health_url       -\n" in ended.out
    assert "s3cret" not in ended.out


@pytest.mark.parametrize(
    "words",
    [("add", "billing", "--url", "https://x.example"), ("update", "billing", "--url", "https://x.example")],
    ids=" ".join,
)
def test_the_address_of_the_service_is_not_the_destination(
    terminal: Terminal, words: tuple[str, ...]
) -> None:
    ended = terminal.run("integration", *words)

    assert (ended.code, ended.out) == (2, "")
    assert "--url is the service's address" in ended.err


def test_a_token_the_service_does_not_know_is_told_from_none(
    peer: Peer, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        peer.problem(401, "AUTH-401-UNAUTHENTICATED")

    unknown = terminal.run("integration", "list")
    monkeypatch.delenv("REDRIVE_TOKEN")
    none = terminal.run("integration", "list")
    monkeypatch.setenv("REDRIVE_TOKEN", "")
    empty = terminal.run("integration", "list")

    assert (unknown.code, none.code, empty.code) == (4, 4, 2)
    assert "this service does not know the token" in unknown.err
    assert "set REDRIVE_TOKEN" in none.err
    assert "is empty" in empty.err


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_terminal_breaks_no_id_and_no_time(peer: Peer, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    item = an_item(
        recovery_id="rec_0e7xk2m4q9v1c", failure_code="ECONNREFUSED", event_type="order." + "x" * 30
    )
    peer.answer(a_page(item))

    printed = on_a_terminal("queue", "list", "billing").splitlines()[1]

    assert printed.startswith("rec_0e7xk2m4q9v1c  ")
    assert "ECONNREFUSED" in printed
    assert "2026-01-02 03:04:05Z" in printed


def test_what_tells_least_is_left_out_first() -> None:
    columns = [
        column("ID", "id"), column("EVENT", "event", fit=Fit.CUT),
        column("CYCLE", "cycle", worth=2), column("NEXT", "next", worth=1),
    ]  # fmt: skip
    natural = [17, 40, 5, 20]

    assert fitted(columns, natural, 100) == {0: 17, 1: 40, 2: 5, 3: 20}
    assert fitted(columns, natural, 80) == {0: 17, 1: 32, 2: 5, 3: 20}
    assert fitted(columns, natural, 60) == {0: 17, 1: 34, 2: 5}
    assert fitted(columns, natural, 40) == {0: 17, 1: 21}
    assert fitted(columns, natural, 10) == {0: 17, 1: 8}


def test_an_update_sends_the_changes_alone(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "billing"})

    terminal.run("integration", "update", "billing", "--target-url", "https://x.example", "--unset", "jitter")

    assert peer.last.method == "PATCH"
    assert peer.last.json() == {"url": "https://x.example", "jitter": None}


def test_message_signatures_are_turned_on_and_off(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integration_id": "billing"})

    terminal.run("integration", "update", "billing", "--message-signature")
    on = peer.last.json()
    terminal.run("integration", "update", "billing", "--no-message-signature")

    assert [on, peer.last.json()] == [{"message_signature": True}, {"message_signature": False}]


def test_audit_events_of_an_item_are_listed_by_its_recovery_id(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"events": [], "next_cursor": None, "total": 0})

    terminal.run("audit", "list", "--recovery-id", "rec_1")

    assert peer.last.path.partition("?")[2] == "target_id=rec_1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recovery-id", ""], "--recovery-id is empty"),
        (
            ["--recovery-id", "rec_1", "--target-id", "rec_1"],
            "--target-id and --recovery-id both name the target",
        ),
    ],
    ids=["empty", "both"],
)
def test_an_item_of_the_audit_trail_is_named_once(terminal: Terminal, words: list[str], told: str) -> None:
    ended = terminal.run("audit", "list", *words)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_the_table_of_audit_events_tells_one_attempt_from_another(peer: Peer, terminal: Terminal) -> None:
    told = [
        {"attempt": 2, "failure_code": "HTTP_503", "http_status": 503},
        {"attempt": 1, "http_status": 200},
        {"attempt": 3, "failure_code": "ECONNREFUSED", "http_status": None},
        {"reason": "it is back"},
        {"permission": "integration.recovery.view"},
        {},
    ]
    events = [{"event_type": "made", "metadata": each} for each in told]
    peer.answer({"events": events, "next_cursor": None, "total": 6})

    _, *lines = terminal.run("audit", "list").out.splitlines()

    assert [" ".join(line.replace("made", "").split()).strip("- ") for line in lines] == [
        "attempt 2 HTTP_503", "attempt 1 HTTP_200", "attempt 3 ECONNREFUSED", "it is back",
        "integration.recovery.view", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event_type", "fields", "told"),
    [
        ("group_commented", {"metadata": {"text": "ticket 4711"}}, "ticket 4711"),
        (
            "group_muted",
            {"metadata": {"reason": "known"}, "after_state": {"muted_until": AT}},
            "until 2026-01-02 03:04:05Z: known",
        ),
        ("group_muted", {"metadata": {}, "after_state": {"muted_until": None}}, "no longer"),
        ("breaker_opened", {"metadata": {"outcomes": 20, "failures": 18}}, "18 of 20 failed"),
        ("breaker_opened", {"metadata": {"trial": "ill"}}, "a trial told: ill"),
        ("containment_expired", {"metadata": {"probe": "HTTP 503"}}, "HTTP 503"),
        (
            "replay_job.rate_changed",
            {"before_state": {"rate": 20.0}, "after_state": {"rate": None}, "metadata": {"reason": "x"}},
            "rate 20 > -",
        ),
    ],
)
def test_the_table_of_audit_events_tells_what_each_kind_is_about(
    peer: Peer, terminal: Terminal, event_type: str, fields: dict[str, Any], told: str
) -> None:
    event = {"event_type": f"platform.integration.{event_type}", "target_id": "t"} | fields
    peer.answer({"events": [event], "next_cursor": None})

    ended = terminal.run("audit", "list")

    assert told in re.split(r"  +", ended.out.splitlines()[1])


def test_a_narrow_terminal_shows_who_did_it_and_not_what_is_the_same_in_all(peer: Peer) -> None:
    event = {
        "occurred_at": AT, "event_type": "platform.integration.erased", "result": "success",
        "integration_id": "billing", "target_id": "rec_0e7xk2m4q9v1c", "actor": {"id": "ann"},
        "before_state": {"status": "dlq"}, "after_state": {"status": "replayed"},
        "request_id": "0123456789-0123456789-0123456789-0123",
    }  # fmt: skip
    peer.answer({"events": [event], "next_cursor": None})

    shown = on_a_terminal("audit", "list", "--integration", "billing")

    assert "ann" in shown
    assert "dlq > replayed" in shown
    assert "Too narrow for INTEGRATION, DETAIL, REQUEST ID" in shown


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "failed", "resolved": {"at": AT, "by": "ann"}}, "failed, resolved"),
        ({"status": "failed", "superseded_by": "rec_2"}, "failed, superseded"),
        ({"status": "dlq", "resolved": None, "superseded_by": None}, "dlq"),
    ],
)
def test_a_closed_item_does_not_look_open(
    peer: Peer, terminal: Terminal, fields: dict[str, Any], told: str
) -> None:
    peer.answer(a_page(an_item(**fields)))

    ended = terminal.run("queue", "list", "billing")

    assert told in re.split(r"  +", ended.out.splitlines()[1])


def test_audit_events_are_listed_with_every_filter(peer: Peer, terminal: Terminal) -> None:
    event = {
        "occurred_at": AT, "event_type": "platform.integration.recovery.replayed",
        "integration_id": "billing", "target_id": "rec_1", "before_state": {"status": "dlq"},
        "after_state": {"status": "replayed"},
        "result": "success", "actor": {"id": "ops"}, "request_id": "r-1",
    }  # fmt: skip
    peer.answer({"events": [event], "next_cursor": None, "total": 1})

    ended = terminal.run(
        "audit", "list", "--request-id", "r-1", "--event-type", "recovery.replayed", "--integration-id",
        "billing", "--target-id", "rec_1", "--actor", "ops", "--since", AT, "--limit", "9",
    )  # fmt: skip

    assert peer.last.path.partition("?")[2].replace("%3A", ":") == (
        "request_id=r-1&event_type=platform.integration.recovery.replayed&integration_id=billing"
        f"&target_id=rec_1&actor=ops&since={AT}&limit=9"
    )
    assert ended.out.splitlines()[1].split() == [
        "2026-01-02", "03:04:05Z", "recovery.replayed", "billing", "rec_1", "dlq", ">", "replayed", "-",
        "success", "ops", "r-1",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["platform.integration.recovery.replayed", "recovery.replayed", "replayed"])
def test_an_event_type_may_be_said_as_the_table_shows_it(peer: Peer, terminal: Terminal, name: str) -> None:
    peer.answer({"events": [], "next_cursor": None})

    terminal.run("audit", "list", "--event-type", name)

    assert peer.last.path.endswith("event_type=platform.integration.recovery.replayed")


def test_a_mistyped_event_type_is_told_the_nearest(terminal: Terminal) -> None:
    ended = terminal.run("audit", "list", "--event-type", "recovery.replaid")

    assert (ended.code, ended.out) == (2, "")
    assert "did you mean recovery.replayed?" in ended.err


def test_a_status_may_be_said_in_any_case(peer: Peer, terminal: Terminal) -> None:
    peer.answer(a_page(an_item()))

    terminal.run("queue", "list", "billing", "--status", "DLQ")

    assert peer.last.path.endswith("?status=dlq")


def test_a_moment_may_be_said_as_so_long_ago(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"events": [], "next_cursor": None})

    terminal.run("audit", "list", "--since", "2h")

    assert "since=20" in peer.last.path


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "list", "billing"),
        ("queue", "list", "billing", "--output", "json"),
        ("queue", "list", "billing", "--output", "jsonl"),
        ("queue", "show", "billing", "rec_1"),
    ],
    ids=" ".join,
)
def test_hostile_text_is_inert_on_a_real_terminal(peer: Peer, words: tuple[str, ...]) -> None:
    item = an_item(event_type=HOSTILE, failure_detail=HOSTILE, failure_code="\x9b2J")
    peer.answer({"recovery": item, "attempts": [item]} if "show" in words else a_page(item))

    printed = on_a_terminal(*words)

    ours = printed.replace("\r\n", "\n")
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[31m"):  # rich's own: bold headings, red statuses
        ours = ours.replace(f"{style}red", "HOSTILE").replace(style, "")
    assert "HOSTILE" not in ours
    assert ours.replace("\n", "").isprintable()
    assert "bold" in ours


def test_a_token_given_on_the_command_line_wins(peer: Peer, terminal: Terminal) -> None:
    peer.answer({"integrations": []})

    terminal.run("integration", "list", "--token", "rdr_other", "--url", peer.url)

    assert peer.last.headers["authorization"] == "Bearer rdr_other"
