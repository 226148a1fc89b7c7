"""Calls that need no permission, and HTTP itself."""

import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.loops import until
from tests.api.service import EVENTS, INTEGRATIONS, Partner, Service
from tests.api.shapes import REQUEST_ID
from tests.api.wire import a_request, exchange, read_reply


def counted(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of /metrics by name and labels."""
    reply = service.nobody.get("/metrics")
    assert reply.status == 200
    assert (reply.header("content-type") or "").startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def count(service: Service, name: str, **labels: str) -> float:
    return counted(service).get((f"redrive_{name}", frozenset(labels.items())), 0.0)


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready")])
def test_a_service_that_works_says_so(service: Service, path: str, status: str) -> None:
    reply = service.nobody.get(path)

    assert (reply.status, reply.json()) == (200, {"status": status, "request_id": REQUEST_ID})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", EVENTS, INTEGRATIONS])
def test_head_answers_the_header_of_get_without_a_body(service: Service, path: str) -> None:
    head, get = service.admin.send("HEAD", path), service.admin.get(path)

    assert (head.status, head.body) == (get.status, b"")
    assert head.header("content-type") == get.header("content-type")


def test_every_answer_may_not_be_stored_or_sniffed(service: Service) -> None:
    reply = service.nobody.get("/healthz")

    assert reply.header("cache-control") == "no-store"
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("server") is None


def test_metrics_count_what_happened(service: Service, partner: Partner) -> None:
    route = "/platform/integrations/{integration_id}/deliveries"
    accepted = count(service, "deliveries_accepted_total")
    succeeded = count(service, "attempts_total", outcome="succeeded")
    posted = count(service, "http_requests_total", method="POST", route=route, status="202")

    partner.becomes(partner.deliver(), "succeeded")

    assert count(service, "deliveries_accepted_total") == accepted + 1
    assert count(service, "attempts_total", outcome="succeeded") == succeeded + 1
    assert count(service, "http_requests_total", method="POST", route=route, status="202") == posted + 1


def test_metrics_count_audit_events_and_items_that_wait(service: Service, quiet: Partner) -> None:
    kind = "platform.integration.imported"
    imported = count(service, "audit_events_total", event_type=kind)
    due = count(service, "due_backlog")

    quiet.hand_over()
    quiet.deliver()

    assert count(service, "audit_events_total", event_type=kind) == imported + 1
    until(lambda: count(service, "due_backlog") == due + 1)
    assert count(service, "oldest_due_seconds") >= 0


def test_a_path_that_does_not_exist_never_becomes_a_series(service: Service) -> None:
    service.nobody.get("/nowhere/at/all")

    assert count(service, "http_requests_total", method="GET", route="(none)", status="404") >= 1
    assert b"nowhere" not in service.nobody.get("/metrics").body


def test_a_connection_serves_many_calls(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        statuses = []
        for path in ("/healthz", "/nowhere", EVENTS, "/healthz"):
            connection.sendall(a_request("GET", path, None, ()))
            statuses.append(read_reply(connection).status)

    assert statuses == [200, 404, 401, 200]


def test_a_refused_body_does_not_spoil_the_next_call_on_its_connection(
    service: Service, partner: Partner
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(a_request("POST", partner.deliveries, b"x" * 5000, ()))
        refused = read_reply(connection)
        connection.sendall(a_request("GET", "/healthz", None, ()))
        then = read_reply(connection)

    assert (refused.status, then.status) == (401, 200)


@pytest.mark.parametrize(
    "request_line", [b"GET /healthz HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_refused_and_the_service_lives(service: Service, request_line: bytes) -> None:
    reply = exchange(service.port, request_line)

    assert reply.status == 400
    assert service.nobody.get("/healthz").status == 200
