"""What GitHub sends, through `redrive deliver`, to a receiver that no one here wrote."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from standardwebhooks import Webhook

from tests.e2e.caller import Caller
from tests.e2e.httpbin_server import ROOT, httpbin
from tests.e2e.receiver import receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

PAYLOADS = ROOT.parent / "shared" / "data" / "github-webhooks.jsonl"
ALL = 329
SOME = 24  # where each takes a while
PARTNER = "github"


@pytest.fixture(scope="module")
def httpbin_url() -> Iterator[str]:
    with httpbin() as url:
        yield url


def test_every_payload_arrives_byte_for_byte_and_its_signature_verifies(
    service: Service, caller: Caller, token: str, httpbin_url: str
) -> None:
    secret = caller.add(PARTNER, f"{httpbin_url}/post")

    first = _deliver_file(service, token, PAYLOADS)
    again = _deliver_file(service, token, PAYLOADS)

    assert first == {"accepted": ALL, "duplicates": 0, "rejected": 0, "rejections": []}
    assert again == {"accepted": 0, "duplicates": ALL, "rejected": 0, "rejections": []}
    items = _at_rest(caller)
    payloads = _payloads()
    assert {item["idempotency_key"] for item in items} == set(payloads)
    for item in items:
        assert (item["status"], item["attempt_count"]) == ("succeeded", 1)
        body, headers = _echo(item["response_snapshot"]["body"])
        assert body == payloads[item["idempotency_key"]]
        Webhook(secret).verify(body, headers)
        assert headers["Webhook-Id"] == item["recovery_id"]
        assert headers["Traceparent"].split("-")[1] == item["traceparent"].split("-")[1]


def test_what_stays_unavailable_ends_in_the_dead_letter_queue_and_a_replay_brings_it_home(
    service: Service, caller: Caller, token: str, httpbin_url: str
) -> None:
    caller.add(PARTNER, f"{httpbin_url}/status/503", max_attempts=2)
    _deliver_file(service, token, PAYLOADS)
    items = _at_rest(caller)
    assert len(items) == ALL
    assert {_end(item) for item in items} == {("dlq", "HTTP_503", 2)}

    run, lost = partial(service.run, token=token), items[0]["recovery_id"]
    changed = run("integration", "update", PARTNER, "--target-url", f"{httpbin_url}/post")
    replayed = run("queue", "replay", PARTNER, lost, "--reason", "it is well again")

    assert (changed.code, replayed.code) == (0, 0), changed.err + replayed.err
    until(lambda: caller.status(PARTNER, lost) == "succeeded", "it comes home")
    body, _ = _echo(caller.item(PARTNER, lost)["response_snapshot"]["body"])
    assert body == _payloads()[items[0]["idempotency_key"]]


def test_a_redirect_is_a_failure_and_is_not_followed(
    service: Service, caller: Caller, token: str, httpbin_url: str
) -> None:
    with receiving() as elsewhere:
        caller.add(PARTNER, f"{httpbin_url}/redirect-to?url={quote(elsewhere.url, safe='')}")

        _deliver_file(service, token, PAYLOADS)

        items = _at_rest(caller)
        assert len(items) == ALL
        assert {_end(item) for item in items} == {("failed", "HTTP_302", 1)}
        assert elsewhere.ledger == []


@pytest.mark.parametrize(
    ("path", "fields", "end"),
    [
        pytest.param("/delay/3", {}, ("succeeded", None, 1), id="slow"),
        pytest.param(
            "/delay/3",
            {"timeout_seconds": 0.5, "max_attempts": 1},
            ("dlq", "RESPONSE_TIMEOUT", 1),
            id="too-slow",
        ),
        pytest.param(
            "/as-get/drip?duration=0.5&numbytes=10&delay=0", {}, ("succeeded", None, 1), id="dripped"
        ),
        pytest.param("/drip", {}, ("failed", "HTTP_405", 1), id="not-for-posts"),
    ],
)
def test_a_slow_answer_counts_when_it_comes_in_time(
    *,
    service: Service,
    caller: Caller,
    token: str,
    httpbin_url: str,
    path: str,
    fields: dict[str, Any],
    end: tuple[str, str | None, int],
) -> None:
    caller.add(PARTNER, httpbin_url + path, concurrency=SOME, **fields)

    _deliver_file(service, token, _some(service.home))

    items = _at_rest(caller)
    assert len(items) == SOME
    assert {_end(item) for item in items} == {end}


def test_the_header_decides_although_the_body_drips_for_too_long(
    service: Service, caller: Caller, token: str, httpbin_url: str
) -> None:
    caller.add(
        PARTNER,
        f"{httpbin_url}/as-get/drip?duration=5&numbytes=10",
        concurrency=SOME,
        timeout_seconds=1,
        max_attempts=1,
    )

    _deliver_file(service, token, _some(service.home))

    for item in _at_rest(caller):
        assert _end(item) == ("succeeded", None, 1)
        answer = item["response_snapshot"]
        assert (answer["status"], answer["truncated"]) == (200, True)
        assert answer["size"] < 10


def _deliver_file(service: Service, token: str, file: Path) -> Any:
    """Run `redrive deliver` on *file*; what it counted."""
    ended = service.run(
        "deliver", PARTNER, "--file", str(file), "--key-prefix", "line", "--output", "json", token=token
    )
    assert ended.code == 0, ended.out + ended.err
    return ended.json()


def _at_rest(caller: Caller) -> list[dict[str, Any]]:
    """Every item, whole, once all of them are final."""
    until(lambda: caller.is_at_rest(PARTNER), "everything ends", seconds=60)
    return [caller.item(PARTNER, item["recovery_id"]) for item in caller.queue(PARTNER)]


def _end(item: dict[str, Any]) -> tuple[str, str | None, int]:
    return item["status"], item["failure_code"], item["attempt_count"]


def _some(folder: Path) -> Path:
    """A file of SOME of the lines."""
    file = folder / "some.jsonl"
    with PAYLOADS.open("rb") as lines:
        file.write_bytes(b"".join(islice(lines, SOME)))
    return file


def _payloads() -> dict[str, bytes]:
    """The bytes of each payload as they stand in the file, under the key that its line gets."""
    found = {}
    for number, line in enumerate(PAYLOADS.read_bytes().splitlines(), 1):
        start = line.index(b'"payload":') + len(b'"payload":')
        found[f"line-{number}"] = line[start : line.rindex(b"}")]
    assert len(found) == ALL
    return found


def _echo(body: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers that httpbin saw. Its JSON may be cut at 64 KiB, but they come first in it."""
    if isinstance(body, dict):
        return body["data"].encode(), body["headers"]
    data, end = _member(body, "data", 0)
    headers, _ = _member(body, "headers", end)
    return data.encode(), headers


def _member(text: str, name: str, start: int) -> tuple[Any, int]:
    return json.JSONDecoder().raw_decode(text, text.index(f'"{name}": ', start) + len(name) + 4)
