"""Lists: everything once, newest first, a page at a time, while more arrives; and the filters."""

from typing import Any

import pytest

from tests.api.service import EVENTS, Partner, Service, a_delivery
from tests.api.shapes import EVENTS as EVENTS_SHAPE
from tests.api.shapes import ITEM, LIST, SNAPSHOT
from tests.api.test_runbook import an_item_that_is


def pages(partner: Partner, url: str, name: str, *, between: Any = None) -> list[list[dict[str, Any]]]:
    """Every page of a list; *between* is called after each."""
    found, cursor, mark = [], "", "&" if "?" in url else "?"
    while True:
        document = partner.service.admin.get(f"{url}{cursor and f'{mark}cursor={cursor}'}").json()
        found.append(document[name])
        cursor = document["next_cursor"]
        if cursor is None:
            return found
        if between is not None:
            between()


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["recovery_id"] for item in items]


@pytest.mark.parametrize("limit", [200, 50, 7])
def test_450_items_are_listed_once_each_while_more_arrive(quiet: Partner, limit: int) -> None:
    batch = {"deliveries": [a_delivery(n) for n in range(450)]}
    accepted = names(quiet.service.admin.post(quiet.batch, batch).json()["deliveries"])

    found = pages(quiet, f"{quiet.queue}?limit={limit}", "queue", between=quiet.deliver)

    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert [name for page in found for name in names(page)] == accepted[::-1]


def test_a_list_has_50_items_when_nothing_is_said(quiet: Partner) -> None:
    quiet.service.admin.post(quiet.batch, {"deliveries": [a_delivery()] * 51})

    document = quiet.service.admin.get(quiet.queue).json()

    assert document.keys() == LIST
    assert (document["limit"], len(document["queue"]), document["status"]) == (50, 50, None)
    assert (document["integration_id"], document["lifecycle_status"]) == (quiet.id, "active")


def test_a_page_that_ends_exactly_has_no_next(quiet: Partner) -> None:
    quiet.deliver(), quiet.deliver()

    found = pages(quiet, f"{quiet.queue}?limit=2", "queue")

    assert [len(page) for page in found] in ([2], [2, 0])


def test_an_empty_list_is_a_list(quiet: Partner) -> None:
    document = quiet.service.admin.get(f"{quiet.queue}?status=dlq&limit=7").json()

    assert (document["queue"], document["next_cursor"]) == ([], None)
    assert (document["status"], document["limit"]) == ("dlq", 7)


def test_a_list_leaves_bodies_out_and_nothing_else(partner: Partner) -> None:
    partner.answers(400)
    recovery_id = partner.deliver({"a": 1})
    whole = partner.becomes(recovery_id, "failed")
    assert whole.keys() == ITEM
    assert whole["payload_snapshot"].keys() == SNAPSHOT
    assert whole["response_snapshot"].keys() == SNAPSHOT | {"status", "headers"}

    [listed] = partner.items()

    for name in ("payload_snapshot", "response_snapshot"):
        del whole[name]["body"]
    assert listed == whole


