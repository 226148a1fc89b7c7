"""Calls on what was done: audit events, and evidence."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Unpack

from redrive.client.answer import Answer
from redrive.client.calls import (
    Calls,
    Correlation,
    Window,
    under,
)


class EventQuery(Window, total=False):
    """Which audit events. `request_id` asks for all that one call caused."""

    request_id: str | None
    event_type: str | None
    integration_id: str | None
    target_id: str | None
    actor: str | None


class Audit(Calls):
    """Audit events and evidence files."""

    def audit_events(self, **query: Unpack[EventQuery]) -> Answer:
        """One page of audit events, newest first. Here `request_id` is a filter, not the call's own."""
        return self._get("/platform/audit/events", query, {})

    def audit_events_all(self, **query: Unpack[EventQuery]) -> Iterator[dict[str, Any]]:
        """Every audit event that matches, newest first, page by page; `limit` is the size of a page."""
        return self._each("/platform/audit/events", "events", query, {})

    # evidence

    def evidence(
        self, integration_id: str, recovery_id: str, **correlation: Unpack[Correlation]
    ) -> Iterator[bytes]:
        """The evidence file of one item, in pieces. Without its last line, a manifest, it is not whole."""
        path = under(integration_id, "recovery", "queue", recovery_id, "evidence")
        return self._stream(path, {}, correlation)

    def audit_export(
        self,
        *,
        incident: str | None = None,
        integration_id: str | None = None,
        request_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> Iterator[bytes]:
        """The evidence file of an incident, an integration or a call (one of them), in pieces."""
        query = {
            "incident": incident,
            "integration_id": integration_id,
            "request_id": request_id,
            "since": since,
            "until": until,
        }
        return self._stream("/platform/audit/export", query, {})
