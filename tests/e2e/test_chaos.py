"""Processes that take calls, processes that send, one PostgreSQL: killed, stalled, cut off, under traffic."""

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.e2e.books import UNKNOWN, wrong_bytes, wrong_items
from tests.e2e.caller import Caller
from tests.e2e.partner import a_mixed_partner
from tests.e2e.receiver import receiving
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until
from tests.postgres import Server, a_server

PARTNERS = ["one", "two", "three", "split"]
CALLED, SENDING = 2, 5
LEASE_SECONDS = 3
SETTLED_SECONDS = 90.0


class Cluster:
    """The processes and their database."""

    def __init__(self, directory: Path, server: Server, opened: ExitStack) -> None:
        self._directory, self._opened = directory, opened
        self.server = server
        self.called = [self.service("api") for _ in range(CALLED)]
        self.sending = [self.service("worker") for _ in range(SENDING)]

    def service(self, role: str) -> Service:
        home = self._directory / f"{role}-{len(list(self._directory.iterdir()))}"
        home.mkdir()
        settings = {"max_attempts": "4", "timeout_seconds": "5", "lease_seconds": str(LEASE_SECONDS)}
        service = Service(home, database=self.server.url(), role=role, **settings)
        self._opened.callback(service.close)
        service.start()
        return service

    def ask(self, sql: str, *values: Any) -> list[Any]:
        """Rows from the database, past everything that is tested."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.server.url())
            try:
                return list(await connection.fetch(sql, *values))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def is_buried(self, service: Service) -> bool:
        return not self.ask("SELECT 1 FROM incarnation WHERE process LIKE '% pid ' || $1", str(service.pid))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with a_server(durable=True) as server, ExitStack() as opened:
        yield Cluster(tmp_path, server, opened)


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="short"), pytest.param(8, marks=pytest.mark.long, id="long")]
)
def test_whatever_dies_nothing_acknowledged_is_lost_and_every_send_is_accounted_for(
    cluster: Cluster, rounds: int
) -> None:
    token = cluster.called[0].a_token()
    with receiving(a_mixed_partner()) as receiver, Caller(cluster.called[0], token) as caller:
        for partner in PARTNERS:
            caller.add(partner, receiver.url, shards=4 if partner == "split" else 1)
        works = [
            Traffic(service, token, partner, producers=2)
            for partner, service in zip(PARTNERS, cycle(cluster.called), strict=False)
        ]
        for traffic in works:
            traffic.start()

        for _ in range(rounds):
            for disturb in (
                kill_a_sender,
                stall_a_sender,
                crash_the_database,
                cut_every_connection,
                add_a_sender,
            ):
                sends = len(receiver.ledger)
                until(lambda: len(receiver.ledger) > sends + 50, "deliveries arrive")  # noqa: B023
                disturb(cluster)
        for traffic in works:
            traffic.stop()
        for partner in PARTNERS:
            until(lambda: at_rest(caller, partner), f"{partner} comes to rest", seconds=SETTLED_SECONDS)  # noqa: B023

        assert [traffic.surprises for traffic in works] == [[]] * len(works)
        for partner, traffic in zip(PARTNERS, works, strict=True):
            items = [caller.item(partner, item["recovery_id"]) for item in caller.queue(partner)]
            events = list(caller.events(integration_id=partner))
            names = {item["recovery_id"] for item in items}
            ledger = [sent for sent in list(receiver.ledger) if sent.webhook_id in names]
            assert len(items) == len(traffic.acknowledged), "a delivery was stored twice, or two became one"
            assert names == set(traffic.acknowledged.values())
            assert wrong_items(items, events, ledger) == {}
            assert wrong_bytes(items, ledger) == []
            assert {i["recovery_id"]: i["cycle"] for i in items if i["cycle"] > 1} == traffic.replayed
    codes = [row[0] for row in cluster.ask("SELECT DISTINCT failure_code FROM attempt")]
    assert UNKNOWN in codes, "the test must disturb it while something is in flight"
    assert [service.stop() for service in (*cluster.called, *cluster.sending)] == [0] * (
        len(cluster.called) + len(cluster.sending)
    )


def kill_a_sender(cluster: Cluster) -> None:
    victim = random.choice(cluster.sending)
    victim.kill()
    victim.start()


def stall_a_sender(cluster: Cluster) -> None:
    """It stands still until the others have buried it, and then goes on as if nothing had happened."""
    victim = random.choice(cluster.sending)
    victim.signal(signal.SIGSTOP)
    until(lambda: cluster.is_buried(victim), "its lease ran out")
    victim.signal(signal.SIGCONT)
    victim.says("lease_ended")


def crash_the_database(cluster: Cluster) -> None:
    cluster.server.stop("immediate")
    cluster.server.start()


def cut_every_connection(cluster: Cluster) -> None:
    cluster.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'redrive'")


def add_a_sender(cluster: Cluster) -> None:
    cluster.sending.append(cluster.service("worker"))


def at_rest(caller: Caller, partner: str) -> bool:
    reply = caller.call("GET", f"/platform/integrations/{partner}")
    return reply.status == 200 and caller.is_at_rest(partner)
