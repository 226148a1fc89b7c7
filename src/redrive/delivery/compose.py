"""The request of one attempt: exactly the headers a receiver is promised."""

from datetime import datetime
from typing import Final

from redrive import __version__
from redrive.delivery.port import OwnFault, Request
from redrive.delivery.signing import sign
from redrive.domain.delivery import Claim, Headers
from redrive.domain.integration import Integration
from redrive.domain.target import Target
from redrive.domain.trace import child

_USER_AGENT: Final = ("User-Agent", f"redrive/{__version__}")


def compose(
    claim: Claim,
    integration: Integration,
    *,
    timeout_seconds: float,
    target: Target,
    now: datetime,
    span_id: bytes,
) -> Request:
    """The request of the attempt that *claim* permits, stamped *now*, as the span *span_id*."""
    delivery, webhook_id, timestamp = claim.delivery, claim.recovery_id, int(now.timestamp())
    headers = [
        ("Content-Type", delivery.content_type),
        ("webhook-id", webhook_id),
        ("webhook-timestamp", str(timestamp)),
        *_proof(integration, webhook_id, timestamp, delivery.payload),
        ("traceparent", child(delivery.traceparent, span_id)),
    ]
    if delivery.tracestate is not None:
        headers.append(("tracestate", delivery.tracestate))
    headers += (("X-Request-Id", claim.request_id), _USER_AGENT)
    headers += _own(integration.headers, delivery.headers)
    return Request(
        integration.method,
        target,
        tuple(headers),
        delivery.payload,
        timeout_seconds,
        integration.integration_id,
    )


def _proof(integration: Integration, webhook_id: str, timestamp: int, body: bytes) -> Headers:
    if integration.auth_mode == "none":
        return ()
    if integration.auth_mode != "hmac":
        raise OwnFault(f"auth_mode {integration.auth_mode} is not available in this version")
    if not integration.secrets:
        raise OwnFault("there is no signing secret; rotate the secrets of this integration")
    return (("webhook-signature", sign(webhook_id, timestamp, body, integration.secrets)),)


def _own(integration: Headers, delivery: Headers) -> Headers:
    """Both, a delivery's header standing in for the integration's of the same name."""
    if not delivery:
        return integration
    names = {name.lower() for name, _ in delivery}
    return (*(header for header in integration if header[0].lower() not in names), *delivery)
