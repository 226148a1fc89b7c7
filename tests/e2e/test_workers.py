"""`redrive serve --workers`: several processes on one port, whose deaths are known at once."""

import errno
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from redrive.supervisor import MOST_RASH
from tests.e2e.caller import Caller
from tests.e2e.receiver import Answer, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

WORKERS = 3
PARTNERS = [f"partner-{number}" for number in range(6)]

pytestmark = pytest.mark.parametrize("kept", ["postgres"], indirect=True)


@pytest.fixture
def fleet(a_service: Callable[..., Service]) -> Service:
    """Running, on a database of its own."""
    service = a_service(workers=str(WORKERS), metrics_port=str(free_ports(WORKERS)))
    service.start()
    until(lambda: len(started(service)) == WORKERS, "all of them started")
    return service


def test_they_share_a_port_and_the_work(fleet: Service) -> None:
    with receiving(lambda _: Answer(200)) as receiver, Caller(fleet, fleet.a_token()) as caller:
        for partner in PARTNERS:
            caller.add(partner, receiver.url)
        names = {caller.delivered(partner, {}): partner for partner in PARTNERS * 5}

        until(lambda: all(caller.is_at_rest(partner) for partner in PARTNERS), "everything is delivered")

        assert {caller.status(partner, name) for name, partner in names.items()} == {"succeeded"}
        assert sorted(sent.webhook_id for sent in receiver.ledger) == sorted(names), "each of them once"


def test_what_a_killed_process_had_in_hand_is_taken_over_and_a_new_one_comes(fleet: Service) -> None:
    gate, token = threading.Event(), fleet.a_token()
    with receiving(lambda _: Answer(200, after=gate)) as receiver:
        with Caller(fleet, token) as caller:
            for partner in PARTNERS:
                caller.add(partner, receiver.url)
            names = {caller.delivered(partner, {}): partner for partner in PARTNERS}
        until(lambda: len(receiver.ledger) == len(names), "every partner has one in flight")

        victim = children(fleet.pid)[0]
        os.kill(victim, signal.SIGKILL)

        assert fleet.says("process_died")["pid"] == victim
        until(lambda: len(started(fleet)) == WORKERS + 1, "another took its place")
        gate.set()
        with Caller(fleet, token) as caller:
            until(lambda: all(caller.is_at_rest(partner) for partner in PARTNERS), "everything is delivered")
            items = [caller.item(partner, name) for name, partner in names.items()]
        assert {item["status"] for item in items} == {"succeeded"}
        codes = [[attempt["failure_code"] for attempt in item["attempts"]] for item in items]
        assert all(one in ([None], ["LEASE_EXPIRED", None]) for one in codes)
        assert len(receiver.ledger) == sum(map(len, codes))


def test_a_parent_whose_processes_die_as_soon_as_they_start_gives_up_and_says_so(fleet: Service) -> None:
    def died() -> bool:
        for pid in children(fleet.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deaths = [line for line in fleet.log if line["event"] == "process_died"]
        return len(deaths) >= MOST_RASH

    until(died, "that many have died")

    assert fleet.ended() == 8
    said = "".join(line["text"] for line in fleet.log if line["event"] is None)
    assert f"gave up: {MOST_RASH} processes died within 10 s of their start" in said


def test_one_signal_to_the_parent_drains_them_all(fleet: Service) -> None:
    assert fleet.stop() == 0

    assert [line["reason"] for line in fleet.log if line["event"] == "stopped"] == ["SIGTERM"] * WORKERS


def test_whoever_calls_while_all_of_them_drain_is_refused_at_once(fleet: Service) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(200, after=gate)) as receiver:
        with Caller(fleet, fleet.a_token()) as caller:
            caller.add("slow", receiver.url)
            caller.delivered("slow", {})
        until(lambda: len(receiver.ledger) == 1, "it is in flight")

        fleet.signal(signal.SIGTERM)

        until(lambda: refuses(fleet), "nobody waits for an answer")
        assert not [line for line in fleet.log if line["event"] == "stopped"]
        gate.set()
        fleet.ended()


def test_they_stop_when_their_parent_is_no_more(fleet: Service) -> None:
    orphans = children(fleet.pid)

    fleet.signal(signal.SIGKILL)

    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), "they ended")
    fleet.ended()


def test_each_process_has_metrics_of_its_own_at_a_port_of_its_own(fleet: Service) -> None:
    first = int(fleet.environment["REDRIVE_METRICS_PORT"])

    for port in range(first, first + WORKERS):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"redrive_deliveries_accepted_total" in answer.read()
    with Caller(fleet, fleet.a_token()) as caller:
        refused = caller.call("GET", "/metrics")
        assert (refused.status, "REDRIVE_METRICS_PORT" in refused.document["detail"]) == (404, True)


def test_a_metrics_port_that_is_taken_is_said_before_any_process_starts(
    a_service: Callable[..., Service],
) -> None:
    first = free_ports(WORKERS)
    service = a_service(workers=str(WORKERS), metrics_port=str(first))
    with socket.create_server(("127.0.0.1", first + 1)):
        ended = service.run("serve", "--workers", str(WORKERS))

    assert ended.code == 8
    assert f"127.0.0.1:{first + 1} (Address already in use); choose another REDRIVE_METRICS_PORT" in ended.err
    assert '"started"' not in ended.err


def refuses(fleet: Service) -> bool:
    assert fleet.address is not None
    with socket.socket() as caller:
        return caller.connect_ex(fleet.address) == errno.ECONNREFUSED


def started(fleet: Service) -> list[str]:
    return [line["address"] for line in fleet.log if line["event"] == "started"]


def free_ports(count: int) -> int:
    """The first of *count* ports in a row that nobody listens on now."""
    while True:
        first = random.randrange(20_000, 30_000)  # another test may look for some at the same time
        with ExitStack() as taken:
            try:
                for port in range(first, first + count):
                    taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
