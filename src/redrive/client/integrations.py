"""Calls on integrations: what they are, whether they are contained, how their receivers are."""

from datetime import datetime
from typing import Any, Unpack

from redrive.client.answer import Answer
from redrive.client.bodies import instant, write
from redrive.client.calls import Calls, Correlation, correlate, given_or_left_out, under


class Integrations(Calls):
    """Integrations, containment, health and probes."""

    def integrations(self, **correlation: Unpack[Correlation]) -> Answer:
        """Every integration."""
        return self._get("/platform/integrations", {}, correlation)

    def integration(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One integration."""
        return self._get(under(integration_id), {}, correlation)

    def create_integration(
        self,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **fields: Any,
    ) -> Answer:
        """Add an integration. A signing secret that the service makes is in this answer, and only here."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        return self._post("/platform/integrations", write(fields), idempotency_key, correlation)

    def update_integration(
        self,
        integration_id: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        **changes: Any,
    ) -> Answer:
        """Change what is given and leave the rest; None goes back to the service's default.

        A signing secret that the service makes for it is in this answer, and only here.
        """
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        return self._call("PATCH", under(integration_id), write(changes), correlate(correlation))

    def rotate_secret(
        self,
        integration_id: str,
        *,
        secret: str | None = None,
        signature_scheme: str | None = None,
        overlap_seconds: int | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Sign with a new secret, given or made (then it is in this answer, and only here).

        Those before it sign as well for *overlap_seconds* (the service's default: a day).
        """
        fields = given_or_left_out(
            secret=secret, signature_scheme=signature_scheme, overlap_seconds=overlap_seconds
        )
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        path = f"{under(integration_id)}/secrets/rotate"
        return self._post(path, write(fields), idempotency_key, correlation)

    # containment

    def containment(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """Whether an integration is contained, by whom and why; what waits and what is in flight."""
        return self._get(under(integration_id, "containment"), {}, correlation)

    def contain(
        self,
        integration_id: str,
        reason: str,
        *,
        mode: str | None = None,
        owner: str | None = None,
        until: datetime | str | None = None,
        for_seconds: float | None = None,
        incident: str | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Stop all that goes to an integration, or change how and until when (the default: in 4 hours).

        Its `state` is `contained` once no attempt can start any more, `containing` until then.
        """
        ends = instant(until) if isinstance(until, datetime) else until
        fields = given_or_left_out(
            reason=reason, mode=mode, owner=owner, until=ends, for_seconds=for_seconds, incident=incident
        )
        return self._post(under(integration_id, "containment"), write(fields), idempotency_key, correlation)

    def release(
        self,
        integration_id: str,
        reason: str,
        *,
        rate_per_second: float | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Let an integration send again: what waits at a rate. *dry_run* tells only what that would mean."""
        fields = given_or_left_out(reason=reason, rate_per_second=rate_per_second, dry_run=dry_run or None)
        path = under(integration_id, "containment", "release")
        return self._post(path, write(fields), idempotency_key, correlation)

    # how a receiver is

    def integration_health(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """A verdict on an integration's receiver, with the facts behind it; nothing is sent."""
        return self._get(under(integration_id, "health"), {}, correlation)

    def probe(
        self,
        integration_id: str,
        *,
        recovery_id: str | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Make one request to the health URL, or send one item as a trial (with a *reason*).

        It answers when that has ended: whether it succeeded is in the answer's `probe`.
        """
        given = {"recovery_id": recovery_id, "reason": reason}
        fields = {name: value for name, value in given.items() if value is not None}
        return self._post(under(integration_id, "probe"), write(fields), idempotency_key, correlation)
