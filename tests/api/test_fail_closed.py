"""Fail closed: without storage nothing happens and 503 says so; with it again, everything goes on."""

import threading
from typing import Any

import pytest

import redrive.api.call
from tests.api.loops import until
from tests.api.receiver import Answer
from tests.api.service import (
    DELIVER,
    EVENTS,
    INTEGRATIONS,
    NEVER,
    VIEW,
    Partner,
    Service,
    a_delivery,
    an_import,
)
from tests.api.shapes import PROBLEM
from tests.api.test_system import count
from tests.api.wire import Reply

UNAVAILABLE = "INT-503-DEPENDENCY-UNAVAILABLE"


def assert_unavailable(reply: Reply) -> None:
    assert (reply.status, reply.error_code) == (503, UNAVAILABLE), reply
    problem = reply.json()
    assert problem.keys() == PROBLEM | {"degradation_reason"}
    assert problem["degradation_reason"]
    assert problem["retryable"] is True
    assert reply.header("retry-after") is not None


def writing_calls(partner: Partner, dead: str) -> list[tuple[str, str, Any]]:
    return [
        ("POST", INTEGRATIONS, {"integration_id": "never-made", "url": "https://partner.example/"}),
        ("PATCH", partner.url, {"name": "changed"}),
        ("POST", partner.deliveries, a_delivery()),
        ("POST", partner.batch, {"deliveries": [a_delivery(), a_delivery()]}),
        ("POST", partner.queue, an_import()),
        ("POST", partner.replay_url(dead), {"reason": "a"}),
        ("POST", partner.resolve_url(dead), {"reason": "a"}),
    ]


def make(service: Service, call: tuple[str, str, Any], *, keyed: bool) -> Reply:
    method, path, document = call
    if method == "PATCH":
        return service.admin.patch(path, document)
    return service.admin.post(
        path, document, *([("Idempotency-Key", f"key-of-{path[-9:]}")] if keyed else [])
    )


@pytest.mark.parametrize("keyed", [False, True])
def test_without_storage_every_writing_call_is_503_and_nothing_happens(
    own_service: Service, *, keyed: bool
) -> None:
    partner = own_service.partner()
    dead = partner.hand_over()
    calls = writing_calls(partner, dead)
    before = partner.facts()

    own_service.take_storage_away()
    refused = [make(own_service, call, keyed=keyed) for call in calls]

    for reply in refused:
        assert_unavailable(reply)
    assert partner.facts() == before
    assert partner.received == []

    own_service.give_storage_back()
    accepted = [make(own_service, call, keyed=keyed) for call in calls[:-1]]
    assert [reply.status for reply in accepted] == [201, 200, 202, 202, 201, 200]


@pytest.mark.parametrize("keyed", [False, True])
def test_what_cannot_be_told_does_not_happen(
    own_service: Service, monkeypatch: pytest.MonkeyPatch, *, keyed: bool
) -> None:
    partner = own_service.partner(rate_per_second=NEVER)
    dead = partner.hand_over()
    calls = [call for call in writing_calls(partner, dead) if call[1] != partner.deliveries]
    before = partner.facts()

    with monkeypatch.context() as broken:
        broken.setattr(redrive.api.call, "encode", lambda _: 1 / 0)
        refused = [make(own_service, call, keyed=keyed) for call in calls]

    for reply in refused:
        assert_unavailable(reply)
        assert reply.json()["degradation_reason"] == "internal"
    assert partner.facts() == before

    accepted = [make(own_service, call, keyed=keyed) for call in calls[:-1]]
    assert [reply.status for reply in accepted] == [201, 200, 202, 201, 200]


def test_without_storage_the_service_is_not_ready_and_then_is_again(own_service: Service) -> None:
    partner = own_service.partner()
    own_service.take_storage_away()
    own_service.admin.post(partner.deliveries, a_delivery())

    assert_unavailable(own_service.nobody.get("/readyz"))
    assert own_service.nobody.get("/healthz").status == 200
    assert count(own_service, "store_failures_total") == 1

    own_service.give_storage_back()

    until(lambda: own_service.nobody.get("/readyz").status == 200)
    partner.becomes(partner.deliver(), "succeeded")


def test_without_traffic_a_failed_storage_is_noticed(own_service: Service) -> None:
    own_service.take_storage_away()

    until(lambda: own_service.nobody.get("/readyz").status == 503)


