"""Calls on items that failed, and on groups of them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from redrive.client.answer import Answer
from redrive.client.bodies import instant, write, write_object
from redrive.client.calls import (
    NOT_GIVEN,
    Calls,
    Correlation,
    Window,
    given,
    given_or_left_out,
    of_item,
    split,
    under,
)


class QueueQuery(Window, total=False):
    """Which items of an integration."""

    status: str | None
    failure_code: str | None
    event_type: str | None
    held: bool | None
    resolved: bool | None
    group: str | None
    duplicate_risk: str | None


class GroupQuery(TypedDict, total=False):
    """Which groups of failures of an integration."""

    state: str | None
    limit: int | None
    cursor: str | None


class Deed(Correlation, total=False):
    """What is done to an item or a group may name its incident; under one key it is done once."""

    incident: str | None
    idempotency_key: str | None


class _QueueCall(QueueQuery, Correlation, total=False):
    pass


class _GroupCall(GroupQuery, Correlation, total=False):
    pass


class Recovery(Calls):
    """The recovery queue, and groups of failures."""

    def queue(self, integration_id: str, **call: Unpack[_QueueCall]) -> Answer:
        """One page of an integration's items, newest first."""
        query, correlation = split(call)
        return self._get(under(integration_id, "recovery", "queue"), query, correlation)

    def queue_all(self, integration_id: str, **call: Unpack[_QueueCall]) -> Iterator[dict[str, Any]]:
        """Every item that matches, newest first, page by page; `limit` is the size of a page."""
        query, correlation = split(call)
        return self._each(under(integration_id, "recovery", "queue"), "queue", query, correlation)

    def item(self, integration_id: str, recovery_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One item with its payload, its last answer and its attempts."""
        return self._get(of_item(integration_id, recovery_id), {}, correlation)

    def replay(self, integration_id: str, recovery_id: str, reason: str, **deed: Unpack[Deed]) -> Answer:
        """Open the next cycle of a failed or dlq item."""
        path = of_item(integration_id, recovery_id, "replay")
        return self._do(path, reason, deed)

    def resolve(self, integration_id: str, recovery_id: str, reason: str, **deed: Unpack[Deed]) -> Answer:
        """Close a failed or dlq item for good."""
        path = of_item(integration_id, recovery_id, "resolve")
        return self._do(path, reason, deed)

    def edit(
        self,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        incident: str | None = None,
        payload: Any = NOT_GIVEN,
        payload_json: bytes | None = None,
        payload_base64: str | bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Send a corrected copy of a failed or dlq item; what is not given stays as it is.

        A payload is given as to `deliver`; `headers` take the place of all that are there. The copy, an item
        of its own with its own webhook-id, is in the answer as `recovery`.
        """
        body = write_object(
            given(
                reason=reason,
                incident=NOT_GIVEN if incident is None else incident,
                payload=payload,
                payload_json=NOT_GIVEN if payload_json is None else payload_json,
                payload_base64=NOT_GIVEN if payload_base64 is None else payload_base64,
                content_type=NOT_GIVEN if content_type is None else content_type,
                headers=NOT_GIVEN if headers is None else dict(headers),
            )
        )
        return self._post(of_item(integration_id, recovery_id, "edit"), body, idempotency_key, correlation)

    def erase(self, integration_id: str, recovery_id: str, reason: str, **deed: Unpack[Deed]) -> Answer:
        """Erase an item's payload, headers and answers for good; a failed or dlq item is closed by it."""
        path = of_item(integration_id, recovery_id, "erase")
        return self._do(path, reason, deed)

    # groups of failures

    def groups(self, integration_id: str, **call: Unpack[_GroupCall]) -> Answer:
        """One page of an integration's groups of failures, those that failed last first."""
        query, correlation = split(call)
        return self._get(under(integration_id, "recovery", "groups"), query, correlation)

    def groups_all(self, integration_id: str, **call: Unpack[_GroupCall]) -> Iterator[dict[str, Any]]:
        """Every group, those that failed last first, page by page; `limit` is the size of a page."""
        query, correlation = split(call)
        return self._each(under(integration_id, "recovery", "groups"), "groups", query, correlation)

    def group(
        self,
        integration_id: str,
        group_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One group with a page of its comments, newest first."""
        path = under(integration_id, "recovery", "groups", group_id)
        return self._get(path, {"limit": limit, "cursor": cursor}, correlation)

    def acknowledge_group(
        self,
        integration_id: str,
        group_id: str,
        reason: str | None = None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Say that you look at an open group."""
        body = {} if reason is None else {"reason": reason}
        path = under(integration_id, "recovery", "groups", group_id, "acknowledge")
        return self._post(path, write(body), idempotency_key, correlation)

    def resolve_group(self, integration_id: str, group_id: str, reason: str, **deed: Unpack[Deed]) -> Answer:
        """Close a group and every item that waits in it for good. Cut short, it goes on when called again."""
        path = under(integration_id, "recovery", "groups", group_id, "resolve")
        return self._do(path, reason, deed)

    def reopen_group(self, integration_id: str, group_id: str, reason: str, **deed: Unpack[Deed]) -> Answer:
        """Open a group again; items that were resolved with it stay so."""
        path = under(integration_id, "recovery", "groups", group_id, "reopen")
        return self._do(path, reason, deed)

    def mute_group(
        self,
        integration_id: str,
        group_id: str,
        until: datetime | str | None,
        reason: str | None = None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hold alerts of a group back until an instant; None ends that."""
        body: dict[str, Any] = {"until": instant(until) if isinstance(until, datetime) else until}
        body |= {} if reason is None else {"reason": reason}
        path = under(integration_id, "recovery", "groups", group_id, "mute")
        return self._post(path, write(body), idempotency_key, correlation)

    def comment_on_group(
        self,
        integration_id: str,
        group_id: str,
        text: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Write something about a group, for good."""
        body = {"text": text}
        path = under(integration_id, "recovery", "groups", group_id, "comment")
        return self._post(path, write(body), idempotency_key, correlation)

    def _do(self, path: str, reason: str, deed: Deed) -> Answer:
        fields, correlation = split(deed)
        body = write(given_or_left_out(reason=reason, incident=fields.get("incident")))
        return self._post(path, body, fields.get("idempotency_key"), correlation)
