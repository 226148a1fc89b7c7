"""Lanes change hands under traffic: the limits of an integration hold across all processes, sends go on."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from math import inf
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.caller import INTEGRATIONS, Caller
from tests.e2e.cluster import Cluster, check_the_books, comes_to_rest
from tests.e2e.receiver import Answer, Receiver, Script, Sent, receiving
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import until

RATE = 50
# From the leave to send to the send, by way of the claim: so much later may one begin than the next one.
UNDER_WAY_SECONDS = 0.5
# Longer than a lease: so is open what a killed process sent, when its lanes are others' already.
LONG_SECONDS, TIMEOUT_SECONDS = 6.0, 8
PARTNERS: dict[str, dict[str, int]] = {
    "whole": {"concurrency": 8, "timeout_seconds": TIMEOUT_SECONDS},
    "split": {"concurrency": 8, "shards": 4, "timeout_seconds": TIMEOUT_SECONDS},
    "paced": {
        "concurrency": 32,
        "shards": 2,
        "rate_per_second": RATE,
        "timeout_seconds": TIMEOUT_SECONDS,
    },
}
SPLITS = [{"whole": 2, "split": 3, "paced": 4}, {"whole": 1, "split": 4, "paced": 2}]


class Partner(NamedTuple):
    """One integration, what it is sent, and what it gets."""

    name: str
    traffic: Traffic
    receiver: Receiver


@pytest.fixture
def cluster(tmp_path: Path, kept: dict[str, str]) -> Iterator[Cluster]:
    with ExitStack() as opened:
        yield Cluster(tmp_path, kept["database"], opened, called=1, sending=2)


@pytest.mark.parametrize("kept", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="short"), pytest.param(5, marks=pytest.mark.long, id="long")]
)
def test_limits_hold_across_all_processes_while_they_come_and_go(cluster: Cluster, rounds: int) -> None:
    token = cluster.called[0].a_token()
    with ExitStack() as opened, Caller(cluster.called[0], token) as caller:
        partners = []
        for name, fields in PARTNERS.items():
            receiver = opened.enter_context(receiving(a_partner(is_slow=name == "whole")))
            caller.add(name, receiver.url, **fields)
            traffic = Traffic(cluster.called[0], token, name, producers=2, pause_seconds=0.1)
            partners.append(Partner(name, traffic, receiver))
        for partner in partners:
            partner.traffic.start()

        for _ in range(rounds):
            for change in (join, drain, kill, stall):
                change(cluster)
                sends_go_on(partners)
            for splits in SPLITS:
                kill(cluster)  # its lanes are of a split that ends just now
                for name, shards in splits.items():
                    changed = caller.call("PATCH", f"{INTEGRATIONS}/{name}", {"shards": shards})
                    assert changed.status == 200, changed.document
                sends_go_on(partners)
        for partner in partners:
            partner.traffic.stop()
        for partner in partners:
            comes_to_rest(caller, partner.name)

        for partner in partners:
            assert partner.traffic.surprises == []
            check_the_books(caller, partner.name, partner.traffic, partner.receiver)
            allowed, most = PARTNERS[partner.name]["concurrency"], most_at_once(partner.receiver.ledger)
            assert most <= allowed, partner.name
            assert most > allowed // 2 or partner.name == "paced", "the test must fill it"
            if partner.name == "paced":
                burst = RATE / 10
                assert most_over_rate(starts(cluster, partner.name)) <= burst + RATE * UNDER_WAY_SECONDS
    cluster.stop()


def a_partner(*, is_slow: bool) -> Script:
    """It takes a moment, and a slow one now and then longer than a lease."""
    numbers = count()
    return lambda _: Answer(200, after=LONG_SECONDS if is_slow and next(numbers) % 60 == 0 else 0.05)


def join(cluster: Cluster) -> None:
    """One more sends, and gets a part of the lanes."""
    joined = cluster.service("worker")
    until(lambda: cluster.lanes_of(joined), "it owns a lane")
    cluster.sending.append(joined)


def drain(cluster: Cluster) -> None:
    assert cluster.sending.pop(0).stop() == 0


def kill(cluster: Cluster) -> None:
    """And start it again, as another process."""
    cluster.sending[0].kill()
    cluster.sending[0].start()


def stall(cluster: Cluster) -> None:
    """The one that was not killed, so that all lanes have changed hands."""
    cluster.stall(cluster.sending[1])


def sends_go_on(partners: list[Partner]) -> None:
    before = [len(partner.receiver.ledger) for partner in partners]
    until(
        lambda: all(
            len(partner.receiver.ledger) >= sends + 50
            for partner, sends in zip(partners, before, strict=True)
        ),
        "each of them gets its own",
    )


def most_at_once(ledger: list[Sent]) -> int:
    """How many requests were open at a time, from their header to their answer."""
    steps = [(sent.arrived_at, 1) for sent in ledger] + [(sent.ended_at, -1) for sent in ledger]
    open_now = most = 0
    for _, step in sorted(steps):  # at one instant, what ends is before what begins
        open_now += step
        most = max(most, open_now)
    return most


def starts(cluster: Cluster, name: str) -> list[float]:
    """When each attempt of an integration began, in seconds, as its process wrote it down."""
    began = """SELECT started_at FROM attempt a JOIN integration i ON i.number = a.integration
        WHERE i.integration_id = $1"""
    return [row["started_at"] / 1000 for row in cluster.ask(began, name)]


def most_over_rate(instants: list[float]) -> float:
    """By how many more than its length times RATE there are of them in any window."""
    least, most = inf, 0.0
    for number, at in enumerate(sorted(instants)):
        least = min(least, number - RATE * at)
        most = max(most, number + 1 - RATE * at - least)
    return most
