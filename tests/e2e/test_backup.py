"""A backup that is made under traffic holds the books of one moment, and a service goes on from there."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.books import UNKNOWN, what_is_wrong_here
from tests.e2e.caller import Caller
from tests.e2e.receiver import OK, Answer, Receiver, Script, Sent, receiving
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

PARTNER = "partner"
ENOUGH = 60
HELD = 7

pytestmark = pytest.mark.parametrize("kept", ["sqlite"], indirect=True)


def test_a_backup_under_traffic_can_be_restored_with_whole_books(
    a_service: Callable[..., Service], tmp_path: Path
) -> None:
    service, backup = a_service(max_attempts="3"), tmp_path / "backup.db"
    service.start()
    token = service.a_token()
    over = threading.Event()
    with receiving(a_mixed_partner(over)) as receiver:
        with traffic_to(service, token, receiver) as traffic:
            until(lambda: len(traffic.acknowledged) >= ENOUGH, "calls are answered")
            until(lambda: receiver.unanswered() and traffic.replayed, "there is everything to back up")
            before = set(traffic.acknowledged.values())
            made = service.run("backup", str(backup))
            over.set()
            assert made.code == 0, made.err
            written = len(traffic.acknowledged)
            until(lambda: len(traffic.acknowledged) >= written + ENOUGH, "it goes on meanwhile")
        service.kill()
        restored = service.run("restore", str(backup))
        assert restored.code == 0, restored.err

        service.start()
        with Caller(service, token) as caller:
            until(lambda: caller.is_at_rest(PARTNER), "everything ends", seconds=60)
            items = [caller.item(PARTNER, item["recovery_id"]) for item in caller.queue(PARTNER)]
            events = list(caller.events(integration_id=PARTNER))

    known = {item["recovery_id"] for item in items}
    assert before <= known, "what was acknowledged before the backup is in it"
    assert set(traffic.acknowledged.values()) - known, "the test must go on after the backup"
    assert wrong_books(items, events) == {}
    codes = [attempt["failure_code"] for item in items for attempt in item["attempts"]]
    assert UNKNOWN in codes, "what was being sent at that moment is an orphan"
    assert service.stop() == 0


@contextmanager
def traffic_to(service: Service, token: str, receiver: Receiver) -> Iterator[Traffic]:
    with Caller(service, token) as caller:
        caller.add(PARTNER, receiver.url)
    traffic = Traffic(service, token, PARTNER, producers=2)
    traffic.start()
    try:
        yield traffic
    finally:
        traffic.stop()
    assert not traffic.surprises


def a_mixed_partner(over: threading.Event) -> Script:
    """Well, wrong, broken: as the number in the payload says; and one that is not answered before *over*."""

    def script(sent: Sent) -> Answer:
        number = json.loads(sent.body or b"")["n"]
        if number == HELD:
            return Answer(200, after=over)
        if number % 10 == 5:
            return OK if sent.request_id.startswith("replay-") else Answer(503)
        return Answer({6: 404, 9: 500}.get(number % 10, 200))

    return script


def wrong_books(items: list[dict[str, Any]], events: list[dict[str, Any]]) -> dict[str, list[str]]:
    chains = defaultdict(list)
    for event in reversed(events):
        chains[event["target_id"]].append(event)
    found = {
        item["recovery_id"]: list(what_is_wrong_here(item, chains[item["recovery_id"]])) for item in items
    }
    return {name: wrong for name, wrong in found.items() if wrong}
