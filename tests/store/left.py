"""What is left of an integration: two ways of doing something left the same if these are equal."""

from collections.abc import Mapping
from typing import Any

from redrive.domain.delivery import Delivery
from redrive.store.port import EventFilter, QueueFilter
from tests.store.under_test import PostgresUnderTest, events_of


async def what_is_left(
    store: PostgresUnderTest, name: str, number: int, owners: Mapping[int | None, str]
) -> Any:
    """Everything that is stored of an integration, with names instead of ids."""
    [integration] = [one for one in await store.integrations() if one.number == number]
    page = await store.queue(number, QueueFilter(), limit=100, below=None)
    items = [await _story(store, number, row.delivery) for row in page.rows]
    live = "SELECT claimed_by, attempt, cycle, status FROM live WHERE integration = $1"
    rows = [(owners[row[0]], *row[1:]) for row in await store._database.ask(live, number)]
    of_jobs = "SELECT state, reason FROM replay_item WHERE integration = $1 ORDER BY job, item"
    told = [tuple(row) for row in await store._database.ask(of_jobs, number)]
    events = await events_of(store, EventFilter(integration_id=name))
    once = await store.recall(name.encode())
    return (
        (integration.lifecycle_status, integration.name, integration.version, integration.traffic),
        items,
        rows,
        told,
        sorted((event.event_type, event.request_id) for event in events),
        None if once is None else once.body,
    )


async def _story(store: PostgresUnderTest, number: int, delivery: Delivery) -> Any:
    found = await store.history(number, delivery.id)
    assert found is not None
    item, attempts = found
    told = [(one.cycle, one.attempt, one.outcome, one.span_id) for one in attempts]
    return (
        delivery.created_by, delivery.idempotency_key, item.status, item.cycle, item.attempt_count,
        item.resolution, item.updated_by, told,
    )  # fmt: skip
