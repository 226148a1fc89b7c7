"""What the contract promises of every document: its members, and how their values look."""

import re
from typing import Any


class Like:
    """Equal to every text that matches *pattern*."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Like({self.pattern!r})"


class Positive:
    """Equal to every number that is not negative."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and not isinstance(other, bool) and other >= 0

    def __hash__(self) -> int:
        return 0


INSTANT: Any = Like(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
RECOVERY_ID: Any = Like(r"rec_[a-z0-9]{13}")
GROUP_ID: Any = Like(r"grp_[a-z0-9]{13}")
EVENT_ID: Any = Like(r"evt_[a-z0-9]{13}")
REQUEST_ID: Any = Like(r"req-[0-9a-f]{32}")
TRACEPARENT: Any = Like(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
SPAN_ID: Any = Like(r"[0-9a-f]{16}")
SENTENCE: Any = Like(r".+")
POSITIVE: Any = Positive()

INTEGRATION = frozenset(
    """integration_id name url method headers auth_mode signing_secrets lifecycle_status timeout_seconds
    max_attempts
    base_delay_seconds max_delay_seconds jitter retryable_network_codes concurrency rate_per_second health_url
    shards redact_pointers redact_headers message_signature containment release
    breaker_failure_share breaker throttled_until created_at updated_at""".split()
)
ITEM = frozenset(
    """recovery_id integration_id event_type request_id traceparent idempotency_key status cycle attempt_count
    max_attempts next_retry_at last_attempt_at failure_code failure_detail last_http_status retryable
    duplicate_risk group_id
    payload_snapshot response_snapshot held resolved erased edit_of superseded_by created_by updated_by
    created_at updated_at""".split()
)
GROUP = frozenset(
    """group_id integration_id failure_class failure_code detail fingerprint why_grouped failures items
    items_is_exact first_seen_at last_seen_at sample state regressed acknowledged resolved
    muted_until""".split()
)
LIST = frozenset("integration_id lifecycle_status status limit queue next_cursor request_id".split())
REPLAY = frozenset("recovery previous_status current_status replayed reason request_id".split())
SNAPSHOT = frozenset("content_type encoding body size truncated".split())
EVENT = frozenset(
    """event_id occurred_at event_type domain request_id source_request_id traceparent actor integration_id
    target_type target_id result before_state after_state metadata previous""".split()
)
EVENTS = frozenset("total total_is_exact events next_cursor request_id".split())
PROBLEM = frozenset("type title status detail instance error_code request_id retryable".split())
