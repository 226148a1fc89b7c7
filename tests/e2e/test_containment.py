"""Contained means contained: of whatever process, no request reaches the receiver until it is released."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.caller import INTEGRATIONS, Caller
from tests.e2e.cluster import Cluster, check_the_books, comes_to_rest
from tests.e2e.receiver import Answer, Receiver, receiving
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

PARTNER = "partner"
PATH = f"{INTEGRATIONS}/{PARTNER}/containment"
BUSY = 40  # requests that reach the receiver before it is contained, and deliveries accepted after
SLOW_SECONDS = 0.02


@pytest.fixture
def cluster(tmp_path: Path, kept: dict[str, str]) -> Iterator[Cluster]:
    with ExitStack() as opened:
        yield Cluster(tmp_path, kept["database"], opened, called=1, sending=2)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(lambda _: Answer(200, after=SLOW_SECONDS)) as receiver:
        yield receiver


@pytest.mark.parametrize("kept", ["postgres"], indirect=True)
def test_once_it_is_contained_no_process_sends_until_it_is_released(
    cluster: Cluster, receiver: Receiver
) -> None:
    token = cluster.called[0].a_token()
    with Caller(cluster.called[0], token) as caller:
        caller.add(PARTNER, receiver.url, concurrency=8, shards=4)
        until(lambda: all(map(cluster.lanes_of, cluster.sending)), "both send to it")
        traffic = busy(cluster.called[0], token, receiver)

        held = contained(caller)
        answered_at, in_flight = time.monotonic(), held["in_flight"]
        silence_since = silent(caller)
        before = waiting(caller)
        until(lambda: waiting(caller) > before + BUSY, "it goes on accepting")
        released_at = released(caller)

        traffic.stop()
        comes_to_rest(caller, PARTNER)
        assert not traffic.surprises
        late = [sent for sent in receiver.ledger if answered_at < sent.arrived_at < released_at]
        assert len(late) <= in_flight, "what reached it after the answer was in flight then, and told"
        assert not [sent for sent in late if sent.arrived_at > silence_since]
        check_the_books(caller, PARTNER, traffic, receiver)
    cluster.stop()


@pytest.mark.parametrize("kept", ["postgres"], indirect=True)
def test_a_process_that_stood_still_while_it_was_contained_sends_nothing_afterwards(
    cluster: Cluster, receiver: Receiver
) -> None:
    token = cluster.called[0].a_token()
    with Caller(cluster.called[0], token) as caller:
        caller.add(PARTNER, receiver.url, concurrency=8, shards=4)
        until(lambda: all(map(cluster.lanes_of, cluster.sending)), "both send to it")
        traffic = busy(cluster.called[0], token, receiver)
        stalled = cluster.sending[0]

        stalled.signal(signal.SIGSTOP)
        contained(caller)
        silence_since = silent(caller)
        stalled.signal(signal.SIGCONT)
        stalled.says("lease_ended")
        before = waiting(caller)
        until(lambda: waiting(caller) > before + BUSY, "it goes on accepting")
        released_at = released(caller)

        traffic.stop()
        comes_to_rest(caller, PARTNER)
        assert not traffic.surprises
        assert not [sent for sent in receiver.ledger if silence_since < sent.arrived_at < released_at]
        check_the_books(caller, PARTNER, traffic, receiver)
    cluster.stop()


def test_it_stays_contained_when_the_service_is_killed_and_started_again(
    service: Service, token: str, caller: Caller, receiver: Receiver
) -> None:
    caller.add(PARTNER, receiver.url)
    traffic = busy(service, token, receiver)
    contained(caller)
    silence_since = silent(caller)
    traffic.up.clear()

    service.kill()
    service.start()
    traffic.up.set()

    assert caller.get(PATH)["state"] == "contained"
    before = waiting(caller)
    until(lambda: waiting(caller) > before + BUSY, "it goes on accepting")
    released_at = released(caller)
    traffic.stop()
    comes_to_rest(caller, PARTNER)
    assert not [sent for sent in receiver.ledger if silence_since < sent.arrived_at < released_at]
    check_the_books(caller, PARTNER, traffic, receiver)


def busy(service: Service, token: str, receiver: Receiver) -> Traffic:
    """Traffic that is under way."""
    traffic = Traffic(service, token, PARTNER, pause_seconds=0.01)
    traffic.start()
    until(lambda: len(receiver.ledger) > BUSY, "it is sent to")
    return traffic


def contained(caller: Caller) -> dict[str, Any]:
    """What is told once it is contained, be it by the answer or later."""
    reply = caller.call("POST", PATH, {"reason": "the vendor is down"})
    assert (reply.status, reply.document["state"]) in ((200, "contained"), (202, "containing"))
    if reply.status == 200:
        return dict(reply.document)

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = caller.get(PATH)
        return found if found["state"] == "contained" else None

    return until(look, "every process has confirmed, or its lease has run out")


def silent(caller: Caller) -> float:
    """When nothing was in flight any more, by the steady clock."""
    until(lambda: caller.get(PATH)["in_flight"] == 0, "what was in flight has ended")
    return time.monotonic()


def waiting(caller: Caller) -> int:
    return int(caller.get(PATH)["waiting"])


def released(caller: Caller) -> float:
    """When that was asked for, by the steady clock."""
    at = time.monotonic()
    reply = caller.call("POST", f"{PATH}/release", {"reason": "it is back", "rate_per_second": 1000})
    assert reply.status == 200, reply.document
    assert reply.document["simulation"]["backlog"] > 0
    return at
