"""Calls that need no permission: health, readiness, metrics."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from redrive.api.call import Asked, Reply
from redrive.api.query import Query
from redrive.domain.errors import DependencyUnavailable, PathNotFound
from redrive.store.port import StoreUnavailable
from redrive.telemetry.metrics import Metrics, Polled


async def healthz(asked: Asked) -> Reply:
    """The process lives."""
    Query(asked.query_string, ()).done()
    return asked.json(200, {"status": "ok"})


async def readyz(asked: Asked) -> Reply:
    """The process accepts and sends; 503 says why not."""
    Query(asked.query_string, ()).done()
    engine = asked.engine
    if engine.is_stopping:
        raise DependencyUnavailable("draining", "the process is starting or stopping")
    if engine.health.reason is not None:
        raise DependencyUnavailable("storage", engine.health.reason)
    return asked.json(200, {"status": "ready"})


async def no_metrics(asked: Asked) -> Reply:  # noqa: ARG001 - a handler is given it
    """Where they are, at a port that several processes share."""
    raise PathNotFound(
        "several processes answer at this port: each shows its metrics at a port of its own, counted from"
        " metrics_port (REDRIVE_METRICS_PORT)"
    )


def scrape(metrics: Metrics) -> Callable[[Asked], Awaitable[Reply]]:
    """The handler that shows *metrics*."""

    async def scrape_metrics(asked: Asked) -> Reply:
        """Prometheus text."""
        Query(asked.query_string, ()).done()
        engine = asked.engine
        contained = sum(one.traffic.containment is not None for one in engine.catalogue)
        defaults = engine.catalogue.defaults
        shut = sum(not defaults.breaker(one).is_closed for one in engine.catalogue)
        polled = Polled(
            in_flight=engine.worker.lanes.in_flight,
            contained=contained,
            breakers_open=shut,
            replay_jobs=engine.stepper.under_way,
        )
        try:
            backlog = await engine.store.backlog()
        except StoreUnavailable:
            pass  # what the store alone knows is left out; the rest matters all the more
        else:
            oldest = backlog.oldest_due_at
            age = 0.0 if oldest is None else (engine.clock.now() - oldest).total_seconds()
            polled = replace(polled, due=backlog.due, oldest_due_seconds=max(0.0, age))
        text, content_type = metrics.render(polled)
        return Reply(200, text, content_type.encode())

    return scrape_metrics
