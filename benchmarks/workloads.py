"""W1 to W5: what is run in the peers' bench, which figures are read off, and what they are to reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import CannotRun, Run, run

PACED_SECONDS: Final = 10
FAST_SHARE: Final = 2 / 7  # of W4's deliveries
W4_SECONDS: Final = 35  # its slow deliveries would go on for minutes; they are not what is measured


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of a table: how it is read off a run, and written."""

    name: str
    of: Callable[[Run], Any]
    form: str = "{:,.0f}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One of bench.py's workloads. `measure` is given the system, the deliveries and PEERS_HOME."""

    title: str
    to_reach: str
    deliveries: int
    figures: Sequence[Figure]
    measure: Callable[[str, int, Path], Run]


def _w1(system: str, deliveries: int, home: Path) -> Run:
    one = _whole(system, "W1", deliveries, home)
    rate = one["per_s"] / 2
    one["paced"] = run(system, "W1L", deliveries=int(rate * PACED_SECONDS), rate=rate, home=home)
    return one


def _w2(system: str, deliveries: int, home: Path) -> Run:
    return _whole(system, "W2", deliveries, home)


def _w3(system: str, deliveries: int, home: Path) -> Run:
    return run(system, "W3", deliveries=deliveries, home=home)


def _w4(system: str, deliveries: int, home: Path) -> Run:
    """With the fast deliveries once more, alone and at the same pace."""
    one = run(system, "W4", deliveries=deliveries, cap_seconds=W4_SECONDS, home=home)
    rate = one["accept"]["accept_per_s"] * FAST_SHARE
    one["alone"] = run(system, "W1L", deliveries=int(deliveries * 0.4), rate=rate, home=home)
    return one


def _w5(system: str, deliveries: int, home: Path) -> Run:
    one = _whole(system, "W5", deliveries, home)
    if "replay_all_ok_s" not in one["dlq"]:
        raise CannotRun(f"{system} W5 did not finish: {one['dlq']}")
    return one


def _whole(system: str, workload: str, deliveries: int, home: Path) -> Run:
    one = run(system, workload, deliveries=deliveries, home=home)
    if one["capped"]:
        raise CannotRun(f"{system} {workload} did not finish: {one['ok']} of {one['n']} arrived")
    return one


def _cpu(role: str) -> Callable[[Run], float]:
    return lambda one: 1e3 * float(one["cpu_s"][role]) / int(one["n"])


def _at(*path: str) -> Callable[[Run], Any]:
    def read(one: Any) -> Any:
        for key in path:
            one = (one or {}).get(key)
        return one

    return read


def _undelivered(one: Run) -> int:
    return int(one["B_ms_all"]["of"]) - int(one["B_ms_all"]["delivered"])


RATE: Final = Figure("deliveries/s, first request to last result recorded", _at("per_s"))
COSTS: Final = (
    Figure("CPU of the service, ms a delivery", _cpu("workers"), "{:.3f}"),
    Figure("CPU of the database, ms a delivery", _cpu("infra"), "{:.3f}"),
    Figure("CPU of the producer, ms a delivery", _cpu("producer"), "{:.3f}"),
    Figure("CPU of the target, ms a delivery", _cpu("sink"), "{:.3f}"),
    Figure("round trips to the database, a delivery", _at("database", "calls"), "{:.2f}"),
    Figure("write-ahead log, bytes a delivery", _at("database", "wal_bytes")),
    Figure("peak memory of the service, MiB", _at("rss_peak_mb", "workers")),
)
LATENCY: Final = (
    Figure("accept to delivered: p50, ms", _at("e2e_ms", "p50"), "{:,.1f}"),
    Figure("accept to delivered: p99, ms", _at("e2e_ms", "p99"), "{:,.1f}"),
)
NEIGHBOURS: Final = Figure("others used, % of the machine", _at("foreign_cpu_pct"), "{:.1f}")

WORKLOADS: Final[Mapping[str, Workload]] = {
    "W1": Workload(
        "healthy: each delivery of 1 KiB succeeds at once",
        "SQLite: BullMQ's rate, with at most 0.2 ms CPU of the service; PostgreSQL: 5 × pgqueuer's rate",
        20_000,
        (
            RATE,
            *COSTS,
            *LATENCY,
            Figure("at half that rate: p50, ms", _at("paced", "e2e_ms", "p50"), "{:,.1f}"),
            Figure("at half that rate: p99, ms", _at("paced", "e2e_ms", "p99"), "{:,.1f}"),
            NEIGHBOURS,
        ),
        _w1,
    ),
    "W2": Workload(
        "each delivery is refused once (503) and succeeds a second later",
        "SQLite: BullMQ's rate",
        5_000,
        (
            RATE,
            *COSTS,
            *LATENCY,
            Figure("first backoff: p50, s", _at("first_backoff_s", "p50"), "{:.2f}"),
            NEIGHBOURS,
        ),
        _w2,
    ),
    "W3": Workload(
        "a worker is killed half-way (kill -9) and started again a second later",
        "none lost; twice only what was in flight; back within the lease, or 5 s where the death is proven",
        10_000,
        (
            RATE,
            Figure("lost", _at("missing")),
            Figure("delivered twice", _at("duplicates")),
            Figure("from the kill to the last delivery, s", _at("kill", "to_last_ok_s"), "{:.1f}"),
            Figure("waited for the recovery", _at("kill", "stranded")),
            NEIGHBOURS,
        ),
        _w3,
    ),
    "W4": Workload(
        "2,000 deliveries to a fast target among 5,000 to one that takes 5 s",
        "p99 of the fast ones within twice its p99 alone, or 250 ms more",
        5_000,
        (
            Figure("the fast ones: p50, ms", _at("B_ms", "p50"), "{:,.1f}"),
            Figure("the fast ones: p99, ms", _at("B_ms", "p99"), "{:,.1f}"),
            Figure("alone at the same pace: p50, ms", _at("alone", "e2e_ms", "p50"), "{:,.1f}"),
            Figure("alone at the same pace: p99, ms", _at("alone", "e2e_ms", "p99"), "{:,.1f}"),
            Figure(f"the fast ones: not delivered in {W4_SECONDS} s", _undelivered),
            Figure("most in flight to the slow target", _at("max_inflight")),
            NEIGHBOURS,
        ),
        _w4,
    ),
    "W5": Workload(
        "2,000 dead letters are listed, and replayed one by one over 32 connections",
        "replayed and delivered within 3 s",
        2_000,
        (
            Figure("all dead, five attempts each, after, s", _at("dlq", "t_dead_s"), "{:.2f}"),
            Figure("listed in, s", _at("dlq", "list_s"), "{:.2f}"),
            Figure("replays answered in, s", _at("dlq", "replay_queued_s"), "{:.2f}"),
            Figure("replayed and delivered in, s", _at("dlq", "replay_all_ok_s"), "{:.2f}"),
            Figure("delivered twice", _at("dlq", "dup_oks")),
            NEIGHBOURS,
        ),
        _w5,
    ),
}