@pytest.fixture(scope="module")
def mixed(service: Service) -> Partner:
    """One item of each status and more, in a partner that stays as it is."""
    partner, _ = an_item_that_is(service, "retrying")
    partner.answers(200)
    partner.becomes(partner.deliver(1, event_type="order.paid"), "succeeded")
    partner.hand_over(status="failed", failure_code="HTTP_404", event_type="order.paid")
    partner.hand_over(status="dlq", failure_code="HTTP_503")
    partner.resolve(partner.hand_over(status="dlq", failure_code="HTTP_503"))
    return partner


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("status=retrying", lambda item: item["status"] == "retrying"),
        ("status=succeeded", lambda item: item["status"] == "succeeded"),
        ("status=failed", lambda item: item["status"] == "failed"),
        ("status=dlq", lambda item: item["status"] == "dlq"),
        ("status=pending", lambda item: item["status"] == "pending"),
        ("failure_code=HTTP_503", lambda item: item["failure_code"] == "HTTP_503"),
        ("failure_code=HTTP_503&status=dlq", lambda item: item["status"] == "dlq"),
        ("failure_code=HTTP_503&status=retrying", lambda item: item["status"] == "retrying"),
        ("failure_code=HTTP_503&status=failed", lambda item: False),
        ("failure_code=HTTP_404&status=dlq", lambda item: False),
        ("failure_code=HTTP_999", lambda item: False),
        ("event_type=order.paid", lambda item: item["event_type"] == "order.paid"),
        ("event_type=order.paid&status=failed", lambda item: item["status"] == "failed"),
        ("resolved=true", lambda item: item["resolved"] is not None),
        ("resolved=false", lambda item: item["resolved"] is None),
        ("resolved=false&status=dlq", lambda item: item["resolved"] is None and item["status"] == "dlq"),
        ("held=true", lambda item: item["held"]),
        ("held=false", lambda item: not item["held"]),
        ("since=2000-01-01T00:00:00Z", lambda item: True),
        ("until=2000-01-01T00:00:00Z", lambda item: False),
        ("since=2100-01-01T00:00:00Z", lambda item: False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lifecycle", ["active", "paused"])
def test_a_filter_gives_what_it_says_and_all_of_it(
    mixed: Partner, query: str, matches: Any, lifecycle: str
) -> None:
    mixed.change(lifecycle_status=lifecycle)
    everything = mixed.items()
    assert len(everything) == 5

    wanted = [item for item in everything if matches(item)]

    assert mixed.items(query) == wanted
    assert [
        item for page in pages(mixed, f"{mixed.queue}?{query}&limit=1", "queue") for item in page
    ] == wanted


def test_since_includes_its_instant_and_until_does_not(quiet: Partner) -> None:
    at = quiet.item(quiet.deliver())["created_at"]

    assert len(quiet.items(f"since={at}")) == 1
    assert len(quiet.items(f"until={at}")) == 0


def test_a_cursor_belongs_to_its_list_and_its_filters(service: Service, quiet: Partner) -> None:
    elsewhere = service.partner(rate_per_second=0.001)
    quiet.deliver(), quiet.deliver()
    cursor = service.admin.get(f"{quiet.queue}?limit=1").json()["next_cursor"]
    of_events = service.admin.get(f"{EVENTS}?limit=1").json()["next_cursor"]

    strangers = [
        f"{elsewhere.queue}?cursor={cursor}",
        f"{quiet.queue}?status=pending&cursor={cursor}",
        f"{quiet.queue}?held=false&cursor={cursor}",
        f"{quiet.queue}?cursor={of_events}",
        f"{EVENTS}?cursor={cursor}",
        f"{EVENTS}?integration_id={quiet.id}&cursor={of_events}",
        f"{quiet.queue}?cursor={cursor[:-1]}",
        f"{quiet.queue}?cursor={cursor}A",
        f"{quiet.queue}?cursor={'A' if cursor[0] != 'A' else 'B'}{cursor[1:]}",
    ]

    for url in strangers:
        reply = service.admin.get(url)
        assert (reply.status, reply.pointers) == (400, ["cursor"]), url
    assert len(service.admin.get(f"{quiet.queue}?limit=200&cursor={cursor}").json()["queue"]) == 1


def test_a_cursor_survives_a_restart(own_service: Service) -> None:
    partner = own_service.partner(rate_per_second=0.001)
    first, _ = partner.deliver(), partner.deliver()
    cursor = own_service.admin.get(f"{partner.queue}?limit=1").json()["next_cursor"]

    own_service.restart()

    assert names(own_service.admin.get(f"{partner.queue}?cursor={cursor}").json()["queue"]) == [first]


def test_events_are_listed_once_each_newest_first_while_more_arrive(quiet: Partner) -> None:
    imported = [quiet.hand_over() for _ in range(30)]

    found = pages(quiet, f"{EVENTS}?integration_id={quiet.id}&limit=7", "events", between=quiet.hand_over)

    assert [event["target_id"] for page in found for event in page] == [*imported[::-1], quiet.id]


def test_events_are_counted_exactly(quiet: Partner) -> None:
    quiet.hand_over()

    document = quiet.service.admin.get(f"{EVENTS}?integration_id={quiet.id}&limit=1").json()

    assert document.keys() == EVENTS_SHAPE
    assert (document["total"], document["total_is_exact"], len(document["events"])) == (2, True, 1)


@pytest.mark.parametrize("wanted", ["request_id", "event_type", "integration_id", "target_id", "actor"])
def test_each_filter_of_the_events_gives_all_that_match_and_nothing_else(
    service: Service, quiet: Partner, wanted: str
) -> None:
    recovery_id = quiet.hand_over(("X-Request-Id", f"filtered-{quiet.id}"))
    event = service.events(target_id=recovery_id)[0]
    value = event["actor"]["id"] if wanted == "actor" else event[wanted]

    document = service.admin.get(f"{EVENTS}?{wanted}={value}&limit=200").json()

    seen = [one["actor"]["id"] if wanted == "actor" else one[wanted] for one in document["events"]]
    assert set(seen) == {value}
    assert event in document["events"]
    assert document["total"] >= len(seen)


def test_events_are_bounded_in_time(quiet: Partner) -> None:
    at = quiet.service.events(target_id=quiet.hand_over())[0]["occurred_at"]
    base = f"{EVENTS}?integration_id={quiet.id}"

    assert len(quiet.service.admin.get(f"{base}&since={at}").json()["events"]) >= 1
    assert quiet.service.admin.get(f"{base}&since=2100-01-01T00:00:00Z").json()["total"] == 0
    assert quiet.service.admin.get(f"{base}&until=2000-01-01T00:00:00Z").json()["total"] == 0
