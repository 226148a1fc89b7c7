"""Calls on the audit events."""

from redrive.api import views
from redrive.api.call import Asked, Reply
from redrive.api.query import Query
from redrive.audit.record import EventType
from redrive.store.port import EventFilter

FILTERS = (
    "request_id", "event_type", "integration_id", "target_id", "actor", "since", "until", "limit", "cursor",
)  # fmt: skip


async def list_events(asked: Asked) -> Reply:
    """Audit events, newest first: all that one call caused (`request_id`), or any other cut."""
    query = Query(asked.query_string, FILTERS)
    event_type = query.choice("event_type", [kind.value for kind in EventType])
    wanted = EventFilter(
        request_id=query.text("request_id"),
        event_type=None if event_type is None else EventType(event_type),
        integration_id=query.text("integration_id"),
        target_id=query.text("target_id"),
        actor=query.text("actor"),
        since=query.instant("since"),
        until=query.instant("until"),
    )
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    found = await asked.engine.look.events(asked.call, wanted, limit, cursor)
    return asked.json(
        200,
        {
            "total": found.total,
            "total_is_exact": found.total_is_exact,
            "events": [views.event(event) for event in found.page.rows],
            "next_cursor": found.next_cursor,
        },
    )