def test_what_can_be_read_is_read_while_nothing_can_be_written(own_service: Service) -> None:
    partner = own_service.partner()
    dead = partner.hand_over()
    own_service.take_storage_away()

    for path in (INTEGRATIONS, partner.url, partner.queue, partner.item_url(dead), EVENTS):
        assert own_service.admin.get(path).status == 200


def test_a_denial_that_cannot_be_audited_is_503(own_service: Service) -> None:
    viewer = own_service.caller(VIEW)
    partner = own_service.partner()
    own_service.take_storage_away()

    assert_unavailable(viewer.post(partner.deliveries, a_delivery()))

    own_service.give_storage_back()
    assert viewer.post(partner.deliveries, a_delivery()).status == 403


def test_an_attempt_that_ends_without_storage_is_recorded_afterwards(own_service: Service) -> None:
    partner, gate = own_service.partner(), threading.Event()
    partner.answers(Answer(503, gate=gate), Answer(200))
    recovery_id = partner.deliver()
    until(lambda: partner.received)

    own_service.take_storage_away()
    gate.set()
    until(lambda: own_service.nobody.get("/readyz").status == 503)
    assert partner.show(recovery_id)["attempts"] == []
    assert len(partner.received) == 1
    own_service.give_storage_back()

    partner.becomes(recovery_id, "succeeded")
    assert [one["failure_code"] for one in partner.show(recovery_id)["attempts"]] == ["HTTP_503", None]
    assert len(partner.received) == 2


def test_a_replay_whose_event_cannot_be_written_does_not_happen(own_service: Service) -> None:
    partner = own_service.partner()
    dead = partner.hand_over()
    before = partner.facts()
    own_service.break_by_hand(own_service.storage.REFUSE_EVENTS)

    reply = partner.replay(dead)

    assert_unavailable(reply)
    assert partner.facts() == before
    own_service.break_by_hand(own_service.storage.TAKE_EVENTS_AGAIN)
    assert partner.replay(dead).status == 200
    partner.becomes(dead, "succeeded")


BREAKAGES = {
    "the attempt that succeeded is gone": ("succeeded", "DELETE FROM attempt"),
    "it is nowhere": ("dlq", "DELETE FROM dead"),
    "it is both dead and alive": (
        "dlq",
        """INSERT INTO live (id, integration, status, cycle, attempt, max_attempts, due_at)
           SELECT id, integration, 'pending', 1, 0, 5, 9999999999999 FROM dead""",
    ),
    "its status is none": ("dlq", "UPDATE dead SET status = 'asleep'"),
    "its cycle was never opened": ("dlq", "UPDATE dead SET cycle = 7"),
    "its headers are not JSON": ("dlq", "UPDATE delivery SET headers = '{'"),
    "its answer's headers are not JSON": ("failed", "UPDATE attempt SET headers = '[1'"),
}


@pytest.mark.parametrize(("status", "sql"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_an_item_that_breaks_its_rules_is_reported_and_not_served(
    own_service: Service, status: str, sql: str
) -> None:
    partner = own_service.partner()
    if status == "dlq":
        recovery_id = partner.hand_over()
    else:
        partner.answers(200 if status == "succeeded" else 400)
        recovery_id = partner.deliver()
        partner.becomes(recovery_id, status)

    own_service.break_by_hand(sql)

    assert_unavailable(own_service.admin.get(partner.item_url(recovery_id)))
    assert_unavailable(own_service.admin.get(partner.queue))
    assert_unavailable(partner.replay(recovery_id))
    assert count(own_service, "store_failures_total") == 3


def test_an_event_that_cannot_be_read_is_reported_and_not_served(own_service: Service) -> None:
    partner = own_service.partner()
    own_service.break_by_hand("UPDATE audit SET record = '{}'")

    assert_unavailable(own_service.admin.get(f"{EVENTS}?integration_id={partner.id}"))


def test_a_token_that_makes_no_sense_lets_nobody_in(own_service: Service) -> None:
    caller = own_service.caller(DELIVER)
    own_service.break_by_hand("UPDATE token SET permissions = 'everything' WHERE subject = ?", caller.subject)

    assert_unavailable(caller.get(INTEGRATIONS))
