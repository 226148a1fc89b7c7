"""A receiver that fails is left alone by every process, also after a restart, and tried by one attempt."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.caller import INTEGRATIONS, Caller
from tests.e2e.cluster import Cluster
from tests.e2e.receiver import OK, Answer, Receiver, Sent, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

PARTNER = "partner"
COUNT = 20
MANY = 100  # attempts: none of the items is given up meanwhile


def test_after_a_restart_it_is_still_open_and_one_attempt_tries_the_receiver(
    a_service: Callable[..., Service],
) -> None:
    service = a_service(max_attempts=str(MANY))
    service.start()
    token = service.a_token()
    with receiving(lambda _: Answer(503)) as receiver:
        with Caller(service, token) as caller:
            names = failing(caller, receiver)
            opened = breaker(caller)
        service.stop()
        before = len(receiver.ledger)
        receiver.script = lambda _: OK
        service.start()

        with Caller(service, token) as caller:
            assert breaker(caller)["opened_at"] == opened["opened_at"]
            until(lambda: caller.is_at_rest(PARTNER), "everything is delivered")
            assert {caller.status(PARTNER, name) for name in names} == {"succeeded"}
            assert breaker(caller)["state"] == "closed"
            events = [event["event_type"].rpartition(".")[2] for event in caller.events(target_id=PARTNER)]
    assert events.count("breaker_opened") == events.count("breaker_closed") == 1
    assert_first_is_alone(receiver.ledger[before:])
    assert len(receiver.ledger) == before + COUNT


@pytest.fixture
def cluster(tmp_path: Path, kept: dict[str, str]) -> Iterator[Cluster]:
    with ExitStack() as opened:
        yield Cluster(tmp_path, kept["database"], opened, called=1, sending=2)


@pytest.mark.parametrize("kept", ["postgres"], indirect=True)
def test_what_one_process_found_holds_the_others_back_and_one_of_them_tries(cluster: Cluster) -> None:
    """They own two lanes each: the same receiver."""
    [called] = cluster.called
    with receiving(lambda _: Answer(503)) as receiver, Caller(called, called.a_token()) as caller:
        names = failing(caller, receiver, shards=4, max_attempts=MANY, running=cluster)
        silent = threading.Event()

        def trial(_: Sent) -> Answer:
            silent.set()
            return OK

        until(lambda: all_idle(cluster), "nobody has anything in hand")
        before = len(receiver.ledger)
        receiver.script = trial

        until(silent.is_set, "one of them tries")
        until(lambda: caller.is_at_rest(PARTNER), "everything is delivered")
        assert {caller.status(PARTNER, name) for name in names} == {"succeeded"}
    assert_first_is_alone(receiver.ledger[before:])
    cluster.stop()


def failing(
    caller: Caller, receiver: Receiver, *, running: Cluster | None = None, **fields: Any
) -> list[str]:
    """Deliver to a receiver that fails, until its breaker is open; the items."""
    caller.add(PARTNER, receiver.url, base_delay_seconds=0.2, max_delay_seconds=0.5, **fields)
    if running is not None:
        until(lambda: all(map(running.lanes_of, running.sending)), "both send to it")
    names = [caller.delivered(PARTNER, {"n": number}) for number in range(COUNT)]
    until(lambda: breaker(caller)["state"] == "open", "it opens")
    return names


def breaker(caller: Caller) -> dict[str, Any]:
    found: dict[str, Any] = caller.get(f"{INTEGRATIONS}/{PARTNER}")["breaker"]
    return found


def all_idle(cluster: Cluster) -> bool:
    return not cluster.ask("SELECT 1 FROM live WHERE claimed_by IS NOT NULL LIMIT 1")


def assert_first_is_alone(ledger: list[Sent]) -> None:
    """The trial is over before anything else is sent."""
    first, *others = sorted(ledger, key=lambda sent: sent.arrived_at)
    assert all(first.ended_at <= sent.arrived_at for sent in others), (first, others[:1])
