"""The disk is full, the file is gone: 503 and nothing changed, then recovery or a clean stop."""

import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.caller import INTEGRATIONS, Caller, Reply
from tests.e2e.receiver import OK, Answer, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

PARTNER = "partner"
UNAVAILABLE = "INT-503-DEPENDENCY-UNAVAILABLE"

pytestmark = pytest.mark.parametrize("kept", ["sqlite"], indirect=True)


@contextmanager
def nothing_can_be_written(service: Service) -> Iterator[None]:
    """Every write to a file fails in that process, as on a full disk."""
    before = resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_calls_are_answered_503_and_nothing_is_changed(
    service: Service, caller: Caller
) -> None:
    with receiving() as receiver:
        caller.add(PARTNER, receiver.url)
        before = caller.get(f"{INTEGRATIONS}/{PARTNER}")["updated_at"]

        with nothing_can_be_written(service):
            delivery = caller.deliver(PARTNER, {"n": 1}, key="once")
            batch = caller.call(
                "POST",
                f"{INTEGRATIONS}/{PARTNER}/deliveries/batch",
                {"deliveries": [{"event_type": "a", "payload": 1}]},
            )
            update = caller.call("PATCH", f"{INTEGRATIONS}/{PARTNER}", {"name": "changed"})
            unready = until(lambda: _unready(caller), "it is not ready")
            read = list(caller.queue(PARTNER))

        for reply in (delivery, batch, update, unready):
            assert (reply.status, reply.document["error_code"]) == (503, UNAVAILABLE)
            assert reply.document["retryable"]
            assert reply.document["degradation_reason"] == "storage"
        assert read == []
        until(lambda: _unready(caller) is None, "it is ready again, without a restart")
        assert caller.get(f"{INTEGRATIONS}/{PARTNER}")["updated_at"] == before
        assert list(caller.queue(PARTNER)) == []
        again = caller.deliver(PARTNER, {"n": 1}, key="once")
        assert again.status == 202
        assert "Idempotency-Replayed" not in again.headers
        until(lambda: caller.is_at_rest(PARTNER), "it is delivered")
        assert [sent.body for sent in receiver.ledger] == [b'{"n": 1}']
        assert service.stop() == 0


def test_what_was_in_flight_when_the_disk_filled_is_recorded_once_it_has_room(
    service: Service, caller: Caller
) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(200, after=gate)) as receiver:
        caller.add(PARTNER, receiver.url)
        names = [caller.delivered(PARTNER, {"n": n}) for n in range(5)]
        until(lambda: receiver.unanswered() == len(names), "all are in flight")

        with nothing_can_be_written(service):
            gate.set()
            until(lambda: not receiver.unanswered(), "all are answered")
            service.says("store_failed")
            statuses = {caller.status(PARTNER, name) for name in names}

        assert statuses == {"pending"}
        until(lambda: caller.is_at_rest(PARTNER), "all are recorded")
        for name in names:
            [attempt] = caller.item(PARTNER, name)["attempts"]
            assert (attempt["outcome"], attempt["http_status"]) == ("succeeded", 200)
        assert len(receiver.ledger) == len(names), "none was sent again"


def test_what_falls_due_while_the_disk_is_full_is_sent_once_it_has_room(
    service: Service, caller: Caller
) -> None:
    with receiving(lambda _: Answer(503)) as receiver:
        caller.add(PARTNER, receiver.url, base_delay_seconds=1, max_delay_seconds=1, jitter=0)
        name = caller.delivered(PARTNER, {})
        until(lambda: caller.status(PARTNER, name) == "retrying", "its first attempt failed")
        receiver.script = lambda _: OK

        with nothing_can_be_written(service):
            assert caller.deliver(PARTNER, {}).status == 503
            service.says("store_failed")

        until(lambda: caller.status(PARTNER, name) == "succeeded", "it was sent again")
        assert len(receiver.ledger) == 2


@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_service_whose_file_is_gone_stops_and_says_why(service: Service, caller: Caller, fate: str) -> None:
    if fate == "deleted":
        service.database.unlink()
    elif fate == "moved":
        service.database.rename(service.database.with_suffix(".moved"))
    else:
        copy = shutil.copy(service.database, service.database.with_suffix(".copy"))
        shutil.move(copy, service.database)

    assert service.ended() == 8
    assert "moved, deleted or replaced" in service.says("stopped")["reason"]
    assert "moved, deleted or replaced" in service.says("store_failed")["reason"]
    assert not any(line.get("event") == "loop_failed" for line in service.log), service.log


def test_what_was_in_flight_when_the_file_went_away_is_not_said_to_be_recorded(
    service: Service, caller: Caller
) -> None:
    gate = threading.Event()
    with receiving(lambda _: Answer(503, after=gate)) as receiver:
        caller.add(PARTNER, receiver.url)
        caller.delivered(PARTNER, {})
        until(receiver.unanswered, "it is in flight")

        service.database.unlink()

        assert service.ended() == 8
        assert service.says("stopped")["aborted"] == 1


def _unready(caller: Caller) -> Reply | None:
    """Why the service is not ready; None when it is."""
    reply = caller.call("GET", "/readyz")
    return None if reply.status == 200 else reply
