"""Correct and replay: a corrected copy of what failed, and what becomes of the original."""

from typing import Any

import pytest

from redrive.audit.chain import Finding
from redrive.config import Settings
from redrive.engine.verifying import Tally, verify
from tests.api.receiver import Answer, Receiver
from tests.api.service import DELIVER, EDIT, OPERATE, VIEW, Partner, Service
from tests.api.shapes import RECOVERY_ID
from tests.api.storage import Storage
from tests.api.wire import Reply


def edit(partner: Partner, recovery_id: str, *headers: tuple[str, str], **fields: Any) -> Reply:
    body = {"reason": "a typo", **fields}
    return partner.service.admin.post(f"{partner.item_url(recovery_id)}/edit", body, *headers)


def a_failed(partner: Partner, payload: Any = 1, **more: Any) -> str:
    """An item that its receiver refused; from then on it takes everything."""
    partner.answers(422, 200)
    recovery_id = partner.deliver(payload, **more)
    partner.becomes(recovery_id, "failed")
    return recovery_id


def test_the_copy_is_sent_with_its_own_webhook_id_and_supersedes_the_original(partner: Partner) -> None:
    original = a_failed(partner, {"amount": "12,50", "to": "x"}, headers={"X-Team": "billing"})

    reply = edit(partner, original, ("X-Request-Id", f"edit-{original}"), payload={"amount": 12.5, "to": "x"})

    assert reply.status == 201
    copy = reply.json()["recovery"]["recovery_id"]
    assert copy == RECOVERY_ID
    assert copy != original
    done = partner.becomes(copy, "succeeded")
    assert (done["edit_of"], done["superseded_by"], done["idempotency_key"]) == (original, None, None)
    first, sent = partner.received
    assert (first.header("webhook-id"), sent.header("webhook-id")) == (original, copy)
    assert (sent.body, sent.header("X-Team")) == (b'{"amount": 12.5, "to": "x"}', "billing")
    item = partner.item(original)
    assert (item["status"], item["superseded_by"], item["edit_of"]) == ("failed", copy, None)
    assert partner.replay(original).error_code == "INT-409-CONFLICT"
    assert partner.resolve(original).error_code == "INT-409-CONFLICT"


def test_the_audit_tells_what_was_changed_on_both(service: Service) -> None:
    partner = service.partner(redact_pointers=["/card"])
    original = a_failed(partner, {"card": "4111", "n": 1}, headers={"X-Key": "s3cret"})

    reply = edit(
        partner, original, payload={"card": "4222", "n": 2}, headers={"X-Key": "0ther"}, incident="INC-442"
    )

    changes = [
        {"op": "replace", "path": "/headers/X-Key", "value": "[REDACTED]", "was": "[REDACTED]"},
        {"op": "replace", "path": "/payload/card", "value": "[REDACTED]", "was": "[REDACTED]"},
        {"op": "replace", "path": "/payload/n", "value": 2, "was": 1},
    ]
    copy = reply.json()["recovery"]["recovery_id"]
    partner.becomes(copy, "succeeded")
    told = {"reason": "a typo", "incident": "INC-442", "changes": changes}
    assert reply.json()["changes"] == changes
    events = service.events(integration_id=partner.id)
    of_original, of_copy = (
        next(e for e in events if e["target_id"] == each and e["event_type"].endswith(".edited"))
        for each in (original, copy)
    )
    assert of_original["metadata"] == told | {"edited_as": copy}
    assert of_copy["metadata"] == told | {"edit_of": original}
    assert (of_copy["before_state"], of_copy["after_state"]["status"]) == ({"exists": False}, "pending")
    assert of_original["before_state"] == of_original["after_state"]
    [superseded] = [e for e in events if e["event_type"].endswith(".superseded")]
    assert (superseded["target_id"], superseded["after_state"]["superseded_by"]) == (original, copy)
    assert superseded["request_id"] == reply.json()["request_id"]
    assert "s3cret" not in str(events)


def test_what_is_not_given_stays(partner: Partner) -> None:
    original = a_failed(partner, "same", headers={"X-Old": "1"})

    copy = edit(partner, original, headers={"X-New": "2"}).json()["recovery"]["recovery_id"]

    partner.becomes(copy, "succeeded")
    sent = partner.received[-1]
    assert (sent.body, sent.header("X-Old"), sent.header("X-New")) == (b'"same"', None, "2")


def test_bytes_of_another_type_take_the_place_of_json(partner: Partner) -> None:
    original = a_failed(partner)

    reply = edit(partner, original, payload_base64="PGEvPg==", content_type="text/xml")

    partner.becomes(reply.json()["recovery"]["recovery_id"], "succeeded")
    sent = partner.received[-1]
    assert (sent.body, sent.header("Content-Type")) == (b"<a/>", "text/xml")
    [change] = reply.json()["changes"]
    assert (change["value"]["size"], change["was"]["size"]) == (4, 1)


def test_while_a_copy_is_under_way_neither_it_nor_the_original_can_be_sent_again(service: Service) -> None:
    partner = service.partner()
    original = a_failed(partner)
    partner.change(rate_per_second=0.001)
    copy = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]

    refused = [
        edit(partner, original, payload=3),
        partner.replay(original),
        edit(partner, copy, payload=3),
        partner.resolve(original),
    ]

    assert [reply.error_code for reply in refused] == ["INT-409-CONFLICT"] * 4
    assert copy in refused[0].json()["detail"]
    assert copy in refused[3].json()["detail"]


