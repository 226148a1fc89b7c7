"""A service under test: the real engine, store and HTTP server, on a database and a port of its own."""

import hashlib
import json
import secrets
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from itertools import count
from typing import Any, TypeVar

from redrive import app
from redrive.api.app import Api
from redrive.api.routes import routes
from redrive.clock import SystemClock, chance, unique_bytes
from redrive.config import Settings
from redrive.delivery.guard import Guard
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.names import SystemResolver, is_local
from redrive.domain.access import Permission
from redrive.domain.integration import Defaults
from redrive.engine.runtime import Engine, Limits
from redrive.engine.tools import Tools
from redrive.server import HttpServer
from redrive.store.tokens import Token
from redrive.telemetry.bus import Bus
from redrive.telemetry.metrics import Metrics
from tests.api.loops import LoopThread, until
from tests.api.receiver import Answer, Received, Receiver
from tests.api.storage import Storage
from tests.api.wire import Caller, Header, Reply
from tests.vault import a_vault

VIEW, OPERATE, DELIVER, EDIT = Permission.VIEW, Permission.OPERATE, Permission.DELIVER, Permission.EDIT
EVERYTHING = (VIEW, OPERATE, DELIVER, EDIT)
AT_ONCE = Defaults(base_delay_seconds=0.01, max_delay_seconds=0.05)
PATIENT = Limits(drain_seconds=5, auth_failures_per_minute=1_000_000)
NO_PROVIDER = Settings()
NEVER = 0.001  # per second: an integration this slow sends nothing while a test lasts
INTEGRATIONS = "/platform/integrations"
EVENTS = "/platform/audit/events"
Done = TypeVar("Done")
_numbers = count(1)


class MovedClock(SystemClock):
    """The machine's clock, set forward by a test."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def elapsed(self) -> float:
        return super().elapsed() + self.ahead.total_seconds()

    def move(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


class Service:
    """Wired as `redrive serve` wires it, in a thread; may be stopped and started on the same storage."""

    def __init__(
        self,
        storage: Storage,
        receiver: Receiver,
        defaults: Defaults = AT_ONCE,
        limits: Limits = PATIENT,
        settings: Settings = NO_PROVIDER,
    ) -> None:
        self.storage = storage
        self.receiver = receiver
        self.defaults = defaults
        self.limits = limits
        self.settings = settings  # as far as they are about an identity provider, or sealed content
        self.port = 0
        self.start()
        self.admin = self.caller(*EVERYTHING, subject="admin")
        self.nobody = Caller(lambda: self.port)

    def start(self) -> None:
        self._thread = LoopThread("service")
        self._thread.call(self._start())

    def stop(self) -> None:
        self._thread.call(self._stop())
        self._thread.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def run(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Run *work* in the service's own loop."""
        return self._thread.call(work)

    def caller(
        self,
        *permissions: Permission,
        subject: str | None = None,
        lasts: timedelta | None = None,
        tenant: str | None = None,
    ) -> Caller:
        """A caller with a fresh token."""
        number, secret, now = next(_numbers), secrets.token_urlsafe(24), SystemClock().now()
        subject = subject or f"subject-{number}"
        expires_at = None if lasts is None else now + lasts
        token = Token(f"tok_{number}", subject, frozenset(permissions), now, expires_at, None, tenant)
        self.run(self.store.tokens.add(token, hashlib.sha256(secret.encode()).digest()))
        return Caller(lambda: self.port, secret, subject)

    def partner(self, **fields: Any) -> "Partner":
        """A fresh integration whose endpoint is a path of the receiver."""
        name = fields.pop("integration_id", f"partner-{next(_numbers)}")
        url = f"http://127.0.0.1:{self.receiver.port}/{name}"
        reply = self.admin.post(INTEGRATIONS, {"integration_id": name, "url": url, **fields})
        assert reply.status == 201, reply
        self.run(self.engine.membership.balance())  # its lanes are taken now, not in a second
        return Partner(self, name, reply.json().get("secret", fields.get("secret")))

    def events(self, **wanted: str) -> list[dict[str, Any]]:
        """Audit events, oldest first."""
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        found = self.admin.get(f"{EVENTS}?limit=200&{query}").json()
        assert found["next_cursor"] is None
        return list(reversed(found["events"]))

    def break_by_hand(self, sql: str, *values: Any) -> None:
        """Change what is stored past every rule."""
        self.run(self.storage.meddle(sql, *values))

    def take_storage_away(self) -> None:
        """From now on no commit succeeds, as on a disk that is full."""
        self.storage.is_full = True

    def give_storage_back(self) -> None:
        self.storage.is_full = False

    def rows(self) -> dict[str, int]:
        """How many rows each table has that a call, and nothing else, can write to."""
        return self.run(self.storage.rows())

    async def _start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        bus, self.metrics, clock = Bus(), Metrics(), SystemClock()
        self.metrics.listen(bus)
        guard = Guard(allow_targets=[ip_network("127.0.0.0/8")], allow_http=True, is_local=is_local)
        guard.protect([listener.getsockname()[:2]])
        self.store = await self.storage.open(clock)
        tools = Tools(
            self.store, self.store.clock, chance, unique_bytes, bus, a_vault(), self.settings.seal_content
        )
        self._resolver = SystemResolver()
        self._deliverer = HttpDeliverer(guard, self._resolver, clock)
        self._opened = AsyncExitStack()
        self.provider_clock = MovedClock()
        provider = app._provider(
            self.settings, [listener], self._resolver, replace(tools, clock=self.provider_clock), self._opened
        )
        self.engine = Engine(
            tools,
            self._deliverer,
            self.defaults,
            self.limits,
            allow_http=True,
            judge=guard.judge_early,
            provider=provider,
        )
        await self.engine.start()
        self._server = HttpServer(Api(self.engine, routes(self.metrics)), listener)
        self._server.start()

    async def _stop(self) -> None:
        self._server.stop()
        await self.engine.drain()
        await self._server.close()
        await self.engine.close()
        await self._deliverer.close()
        await self._opened.aclose()
        self._resolver.close()
        await self.store.close()


