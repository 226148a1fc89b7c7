"""A caller of the HTTP API that shares no code with ours: one kept connection, and nothing is sent twice."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.e2e.service import Service
from tests.e2e.waiting import PATIENCE_SECONDS

INTEGRATIONS = "/platform/integrations"
EVENTS = "/platform/audit/events"


class NoAnswer(Exception):
    """The connection was lost, or there was none: nobody knows what happened."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    document: Any


class Caller:
    """One caller of *service*, wherever it listens at the moment."""

    def __init__(self, service: Service, token: str) -> None:
        self._service = service
        self._token = token
        self._address: tuple[str, int] | None = None
        self._connection: HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        request_id: str | None = None,
    ) -> Reply:
        """Make one call; *body* is JSON, or bytes that are."""
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if key is not None:
            headers["Idempotency-Key"] = key
        if request_id is not None:
            headers["X-Request-Id"] = request_id
        try:
            connection = self._connected()
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), json.loads(response.read()))
        except (OSError, HTTPException) as error:
            self.close()
            raise NoAnswer from error

    def get(self, path: str, **query: str | int) -> Any:
        """The document at *path*."""
        reply = self.call("GET", f"{path}?{urlencode(query)}" if query else path)
        assert reply.status == 200, reply.document
        return reply.document

    def add(self, integration_id: str, url: str, **fields: Any) -> str:
        """Add an integration; its signing secret."""
        reply = self.call(
            "POST", INTEGRATIONS, {"integration_id": integration_id, "url": url, "name": "e2e", **fields}
        )
        assert reply.status == 201, reply.document
        return str(reply.document["secret"])

    def deliver(self, integration_id: str, payload: Any, **call: Any) -> Reply:
        """Hand over one delivery."""
        body = {"event_type": "e2e.happened", "payload": payload}
        return self.call("POST", f"{INTEGRATIONS}/{integration_id}/deliveries", body, **call)

    def delivered(self, integration_id: str, payload: Any) -> str:
        """Hand over one delivery that is accepted; its recovery_id."""
        reply = self.deliver(integration_id, payload)
        assert reply.status == 202, reply.document
        return str(reply.document["recovery_id"])

    def item(self, integration_id: str, recovery_id: str) -> dict[str, Any]:
        """One item, and its `attempts`."""
        found = self.get(f"{INTEGRATIONS}/{integration_id}/recovery/queue/{recovery_id}")
        return {**found["recovery"], "attempts": found["attempts"]}

    def status(self, integration_id: str, recovery_id: str) -> str:
        """Where one item stands."""
        return str(self.item(integration_id, recovery_id)["status"])

    def queue(self, integration_id: str, **query: str | int) -> Iterator[Any]:
        """Every item of an integration, newest first."""
        yield from self._pages(f"{INTEGRATIONS}/{integration_id}/recovery/queue", "queue", **query)

    def events(self, **query: str | int) -> Iterator[Any]:
        """Every audit event, newest first."""
        yield from self._pages(EVENTS, "events", **query)

    def is_at_rest(self, integration_id: str) -> bool:
        """Whether nothing of an integration is unfinished."""
        return not any(
            self.get(f"{INTEGRATIONS}/{integration_id}/recovery/queue", status=status, limit=1)["queue"]
            for status in ("pending", "retrying", "replayed")
        )

    def _pages(self, path: str, rows: str, **query: str | int) -> Iterator[Any]:
        page = self.get(path, limit=200, **query)
        yield from page[rows]
        while page["next_cursor"] is not None:
            page = self.get(path, limit=200, cursor=page["next_cursor"], **query)
            yield from page[rows]

    def _connected(self) -> HTTPConnection:
        if self._service.address is None:
            raise ConnectionRefusedError("the service is not up")
        if self._connection is None or self._address != self._service.address:
            self.close()
            self._address = self._service.address
            self._connection = HTTPConnection(*self._address, timeout=PATIENCE_SECONDS)
        return self._connection
