from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from redrive import __version__
from redrive.domain.item import Finish, Status
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import (
    AlertFailed,
    AlertTold,
    AuditWritten,
    AuthenticationFailed,
    DeliveriesAccepted,
    Event,
    IdentityProviderFailed,
    LeasesLost,
    LoopFailed,
    SendingSuspended,
    StoreFailed,
    TargetBlocked,
)
from redrive.telemetry.metrics import Metrics, Polled
from tests.telemetry.examples import LATER, OUTAGE, a_request, an_attempt

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(*happened: Event, polled: Polled = Polled()) -> Mapping[Sample, float]:  # noqa: B008 - frozen
    bus, metrics = Bus(), Metrics()
    metrics.listen(bus)
    for event in happened:
        bus(event)
    text, _ = metrics.render(polled)
    families = text_string_to_metric_families(text.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def named(name: str, **labels: str) -> Sample:
    return f"redrive_{name}", frozenset(labels.items())


def test_a_duplicate_is_not_counted_as_accepted() -> None:
    samples = scrape(DeliveriesAccepted(5, 2), DeliveriesAccepted(1, 0))

    assert samples[named("deliveries_accepted_total")] == 6
    assert samples[named("deliveries_duplicate_total")] == 2


def test_attempts_are_counted_by_what_they_led_to() -> None:
    samples = scrape(
        an_attempt(),
        an_attempt(),
        an_attempt(outcome=OUTAGE, step=LATER),
        an_attempt(outcome=OUTAGE, step=Finish(Status.FAILED)),
        an_attempt(outcome=OUTAGE, step=Finish(Status.DLQ)),
        an_attempt(recorded=False),
    )

    counts = {
        outcome: samples[named("attempts_total", outcome=outcome)]
        for outcome in ("succeeded", "retrying", "failed", "dlq", "lost")
    }
    assert counts == {"succeeded": 2, "retrying": 1, "failed": 1, "dlq": 1, "lost": 1}


def test_every_outcome_is_there_before_it_happens() -> None:
    assert scrape()[named("attempts_total", outcome="dlq")] == 0


def test_an_attempt_falls_into_every_bucket_from_its_duration_up() -> None:
    samples = scrape(an_attempt())  # 0.125 s

    buckets = {
        le: samples[named("attempt_duration_seconds_bucket", le=le)] for le in ("0.1", "0.25", "60.0", "+Inf")
    }
    assert buckets == {"0.1": 0, "0.25": 1, "60.0": 1, "+Inf": 1}
    assert samples[named("attempt_duration_seconds_sum")] == 0.125
    assert samples[named("attempt_duration_seconds_count")] == 1


def test_a_duration_on_a_bound_belongs_below_it() -> None:
    samples = scrape(a_request(duration_seconds=0.05))

    assert samples[named("http_request_duration_seconds_bucket", route=a_request().route, le="0.05")] == 1
    assert samples[named("http_request_duration_seconds_bucket", route=a_request().route, le="0.025")] == 0


def test_requests_are_counted_by_method_route_and_status() -> None:
    samples = scrape(a_request(), a_request(status=404), a_request())

    route = a_request().route
    assert samples[named("http_requests_total", method="GET", route=route, status="200")] == 2
    assert samples[named("http_requests_total", method="GET", route=route, status="404")] == 1


def test_a_caller_cannot_make_a_series_for_a_method_of_its_own() -> None:
    samples = scrape(a_request(method="BREW"), a_request(method="STEEP"))

    assert samples[named("http_requests_total", method="other", route=a_request().route, status="200")] == 2


@pytest.mark.parametrize(
    ("event", "sample", "count"),
    [
        (LeasesLost(3), named("leases_lost_total"), 3),
        (SendingSuspended("acme", "no handles", 5.0), named("sending_suspended_total"), 1),
        (TargetBlocked("acme", "it is private", again=True), named("targets_blocked_total"), 1),
        (
            AuditWritten("platform.integration.created"),
            named("audit_events_total", event_type="platform.integration.created"),
            1,
        ),
        (AuthenticationFailed("unknown"), named("authentication_failures_total"), 1),
        (IdentityProviderFailed("it is away"), named("identity_provider_failures_total"), 1),
        (StoreFailed("accept", "disk full"), named("store_failures_total"), 1),
        (
            AlertTold("dlq_growth", "acme", is_over=True),
            named("alerts_total", kind="dlq_growth", state="resolved"),
            1,
        ),
        (AlertFailed("ops", "it is retired"), named("alert_failures_total"), 1),
        (LoopFailed("worker", ValueError()), named("loop_failures_total", loop="worker"), 1),
    ],
)
def test_what_happens_is_counted(event: Event, sample: Sample, count: int) -> None:
    assert scrape(event)[sample] == count


def test_what_is_polled_is_shown() -> None:
    samples = scrape(polled=Polled(12, 340, 1.5, replay_jobs={"paused": 2, "planned": 7}))

    assert samples[named("attempts_in_flight")] == 12
    assert samples[named("due_backlog")] == 340
    assert samples[named("oldest_due_seconds")] == 1.5
    assert {
        state: samples[named("replay_jobs", state=state)] for state in ("canary", "running", "paused")
    } == {
        "canary": 0,
        "running": 0,
        "paused": 2,
    }
    assert named("replay_jobs", state="planned") not in samples


def test_a_backlog_nobody_knows_is_absent_and_not_zero() -> None:
    assert named("due_backlog") not in scrape(polled=Polled(in_flight=1))


def test_a_scrape_says_what_is_running_and_what_it_uses() -> None:
    samples = scrape()

    assert samples[named("build_info", version=__version__)] == 1
    assert samples["process_resident_memory_bytes", frozenset()] > 0


def test_two_services_in_one_process_share_no_count() -> None:
    scrape(LeasesLost(3))

    assert scrape()[named("leases_lost_total")] == 0


def test_the_content_type_is_the_text_format_every_scraper_reads() -> None:
    _, content_type = Metrics().render(Polled())

    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
