"""Idempotency-Key to the letter: one effect, one answer, however many ask, also after a restart."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.loops import until
from tests.api.service import DELIVER, INTEGRATIONS, OPERATE, VIEW, Partner, Service, a_delivery, an_import
from tests.api.wire import JSON, Caller, Header, Reply

MANY = 50
REUSED = "INT-422-IDEMPOTENCY-KEY-REUSED"


def key(text: str) -> Header:
    return ("Idempotency-Key", text)


def at_once(caller: Caller, path: str, document: Any, *headers: Header) -> list[Reply]:
    """The same call *MANY* times together."""
    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(lambda _: caller.post(path, document, *headers), range(MANY)))


def without_request_id(reply: Reply) -> Any:
    return {**reply.json(), "request_id": None}


def is_replayed(reply: Reply) -> bool:
    return reply.header("idempotency-replayed") == "true"


def test_fifty_replays_with_one_key_are_one(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()

    replies = at_once(quiet.service.admin, quiet.replay_url(recovery_id), {"reason": "a"}, key("k1"))

    assert {reply.status for reply in replies} == {200}
    assert [without_request_id(reply) for reply in replies] == [without_request_id(replies[0])] * MANY
    assert len({reply.json()["request_id"] for reply in replies}) == MANY
    assert sum(not is_replayed(reply) for reply in replies) == 1
    kinds = [event["event_type"] for event in quiet.service.events(target_id=recovery_id)]
    assert kinds.count("platform.integration.recovery.replayed") == 1
    assert quiet.item(recovery_id)["cycle"] == 2


def test_fifty_replays_without_a_key_are_one_and_conflicts(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()

    replies = at_once(quiet.service.admin, quiet.replay_url(recovery_id), {"reason": "a"})

    assert sorted(reply.status for reply in replies) == [200] + [409] * (MANY - 1)
    assert quiet.item(recovery_id)["cycle"] == 2


def test_a_replay_is_sent_once_for_all_that_asked(partner: Partner) -> None:
    recovery_id = partner.hand_over()

    at_once(partner.service.admin, partner.replay_url(recovery_id), {"reason": "a"}, key("k1"))

    partner.becomes(recovery_id, "succeeded")
    assert len(partner.received) == 1


def test_the_first_answer_is_given_again_whatever_happened_since(partner: Partner) -> None:
    recovery_id = partner.hand_over()
    first = partner.replay(recovery_id, "a", key("k1"), ("X-Request-Id", "said-first"))
    partner.becomes(recovery_id, "succeeded")
    before = partner.facts()

    again = partner.replay(recovery_id, "a", key("k1"), ("X-Request-Id", "said-again"))

    assert (first.status, is_replayed(first)) == (200, False)
    assert (again.status, is_replayed(again)) == (200, True)
    assert again.json() == {**first.json(), "request_id": "said-again"}
    assert again.header("x-request-id") == "said-again"
    assert partner.facts() == before


def test_a_key_is_the_same_bare_and_quoted(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.replay(recovery_id, "a", key("k1"))

    assert is_replayed(quiet.replay(recovery_id, "a", key('"k1"')))


def test_a_key_with_another_body_is_refused(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.replay(recovery_id, "a", key("k1"))
    before = quiet.facts()

    for body in (b'{"reason":"b"}', b'{"reason": "a" }'):  # the body's bytes, not its meaning
        reply = quiet.service.admin.send("POST", quiet.replay_url(recovery_id), body, JSON, key("k1"))

        assert (reply.status, reply.error_code) == (422, REUSED)
    assert quiet.facts() == before


def test_a_key_belongs_to_its_caller(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.replay(recovery_id, "a", key("k1"))
    other = quiet.service.caller(OPERATE)

    reply = other.post(quiet.replay_url(recovery_id), {"reason": "a"}, key("k1"))

    assert reply.error_code == "INT-409-RECOVERY-REPLAY-CONFLICT"


def test_a_key_belongs_to_a_subject_whatever_token_it_uses(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.replay(recovery_id, "a", key("k1"))
    rotated = quiet.service.caller(OPERATE, subject="admin")

    assert is_replayed(rotated.post(quiet.replay_url(recovery_id), {"reason": "a"}, key("k1")))


def test_a_key_belongs_to_its_path(quiet: Partner) -> None:
    first, second = quiet.hand_over(), quiet.hand_over()
    quiet.replay(first, "a", key("k1"))

    assert not is_replayed(quiet.replay(second, "a", key("k1")))
    assert quiet.item(second)["status"] == "replayed"


def test_a_refusal_does_not_use_a_key_up(service: Service, quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.change(lifecycle_status="paused")
    assert quiet.replay(recovery_id, "a", key("k1")).status == 409
    quiet.change(lifecycle_status="active")

    reply = quiet.replay(recovery_id, "a", key("k1"))

    assert (reply.status, is_replayed(reply)) == (200, False)


def test_a_stored_answer_is_not_given_to_who_may_not_ask(service: Service, quiet: Partner) -> None:
    recovery_id = quiet.hand_over()
    quiet.replay(recovery_id, "a", key("k1"))
    fallen = service.caller(VIEW, subject="admin")

    assert fallen.post(quiet.replay_url(recovery_id), {"reason": "a"}, key("k1")).status == 403


@pytest.mark.parametrize(
    "text", ["", '""', "a b", "x" * 256, "\u00e9", '"a', "a\tb", "\x7f", f'"{"x" * 256}"', '"a"b']
)
@pytest.mark.parametrize("call", ["deliveries", "deliveries/batch", "recovery/queue", "replay", "create"])
def test_a_key_that_is_none_is_refused_and_nothing_is_stored(
    service: Service, quiet: Partner, text: str, call: str
) -> None:
    path, document = a_call(quiet, call)
    before = quiet.facts()

    reply = service.admin.post(path, document, key(text))

    where = "" if text == "\x7f" else "Idempotency-Key"  # no header at all may hold that
    assert (reply.error_code, reply.pointers) == ("INT-400-INVALID-PAYLOAD", [where])
    assert quiet.facts() == before


@pytest.mark.parametrize("call", ["deliveries", "deliveries/batch", "recovery/queue", "replay", "create"])
def test_two_keys_are_refused_and_nothing_is_stored(service: Service, quiet: Partner, call: str) -> None:
    path, document = a_call(quiet, call)
    before = quiet.facts()

    reply = service.admin.post(path, document, key("a"), key("a"))

    assert (reply.error_code, reply.pointers) == ("INT-400-INVALID-PAYLOAD", ["Idempotency-Key"])
    assert quiet.facts() == before


def test_the_longest_key_is_fine(quiet: Partner) -> None:
    first = quiet.deliver(1, key("~" * 255))

    assert quiet.deliver(1, key("~" * 255)) == first


def test_an_integration_is_created_once_with_one_secret(service: Service) -> None:
    document = {"integration_id": "made-once", "url": "https://partner.example/"}

    replies = at_once(service.admin, INTEGRATIONS, document, key("make-it"))

    assert {reply.status for reply in replies} == {201}
    assert len({reply.json()["secret"] for reply in replies}) == 1
    assert [without_request_id(reply) for reply in replies] == [without_request_id(replies[0])] * MANY
    assert sum(not is_replayed(reply) for reply in replies) == 1
    assert len(service.events(integration_id="made-once")) == 1


def test_fifty_deliveries_with_one_key_arrive_once(partner: Partner) -> None:
    replies = at_once(partner.service.admin, partner.deliveries, a_delivery(), key("order-1"))

    assert {reply.status for reply in replies} == {202}
    assert len({reply.json()["recovery_id"] for reply in replies}) == 1
    assert sum(not is_replayed(reply) for reply in replies) == 1
    partner.becomes(replies[0].json()["recovery_id"], "succeeded")
    assert len(partner.received) == 1
    assert [item["idempotency_key"] for item in partner.items()] == ["order-1"]


@pytest.mark.parametrize("changed", [{"payload": 2}, {"event_type": "b"}, {"headers": {"X-A": "b"}}])
def test_a_delivery_key_reused_for_another_delivery_is_refused(
    quiet: Partner, changed: dict[str, Any]
) -> None:
    quiet.deliver(1, key("order-1"))
    before = quiet.facts()

    reply = quiet.service.admin.post(quiet.deliveries, a_delivery(1) | changed, key("order-1"))

    assert (reply.status, reply.error_code) == (422, REUSED)
    assert quiet.facts() == before


def test_a_delivery_key_is_the_producers_within_the_integration(service: Service, quiet: Partner) -> None:
    first = quiet.deliver(1, key("order-1"))
    another_producer, elsewhere = service.caller(DELIVER), service.partner(rate_per_second=0.001)

    same = another_producer.post(quiet.deliveries, a_delivery(1), key("order-1"))
    other = another_producer.post(elsewhere.deliveries, a_delivery(1), key("order-1"))

    assert (same.json()["recovery_id"], is_replayed(same)) == (first, True)
    assert other.json()["recovery_id"] != first


def test_each_delivery_of_a_batch_has_a_key_of_its_own(quiet: Partner) -> None:
    first = quiet.deliver("a", key("ka"))
    batch = [
        a_delivery("a", idempotency_key="ka"),
        a_delivery("b", idempotency_key="kb"),
        a_delivery("b", idempotency_key="kb"),
        a_delivery("c", idempotency_key="kb"),
        a_delivery("b"),
    ]

    reply = quiet.service.admin.post(quiet.batch, {"deliveries": batch})

    known, fresh, again, reused, keyless = reply.json()["deliveries"]
    assert reply.status == 202
    assert (known["recovery_id"], known["duplicate"]) == (first, True)
    assert (again["recovery_id"], fresh["duplicate"], again["duplicate"]) == (
        fresh["recovery_id"],
        False,
        True,
    )
    assert (reused["error_code"], reused["status"]) == (REUSED, 422)
    assert keyless["duplicate"] is False
    assert len(quiet.items()) == 3


def test_a_batch_with_a_key_is_accepted_once(partner: Partner) -> None:
    document = {"deliveries": [a_delivery(1), {"event_type": "a"}, a_delivery(2)]}

    replies = at_once(partner.service.admin, partner.batch, document, key("batch-1"))

    assert {reply.status for reply in replies} == {202}
    assert (
        len({str([one.get("recovery_id") for one in reply.json()["deliveries"]]) for reply in replies}) == 1
    )
    assert sum(not is_replayed(reply) for reply in replies) == 1
    until(lambda: len(partner.received) == 2)
    assert len(partner.items()) == 2
    other = partner.service.admin.post(partner.batch, {"deliveries": [a_delivery(1)]}, key("batch-1"))
    assert other.error_code == REUSED


def test_an_import_with_a_key_is_stored_once(quiet: Partner) -> None:
    replies = at_once(quiet.service.admin, quiet.queue, an_import(), key("import-1"))

    assert {reply.status for reply in replies} == {201}
    assert len({reply.json()["recovery_id"] for reply in replies}) == 1
    assert sum(not is_replayed(reply) for reply in replies) == 1
    [imported] = [
        e for e in quiet.service.events(integration_id=quiet.id) if e["event_type"].endswith("imported")
    ]
    assert imported["target_id"] == replies[0].json()["recovery_id"]
    reply = quiet.service.admin.post(quiet.queue, an_import(attempt_count=4), key("import-1"))
    assert reply.error_code == REUSED


def test_an_import_under_the_key_of_a_delivery_is_refused(quiet: Partner) -> None:
    quiet.deliver(1, key("order-1"))

    assert quiet.service.admin.post(quiet.queue, an_import(), key("order-1")).error_code == REUSED


def test_an_import_key_is_the_producers_within_the_integration(service: Service, quiet: Partner) -> None:
    first = quiet.hand_over(key("order-1"))
    another_producer = service.caller(DELIVER)

    same = another_producer.post(quiet.queue, an_import(), key("order-1"))
    other = another_producer.post(quiet.queue, an_import(status="failed"), key("order-1"))

    assert (same.status, same.json()["recovery_id"], is_replayed(same)) == (201, first, True)
    assert other.error_code == REUSED
    assert len(quiet.items()) == 1


def test_a_resolve_with_a_key_happens_once(quiet: Partner) -> None:
    recovery_id = quiet.hand_over()

    replies = at_once(quiet.service.admin, quiet.resolve_url(recovery_id), {"reason": "a"}, key("k1"))

    assert [without_request_id(reply) for reply in replies] == [without_request_id(replies[0])] * MANY
    assert sum(not is_replayed(reply) for reply in replies) == 1
    assert len(quiet.service.events(target_id=recovery_id)) == 2  # imported, resolved


def test_stored_answers_survive_a_restart(own_service: Service) -> None:
    partner = own_service.partner(rate_per_second=0.001)
    dead = partner.hand_over()
    calls = [
        (INTEGRATIONS, {"integration_id": "kept", "url": "https://partner.example/"}),
        (partner.deliveries, a_delivery()),
        (partner.batch, {"deliveries": [a_delivery()]}),
        (partner.queue, an_import()),
        (partner.replay_url(dead), {"reason": "a"}),
    ]
    first = [own_service.admin.post(*call, key(f"kept-{n}")) for n, call in enumerate(calls)]
    before = partner.facts()

    own_service.restart()
    again = [own_service.admin.post(*call, key(f"kept-{n}")) for n, call in enumerate(calls)]

    assert [reply.status for reply in first] == [201, 202, 202, 201, 200]
    assert [without_request_id(reply) for reply in again] == [without_request_id(reply) for reply in first]
    assert all(map(is_replayed, again))
    assert partner.facts() == before


def a_call(partner: Partner, name: str) -> tuple[str, Any]:
    """A valid POST, by name."""
    match name:
        case "deliveries":
            return partner.deliveries, a_delivery()
        case "deliveries/batch":
            return partner.batch, {"deliveries": [a_delivery()]}
        case "recovery/queue":
            return partner.queue, an_import()
        case "replay":
            return partner.replay_url(partner.hand_over()), {"reason": "a"}
        case _:
            return INTEGRATIONS, {"integration_id": "never-made", "url": "https://partner.example/"}
