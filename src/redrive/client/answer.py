"""What came back, read: the JSON object of a 2xx, or the error it stands for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redrive.client.errors import ProblemError, ServiceUnreachable


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer as it came. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Answer(dict[str, Any]):
    """The JSON object of an answer. `raw` is its text as it came, `status` the HTTP status."""

    def __init__(self, value: Mapping[str, Any], reply: Reply) -> None:
        super().__init__(value)
        self.raw = reply.body
        self.status = reply.status
        self.is_repeated = reply.headers.get("idempotency-replayed") == "true"


def read(reply: Reply) -> Answer:
    """The answer in *reply*; raises ProblemError unless it is a 2xx."""
    value = _parse(reply.body)
    if not 200 <= reply.status <= 299:
        raise _problem(reply, value)
    if not isinstance(value, dict):
        raise ServiceUnreachable(
            f"what answered {reply.status} is not a redrive service: it sent no JSON object",
            maybe_sent=True,
        )
    return Answer(value, reply)


def refusal(reply: Reply) -> ProblemError:
    """The error that an answer other than a 2xx stands for."""
    return _problem(reply, _parse(reply.body))


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _problem(reply: Reply, value: Any) -> ProblemError:
    if not isinstance(value, dict):
        value = {
            "detail": f"HTTP {reply.status}, no problem document: something before the service answered",
            "retryable": reply.status in (429, 502, 503, 504),
        }
    asked = reply.headers.get("retry-after", "")
    return ProblemError(
        reply.status,
        value,
        request_id=reply.headers.get("x-request-id"),
        retry_after=float(asked) if asked.isascii() and asked.isdigit() else None,
    )