def test_what_was_closed_for_good_is_not_sent_through_a_copy_that_failed(partner: Partner) -> None:
    original = a_failed(partner)
    partner.answers(422)
    copy = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]
    partner.becomes(copy, "failed")
    partner.resolve(original)

    refused = [edit(partner, copy, payload=3), partner.replay(copy)]

    assert [reply.error_code for reply in refused] == ["INT-409-CONFLICT"] * 2
    assert all("resolved for good" in reply.json()["detail"] for reply in refused)


def test_after_a_copy_that_failed_it_can_be_corrected_again_and_one_success_closes_all(
    partner: Partner,
) -> None:
    original = a_failed(partner)
    partner.answers(422, 200)
    first = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]
    partner.becomes(first, "failed")

    second = edit(partner, first, payload=3).json()["recovery"]["recovery_id"]

    partner.becomes(second, "succeeded")
    assert [partner.item(each)["superseded_by"] for each in (original, first)] == [second, second]
    assert partner.item(second)["edit_of"] == original


def test_a_copy_that_failed_is_replayed_like_any_item(partner: Partner) -> None:
    original = a_failed(partner)
    partner.answers(422, 200)
    copy = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]
    partner.becomes(copy, "failed")

    reply = partner.replay(copy)

    assert reply.status == 200
    partner.becomes(copy, "succeeded")
    assert [sent.header("webhook-id") for sent in partner.received] == [original, copy, copy]
    assert partner.item(original)["superseded_by"] == copy


def test_the_records_of_originals_and_copies_are_whole_and_say_where_each_is(partner: Partner) -> None:
    original = a_failed(partner)
    partner.answers(422, 503, 200)
    first = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]
    partner.becomes(first, "failed")
    second = edit(partner, first, payload=3).json()["recovery"]["recovery_id"]
    partner.becomes(second, "succeeded")
    other = a_failed(partner)
    third = edit(partner, other, payload=2).json()["recovery"]["recovery_id"]
    partner.becomes(third, "succeeded")

    async def findings() -> list[Finding]:
        return [each async for each in verify(partner.service.store, Tally(), lambda _: None)]

    ours = {original, first, second, other, third}
    assert [each for each in partner.service.run(findings()) if each.target_id in ours] == []
    told = [event["event_type"].rpartition(".")[2] for event in partner.service.events(target_id=third)]
    assert told == ["edited", "reprocess_succeeded"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, ""),
        ({"payload": 1}, ""),
        ({"reason": " "}, "/reason"),
        ({"reason": None, "payload": 2}, "/reason"),
        ({"payload": 2, "incident": "two\nlines"}, "/incident"),
        ({"payload": 2, "payload_base64": ""}, "/payload_base64"),
        ({"content_type": "text/plain"}, "/payload"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"payload": 2, "event_type": "x"}, "/event_type"),
    ],
    ids=str,
)
def test_a_correction_that_is_none_is_refused(partner: Partner, fields: dict[str, Any], pointer: str) -> None:
    original = a_failed(partner)
    before = partner.facts()

    reply = edit(partner, original, **fields)

    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (400, pointer)
    assert partner.facts() == before


@pytest.mark.parametrize("status", ["pending", "succeeded"])
def test_only_what_failed_is_corrected(service: Service, status: str) -> None:
    partner = service.partner(**({"rate_per_second": 0.001} if status == "pending" else {}))
    recovery_id = partner.deliver()
    partner.becomes(recovery_id, status)

    assert edit(partner, recovery_id, payload=2).error_code == "INT-409-CONFLICT"


def test_it_takes_a_permission_of_its_own(service: Service, partner: Partner) -> None:
    original = a_failed(partner)
    url, body = f"{partner.item_url(original)}/edit", {"reason": "a typo", "payload": 2}

    refused = service.caller(VIEW, OPERATE, DELIVER).post(url, body)
    done = service.caller(EDIT).post(url, body)

    assert (refused.error_code, done.status) == ("AUTH-403-FORBIDDEN", 201)


def test_under_a_key_one_copy_is_sent(partner: Partner) -> None:
    original = a_failed(partner)
    key = ("Idempotency-Key", "one-copy")

    first, second = (edit(partner, original, key, payload=2) for _ in range(2))

    assert first.json()["recovery"] == second.json()["recovery"]
    assert second.header("idempotency-replayed") == "true"
    assert len([item for item in partner.items() if item["edit_of"] == original]) == 1


def test_where_content_is_sealed_so_is_the_copy_and_no_value_is_told(
    receiver: Receiver, new_storage: Any
) -> None:
    storage: Storage = new_storage()
    service = Service(storage, receiver, settings=Settings(seal_content=True))
    try:
        partner = service.partner()
        original = a_failed(partner, {"who": "canary"})

        reply = edit(partner, original, payload={"who": "canary bird"})

        copy = partner.becomes(reply.json()["recovery"]["recovery_id"], "succeeded")
        assert copy["payload_snapshot"]["body"] == {"who": "canary bird"}
        assert partner.received[-1].body == b'{"who": "canary bird"}'
        [change] = reply.json()["changes"]
        assert (change["path"], change["value"]) == ("/payload", "[REDACTED]")
        assert "canary" not in str(service.events(integration_id=partner.id))
    finally:
        service.stop()


def test_an_answer_to_a_copy_is_kept_like_any(partner: Partner) -> None:
    original = a_failed(partner)
    partner.answers(Answer(418, b"a teapot", (("Content-Type", "text/plain"),)))

    copy = edit(partner, original, payload=2).json()["recovery"]["recovery_id"]

    failed = partner.becomes(copy, "failed")
    assert failed["response_snapshot"]["body"] == "a teapot"
    assert partner.item(original)["superseded_by"] is None
