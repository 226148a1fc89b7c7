"""The partners: five receivers on one loopback port, each with its own bad habit."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

SLOW_SECONDS = 2.0
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Partner:
    """One of them: how it behaves in a sentence, how much of the stream goes there, and what about."""

    integration_id: str
    habit: str
    share: int
    events: tuple[str, ...]


PARTNERS: Final = (
    Partner("storefront", "behaves well", 8, ("order.created", "order.shipped", "cart.abandoned")),
    Partner("warehouse", "answers 503 now and then", 6, ("stock.reserved", "stock.low", "parcel.packed")),
    Partner("analytics", f"takes {SLOW_SECONDS:g} seconds to answer", 2, ("page.viewed", "search.made")),
    Partner("crm", "has moved: answers 404", 1, ("customer.updated", "customer.merged")),
    Partner("payments", "is down: answers 503", 3, ("invoice.paid", "invoice.refunded", "payout.sent")),
)


class Partners:
    """Their HTTP server. `payments` answers 503 until it `is_repaired`."""

    def __init__(self) -> None:
        self.is_repaired = False
        self.port = 0
        self._refused_once: set[str] = set()
        self._calls = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()  # conversations end with the loop

    def url(self, partner: Partner) -> str:
        """Where its deliveries go."""
        return f"http://127.0.0.1:{self.port}/{partner.integration_id}"

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One kept connection, request after request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                await reader.readexactly(int(headers.get("content-length", "0")))
                partner = head[0].split(" ")[1].strip("/")
                if partner == "analytics":
                    await asyncio.sleep(SLOW_SECONDS)
                writer.write(_answer(self._status(partner, headers.get("webhook-id", ""))))
                await writer.drain()
        writer.close()

    def _status(self, partner: str, webhook_id: str) -> int:
        match partner:
            case "crm":
                return 404
            case "payments":
                return 200 if self.is_repaired else 503
            case "warehouse":
                return self._moody(webhook_id)
            case _:
                return 200

    def _moody(self, webhook_id: str) -> int:
        """Every third new call is refused, once."""
        if webhook_id in self._refused_once:
            self._refused_once.remove(webhook_id)
            return 200
        self._calls += 1
        if self._calls % 3:
            return 200
        self._refused_once.add(webhook_id)
        return 503


def _answer(status: int) -> bytes:
    body = f'{{"status":{status}}}'
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
