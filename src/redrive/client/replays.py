"""Calls on plans and jobs that replay many."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Unpack

from redrive.client.answer import Answer
from redrive.client.bodies import instant, write
from redrive.client.calls import (
    Calls,
    Correlation,
    under,
)


class Replays(Calls):
    """Replays of many."""

    def plan_replay(
        self,
        integration_id: str,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **wanted: Any,
    ) -> Answer:
        """Freeze what matches now (`status`, `group`, `failure_code`, …); nothing is replayed yet."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        given = {name: instant(each) if isinstance(each, datetime) else each for name, each in wanted.items()}
        path = under(integration_id, "recovery", "replays")
        return self._post(path, write({"filter": given}), idempotency_key, correlation)

    def run_replay(
        self,
        integration_id: str,
        plan_digest: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Any,
    ) -> Answer:
        """Replay what was planned, and nothing else (`rate`, `canary`, `halt_if`, `order`, …)."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        body = {"plan_digest": plan_digest, "reason": reason, **options}
        path = under(integration_id, "recovery", "replays")
        return self._post(path, write(body), idempotency_key, correlation)

    def replays(
        self,
        integration_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One page of an integration's plans and jobs, newest first."""
        path = under(integration_id, "recovery", "replays")
        return self._get(path, {"limit": limit, "cursor": cursor}, correlation)

    def replays_all(
        self,
        integration_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Iterator[dict[str, Any]]:
        """Every plan and job, newest first, page by page; `limit` is the size of a page."""
        path = under(integration_id, "recovery", "replays")
        return self._each(path, "replays", {"limit": limit, "cursor": cursor}, correlation)

    def replay_job(self, integration_id: str, replay_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One plan or job, and how far it is."""
        return self._get(under(integration_id, "recovery", "replays", replay_id), {}, correlation)

    def replay_items(
        self,
        integration_id: str,
        replay_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One page of what became of a job's items."""
        path = under(integration_id, "recovery", "replays", replay_id, "items")
        return self._get(path, {"state": state, "limit": limit, "cursor": cursor}, correlation)

    def replay_items_all(
        self,
        integration_id: str,
        replay_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Iterator[dict[str, Any]]:
        """What became of every item of a job, page by page; `limit` is the size of a page."""
        path = under(integration_id, "recovery", "replays", replay_id, "items")
        return self._each(path, "items", {"state": state, "limit": limit, "cursor": cursor}, correlation)

    def pause_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Replay nothing more of a job for now."""
        return self._steer((integration_id, replay_id, "pause"), {}, idempotency_key, correlation)

    def resume_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Let a paused job go on."""
        return self._steer((integration_id, replay_id, "resume"), {}, idempotency_key, correlation)

    def cancel_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Replay nothing more of a job, for good; what was replayed stays so."""
        return self._steer((integration_id, replay_id, "cancel"), {}, idempotency_key, correlation)

    def pace_replay(
        self,
        integration_id: str,
        replay_id: str,
        rate: float | None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Change how many items a second a job replays; None: as fast as the integration's own limits."""
        return self._steer((integration_id, replay_id, "rate"), {"rate": rate}, idempotency_key, correlation)

    def _steer(
        self,
        where: tuple[str, str, str],
        body: dict[str, Any],
        idempotency_key: str | None,
        correlation: Correlation,
    ) -> Answer:
        integration_id, replay_id, verb = where
        path = under(integration_id, "recovery", "replays", replay_id, verb)
        return self._post(path, write(body), idempotency_key, correlation)
