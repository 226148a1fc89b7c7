"""Paths, methods and query strings, strictly."""

import pytest

from tests.api.service import EVENTS, INTEGRATIONS, Partner, Service
from tests.api.shapes import PROBLEM
from tests.api.wire import JSON

INVALID = "INT-400-INVALID-PAYLOAD"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/platform",
        "/platform/integrations/",
        "/platform/integrations/a/",
        "/platform/integrations//recovery/queue",
        "/platform/integrations/a/deliveries/",
        "/platform/integrations/a/recovery",
        "/platform/integrations/a/recovery/queue/rec_1/unknown",
        "/platform/audit",
        "/platform/audit/events/",
        "/PLATFORM/integrations",
        "/healthz/",
        "/platform/audit%2Fevents",
        "//healthz",
        "/./healthz",
    ],
)
def test_a_path_that_leads_nowhere_is_told_from_a_missing_resource(service: Service, path: str) -> None:
    for caller in (service.admin, service.nobody):
        reply = caller.get(path)

        assert (reply.status, reply.error_code) == (404, "INT-404-PATH-NOT-FOUND")
        assert reply.json().keys() == PROBLEM
        assert reply.json()["instance"] == path


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/platform/integrations", "GET, POST"),
        ("PUT", "/platform/integrations/a", "GET, PATCH"),
        ("GET", "/platform/integrations/a/deliveries", "POST"),
        ("HEAD", "/platform/integrations/a/deliveries", "POST"),
        ("GET", "/platform/integrations/a/deliveries/batch", "POST"),
        ("DELETE", "/platform/integrations/a/recovery/queue", "GET, POST"),
        ("DELETE", "/platform/integrations/a/recovery/queue/rec_1", "GET"),
        ("GET", "/platform/integrations/a/recovery/queue/rec_1/replay", "POST"),
        ("GET", "/platform/integrations/a/recovery/queue/rec_1/resolve", "POST"),
        ("POST", "/platform/audit/events", "GET"),
        ("POST", "/healthz", "GET"),
        ("OPTIONS", "/metrics", "GET"),
        ("TRACE", "/readyz", "GET"),
        ("PROPFIND", "/healthz", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_405_with_allow(
    service: Service, method: str, path: str, allow: str
) -> None:
    reply = service.admin.send(method, path)

    assert (reply.status, reply.header("allow")) == (405, allow)
    if method != "HEAD":
        assert reply.error_code == "INT-405-METHOD-NOT-ALLOWED"


BAD_IDS = ["A", "a-", "-a", ".", "..", "x" * 65, "%61", "a%2Fb", "a%00", "a%20b", "\u00e9", "a,b", "~"]


@pytest.mark.parametrize("integration_id", BAD_IDS)
@pytest.mark.parametrize(
    "rest", ["", "/recovery/queue", "/recovery/queue/rec_1", "/deliveries", "/recovery/queue/rec_1/replay"]
)
def test_an_integration_id_that_breaks_its_grammar_is_400(
    service: Service, integration_id: str, rest: str
) -> None:
    method = "POST" if rest.endswith(("deliveries", "replay")) else "GET"

    reply = service.admin.send(
        method, f"{INTEGRATIONS}/{integration_id}{rest}", b"{}" if method == "POST" else None, JSON
    )

    where = "integration_id" if integration_id.isascii() else ""  # no path at all may hold that
    assert (reply.error_code, reply.pointers) == (INVALID, [where])


@pytest.mark.parametrize("recovery_id", ["REC_1", "rec.1", "x" * 65, "%72ec", "rec%201", "a%2Fb", "~"])
@pytest.mark.parametrize("verb", ["", "/replay", "/resolve"])
def test_a_recovery_id_that_breaks_its_grammar_is_400(quiet: Partner, recovery_id: str, verb: str) -> None:
    method, body = ("POST", b'{"reason":"a"}') if verb else ("GET", None)

    reply = quiet.service.admin.send(method, f"{quiet.item_url(recovery_id)}{verb}", body, JSON)

    assert (reply.error_code, reply.pointers) == (INVALID, ["recovery_id"])


@pytest.mark.parametrize(
    "recovery_id",
    [
        "rec_0000000000000",
        "rec_7zzzzzzzzzzzz",
        "rec_8zzzzzzzzzzzz",
        "rec_1",
        "a",
        "evt_0000000000000",
        "-",
        "x" * 64,
    ],
)
@pytest.mark.parametrize("verb", ["", "/replay", "/resolve"])
def test_a_well_formed_unknown_recovery_id_is_404(quiet: Partner, recovery_id: str, verb: str) -> None:
    method, body = ("POST", b'{"reason":"a"}') if verb else ("GET", None)

    reply = quiet.service.admin.send(method, f"{quiet.item_url(recovery_id)}{verb}", body, JSON)

    assert (reply.status, reply.error_code) == (404, "INT-404-RECOVERY-NOT-FOUND")


@pytest.mark.parametrize("verb", ["", "/replay", "/resolve"])
def test_an_item_is_not_found_through_another_integration(
    service: Service, quiet: Partner, verb: str
) -> None:
    elsewhere = service.partner()
    recovery_id = elsewhere.hand_over()
    before = elsewhere.facts()
    method, body = ("POST", b'{"reason":"a"}') if verb else ("GET", None)

    reply = service.admin.send(method, f"{quiet.item_url(recovery_id)}{verb}", body, JSON)

    assert (reply.status, reply.error_code) == (404, "INT-404-RECOVERY-NOT-FOUND")
    assert elsewhere.facts() == before


LIMITS = [
    "0",
    "-1",
    "201",
    "1000000000",
    "1e2",
    "",
    "01",
    "+1",
    "1.0",
    "0x10",
    "%20",
    "%201",
    "1%20",
    "%D9%A3",
    "%EF%BC%91",
    "ten",
    "1_0",
    "9" * 5000,
]


@pytest.mark.parametrize("limit", LIMITS, ids=[limit[:20] for limit in LIMITS])
@pytest.mark.parametrize("path", ["queue", "events"])
def test_a_limit_is_a_whole_number_from_1_to_200(quiet: Partner, path: str, limit: str) -> None:
    url = EVENTS if path == "events" else quiet.queue

    reply = quiet.service.admin.get(f"{url}?limit={limit}")

    assert (reply.error_code, reply.pointers) == (INVALID, ["limit"])


QUERIES = [
    ("unknown=1", "unknown"),
    ("Limit=1", "Limit"),
    ("limit=1&limit=1", "limit"),
    ("limit=1&limit=2", "limit"),
    ("l%69mit=1&limit=1", "limit"),
    ("event_type=", "event_type"),
    ("event_type", "event_type"),
    ("since=", "since"),
    ("since=yesterday", "since"),
    ("since=2026-03-01", "since"),
    ("since=2026-02-30T00:00:00Z", "since"),
    ("until=2026-03-01T14:02:11", "until"),
    ("until=2026-03-01T14:02:11+01:00", "until"),
    ("until=99999-03-01T14:02:11Z", "until"),
    ("cursor=x", "cursor"),
    ("cursor=%00", "cursor"),
    ("cursor=" + "A" * 22, "cursor"),
    ("cursor=%C3%A9", "cursor"),
    ("cursor=" + "A" * 300, "cursor"),
    ("limit=%ff", ""),
    ("%ff=1", ""),
    ("=1", ""),
    ("&", ""),
    ("limit=1;cursor=x", "limit"),
]


@pytest.mark.parametrize(("query", "pointer"), QUERIES)
@pytest.mark.parametrize("path", ["queue", "events"])
def test_a_query_that_is_not_exactly_right_is_refused(
    quiet: Partner, path: str, query: str, pointer: str
) -> None:
    url = EVENTS if path == "events" else quiet.queue

    reply = quiet.service.admin.get(f"{url}?{query}")

    assert reply.error_code == INVALID
    assert set(reply.pointers) == {pointer}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=", "status"),
        ("status=DLQ", "status"),
        ("status=dead", "status"),
        ("status=dlq,failed", "status"),
        ("status=dlq&status=failed", "status"),
        ("failure_code=", "failure_code"),
        ("failure_code=a%0Ab", "failure_code"),
        ("held=1", "held"),
        ("held=True", "held"),
        ("resolved=yes", "resolved"),
        ("request_id=a", "request_id"),
    ],
)
def test_a_filter_of_the_queue_that_cannot_be_is_refused(quiet: Partner, query: str, pointer: str) -> None:
    reply = quiet.service.admin.get(f"{quiet.queue}?{query}")

    assert (reply.error_code, reply.pointers) == (INVALID, [pointer])


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("event_type=unknown", "event_type"),
        ("request_id=%20a", "request_id"),
        ("actor=a%00", "actor"),
        ("status=dlq", "status"),
    ],
)
def test_a_filter_of_the_events_that_cannot_be_is_refused(service: Service, query: str, pointer: str) -> None:
    reply = service.admin.get(f"{EVENTS}?{query}")

    assert (reply.error_code, reply.pointers) == (INVALID, [pointer])


def test_a_plus_in_an_instant_must_be_encoded(quiet: Partner) -> None:
    assert quiet.service.admin.get(f"{quiet.queue}?since=2026-03-01T14:02:11%2B01:00").status == 200


def test_every_fault_of_a_query_is_told_at_once(quiet: Partner) -> None:
    reply = quiet.service.admin.get(f"{quiet.queue}?limit=0&status=x&zzz=1")

    assert sorted(reply.pointers) == ["limit", "status", "zzz"]


def test_a_misspelt_parameter_is_told_its_nearest(quiet: Partner) -> None:
    [fault] = quiet.service.admin.get(f"{quiet.queue}?statu=dlq").json()["errors"]

    assert fault["detail"] == "unknown parameter; did you mean status?"


@pytest.mark.parametrize("call", ["deliveries", "batch", "queue"])
def test_a_post_takes_no_query(quiet: Partner, call: str) -> None:
    reply = quiet.service.admin.post(f"{getattr(quiet, call)}?dry_run=true", {})

    assert (reply.error_code, reply.pointers) == (INVALID, ["dry_run"])


def test_an_empty_query_is_none(quiet: Partner) -> None:
    assert quiet.service.admin.get(f"{quiet.queue}?").status == 200
