"""The command line against a real service: what it does, what it prints, and the codes it ends with."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.e2e.caller import Caller
from tests.e2e.receiver import OK, Answer, Receiver, receiving
from tests.e2e.service import Ended, Service
from tests.e2e.waiting import until

Run = Callable[..., Ended]
PARTNER = "billing"
CHAIN = "platform.integration.recovery."


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def run(service: Service, token: str) -> Run:
    """Runs a command as a caller that may do everything."""
    return partial(service.run, token=token)


def test_an_integration_is_added_listed_shown_and_changed(run: Run, receiver: Receiver) -> None:
    added = run("integration", "add", PARTNER, receiver.url, "--name", "Billing", "--output", "json")
    changed = run("integration", "update", PARTNER, "--max-attempts", "8", "--lifecycle-status", "paused")
    unset = run("integration", "update", PARTNER, "--unset", "max_attempts")
    listed = run("integration", "list", "--output", "jsonl")
    shown = run("integration", "show", PARTNER, "--output", "json")

    assert [ended.code for ended in (added, changed, unset, listed, shown)] == [0] * 5
    assert added.json()["secret"].startswith("whsec_")
    assert [row["integration_id"] for row in listed.lines()] == [PARTNER]
    assert (shown.json()["name"], shown.json()["lifecycle_status"]) == ("Billing", "paused")
    assert shown.json()["max_attempts"] == 5, "the default again"
    assert '"secret"' not in shown.out
    assert added.json()["secret"] not in shown.out


def test_one_delivery_arrives_byte_for_byte_signed_and_under_its_request_id(
    run: Run, caller: Caller, receiver: Receiver, tmp_path: Path
) -> None:
    secret = caller.add(PARTNER, receiver.url)
    payload = b'{ "amount": 1.10,\n\t"currency":"EUR",  "note": "\xc3\xbc" }'
    (tmp_path / "payload.json").write_bytes(payload)

    ended = run(
        *("deliver", PARTNER, "--event-type", "invoice.paid", "--payload", f"@{tmp_path / 'payload.json'}"),
        *("--request-id", "req-e2e", "--idempotency-key", "once", "--header", "X-Tenant: 7"),
        *("--output", "json"),
    )

    assert ended.code == 0, ended.err
    [sent] = until(lambda: receiver.ledger, "it arrives")
    assert sent.body == payload
    assert (sent.webhook_id, sent.request_id) == (ended.json()["recovery_id"], "req-e2e")
    assert sent.headers["x-tenant"] == "7"
    Webhook(secret).verify(payload, dict(sent.headers))


def test_bytes_that_are_no_json_come_from_standard_input(
    run: Run, caller: Caller, receiver: Receiver
) -> None:
    caller.add(PARTNER, receiver.url)

    ended = run(
        *("deliver", PARTNER, "--event-type", "scan", "--payload", "@-", "--content-type", "image/x-scan"),
        stdin=b"\x00\xff\n",
    )

    assert ended.code == 0, ended.err
    [sent] = until(lambda: receiver.ledger, "it arrives")
    assert (sent.body, sent.headers["content-type"]) == (b"\x00\xff\n", "image/x-scan")


def test_a_file_with_bad_lines_delivers_the_good_ones_and_ends_with_6(
    run: Run, caller: Caller, receiver: Receiver, tmp_path: Path
) -> None:
    caller.add(PARTNER, receiver.url)
    file = tmp_path / "mixed.jsonl"
    file.write_text(
        '{"event_type": "a", "payload": {"n": 1}}\n'
        "not json\n"
        '{"event_type": "", "payload": 1}\n'
        '{"event_type": "a", "payload": {"n": 2}}\n'
    )

    ended = run("deliver", PARTNER, "--file", str(file), "--output", "json")

    assert ended.code == 6
    assert (ended.json()["accepted"], ended.json()["rejected"]) == (2, 2)
    assert [rejection["line"] for rejection in ended.json()["rejections"]] == [2, 3]
    until(lambda: len(receiver.ledger) == 2, "the good ones arrive")
    assert {sent.body for sent in receiver.ledger} == {b'{"n": 1}', b'{"n": 2}'}


def test_a_dead_letter_is_found_replayed_with_a_reason_and_told_by_its_audit_chain(
    run: Run, caller: Caller, receiver: Receiver
) -> None:
    receiver.script = lambda _: Answer(503)
    caller.add(PARTNER, receiver.url, max_attempts=2)
    dead = caller.delivered(PARTNER, {"n": 1})
    until(lambda: caller.status(PARTNER, dead) == "dlq", "its attempts are used up")
    receiver.script = lambda _: OK

    [listed] = run("queue", "list", PARTNER, "--status", "dlq", "--output", "jsonl").lines()
    replayed = run(
        *("queue", "replay", PARTNER, dead, "--reason", "the partner is back", "--request-id", "req-replay"),
        *("--output", "json"),
    )
    until(lambda: caller.status(PARTNER, dead) == "succeeded", "it succeeds")
    shown = run("queue", "show", PARTNER, dead, "--output", "json")
    chain = run("audit", "list", "--request-id", "req-replay", "--output", "jsonl").lines()

    assert (listed["recovery_id"], listed["failure_code"]) == (dead, "HTTP_503")
    assert (replayed.json()["previous_status"], replayed.json()["reason"]) == ("dlq", "the partner is back")
    assert shown.json()["recovery"]["cycle"] == 2
    assert len(shown.json()["attempts"]) == 3
    assert [event["event_type"] for event in chain] == [f"{CHAIN}reprocess_succeeded", f"{CHAIN}replayed"]
    assert chain[1]["metadata"]["reason"] == "the partner is back"
    assert [sent.request_id for sent in receiver.ledger][2:] == ["req-replay"]
    assert {sent.webhook_id for sent in receiver.ledger} == {dead}


def test_what_failed_elsewhere_is_imported_once_and_can_be_replayed(
    run: Run, caller: Caller, receiver: Receiver, tmp_path: Path
) -> None:
    caller.add(PARTNER, receiver.url)
    evidence = {"failure_code": "HTTP_500", "last_http_status": 500, "attempt_count": 3}
    line = {"event_type": "a", "payload": {"n": 1}, "status": "dlq", **evidence}
    file = tmp_path / "dead.jsonl"
    file.write_text(json.dumps(line) + "\n")
    words = ("queue", "import", PARTNER, "--file", str(file), "--key-prefix", "move", "--output", "json")

    first, again = run(*words), run(*words)
    [item] = caller.queue(PARTNER, status="dlq")
    replayed = run("queue", "replay", PARTNER, item["recovery_id"], "--reason", "moved here")

    assert (first.json()["accepted"], again.json()["duplicates"]) == (1, 1), first.out + again.out
    assert (item["failure_code"], item["attempt_count"]) == ("HTTP_500", 3)
    assert replayed.code == 0, replayed.err
    until(lambda: caller.status(PARTNER, item["recovery_id"]) == "succeeded", "it is delivered")


def test_what_is_not_there_ends_with_3(run: Run, caller: Caller, receiver: Receiver) -> None:
    caller.add(PARTNER, receiver.url)

    _ends(3, "INT-404-NOT-FOUND", run("integration", "show", "nobody"))
    _ends(3, "INT-404-RECOVERY-NOT-FOUND", run("queue", "show", PARTNER, "rec_0000000000000"))
    _ends(3, "tok_0", run("token", "revoke", "tok_0"))


def test_what_is_not_allowed_ends_with_4_and_leaves_its_trace(service: Service, caller: Caller) -> None:
    viewer = service.a_token("view", subject="looker")

    refused = service.run("integration", "add", PARTNER, "https://partner.example/", token=viewer)
    unknown = service.run("integration", "list", token="rdr_forged")
    missing = service.run("integration", "list")

    _ends(4, "AUTH-403-FORBIDDEN", refused)
    _ends(4, "AUTH-401-UNAUTHENTICATED", unknown)
    _ends(4, "AUTH-401-UNAUTHENTICATED", missing)
    [event] = caller.events(event_type="platform.integration.access_denied")
    assert (event["actor"]["id"], event["result"]) == ("looker", "denied")


def test_what_the_present_state_forbids_ends_with_5(run: Run, caller: Caller, receiver: Receiver) -> None:
    caller.add(PARTNER, receiver.url)
    done = caller.delivered(PARTNER, {})
    until(lambda: caller.status(PARTNER, done) == "succeeded", "it is delivered")

    replayed = run("queue", "replay", PARTNER, done, "--reason", "once more")
    added = run("integration", "add", PARTNER, receiver.url)

    _ends(5, "INT-409-RECOVERY-REPLAY-CONFLICT", replayed)
    _ends(5, "INT-409-CONFLICT", added)
    assert len(receiver.ledger) == 1


def test_wrong_usage_ends_with_2(run: Run) -> None:
    _ends(2, "--subjct", run("token", "create", "--subjct", "x"))
    _ends(2, "--output", run("integration", "list", "--output", "xml"))
    _ends(2, "nothing to deliver", run("deliver", PARTNER))


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)  # whose file shows that nothing started
def test_settings_that_are_wrong_are_all_told_at_once_and_nothing_starts(
    a_service: Callable[..., Service],
) -> None:
    service = a_service(max_attemps="3", slots="many")

    ended = service.run("serve")

    assert ended.code == 2
    assert "REDRIVE_MAX_ATTEMPS" in ended.err
    assert "REDRIVE_MAX_ATTEMPTS" in ended.err, "the nearest right name"
    assert "REDRIVE_SLOTS" in ended.err
    assert not service.database.exists()


def test_a_service_that_is_down_ends_with_8_and_a_replay_says_how_to_repeat_it(
    service: Service, token: str
) -> None:
    url = service.url
    service.kill()

    run = partial(service.run, token=token)
    listed = run("integration", "list", "--url", url)
    words = ("queue", "replay", PARTNER, "rec_0", "--reason", "a", "--idempotency-key", "k", "--verbose")
    replayed = run(*words, "--url", url)

    _ends(8, "cannot reach", listed)
    _ends(8, "Idempotency-Key: k", replayed)


def _ends(code: int, told: str, ended: Ended) -> None:
    """It ended with *code*, said *told* and what to do next, and printed nothing else."""
    assert (ended.code, ended.out) == (code, ""), ended
    assert told in ended.err
    assert "next: " in ended.err
