"""With `seal_content` all goes as without it, and what lies in the database says nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redrive.config import load
from redrive.domain.ids import parse_recovery_id
from tests.api.loops import until
from tests.api.receiver import Answer, Receiver
from tests.api.service import Partner, Service, an_import
from tests.api.storage import Storage

CANARY = "c4n4ry"
RESPONSE = Answer(503, CANARY.encode(), (("Content-Type", "text/plain"),))


@pytest.fixture
def sealing(receiver: Receiver, new_storage: Callable[[], Storage]) -> Iterator[Service]:
    service = Service(new_storage(), receiver, settings=load({}, {"REDRIVE_SEAL_CONTENT": "true"}))
    yield service
    service.stop()


def stored(partner: Partner, recovery_id: str) -> tuple[bytes, bytes]:
    """Payload and answer as they lie there."""
    service = partner.service
    number = service.engine.catalogue.find(partner.id).number
    item_id = parse_recovery_id(recovery_id)
    assert item_id is not None
    item = service.run(service.store.item(number, item_id))
    assert item is not None
    assert item.last.answer is not None
    return item.delivery.payload, item.last.answer.body


def test_no_group_of_failures_says_what_was_answered(sealing: Service) -> None:
    partner, words = sealing.partner(max_attempts=1), "canary words"  # no digits: those would be marked
    partner.answers(Answer(503, words.encode()))
    partner.becomes(partner.deliver(), "dlq")
    partner.hand_over(failure_code="HTTP_500", response_snapshot={"status": 500, "body": words})

    groups = sealing.admin.get(f"{partner.url}/recovery/groups").json()["groups"]

    assert [group["failure_code"] for group in groups] == ["HTTP_500", "HTTP_503"]
    assert words not in str(groups)


def test_it_is_sent_shown_listed_and_replayed_as_it_came(sealing: Service) -> None:
    partner = sealing.partner(max_attempts=1)
    partner.answers(RESPONSE, 200)
    payload = {"name": CANARY}
    recovery_id = partner.deliver(payload)
    partner.becomes(recovery_id, "dlq")

    item = partner.item(recovery_id)
    [listed] = partner.items()
    for part in stored(partner, recovery_id):
        assert part
        assert CANARY.encode() not in part

    assert item["payload_snapshot"]["body"] == payload
    assert item["payload_snapshot"]["content_type"] == "application/json"
    assert item["response_snapshot"]["body"] == CANARY
    for snapshot in ("payload_snapshot", "response_snapshot"):
        assert listed[snapshot] == {name: value for name, value in item[snapshot].items() if name != "body"}
    partner.replay(recovery_id)
    partner.becomes(recovery_id, "succeeded")
    assert len({received.body for received in partner.received}) == 1
    assert partner.received[0].header("content-type") == "application/json"


def test_an_import_is_sealed_too(sealing: Service) -> None:
    partner = sealing.partner()
    snapshot = {"status": 503, "content_type": "text/plain", "encoding": "text", "body": CANARY}
    recovery_id = partner.hand_over(payload=CANARY, failure_code="HTTP_503", response_snapshot=snapshot)

    for part in stored(partner, recovery_id):
        assert CANARY.encode() not in part
    assert partner.item(recovery_id)["response_snapshot"]["body"] == CANARY


def test_a_key_finds_the_same_delivery_and_another_payload_is_another(sealing: Service) -> None:
    partner = sealing.partner()
    key = ("Idempotency-Key", "one")

    assert partner.deliver(1, key) == partner.deliver(1, key)
    refused = sealing.admin.post(partner.deliveries, {"event_type": "order.created", "payload": 2}, key)
    assert refused.status == 422


def test_both_kinds_stand_side_by_side(sealing: Service) -> None:
    partner = sealing.partner(max_attempts=1)
    partner.answers(RESPONSE)
    ids = [partner.deliver("sealed")]
    sealing.settings = load({}, {})
    sealing.restart()
    ids.append(partner.deliver("plain"))

    for recovery_id in ids:
        partner.becomes(recovery_id, "dlq")
    shown: list[Any] = [partner.item(recovery_id)["payload_snapshot"]["body"] for recovery_id in ids]

    assert shown == ["sealed", "plain"]
    assert stored(partner, ids[1])[0] == b'"plain"'


def test_what_was_changed_in_the_database_is_not_sent_and_not_shown(sealing: Service) -> None:
    partner = sealing.partner(rate_per_second=0.001)
    recovery_id = partner.hand_over(payload=CANARY)
    sealing.break_by_hand("UPDATE delivery SET payload = substr(payload, 2)")

    shown = sealing.admin.get(partner.item_url(recovery_id))

    assert (shown.status, shown.error_code) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    assert shown.json()["degradation_reason"] == "key material"
    erased = sealing.admin.post(f"{partner.item_url(recovery_id)}/erase", {"reason": "it is damaged"})
    assert erased.status == 200, "what cannot be opened can be done away with"
    assert sealing.admin.get(partner.item_url(recovery_id)).status == 200
    assert partner.received == []


def test_a_damaged_payload_is_held_and_spends_no_attempt(sealing: Service) -> None:
    partner, other = sealing.partner(), sealing.partner()
    recovery_id = partner.hand_over(payload=CANARY)
    sealing.break_by_hand("UPDATE delivery SET payload = substr(payload, 2)")

    assert partner.replay(recovery_id).status == 200
    other.deliver()
    until(lambda: other.received)

    [listed] = partner.items()
    assert (listed["status"], listed["attempt_count"]) == ("replayed", 0)
    assert partner.received == []


def test_a_caller_cannot_pass_an_answer_off_as_sealed(sealing: Service) -> None:
    partner = sealing.partner()
    snapshot = {"status": 503, "encoding": "text", "body": "x", "headers": [[":sealed", "v1"]]}

    refused = sealing.admin.post(partner.queue, an_import(response_snapshot=snapshot))

    assert (refused.status, refused.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/response_snapshot/headers"]
