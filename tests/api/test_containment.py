"""The calls that contain and release: who is told what, and what they refuse."""

from typing import Any

import pytest

from tests.api.loops import until
from tests.api.service import Partner, Service, a_delivery
from tests.api.shapes import INSTANT, REQUEST_ID

WHY = {"reason": "the vendor is down"}


def contain(partner: Partner, **fields: Any) -> Any:
    reply = partner.service.admin.post(f"{partner.url}/containment", WHY | fields)
    assert reply.status == 200, reply
    return reply.json()


def release(partner: Partner, **fields: Any) -> Any:
    reply = partner.service.admin.post(
        f"{partner.url}/containment/release", {"reason": "it is back"} | fields
    )
    assert reply.status == 200, reply
    return reply.json()


def test_it_is_answered_with_who_why_until_when_and_what_waits(partner: Partner) -> None:
    contain(partner)
    partner.deliver()

    told = contain(partner, owner="ada", incident="4711", for_seconds=7200)

    assert told == {
        "integration_id": partner.id,
        "state": "contained",
        "containment": {
            "mode": "hold",
            "reason": "the vendor is down",
            "owner": "ada",
            "by": "admin",
            "since": INSTANT,
            "until": INSTANT,
            "incident": "4711",
            "request_id": REQUEST_ID,
            "failed_probes": 0,
            "next_probe_at": None,
        },
        "release": None,
        "waiting": 1,
        "in_flight": 0,
        "request_id": REQUEST_ID,
    }
    shown = partner.service.admin.get(f"{partner.url}/containment").json()
    assert shown == told | {"request_id": REQUEST_ID}
    assert partner.service.admin.get(partner.url).json()["containment"] == told["containment"]


def test_one_that_is_not_contained_says_so(partner: Partner) -> None:
    assert partner.service.admin.get(f"{partner.url}/containment").json() == {
        "integration_id": partner.id,
        "state": "none",
        "containment": None,
        "release": None,
        "waiting": 0,
        "in_flight": 0,
        "request_id": REQUEST_ID,
    }


def test_what_is_on_hold_is_pending_held_and_listed_as_that(partner: Partner) -> None:
    contain(partner)
    recovery_id, dead = partner.deliver(), partner.hand_over()

    item = partner.item(recovery_id)
    listed = partner.service.admin.get(f"{partner.queue}?held=true").json()["queue"]

    assert (item["status"], item["held"], item["attempt_count"]) == ("pending", True, 0)
    assert {one["recovery_id"] for one in listed} == {recovery_id, dead}
    assert partner.service.admin.get(f"{partner.queue}?held=false").json()["queue"] == []
    release(partner)
    assert partner.service.admin.get(f"{partner.queue}?held=true").json()["queue"] == []
    until(lambda: partner.item(recovery_id)["status"] == "succeeded")


def test_one_that_rejects_refuses_each_delivery_by_name(partner: Partner) -> None:
    contain(partner, mode="reject")

    one = partner.service.admin.post(partner.deliveries, a_delivery())
    batch = partner.service.admin.post(partner.batch, {"deliveries": [a_delivery(), a_delivery()]})

    assert (one.status, one.error_code) == (409, "INT-409-CONTAINED")
    assert [told["error_code"] for told in batch.json()["deliveries"]] == ["INT-409-CONTAINED"] * 2
    assert partner.hand_over(), "it failed elsewhere: that is taken in"
    assert partner.received == []


def test_what_is_contained_is_not_replayed(partner: Partner) -> None:
    recovery_id = partner.hand_over()
    contain(partner)

    reply = partner.replay(recovery_id)

    assert (reply.status, reply.error_code) == (409, "INT-409-CONTAINED")
    assert partner.item(recovery_id)["status"] == "dlq"


def test_a_release_is_answered_with_what_it_means(partner: Partner) -> None:
    contain(partner)
    partner.deliver()

    preview = release(partner, dry_run=True, rate_per_second=0.5)
    told = release(partner, rate_per_second=50)

    rates = [5.0, 20.0, 50.0, 100.0]
    assert [one["rate_per_second"] for one in told["simulation"]["rates"]] == rates
    assert (preview["released"], preview["dry_run"], preview["containment"]["mode"]) == (False, True, "hold")
    assert told | {"simulation": None} == {
        "integration_id": partner.id,
        "released": True,
        "dry_run": False,
        "simulation": None,
        "containment": None,
        "release": {"rate_per_second": 50.0, "since": INSTANT, "by": "admin", "reason": "it is back"},
        "reason": "it is back",
        "request_id": REQUEST_ID,
    }
    assert told["simulation"]["backlog"] == 1
    until(lambda: len(partner.received) == 1)


