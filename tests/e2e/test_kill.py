"""`kill -9` in the middle of traffic: nothing acknowledged is lost, every send is accounted for."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.e2e.books import UNKNOWN, wrong_bytes, wrong_items
from tests.e2e.caller import Caller
from tests.e2e.partner import a_mixed_partner
from tests.e2e.receiver import Receiver, receiving
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

PARTNER = "partner"
MAX_ATTEMPTS = 4


@pytest.mark.parametrize(
    ("kept", "kills", "most_calls"),
    [
        pytest.param("sqlite", 20, 40, id="sqlite-short"),
        pytest.param("sqlite", 100, 400, marks=pytest.mark.long, id="sqlite-long"),
        # Fewer, and less: on PostgreSQL a killed process's work waits until its lease has run out.
        pytest.param("postgres", 8, 40, id="postgres-short"),
        pytest.param("postgres", 40, 400, marks=pytest.mark.long, id="postgres-long"),
    ],
    indirect=["kept"],
)
def test_nothing_acknowledged_is_lost_and_every_send_is_accounted_for_when_the_service_is_killed(
    a_service: Callable[..., Service], kept: dict[str, str], kills: int, most_calls: int
) -> None:
    pause_seconds = 0.05 if "database" in kept else 0.0
    service = a_service(max_attempts=str(MAX_ATTEMPTS), timeout_seconds="3", lease_seconds="3")
    service.start()
    token = service.a_token()
    with receiving(a_mixed_partner()) as receiver, Caller(service, token) as caller:
        caller.add(PARTNER, receiver.url)
        traffic = Traffic(service, token, PARTNER, pause_seconds=pause_seconds)

        traffic.start()
        _kill_it(kills, most_calls, service, traffic, receiver)
        until(lambda: traffic.replayed, "something is replayed")
        traffic.stop()
        until(lambda: caller.is_at_rest(PARTNER), "everything ends", seconds=60)

        assert not traffic.surprises
        items = [caller.item(PARTNER, item["recovery_id"]) for item in caller.queue(PARTNER)]
        events = list(caller.events(integration_id=PARTNER))
    assert service.stop() == 0
    if "database" not in kept:
        assert _integrity(service) == "ok"
    assert {item["recovery_id"] for item in items} == set(traffic.acknowledged.values())
    assert len(items) == len(traffic.acknowledged), "a delivery was stored twice, or two became one"
    assert wrong_items(items, events, receiver.ledger) == {}
    assert wrong_bytes(items, receiver.ledger) == []
    assert {item["recovery_id"]: item["cycle"] for item in items if item["cycle"] > 1} == traffic.replayed
    codes = [attempt["failure_code"] for item in items for attempt in item["attempts"]]
    assert UNKNOWN in codes, "the test must kill it while something is in flight"
    assert {item["status"] for item in items} == {"succeeded", "failed", "dlq"}


def _kill_it(kills: int, most_calls: int, service: Service, traffic: Traffic, receiver: Receiver) -> None:
    """Kill and restart it, each time at another moment of its life."""
    chance = random.Random(20)
    for number in range(kills):
        calls, sends = len(traffic.acknowledged), len(receiver.ledger)
        more = chance.randint(1, most_calls)
        if number % 4 == 0:
            until(lambda: len(traffic.acknowledged) >= calls + more, "calls are answered")  # noqa: B023
        elif number % 4 == 1:
            until(lambda: len(receiver.ledger) >= sends + more, "deliveries arrive")  # noqa: B023
        elif number % 4 == 2:
            until(
                lambda: len(traffic.acknowledged) >= calls + more and receiver.unanswered(),  # noqa: B023
                "exchanges are under way",
            )
        traffic.up.clear()
        service.kill()
        service.spawn()
        if number % 4 == 1:  # once more, while it settles what the last one left
            service.says("leases_lost", "started")
            service.kill()
            service.spawn()
        service.is_started()
        traffic.up.set()


def _integrity(service: Service) -> str:
    with closing(sqlite3.connect(service.database)) as connection:
        [(verdict,)] = connection.execute("PRAGMA integrity_check")
    return str(verdict)
