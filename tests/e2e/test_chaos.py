"""Processes that take calls, processes that send, one PostgreSQL: killed, stalled, cut off, under traffic."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.books import TIMED_OUT, UNKNOWN
from tests.e2e.caller import Caller, NoAnswer
from tests.e2e.cluster import Cluster, check_the_books, comes_to_rest
from tests.e2e.partner import a_mixed_partner
from tests.e2e.receiver import Receiver, receiving
from tests.e2e.service import Service
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until
from tests.postgres import Server, a_server

PARTNERS = ["one", "two", "three", "split"]
KEY_TAKEN = (
    "INSERT INTO dedupe (integration, key, item, fingerprint) SELECT number, $1, 1, '' FROM integration"
)
WAITING = "SELECT FROM pg_stat_activity WHERE application_name = 'redrive' AND wait_event_type = 'Lock'"
TIMEOUT_SECONDS, HANGS_SECONDS = 2, 3.0


@pytest.fixture
def server() -> Iterator[Server]:
    """One that survives what is done to it here."""
    with a_server(durable=True) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path, server: Server) -> Iterator[Cluster]:
    with ExitStack() as opened:
        yield Cluster(tmp_path, server.url(), opened, called=2, sending=3)


@pytest.mark.parametrize(
    ("seed", "seconds"),  # pytest shows them when it fails
    [pytest.param(20, 0, id="short"), pytest.param(time.time_ns(), 60, marks=pytest.mark.long, id="long")],
)
def test_whatever_dies_nothing_acknowledged_is_lost_and_every_send_is_accounted_for(
    cluster: Cluster, server: Server, seed: int, seconds: int
) -> None:
    chance, token = random.Random(seed), cluster.called[0].a_token()
    script = a_mixed_partner(hangs_seconds=HANGS_SECONDS)
    with receiving(script) as receiver, Caller(cluster.called[0], token) as caller:
        for partner in PARTNERS:
            shards = 4 if partner == "split" else 1
            caller.add(partner, receiver.url, timeout_seconds=TIMEOUT_SECONDS, shards=shards)
        works = [
            Traffic(service, token, partner, producers=2, pause_seconds=0.1)
            for partner, service in zip(PARTNERS, cycle(cluster.called), strict=False)
        ]
        for traffic in works:
            traffic.start()

        over_at = time.monotonic() + seconds
        while True:
            everything = disturbances(cluster, server, chance)
            while everything:
                sends_go_on(receiver)
                both_at_once(everything.pop(), everything.pop())
            if time.monotonic() >= over_at:
                break
        for traffic in works:
            traffic.stop()
        for partner in PARTNERS:
            comes_to_rest(caller, partner)

        assert [traffic.surprises for traffic in works] == [[]] * len(works)
        for partner, traffic in zip(PARTNERS, works, strict=True):
            check_the_books(caller, partner, traffic, receiver)
    codes = [row[0] for row in cluster.ask("SELECT DISTINCT failure_code FROM attempt")]
    assert UNKNOWN in codes, "the test must disturb it while something is in flight"
    assert TIMED_OUT in codes, "the receiver must hang"
    cluster.stop()


def sends_go_on(receiver: Receiver) -> None:
    before = len(receiver.ledger)
    until(lambda: len(receiver.ledger) > before + 50, "deliveries arrive")


def test_what_was_stored_but_never_answered_is_there_once_when_another_process_is_told_again(
    tmp_path: Path, server: Server
) -> None:
    with ExitStack() as opened:
        cluster = Cluster(tmp_path, server.url(), opened, called=2, sending=1)
        dying, other = cluster.called
        token = dying.a_token()
        receiver = opened.enter_context(receiving())
        callers = [opened.enter_context(Caller(service, token)) for service in (dying, other)]
        callers[0].add("one", receiver.url)

        threads = opened.enter_context(ThreadPoolExecutor())
        with holding_the_key(server, "once"):
            owed = threads.submit(callers[0].deliver, "one", {"n": 1}, key="once")
            until(lambda: cluster.ask(WAITING), "it waits to be stored")
            dying.signal(signal.SIGSTOP)
        until(lambda: cluster.ask("SELECT FROM delivery"), "it is stored")
        dying.kill()
        again = callers[1].deliver("one", {"n": 1}, key="once")
        comes_to_rest(callers[1], "one")

        assert isinstance(owed.exception(), NoAnswer)
        [item] = callers[1].queue("one")
        assert (again.status, again.document["recovery_id"]) == (202, item["recovery_id"])
        assert [sent.webhook_id for sent in receiver.ledger] == [item["recovery_id"]]


@contextmanager
def holding_the_key(server: Server, key: str) -> Iterator[None]:
    """What is accepted with that key waits in the database as for another one with it, then is stored."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(server.url()))
        runner.run(connection.execute("BEGIN"))
        runner.run(connection.execute(KEY_TAKEN, key))
        yield
        runner.run(connection.execute("ROLLBACK"))
        runner.run(connection.close())


def disturbances(cluster: Cluster, server: Server, chance: random.Random) -> list[Callable[[], object]]:
    """One of each kind, in any order, to different processes."""
    stalled, *others = chance.sample(cluster.sending, len(cluster.sending))
    everything = [
        partial(restart_with_work_in_hand, cluster, others),
        partial(cluster.stall, stalled),
        partial(restart, chance.choice(cluster.called)),
        partial(crash, server),
        partial(cut_every_connection, cluster),
        partial(add_a_sender, cluster),
    ]
    return chance.sample(everything, len(everything))


def both_at_once(one: Callable[[], object], other: Callable[[], object]) -> None:
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(one), threads.submit(other)]:
            done.result()


def restart(service: Service) -> None:
    """Kill it; whoever called it without an answer repeats that to the next."""
    service.kill()
    service.insist()


def restart_with_work_in_hand(cluster: Cluster, services: Sequence[Service]) -> None:
    cluster.kill_with_work_in_hand(*services).insist()


def crash(server: Server) -> None:
    server.stop("immediate")
    server.start()


def cut_every_connection(cluster: Cluster) -> None:
    cluster.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'redrive'")


def add_a_sender(cluster: Cluster) -> None:
    cluster.sending.append(cluster.service("worker"))
