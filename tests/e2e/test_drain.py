"""SIGTERM: what is in flight is finished and written down, nothing more is begun, nothing is lost."""

import signal
import threading
from collections import Counter
from collections.abc import Callable

from tests.e2e.books import UNKNOWN
from tests.e2e.caller import Caller
from tests.e2e.receiver import (
    OK,
    Answer,
    Receiver,
    receiving,
    taking_no_connection,
    waiting_to_connect,
)
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

PARTNER = "partner"
AT_ONCE = 4  # the integration's concurrency
WAITING = 6  # what is due besides


def test_a_drain_finishes_what_is_in_flight_and_begins_nothing(
    service: Service, caller: Caller, token: str
) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(200, after=gate)) as receiver:
        names = _more_than_can_be_in_flight(caller, receiver)

        service.signal(signal.SIGTERM)
        service.says("drain_started")
        gate.set()

        assert service.ended() == 0
        assert len(receiver.ledger) == AT_ONCE
        service.start()
        until(lambda: caller.is_at_rest(PARTNER), "the rest is delivered")
        assert [caller.status(PARTNER, name) for name in names] == ["succeeded"] * len(names)
        assert sorted(sent.webhook_id for sent in receiver.ledger) == sorted(names), "each of them once"


def test_what_failed_during_a_drain_is_retried_by_the_next_process(service: Service, caller: Caller) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(503, after=gate)) as receiver:
        caller.add(PARTNER, receiver.url)
        name = caller.delivered(PARTNER, {})
        until(lambda: receiver.ledger, "it is in flight")
        service.signal(signal.SIGTERM)
        service.says("drain_started")
        gate.set()
        assert service.ended() == 0
        receiver.script = lambda _: OK

        service.start()
        until(lambda: caller.is_at_rest(PARTNER), "it is delivered")

        codes = [attempt["failure_code"] for attempt in caller.item(PARTNER, name)["attempts"]]
        assert codes == ["HTTP_503", None]
        assert len(receiver.ledger) == 2


def test_a_second_signal_stops_at_once_and_what_was_cut_off_is_known_as_such(
    service: Service, caller: Caller
) -> None:
    never = threading.Event()
    with receiving(lambda _: Answer(200, after=never)) as receiver:
        # So long are the places of what was cut off kept, as its receiver may still be at it.
        names = _more_than_can_be_in_flight(caller, receiver, timeout_seconds=5)

        service.signal(signal.SIGTERM)
        service.says("drain_started")
        service.signal(signal.SIGTERM)
        code = service.ended()

        assert code == 0
        assert service.says("stopped")["aborted"] == AT_ONCE
        cut_off = {sent.webhook_id for sent in receiver.ledger}
        receiver.script = lambda _: OK
        service.start()
        until(lambda: caller.is_at_rest(PARTNER), "all is delivered")
        for name in names:
            codes = [attempt["failure_code"] for attempt in caller.item(PARTNER, name)["attempts"]]
            assert codes == ([UNKNOWN, None] if name in cut_off else [None])
            assert len(receiver.sends_of(name)) == len(codes)


def test_what_a_second_signal_cuts_off_before_it_was_sent_costs_no_attempt(
    service: Service, caller: Caller
) -> None:
    with taking_no_connection() as port:
        before = waiting_to_connect(port)
        caller.add(PARTNER, f"http://127.0.0.1:{port}/hooks")
        name = caller.delivered(PARTNER, {})
        until(lambda: waiting_to_connect(port) > before, "it is in flight")
        service.signal(signal.SIGTERM)
        assert service.says("drain_started")["in_flight"] == 1
        service.signal(signal.SIGTERM)
        assert service.ended() == 0
        assert service.says("stopped")["aborted"] == 0

    with receiving(port=port) as receiver:
        service.start()
        until(lambda: caller.is_at_rest(PARTNER), "it is delivered")

        item = caller.item(PARTNER, name)
        assert (item["status"], item["attempt_count"]) == ("succeeded", 1)
        assert [attempt["failure_code"] for attempt in item["attempts"]] == [None]
        assert len(receiver.ledger) == 1


def test_a_stop_without_work_ends_well_also_on_an_interrupt(a_service: Callable[..., Service]) -> None:
    service = a_service()
    service.start()

    service.signal(signal.SIGINT)

    assert service.ended() == 0
    assert service.says("stopped")["reason"] == "SIGINT"


def test_drains_in_the_middle_of_traffic_cut_nothing_off_and_send_nothing_twice(
    service: Service, caller: Caller, token: str
) -> None:
    with receiving() as receiver:
        caller.add(PARTNER, receiver.url)
        traffic = Traffic(service, token, PARTNER)

        traffic.start()
        for _ in range(8):
            enough = len(traffic.acknowledged) + 50
            until(lambda: len(traffic.acknowledged) >= enough, "calls are answered")  # noqa: B023
            traffic.up.clear()
            assert service.stop() == 0
            service.start()
            traffic.up.set()
        traffic.stop()
        until(lambda: caller.is_at_rest(PARTNER), "all is delivered")

        assert not traffic.surprises
        assert Counter(sent.webhook_id for sent in receiver.ledger) == Counter(traffic.acknowledged.values())
        assert not any(item["failure_code"] for item in caller.queue(PARTNER))


def _more_than_can_be_in_flight(caller: Caller, receiver: Receiver, **fields: int) -> list[str]:
    """Deliveries of which the receiver has AT_ONCE in its hands, the others wait for their turn."""
    caller.add(PARTNER, receiver.url, concurrency=AT_ONCE, **fields)
    names = [caller.delivered(PARTNER, {"n": n}) for n in range(AT_ONCE + WAITING)]
    until(lambda: receiver.unanswered() == AT_ONCE, "as many as may are in flight")
    return names
