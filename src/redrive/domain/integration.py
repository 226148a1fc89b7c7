"""An integration: where deliveries go, how they are signed and how they are retried."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

from redrive.domain.breaker import CLOSED, Breaker, Watch
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.headers import check_headers
from redrive.domain.ids import MOST_SHARDS
from redrive.domain.outcome import RETRYABLE_NETWORK_CODES
from redrive.domain.redaction import check_rules
from redrive.domain.retry import RetryPolicy
from redrive.domain.target import parse_target
from redrive.domain.traffic import FLOWING, Traffic

INTEGRATION_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
MAX_ATTEMPTS = 100
MAX_TIMEOUT_SECONDS = 60.0


class Lifecycle(StrEnum):
    """`active` sends and replays, `paused` accepts and holds, the others refuse."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    RETIRED = "retired"


ACCEPTING: Final = frozenset({Lifecycle.ACTIVE, Lifecycle.PAUSED})
Method = Literal["POST", "PUT", "PATCH"]
AuthMode = Literal["none", "hmac", "header", "basic", "bearer", "oauth2", "mtls"]
SHOWS_CREDENTIALS: Final = frozenset({"header", "basic", "bearer", "oauth2", "mtls"})
MOST_SECRETS: Final = 8


class SigningSecret(Struct, frozen=True, omit_defaults=True):
    """A secret that deliveries are signed with, sealed, until `ends_at` (None: until it is replaced).

    `public_key`, a `whpk_` key, is what receivers verify its `v1a` signatures with; None: it signs `v1`.
    """

    sealed: str
    public_key: str | None = None
    ends_at: datetime | None = None

    @property
    def scheme(self) -> str:
        """Of its signatures, as Standard Webhooks calls them."""
        return "v1" if self.public_key is None else "v1a"

    def is_active(self, now: datetime) -> bool:
        """Whether it still signs."""
        return self.ends_at is None or now < self.ends_at


class Integration(Struct, frozen=True):
    """One catalogued destination. `number` is its key in the store; `secrets`, the latest first, and
    `credentials` are sealed.

    A policy field that is None follows the global default of the moment.
    """

    number: int
    integration_id: str
    name: str
    url: str
    created_at: datetime
    updated_at: datetime
    method: Method = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    auth_mode: AuthMode = "hmac"
    lifecycle_status: Lifecycle = Lifecycle.ACTIVE
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    base_delay_seconds: float | None = None
    max_delay_seconds: float | None = None
    jitter: float | None = None
    retryable_network_codes: tuple[str, ...] | None = None
    concurrency: int | None = None
    rate_per_second: float | None = None
    breaker_failure_share: float | None = None
    health_url: str | None = None
    shards: int = 1  # lanes side by side, each with its part of the limits: more than one process may send
    redact_pointers: tuple[str, ...] = ()  # of payloads and answers, what is not shown
    redact_headers: tuple[str, ...] = ()  # and of answers' headers
    redacts_since: datetime | None = None  # when a pointer was added; None: those it began with
    message_signature: bool = False  # RFC 9421, beside webhook-signature
    secrets: tuple[SigningSecret, ...] = ()
    credentials: str | None = None
    version: int = 1
    traffic: Traffic = FLOWING  # kept beside the rest, with a version of its own

    @property
    def sends(self) -> bool:
        """Whether attempts may start and items be replayed."""
        return self.lifecycle_status is Lifecycle.ACTIVE and self.traffic.containment is None

    @property
    def must_sign(self) -> bool:
        """Whether nothing may be sent without a signature."""
        return self.auth_mode == "hmac" or self.message_signature


class Defaults(Struct, frozen=True):
    """What an integration that says nothing gets; read from the settings."""

    timeout_seconds: float = 15.0
    max_attempts: int = 5
    base_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.2
    retryable_network_codes: tuple[str, ...] = RETRYABLE_NETWORK_CODES
    concurrency: int = 16
    breaker_failure_share: float = Watch().failure_share
    breaker_minimum: int = Watch().minimum
    breaker_window_seconds: float = Watch().window_seconds

    def policy(self, integration: Integration) -> RetryPolicy:
        """The retry policy in force for *integration* now."""
        return RetryPolicy(
            max_attempts=self.of(integration, "max_attempts"),
            base_delay_seconds=self.of(integration, "base_delay_seconds"),
            max_delay_seconds=self.of(integration, "max_delay_seconds"),
            jitter=self.of(integration, "jitter"),
            network_codes=frozenset(self.of(integration, "retryable_network_codes")),
        )

    def watch(self, integration: Integration) -> Watch:
        """What opens the breaker of *integration* now."""
        return Watch(
            self.of(integration, "breaker_failure_share"), self.breaker_minimum, self.breaker_window_seconds
        )

    def breaker(self, integration: Integration) -> Breaker:
        """The breaker that is in force: closed where nothing opens one."""
        return integration.traffic.breaker if self.watch(integration).failure_share else CLOSED

    def of(self, integration: Integration, field: str) -> Any:
        """*field* as it is in force: the integration's own value, else the default."""
        own = getattr(integration, field)
        return getattr(self, field) if own is None else own


def check_integration(fields: dict[str, Any], *, allow_http: bool) -> None:
    """Raise InvalidPayload with every fault of *fields* (types are right already; values may not be)."""
    faults: list[Fault] = []
    for limited, (low, high) in RANGES.items():
        value = fields.get(limited)
        if value is not None and not low <= value <= high:  # a NaN fails this too
            faults.append(Fault(f"/{limited}", f"must be between {low:g} and {high:g}"))
    if (given := fields.get("integration_id")) is not None and not INTEGRATION_ID.fullmatch(given):
        faults.append(
            Fault(
                "/integration_id",
                "1–64 of a-z 0-9 . _ -, the first and the last a letter or a digit",
            )
        )
    if fields.get("name") is not None and not is_line(fields["name"], 128):
        faults.append(Fault("/name", "1–128 characters on one line, without space at either end"))
    for field in ("url", "health_url"):
        if fields.get(field) is not None:
            try:
                parse_target(fields[field], allow_http=allow_http, pointer=f"/{field}")
            except InvalidPayload as error:
                faults += error.faults
    for code in fields.get("retryable_network_codes") or ():
        if code not in RETRYABLE_NETWORK_CODES:
            faults.append(
                Fault(
                    "/retryable_network_codes",
                    f"{code} is not one of {' '.join(RETRYABLE_NETWORK_CODES)}",
                )
            )
    faults += check_headers(fields.get("headers") or {})
    faults += check_rules(fields.get("redact_pointers") or (), fields.get("redact_headers") or ())
    if faults:
        raise InvalidPayload(*faults)


def is_line(text: str, most: int) -> bool:
    """1 to *most* characters without control characters, line breaks, or space at either end."""
    if not 1 <= len(text) <= most or text != text.strip():
        return False
    return text.isprintable() or all(_is_plain(character) for character in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or character == "\u200d"  # emoji are joined with U+200D


RANGES: Final = {
    "timeout_seconds": (0.1, MAX_TIMEOUT_SECONDS),
    "max_attempts": (1, MAX_ATTEMPTS),
    "base_delay_seconds": (0.001, 86_400.0),
    "max_delay_seconds": (0.001, 86_400.0),
    "jitter": (0.0, 1.0),
    "concurrency": (1, 10_000),
    "rate_per_second": (0.001, 100_000.0),
    "breaker_failure_share": (0.0, 1.0),
    "shards": (1, MOST_SHARDS),
}
