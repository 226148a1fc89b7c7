"""The request of one attempt: exactly the headers a receiver is promised."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from redrive import __version__
from redrive.delivery.credentials import Credentials, MutualTls, OAuth2, as_header
from redrive.delivery.hidden import Hidden
from redrive.delivery.message_signature import message_signature
from redrive.delivery.port import OwnFault, Request
from redrive.delivery.signing import sign
from redrive.delivery.tls import Identity
from redrive.domain.delivery import Claim, Headers
from redrive.domain.integration import SHOWS_CREDENTIALS, Integration
from redrive.domain.target import Target
from redrive.domain.trace import child

_USER_AGENT: Final = ("User-Agent", f"redrive/{__version__}")


class Proof(Hidden, frozen=True):
    """What shows that it is us: the secrets that sign now, and the credentials, opened.

    `token` is the one that OAuth2 credentials gave.
    """

    secrets: Sequence[str] = ()
    credentials: Credentials | None = None
    token: str | None = None


def compose(
    claim: Claim,
    integration: Integration,
    proof: Proof,
    *,
    timeout_seconds: float,
    target: Target,
    now: datetime,
    span_id: bytes,
) -> Request:
    """The request of the attempt that *claim* permits, stamped *now*, as the span *span_id*."""
    delivery, webhook_id, timestamp = claim.delivery, claim.recovery_id, int(now.timestamp())
    shown = _shown(integration, proof)
    headers = [
        ("Content-Type", delivery.content_type),
        ("webhook-id", webhook_id),
        ("webhook-timestamp", str(timestamp)),
    ]
    if proof.secrets:
        headers.append(("webhook-signature", sign(webhook_id, timestamp, delivery.payload, proof.secrets)))
    headers.append(("traceparent", child(delivery.traceparent, span_id)))
    if delivery.tracestate is not None:
        headers.append(("tracestate", delivery.tracestate))
    if integration.message_signature:
        shown += message_signature(
            integration.method,
            target,
            content_type=delivery.content_type,
            webhook_id=webhook_id,
            timestamp=timestamp,
            body=delivery.payload,
            secrets=proof.secrets,
        )
    headers += (("X-Request-Id", claim.request_id), _USER_AGENT, *shown)
    headers += _without(shown, _own(integration.headers, delivery.headers))
    return Request(
        integration.method,
        target,
        tuple(headers),
        delivery.payload,
        timeout_seconds,
        integration.integration_id,
        _identity(proof.credentials),
    )


def health_request(
    integration: Integration,
    target: Target,
    *,
    timeout_seconds: float,
    traceparent: str,
    request_id: str | None,
) -> Request:
    """A GET of the health URL: it shows no credentials and no signature, for it may be anybody's."""
    headers = [("Accept", "*/*"), ("traceparent", traceparent), _USER_AGENT]
    if request_id is not None:
        headers.append(("X-Request-Id", request_id))
    return Request("GET", target, tuple(headers), b"", timeout_seconds, integration.integration_id)


def _shown(integration: Integration, proof: Proof) -> Headers:
    """The header that credentials are shown in; OwnFault when what must be shown is not there."""
    mode = integration.auth_mode
    if integration.must_sign and not proof.secrets:
        raise OwnFault("there is no signing secret; rotate the secrets of this integration")
    if mode not in SHOWS_CREDENTIALS:
        return ()
    if proof.credentials is None:
        raise OwnFault(f"there are no credentials for auth_mode {mode}; give them to this integration")
    if isinstance(proof.credentials, OAuth2):
        if proof.token is None:
            raise OwnFault("no token was asked for")
        return (("Authorization", f"Bearer {proof.token}"),)
    return as_header(proof.credentials)


def _identity(credentials: Credentials | None) -> Identity | None:
    if not isinstance(credentials, MutualTls):
        return None
    return Identity(credentials.certificate, credentials.private_key, credentials.ca)


def _own(integration: Headers, delivery: Headers) -> Headers:
    """Both, a delivery's header standing in for the integration's of the same name."""
    return (*_without(delivery, integration), *delivery) if delivery else integration


def _without(these: Headers, headers: Headers) -> Headers:
    """*headers* but those of the names of *these*."""
    if not these:
        return headers
    names = {name.lower() for name, _ in these}
    return tuple(header for header in headers if header[0].lower() not in names)