@dataclass(frozen=True)
class Partner:
    """An integration, its endpoint, and the calls most tests make on it."""

    service: Service
    id: str
    secret: str | None

    @property
    def url(self) -> str:
        return f"{INTEGRATIONS}/{self.id}"

    @property
    def deliveries(self) -> str:
        return f"{self.url}/deliveries"

    @property
    def batch(self) -> str:
        return f"{self.url}/deliveries/batch"

    @property
    def queue(self) -> str:
        return f"{self.url}/recovery/queue"

    def item_url(self, recovery_id: str) -> str:
        return f"{self.queue}/{recovery_id}"

    def replay_url(self, recovery_id: str) -> str:
        return f"{self.queue}/{recovery_id}/replay"

    def resolve_url(self, recovery_id: str) -> str:
        return f"{self.queue}/{recovery_id}/resolve"

    def answers(self, *answers: Answer | int) -> None:
        """Let the endpoint answer these in order, and the last one for ever."""
        self.service.receiver.answers(f"/{self.id}", *answers)

    @property
    def received(self) -> list[Received]:
        return self.service.receiver.received(f"/{self.id}")

    def deliver(self, payload: Any = 1, *headers: Header, **more: Any) -> str:
        """Hand one delivery over; its recovery_id."""
        reply = self.service.admin.post(self.deliveries, a_delivery(payload, **more), *headers)
        assert reply.status == 202, reply
        recovery_id: str = reply.json()["recovery_id"]
        return recovery_id

    def hand_over(self, *headers: Header, **fields: Any) -> str:
        """Hand over a delivery that failed elsewhere (dlq, if nothing else is said); its recovery_id."""
        reply = self.service.admin.post(self.queue, an_import(**fields), *headers)
        assert reply.status == 201, reply
        recovery_id: str = reply.json()["recovery_id"]
        return recovery_id

    def replay(self, recovery_id: str, reason: str = "it is back", *headers: Header) -> Reply:
        return self.service.admin.post(self.replay_url(recovery_id), {"reason": reason}, *headers)

    def resolve(self, recovery_id: str, reason: str = "sorted out", *headers: Header) -> Reply:
        return self.service.admin.post(self.resolve_url(recovery_id), {"reason": reason}, *headers)

    def change(self, **fields: Any) -> Reply:
        return self.service.admin.patch(self.url, fields)

    def show(self, recovery_id: str) -> dict[str, Any]:
        """An item with its attempts, as it is answered."""
        reply = self.service.admin.get(self.item_url(recovery_id))
        assert reply.status == 200, reply
        found: dict[str, Any] = reply.json()
        return found

    def item(self, recovery_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.show(recovery_id)["recovery"]
        return found

    def items(self, query: str = "limit=200") -> list[dict[str, Any]]:
        """The queue, newest first."""
        found: list[dict[str, Any]] = self.service.admin.get(f"{self.queue}?{query}").json()["queue"]
        return found

    def becomes(self, recovery_id: str, status: str) -> dict[str, Any]:
        """The item once it is *status*."""

        def look() -> dict[str, Any] | None:
            found = self.item(recovery_id)
            return found if found["status"] == status else None

        return until(look, f"{recovery_id} {status}")

    def facts(self) -> tuple[Any, ...]:
        """Everything a call could have changed, to compare before and after."""
        events = self.service.events(integration_id=self.id)
        return (
            self.service.admin.get(self.url).json() | {"request_id": None},
            self.items(),
            events,
            self.service.rows(),
        )


def a_delivery(payload: Any = 1, **more: Any) -> dict[str, Any]:
    return {"event_type": "order.created", "payload": payload, **more}


def an_import(**fields: Any) -> dict[str, Any]:
    return a_delivery(**{"status": "dlq", **fields})


def with_payload(payload: bytes, event_type: str = "order.created") -> bytes:
    """The body of a delivery whose payload is exactly these bytes."""
    return b'{"event_type":%b,"payload":%b}' % (json.dumps(event_type).encode(), payload)
