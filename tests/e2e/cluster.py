"""Processes that take calls, processes that send, and the PostgreSQL that they share."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg

from tests.e2e.books import wrong_bytes, wrong_items
from tests.e2e.caller import Caller
from tests.e2e.receiver import Receiver
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

SETTLED_SECONDS = 90.0
_SETTINGS = {"max_attempts": "4", "timeout_seconds": "5", "lease_seconds": "3"}


class Cluster:
    """`called` take calls, `sending` send; both may change."""

    def __init__(
        self, directory: Path, database: str, opened: ExitStack, *, called: int, sending: int
    ) -> None:
        self._directory, self._database, self._opened = directory, database, opened
        self.called = [self.service("api") for _ in range(called)]
        self.sending = [self.service("worker") for _ in range(sending)]

    def service(self, role: str) -> Service:
        """One more process, started."""
        home = self._directory / f"{role}-{len(list(self._directory.iterdir()))}"
        home.mkdir()
        keys = str(self._directory / "redrive.keys")
        service = Service(home, database=self._database, key_file=keys, role=role, **_SETTINGS)
        self._opened.callback(service.close)
        service.insist()
        return service

    def ask(self, sql: str, *values: Any) -> list[Any]:
        """Rows from the database, past everything that is tested; asked again while it is away."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self._database)
            try:
                return list(await connection.fetch(sql, *values))
            finally:
                await connection.close()

        def answer() -> tuple[list[Any]] | None:
            try:
                return (asyncio.run(fetch()),)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return None

        return until(answer, sql)[0]

    def is_buried(self, service: Service) -> bool:
        return not self.ask("SELECT 1 FROM incarnation WHERE process LIKE '% pid ' || $1", str(service.pid))

    def lanes_of(self, service: Service) -> int:
        """How many lanes a process owns."""
        owned = "SELECT count(*) FROM lane l JOIN incarnation i ON i.id = l.owner"
        return int(self.ask(f"{owned} WHERE i.process LIKE '% pid ' || $1", str(service.pid))[0][0])

    def stall(self, service: Service) -> None:
        """It stands still until the others have buried it, and then goes on as if nothing had happened."""
        before = _ended_leases(service)
        service.signal(signal.SIGSTOP)
        until(lambda: self.is_buried(service), "its lease ran out")
        service.signal(signal.SIGCONT)
        until(lambda: _ended_leases(service) > before, ("it knows", service.log))

    def kill_with_work_in_hand(self, *services: Service) -> Service:
        """Kill one of them that has claimed something: each stands still while that is looked up.

        Where there are more processes than lanes, not every one ever has something in hand.
        """
        in_hand = "SELECT 1 FROM live l JOIN incarnation i ON i.id = l.claimed_by"

        def one_with_some() -> Service | None:
            for service in services:
                service.signal(signal.SIGSTOP)
                if self.ask(f"{in_hand} WHERE i.process LIKE '% pid ' || $1 LIMIT 1", str(service.pid)):
                    return service
                service.signal(signal.SIGCONT)
            return None

        killed = until(one_with_some, f"one of {[service.pid for service in services]} has something in hand")
        killed.kill()
        return killed

    def stop(self) -> None:
        """Every process ends well when it is asked to."""
        everyone = (*self.called, *self.sending)
        for service in everyone:
            service.signal(signal.SIGTERM)
        codes = [service.ended() for service in everyone]
        assert not any(codes), codes


def comes_to_rest(caller: Caller, partner: str) -> None:
    """Wait until nothing of *partner* is unfinished."""

    def is_so() -> bool:
        reply = caller.call("GET", f"/platform/integrations/{partner}")
        return reply.status == 200 and caller.is_at_rest(partner)

    until(is_so, f"{partner} comes to rest", seconds=SETTLED_SECONDS)


def check_the_books(caller: Caller, partner: str, traffic: Traffic, receiver: Receiver) -> None:
    """What was acknowledged, stored, sent and audited of *partner* tells one story."""
    items = [caller.item(partner, item["recovery_id"]) for item in caller.queue(partner)]
    names = {item["recovery_id"] for item in items}
    ledger = [sent for sent in list(receiver.ledger) if sent.webhook_id in names]
    assert len(items) == len(traffic.acknowledged), "a delivery was stored twice, or two became one"
    assert names == set(traffic.acknowledged.values()), "what is stored is not what was acknowledged"
    wrong = wrong_items(items, list(caller.events(integration_id=partner)), ledger)
    assert not wrong, wrong
    assert not wrong_bytes(items, ledger), wrong_bytes(items, ledger)
    replayed = {item["recovery_id"]: item["cycle"] for item in items if item["cycle"] > 1}
    assert replayed == traffic.replayed, (replayed, traffic.replayed)


def _ended_leases(service: Service) -> int:
    return sum(line.get("event") == "lease_ended" for line in list(service.log))
