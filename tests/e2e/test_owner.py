"""One process owns a SQLite file; whoever does not need to own it works beside."""

import signal
import threading
from collections.abc import Callable

import pytest

from tests.e2e.caller import INTEGRATIONS, Caller
from tests.e2e.receiver import Answer, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

of_a_file = pytest.mark.parametrize("kept", ["sqlite"], indirect=True)


@of_a_file
def test_a_second_serve_on_the_same_file_refuses_to_start_and_names_the_holder(
    service: Service, caller: Caller
) -> None:
    second = service.run("serve")

    assert second.code == 8
    assert f"pid {service.pid}" in second.err
    assert str(service.database) in second.err
    assert '"started"' not in second.err
    assert caller.get(INTEGRATIONS)["integrations"] == [], "the first goes on"


@of_a_file
def test_whoever_asks_while_the_owner_drains_is_told_that_it_is_stopping(
    service: Service, caller: Caller
) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(200, after=gate)) as receiver:
        caller.add("slow", receiver.url)
        caller.delivered("slow", {})
        until(lambda: receiver.unanswered() == 1, "one is in flight")

        service.signal(signal.SIGTERM)
        service.says("drain_started")
        stopping = f"redrive serve, stopping, pid {service.pid}"
        until(lambda: stopping in service.run("serve").err, "a second one is told")
        doctor = service.run("doctor", "--output", "json").json()["findings"]
        gate.set()

        assert service.ended() == 0
    [found] = [finding["detail"] for finding in doctor if finding["name"] == "service"]
    assert found == f"runs on this database ({stopping})"


@of_a_file
def test_the_file_is_free_as_soon_as_its_owner_is_dead(service: Service, caller: Caller) -> None:
    service.kill()

    service.start()

    assert caller.get("/readyz")["status"] == "ready"


NOT_NEEDED_OF_A_TEST = {"fsync", "full_page_writes", "synchronous_commit"}  # to survive a power cut


def test_commands_on_the_database_work_beside_a_running_service(
    service: Service, a_service: Callable[..., Service]
) -> None:
    token = service.a_token("view", subject="beside")
    listed = service.run("token", "list", "--output", "json")
    doctor = service.run("doctor", "--output", "json")
    migrated = service.run("migrate")

    assert [row["subject"] for row in listed.json()["tokens"]] == ["beside"]
    wrong = {finding["name"] for finding in doctor.json()["findings"] if not finding["ok"]}
    assert wrong <= NOT_NEEDED_OF_A_TEST
    assert migrated.code == 0, migrated.err
    with Caller(service, token) as caller:
        assert caller.get(INTEGRATIONS)["integrations"] == []


def test_a_revoked_token_is_refused_within_five_seconds(service: Service) -> None:
    token = service.a_token()
    [row] = service.run("token", "list", "--output", "jsonl").lines()
    with Caller(service, token) as caller:
        assert caller.call("GET", INTEGRATIONS).status == 200

        assert service.run("token", "revoke", row["token_id"]).code == 0

        until(lambda: caller.call("GET", INTEGRATIONS).status == 401, "it is refused", seconds=5)