def test_both_leave_their_audit_events(partner: Partner) -> None:
    contain(partner)
    release(partner)

    kinds = [event["event_type"] for event in partner.service.events(target_id=partner.id)]
    assert kinds[-2:] == ["platform.integration.contained", "platform.integration.released"]


def test_under_a_key_the_first_answer_comes_again_and_nothing_happens_twice(partner: Partner) -> None:
    key = ("Idempotency-Key", "contain-1")
    first = partner.service.admin.post(f"{partner.url}/containment", WHY, key)
    release(partner)

    again = partner.service.admin.post(f"{partner.url}/containment", WHY, key)

    assert (first.status, again.status, again.header("idempotency-replayed")) == (200, 200, "true")
    assert again.json() | {"request_id": ""} == first.json() | {"request_id": ""}
    assert partner.service.admin.get(f"{partner.url}/containment").json()["state"] == "none"
    other = partner.service.admin.post(f"{partner.url}/containment", WHY | {"mode": "reject"}, key)
    assert (other.status, other.error_code) == (422, "INT-422-IDEMPOTENCY-KEY-REUSED")


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"reason": ""}, ["/reason"]),
        ({"reason": "two\nlines"}, ["/reason"]),
        ({"mode": "pause"}, ["/mode"]),
        ({"owner": " ", "incident": "x" * 129}, ["/owner", "/incident"]),
        ({"until": "tomorrow"}, ["/until"]),
        ({"until": "2020-01-01T00:00:00Z"}, ["/until"]),
        ({"until": "2999-01-01T00:00:00Z"}, ["/until"]),
        ({"for_seconds": 0}, ["/for_seconds"]),
        ({"for_seconds": 2_592_001}, ["/for_seconds"]),
        ({"for_seconds": 60, "until": "2999-01-01T00:00:00Z"}, ["/for_seconds"]),
        ({"forever": True}, ["/forever"]),
    ],
)
def test_what_is_wrong_with_it_is_told_and_nothing_is_contained(
    partner: Partner, fields: dict[str, Any], pointers: list[str]
) -> None:
    reply = partner.service.admin.post(f"{partner.url}/containment", WHY | fields)
    missing = partner.service.admin.post("/platform/integrations/missing/containment", WHY | fields)

    assert reply.status == missing.status == 400
    assert [fault["pointer"] for fault in reply.json()["errors"]] == pointers
    assert partner.service.admin.get(f"{partner.url}/containment").json()["state"] == "none"


@pytest.mark.parametrize(
    "fields", [{"rate_per_second": 0}, {"rate_per_second": 1e9}, {"reason": ""}, {"x": 1}]
)
def test_a_release_that_makes_no_sense_releases_nothing(partner: Partner, fields: dict[str, Any]) -> None:
    contain(partner)

    reply = partner.service.admin.post(
        f"{partner.url}/containment/release", {"reason": "it is back"} | fields
    )

    assert reply.status == 400
    assert partner.service.admin.get(f"{partner.url}/containment").json()["state"] == "contained"


def test_what_is_not_contained_cannot_be_released(partner: Partner) -> None:
    reply = partner.service.admin.post(f"{partner.url}/containment/release", {"reason": "it is back"})

    assert (reply.status, reply.error_code) == (409, "INT-409-CONFLICT")


def test_how_many_are_contained_is_a_metric(partner: Partner) -> None:
    def contained() -> float:
        text = partner.service.nobody.get("/metrics").body.decode()
        [line] = [one for one in text.splitlines() if one.startswith("redrive_contained_integrations ")]
        return float(line.split()[1])

    before = contained()
    contain(partner)

    assert contained() == before + 1


def test_where_storage_is_away_nothing_is_contained_and_that_is_said(own_service: Service) -> None:
    partner = own_service.partner()
    own_service.take_storage_away()

    reply = own_service.admin.post(f"{partner.url}/containment", WHY)

    assert (reply.status, reply.error_code) == (503, "INT-503-DEPENDENCY-UNAVAILABLE")
    own_service.give_storage_back()
    until(lambda: own_service.admin.get(f"{partner.url}/containment").status == 200)
    assert own_service.admin.get(f"{partner.url}/containment").json()["state"] == "none"
