"""Groups of failures, as callers see them: what they say, what people say of them, and their items."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from redrive.domain.delivery import rfc3339
from redrive.domain.failure_group import DeadItem
from redrive.engine import closing
from redrive.store.groups import Closed
from redrive.store.port import StoreUnavailable
from tests.api.receiver import Answer
from tests.api.service import OPERATE, Partner, Service
from tests.api.shapes import GROUP, GROUP_ID, INSTANT, REQUEST_ID
from tests.api.wire import Reply

PREFIX = "platform.integration.group_"
JSON_BODY = (("Content-Type", "application/json"),)
FAR = "2100-01-01T00:00:00.000Z"


def groups_of(partner: Partner, query: str = "limit=200") -> list[dict[str, Any]]:
    reply = partner.service.admin.get(f"{partner.url}/recovery/groups?{query}")
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json()["groups"]
    return found


def group_url(partner: Partner, group_id: str, verb: str = "") -> str:
    return f"{partner.url}/recovery/groups/{group_id}{verb and f'/{verb}'}"


def show(partner: Partner, group_id: str) -> dict[str, Any]:
    found: dict[str, Any] = partner.service.admin.get(group_url(partner, group_id)).json()["group"]
    return found


def say(partner: Partner, group_id: str, verb: str, document: Any, *headers: tuple[str, str]) -> Reply:
    return partner.service.admin.post(group_url(partner, group_id, verb), document, *headers)


def a_group(partner: Partner, items: int = 1, words: str = "it broke") -> str:
    """Of so many items that failed elsewhere."""
    [group_id] = {
        partner.item(
            partner.hand_over(failure_code="ECONNRESET", failure_detail=f"{words} {n}", attempt_count=1)
        )["group_id"]
        for n in range(items)
    }
    return str(group_id)


def resolve(partner: Partner, group_id: str, *headers: tuple[str, str]) -> Reply:
    return say(partner, group_id, "resolve", {"reason": "obsolete"}, *headers)


# what a group says


def test_a_group_has_every_field(quiet: Partner) -> None:
    items = [
        quiet.hand_over(
            status="dlq",
            failure_code="HTTP_503",
            response_snapshot={"status": 503, "body": f'{{"error":{{"code":"busy","order":{n}}}}}'},
        )
        for n in range(2)
    ]

    [group] = groups_of(quiet)

    assert group.keys() == GROUP
    assert group == {
        "group_id": GROUP_ID,
        "integration_id": quiet.id,
        "failure_class": "http_5xx",
        "failure_code": "HTTP_503",
        "detail": "error.code=busy",
        "fingerprint": group["fingerprint"],
        "why_grouped": "the receiver failed at it (class http_5xx), the code is HTTP_503, and it says "
        "“error.code=busy”; fingerprint v1",
        "failures": 2,
        "items": 2,
        "items_is_exact": True,
        "first_seen_at": INSTANT,
        "last_seen_at": INSTANT,
        "sample": items[1],
        "state": "open",
        "regressed": False,
        "acknowledged": None,
        "resolved": None,
        "muted_until": None,
    }
    reply = quiet.service.admin.get(group_url(quiet, group["group_id"])).json()
    assert reply == {
        "group": group,
        "limit": 50,
        "comments": [],
        "next_cursor": None,
        "request_id": REQUEST_ID,
    }
    assert [item["group_id"] for item in quiet.items()] == [group["group_id"]] * 2


def test_failed_attempts_of_one_cause_are_one_group(partner: Partner) -> None:
    partner.change(max_attempts=2)
    answers = [
        Answer(500, f'{{"error":{{"code":"E42"}},"trace":"{n:032x}"}}'.encode(), JSON_BODY) for n in range(4)
    ]
    partner.answers(*answers)

    items = [partner.becomes(partner.deliver(n), "dlq") for n in range(2)]

    [group] = groups_of(partner)
    assert (group["failures"], group["items"], group["detail"]) == (4, 2, "error.code=E42")
    assert group["sample"] in {item["recovery_id"] for item in items}
    for item in items:
        assert (item["group_id"], item["duplicate_risk"]) == (group["group_id"], "ambiguous")
        attempts = partner.show(item["recovery_id"])["attempts"]
        assert [attempt["group_id"] for attempt in attempts] == [group["group_id"]] * 2


def test_the_risk_is_that_of_the_worst_attempt_and_ends_with_success(partner: Partner) -> None:
    partner.change(max_attempts=2)
    partner.answers(500, 404, 200)
    recovery_id = partner.deliver()
    item = partner.becomes(recovery_id, "failed")
    partner.replay(recovery_id)

    done = partner.becomes(recovery_id, "succeeded")

    assert (item["failure_code"], item["duplicate_risk"]) == ("HTTP_404", "ambiguous")
    assert (done["duplicate_risk"], done["group_id"]) == (None, None)
    first, second, third = partner.show(recovery_id)["attempts"]
    assert len({first["group_id"], second["group_id"]}) == 2
    assert third["group_id"] is None


def test_what_rules_hide_is_in_no_group_that_attempts_make(service: Service) -> None:
    partner = service.partner(redact_pointers=["/error/who"])
    partner.answers(Answer(400, b'{"error":{"who":"secret","code":"gone"}}', JSON_BODY))
    partner.becomes(partner.deliver(), "failed")
    partner.answers(Answer(400, b"secret words", ()))
    partner.becomes(partner.deliver(), "failed")

    groups = groups_of(partner)

    assert "secret" not in str(groups)
    assert [group["detail"] for group in groups] == [
        "the receiver answered 400, which a retry would not change",
        "error.code=gone",
    ]


def test_a_rule_that_is_added_hides_what_a_group_said_before(quiet: Partner) -> None:
    body = '{"error":{"code":"gone","who":"x"},"note":"secret"}'
    quiet.hand_over(failure_code="HTTP_400", response_snapshot={"status": 400, "body": '{"note":"secret"}'})
    quiet.hand_over(failure_code="ECONNRESET", failure_detail="it broke")
    assert "secret" in str(groups_of(quiet))

    quiet.change(redact_pointers=["/note"])
    quiet.hand_over(failure_code="HTTP_410", response_snapshot={"status": 410, "body": body})

    groups = groups_of(quiet)
    assert "secret" not in str(groups)
    assert [group["detail"] for group in groups][1:] == ["it broke", "[REDACTED]"]
    assert "[REDACTED]" in groups[2]["why_grouped"]
    assert show(quiet, groups[2]["group_id"])["detail"] == "[REDACTED]"


def test_what_rules_hide_is_in_no_group(service: Service) -> None:
    partner = service.partner(redact_pointers=["/error/code"])
    body = '{"error":{"code":"secret","type":"declined"}}'

    partner.hand_over(failure_code="HTTP_400", response_snapshot={"status": 400, "body": body})

    [group] = groups_of(partner)
    assert group["detail"] == "error.type=declined"


@pytest.mark.parametrize(
    ("evidence", "risk"),
    [
        ({"failure_code": "ECONNREFUSED"}, "never_sent"),
        ({"failure_code": "DNS_NOT_FOUND"}, "never_sent"),
        ({"failure_code": "TLS_ERROR"}, "never_sent"),
        ({"failure_code": "HTTP_404"}, "refused"),
        ({"failure_code": "HTTP_429"}, "refused"),
        ({"last_http_status": 503}, "refused"),
        ({"failure_code": "HTTP_500"}, "ambiguous"),
        ({"failure_code": "RESPONSE_TIMEOUT"}, "ambiguous"),
        ({"failure_code": "ECONNRESET"}, "ambiguous"),
        ({}, "ambiguous"),
    ],
)
def test_what_sending_again_would_risk_is_told_and_filtered_by(
    quiet: Partner, evidence: dict[str, Any], risk: str
) -> None:
    recovery_id = quiet.hand_over(**evidence)

    assert quiet.item(recovery_id)["duplicate_risk"] == risk
    for each in ("never_sent", "refused", "ambiguous"):
        found = quiet.items(f"duplicate_risk={each}")
        assert [item["recovery_id"] for item in found] == ([recovery_id] if each == risk else [])


def test_the_queue_is_filtered_by_group(quiet: Partner) -> None:
    first, second = a_group(quiet, 3, "one"), a_group(quiet, 2, "another")

    assert [item["group_id"] for item in quiet.items(f"group={first}")] == [first] * 3
    assert [item["group_id"] for item in quiet.items(f"group={second}&status=dlq")] == [second] * 2
    assert quiet.items(f"group={second}&status=failed") == []


@pytest.mark.parametrize("query", ["group=rec_0000000000000", "group=grp_1", "duplicate_risk=none", "group="])
def test_a_filter_that_makes_no_sense_is_400(quiet: Partner, query: str) -> None:
    assert quiet.service.admin.get(f"{quiet.queue}?{query}").status == 400


# lists


def test_groups_are_listed_page_by_page_the_last_seen_first(quiet: Partner) -> None:
    made = [a_group(quiet, words=words) for words in ("one", "two", "three", "four", "five")]
    a_group(quiet, words="two")

    found: list[str] = []
    query = "limit=2"
    while True:
        document = quiet.service.admin.get(f"{quiet.url}/recovery/groups?{query}").json()
        found += [group["group_id"] for group in document["groups"]]
        if document["next_cursor"] is None:
            break
        query = f"limit=2&cursor={document['next_cursor']}"

    one, two, three, four, five = made
    assert found == [two, five, four, three, one]
    assert document.keys() == {"integration_id", "state", "limit", "groups", "next_cursor", "request_id"}


def test_a_cursor_is_of_one_list(quiet: Partner) -> None:
    for words in ("one", "two"):
        a_group(quiet, words=words)
    url = f"{quiet.url}/recovery/groups"
    cursor = quiet.service.admin.get(f"{url}?limit=1").json()["next_cursor"]

    assert quiet.service.admin.get(f"{url}?limit=1&cursor={cursor}").status == 200
    for other in (f"limit=1&state=open&cursor={cursor}", "cursor=AAAA", f"cursor={cursor}A"):
        assert quiet.service.admin.get(f"{url}?{other}").status == 400


@pytest.mark.parametrize("query", ["state=closed", "state=", "limit=0", "what=1", "state=open&state=open"])
def test_a_query_that_makes_no_sense_is_400(quiet: Partner, query: str) -> None:
    assert quiet.service.admin.get(f"{quiet.url}/recovery/groups?{query}").status == 400


# what people say


def test_acknowledging_names_who_and_leaves_an_event(quiet: Partner) -> None:
    group_id = a_group(quiet)

    reply = say(quiet, group_id, "acknowledge", {"reason": "on it"}, ("X-Request-Id", "ack-1"))

    group = reply.json()["group"]
    assert reply.status == 200
    assert (group["state"], group["acknowledged"]) == ("acknowledged", {"at": INSTANT, "by": "admin"})
    assert group == show(quiet, group_id)
    assert [g["group_id"] for g in groups_of(quiet, "state=acknowledged")] == [group_id]
    assert groups_of(quiet, "state=open") == []
    [event] = quiet.service.events(request_id="ack-1")
    assert event["event_type"] == f"{PREFIX}acknowledged"
    assert (event["target_type"], event["target_id"]) == ("failure_group", group_id)
    assert (event["before_state"]["state"], event["after_state"]["state"]) == ("open", "acknowledged")
    assert event["after_state"]["state_by"] == "admin"
    assert event["metadata"] == {"reason": "on it"}


def test_muting_lasts_until_it_is_ended(quiet: Partner) -> None:
    group_id = a_group(quiet)

    muted = say(quiet, group_id, "mute", {"until": FAR, "reason": "known"}, ("X-Request-Id", "mute-1"))
    again = say(quiet, group_id, "mute", {"until": None})

    assert muted.json()["group"]["muted_until"] == FAR
    assert muted.json()["group"]["state"] == "open"
    assert again.json()["group"]["muted_until"] is None
    [event] = quiet.service.events(request_id="mute-1")
    assert (event["before_state"]["muted_until"], event["after_state"]["muted_until"]) == (None, FAR)


def test_comments_only_grow(quiet: Partner) -> None:
    group_id = a_group(quiet)
    texts = [f"note {n}\n\tand 😀" for n in range(5)]

    for text in texts:
        reply = say(quiet, group_id, "comment", {"text": text})
        assert reply.status == 201
        assert reply.json() == {
            "group_id": group_id,
            "comment": {"written_at": INSTANT, "written_by": "admin", "text": text},
            "request_id": REQUEST_ID,
        }

    first = quiet.service.admin.get(f"{group_url(quiet, group_id)}?limit=3").json()
    rest = quiet.service.admin.get(
        f"{group_url(quiet, group_id)}?limit=3&cursor={first['next_cursor']}"
    ).json()
    assert [each["text"] for each in first["comments"] + rest["comments"]] == texts[::-1]
    assert rest["next_cursor"] is None
    written = quiet.service.events(target_id=group_id, event_type=f"{PREFIX}commented")
    assert [event["metadata"]["text"] for event in written] == texts


@pytest.mark.parametrize(
    ("verb", "document"),
    [
        ("acknowledge", {"reason": " x"}),
        ("acknowledge", {"reasons": "x"}),
        ("resolve", {}),
        ("resolve", {"reason": ""}),
        ("reopen", {"reason": "a\nb"}),
        ("mute", {}),
        ("mute", {"until": "tomorrow"}),
        ("mute", {"until": "2020-01-01T00:00:00Z"}),
        ("mute", {"until": FAR, "reason": "x" * 257}),
        ("comment", {"text": ""}),
        ("comment", {"text": " "}),
        ("comment", {"text": "x" * 2_001}),
        ("comment", {"text": "a\x00b"}),
        ("comment", {"text": "a\u202eb"}),
    ],
)
def test_what_makes_no_sense_is_400_and_changes_nothing(quiet: Partner, verb: str, document: Any) -> None:
    group_id = a_group(quiet)
    before = (show(quiet, group_id), quiet.facts())

    reply = say(quiet, group_id, verb, document)

    assert (reply.status, reply.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert (show(quiet, group_id), quiet.facts()) == before


@pytest.mark.parametrize("verb", ["acknowledge", "resolve", "reopen", "mute", "comment"])
def test_a_group_that_is_not_there_is_404_and_one_that_cannot_be_400(quiet: Partner, verb: str) -> None:
    document = {"text": "x"} if verb == "comment" else {"until": None} if verb == "mute" else {"reason": "x"}

    unknown = say(quiet, "grp_0000000000000", verb, document)
    malformed = say(quiet, "grp_1", verb, document)

    assert (unknown.status, unknown.error_code) == (404, "INT-404-GROUP-NOT-FOUND")
    assert malformed.status == 400


def test_what_was_said_already_is_409(quiet: Partner) -> None:
    group_id = a_group(quiet)
    assert say(quiet, group_id, "reopen", {"reason": "x"}).error_code == "INT-409-CONFLICT"
    say(quiet, group_id, "acknowledge", {})
    assert say(quiet, group_id, "acknowledge", {}).error_code == "INT-409-CONFLICT"
    resolve(quiet, group_id)
    assert resolve(quiet, group_id).error_code == "INT-409-CONFLICT"
    assert say(quiet, group_id, "acknowledge", {}).error_code == "INT-409-CONFLICT"


@pytest.mark.parametrize("verb", ["acknowledge", "resolve", "comment", "mute"])
def test_under_a_key_it_happens_once(quiet: Partner, verb: str) -> None:
    group_id = a_group(quiet, 2)
    documents: dict[str, Any] = {"comment": {"text": "x"}, "mute": {"until": FAR}, "acknowledge": {}}
    document = documents.get(verb, {"reason": "x"})

    first = say(quiet, group_id, verb, document, ("Idempotency-Key", "key-1"))
    events = quiet.service.events(integration_id=quiet.id)
    again = say(quiet, group_id, verb, document, ("Idempotency-Key", "key-1"))

    assert first.json() | {"request_id": None} == again.json() | {"request_id": None}
    assert again.header("idempotency-replayed") == "true"
    assert quiet.service.events(integration_id=quiet.id) == events


# resolving it with its items


def test_resolving_a_group_closes_its_items_each_with_its_event(
    quiet: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "AT_ONCE", 2)
    group_id, other = a_group(quiet, 5), a_group(quiet, 1, "another")

    reply = resolve(quiet, group_id, ("X-Request-Id", "resolve-1"))

    group = reply.json()["group"]
    assert reply.status == 200
    assert (reply.json()["resolved_items"], reply.json()["reason"]) == (5, "obsolete")
    assert (group["state"], group["items"]) == ("resolved", 0)
    assert group["resolved"] == {"at": INSTANT, "by": "admin"}
    assert group == show(quiet, group_id)
    for item in quiet.items(f"group={group_id}"):
        assert item["resolved"] == {"resolved_at": INSTANT, "resolved_by": "admin", "reason": "obsolete"}
    assert [item["group_id"] for item in quiet.items("resolved=false")] == [other]
    *items, last = quiet.service.events(request_id="resolve-1")
    assert last["event_type"] == f"{PREFIX}resolved"
    assert last["metadata"] == {"reason": "obsolete", "resolved_items": 5}
    assert len({event["target_id"] for event in items}) == len(items) == 5
    for event in items:
        assert event["event_type"] == "platform.integration.resolved"
        assert event["metadata"] == {"reason": "obsolete", "group_id": group_id}
        assert (event["before_state"]["resolved"], event["after_state"]["resolved"]) == (False, True)
        assert event["source_request_id"].startswith("req-")


def test_a_group_that_was_resolved_halfway_says_so_and_goes_on_when_asked_again(
    quiet: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "AT_ONCE", 2)
    group_id = a_group(quiet, 5)
    store, calls = quiet.service.engine.groups.store.groups, []
    close = store.close_items

    async def away_at_the_second(*given: Any) -> int | None:
        calls.append(given)
        if len(calls) == 2:
            raise StoreUnavailable("the disk is full")
        return await close(*given)

    monkeypatch.setattr(store, "close_items", away_at_the_second)

    refused = resolve(quiet, group_id)
    done = resolve(quiet, group_id)

    assert (refused.status, refused.json()["degradation_reason"]) == (503, "storage")
    assert refused.json()["detail"] == (
        "the disk is full; what was closed of the group stays closed: run it again, it goes on with the rest"
    )
    assert (done.status, done.json()["resolved_items"]) == (200, 3)


def test_what_dies_while_a_group_is_resolved_is_no_part_of_it(
    quiet: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "AT_ONCE", 2)
    group_id = a_group(quiet, 5)
    store, bounds = quiet.service.engine.groups.store.groups, []
    look = store.unresolved

    async def watched(*args: Any, died_by: datetime, **more: Any) -> Sequence[DeadItem]:
        bounds.append(rfc3339(died_by))
        return await look(*args, died_by=died_by, **more)

    monkeypatch.setattr(store, "unresolved", watched)
    group = resolve(quiet, group_id).json()["group"]

    assert bounds == [group["resolved"]["at"]] * 3


def test_an_item_that_moved_on_meanwhile_is_looked_at_once_more(
    quiet: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_id = a_group(quiet, 3)
    store, calls = quiet.service.engine.groups.store.groups, []
    close = store.close_items

    async def late(integration: int, items: Sequence[Closed], *rest: Any) -> int | None:
        calls.append(len(items))
        return await close(integration, items[1:] if len(calls) == 1 else items, *rest)

    monkeypatch.setattr(store, "close_items", late)
    reply = resolve(quiet, group_id).json()

    assert calls == [3, 1]
    assert (reply["resolved_items"], reply["group"]["items"]) == (3, 0)


def test_what_was_cut_short_goes_on_when_it_is_asked_for_again(
    quiet: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "AT_ONCE", 2)
    group_id = a_group(quiet, 5)
    store, calls = quiet.service.engine.groups.store.groups, []
    close = store.close_items

    async def cut_short(*args: Any) -> int | None:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return await close(*args)

    monkeypatch.setattr(store, "close_items", cut_short)
    first = resolve(quiet, group_id, ("Idempotency-Key", "key"))
    left = show(quiet, group_id)

    again = resolve(quiet, group_id, ("Idempotency-Key", "key"))

    assert first.status == 503
    assert (left["state"], left["items"]) == ("open", 3)
    assert (again.status, again.json()["resolved_items"]) == (200, 3)
    assert (show(quiet, group_id)["state"], show(quiet, group_id)["items"]) == ("resolved", 0)
    resolved = quiet.service.events(integration_id=quiet.id, event_type="platform.integration.resolved")
    assert len({event["target_id"] for event in resolved}) == len(resolved) == 5


def test_a_group_that_fails_again_is_open_and_regressed(quiet: Partner) -> None:
    group_id = a_group(quiet)
    resolve(quiet, group_id)

    a_group(quiet)

    group = show(quiet, group_id)
    assert (group["state"], group["regressed"], group["failures"], group["items"]) == ("open", True, 2, 1)
    assert group["resolved"] == {"at": INSTANT, "by": "admin"}
    assert [g["group_id"] for g in groups_of(quiet, "state=open")] == [group_id]
    assert groups_of(quiet, "state=resolved") == []
    assert resolve(quiet, group_id).json()["resolved_items"] == 1
    assert show(quiet, group_id)["regressed"] is False


def test_a_group_that_is_opened_again_keeps_its_items_closed(quiet: Partner) -> None:
    group_id = a_group(quiet, 2)
    resolve(quiet, group_id)

    reply = say(quiet, group_id, "reopen", {"reason": "too soon"})

    group = reply.json()["group"]
    assert (group["state"], group["regressed"], group["resolved"], group["items"]) == ("open", False, None, 0)


def test_a_refusal_names_the_permission(service: Service, quiet: Partner) -> None:
    group_id = a_group(quiet)
    operator = service.caller(OPERATE)

    assert operator.get(group_url(quiet, group_id)).status == 403
    assert operator.post(group_url(quiet, group_id, "acknowledge"), {}).status == 200
