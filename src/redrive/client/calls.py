"""How any call is made: its path, its headers, its pages; sent, and sent again."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypedDict
from urllib.parse import quote, urlencode

from redrive.client.answer import Answer, read, refusal
from redrive.client.bodies import instant
from redrive.client.errors import BadArgument, ServiceUnreachable
from redrive.client.transport import Transport

NOT_GIVEN: Final[Any] = object()
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
_ARGUMENTS = {
    "Authorization": "the token",
    "Idempotency-Key": "the idempotency key",
    "X-Request-Id": "the request id",
}


class Correlation(TypedDict, total=False):
    """What every call may carry along; the service stores it with all that the call causes."""

    request_id: str | None
    traceparent: str | None


class Window(TypedDict, total=False):
    """Which page of a list: `limit` is 1 to 200, `cursor` a page's next_cursor."""

    since: datetime | str | None
    until: datetime | str | None
    limit: int | None
    cursor: str | None


class Calls:
    """A connection to a service; what its calls have in common."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._transport = Transport(url, timeout)
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; a later call opens a new one."""
        self._transport.close()

    def _get(self, path: str, query: Mapping[str, Any], correlation: Correlation) -> Answer:
        return self._call("GET", _asked(path, query), None, correlate(correlation), repeatable=True)

    def _stream(self, path: str, query: Mapping[str, Any], correlation: Correlation) -> Iterator[bytes]:
        return self._transport.stream(_asked(path, query), self._headers(correlate(correlation)), refusal)

    def _each(
        self, path: str, rows: str, query: Mapping[str, Any], correlation: Correlation
    ) -> Iterator[dict[str, Any]]:
        page_query = {
            "limit": 200,
            **{name: value for name, value in query.items() if value is not None},
        }
        while True:
            page = self._get(path, page_query, correlation)
            yield from page[rows]
            if page["next_cursor"] is None:
                return
            page_query["cursor"] = page["next_cursor"]

    def _post(self, path: str, body: bytes, idempotency_key: str | None, correlation: Correlation) -> Answer:
        headers = correlate(correlation)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self._call("POST", path, body, headers, repeatable=idempotency_key is not None)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        repeatable: bool = False,
    ) -> Answer:
        if body is not None:
            headers["Content-Type"] = "application/json"
        headers = self._headers(headers | {"Accept": "application/json"})
        try:
            return read(self._transport.exchange(method, path, headers, body, repeatable=repeatable))
        except ServiceUnreachable as error:
            error.maybe_sent &= method != "GET"  # a read has no effect to look for
            raise

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        headers |= self._authorization | {"User-Agent": "redrive-client"}
        for name, value in headers.items():
            if not _HEADER_VALUE.fullmatch(value):
                raise BadArgument(f"{_ARGUMENTS.get(name, name)} must be visible ASCII characters")
        return headers


def under(integration_id: str, *rest: str) -> str:
    """The path of what belongs to an integration; BadArgument for ids that would make another path."""
    segments = (integration_id, *rest)
    if not all(segments) or any(segment in (".", "..") for segment in segments):
        raise BadArgument("an id is neither empty nor made of dots")
    return "/platform/integrations/" + "/".join(quote(segment, safe="") for segment in segments)


def of_item(integration_id: str, recovery_id: str, *verb: str) -> str:
    """The path of an item, or of what is done to it."""
    return under(integration_id, "recovery", "queue", recovery_id, *verb)


def split(call: Mapping[str, Any]) -> tuple[dict[str, Any], Correlation]:
    """What a call asks for, and what it carries along."""
    query = dict(call)
    correlation: Correlation = {
        "request_id": query.pop("request_id", None),
        "traceparent": query.pop("traceparent", None),
    }
    return query, correlation


def given(**fields: Any) -> dict[str, Any]:
    """The fields that a caller gave; None is given, `NOT_GIVEN` is not."""
    return {name: value for name, value in fields.items() if value is not NOT_GIVEN}


def given_or_left_out(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _asked(path: str, query: Mapping[str, Any]) -> str:
    """The target of a call: its path, with what is given of its query."""
    given = urlencode({name: _word(value) for name, value in query.items() if value is not None})
    return f"{path}?{given}" if given else path


def correlate(correlation: Correlation) -> dict[str, str]:
    """What a call carries along, as headers."""
    given = {
        "X-Request-Id": correlation.get("request_id"),
        "traceparent": correlation.get("traceparent"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return instant(value) if isinstance(value, datetime) else str(value)
