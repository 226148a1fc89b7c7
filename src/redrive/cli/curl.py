"""The same call for curl, to be repeated or handed on. It names the token's variable, never the token."""

import json
import shlex
from collections.abc import Mapping

from redrive.cli.service import Correlation


def curl_line(url: str, path: str, body: Mapping[str, object], key: str, correlation: Correlation) -> str:
    """One line for a shell."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    if correlation.request_id is not None:
        headers["X-Request-Id"] = correlation.request_id
    if correlation.traceparent is not None:
        headers["traceparent"] = correlation.traceparent
    words = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
    return (
        f'curl -X POST {shlex.quote(url.rstrip("/") + path)} -H "Authorization: Bearer $REDRIVE_TOKEN" '
        f"{' '.join(words)} -d {shlex.quote(json.dumps(body))}"
    )
