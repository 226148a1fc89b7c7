"""`./dev bench`: accept, deliver and record 20,000 deliveries, beside the same work with nothing durable."""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.harness import ROOT, CannotRun, Run, prepare, run
from benchmarks.profile import Profile, find_py_spy, watch

DELIVERIES, QUICK, PROFILED = 20_000, 2_000, 60_000
PACED_SECONDS = 10
NOISY_PERCENT = 10  # of the machine used by others: such a run counts only when there is no better one
OURS, CEILING = "redrive", "ceiling"


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: how it is read off a run, and written."""

    name: str
    of: Callable[[Run], float]
    form: str = "{:,.0f}"


def _cpu(role: str) -> Callable[[Run], float]:
    return lambda one: 1e3 * float(one["cpu_s"][role]) / int(one["n"])


W1 = (
    Figure("deliveries/s, first request to last result recorded", lambda one: one["per_s"]),
    Figure("CPU of the service, ms a delivery", _cpu("workers"), "{:.3f}"),
    Figure("CPU of the producer, ms a delivery", _cpu("producer"), "{:.3f}"),
    Figure("CPU of the target, ms a delivery", _cpu("sink"), "{:.3f}"),
    Figure("peak memory of the service, MiB", lambda one: one["rss_peak_mb"]["workers"]),
)
PACED = (
    Figure("accept to delivered at {rate:,.0f}/s: p50, ms", lambda one: one["e2e_ms"]["p50"], "{:.1f}"),
    Figure("accept to delivered at {rate:,.0f}/s: p99, ms", lambda one: one["e2e_ms"]["p99"], "{:.1f}"),
)


def main() -> int:
    asked = _arguments()
    try:
        prepare()
        if asked.profile:
            _profile(find_py_spy())
        elif asked.quick:
            _measure(QUICK, 1)
        else:
            _measure(DELIVERIES, asked.runs)
    except CannotRun as reason:
        print(f"the benchmark cannot run here:\n{reason}", file=sys.stderr)
        return 1
    return 0


def _measure(deliveries: int, runs: int) -> None:
    """Both systems in turn, so that both meet the same neighbours; then each at half of our rate."""
    print(f"{_machine()}\n")
    found: dict[str, list[Run]] = {OURS: [], CEILING: []}
    for number in range(1, runs + 1):
        for system, all_of_it in found.items():
            one = run(system, "W1", deliveries=deliveries)
            all_of_it.append(one)
            print(f"run {number}: {system} {one['per_s']:,.0f}/s, {_neighbours(one)}", flush=True)
    rate = _median(W1[0], found[OURS]) / 2
    paced = {name: [run(name, "W1L", deliveries=int(rate * PACED_SECONDS), rate=rate)] for name in found}
    rows = [_row(figure, found, rate) for figure in W1] + [_row(figure, paced, rate) for figure in PACED]
    counted = " and ".join(f"{len(_quiet(all_of_it))} of {len(all_of_it)}" for all_of_it in found.values())
    print(f"\n{deliveries:,} deliveries of 1 KiB over 32 connections, medians of {counted} runs\n")
    print(_table((f"{_today()}, {_commit()}", OURS, CEILING), rows))


def _profile(py_spy: str) -> None:
    found = Profile()
    run(OURS, "W1", deliveries=PROFILED, beside=lambda folder: watch(py_spy, folder, found))
    parts = [(name, f"{us:.0f}", f"{us / found.total:.0%}") for name, us in found.components.items()]
    print(_table(("where the service's CPU goes", "µs a delivery", "share"), parts))
    print(f"\n{found.total:.0f} µs in all. Functions, each with what it calls:\n")
    for name, us in found.functions[:60]:
        print(f"{us:7.1f}  {name}")


def _row(figure: Figure, found: dict[str, list[Run]], rate: float) -> tuple[str, ...]:
    values = [figure.form.format(_median(figure, found[system])) for system in (OURS, CEILING)]
    return (figure.name.format(rate=rate), *values)


def _median(figure: Figure, runs: list[Run]) -> float:
    return median(figure.of(one) for one in _quiet(runs))


def _quiet(runs: list[Run]) -> list[Run]:
    return [one for one in runs if one["foreign_cpu_pct"] < NOISY_PERCENT] or runs


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _neighbours(one: Run) -> str:
    return f"others used {one['foreign_cpu_pct']} % of the machine"


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = f"{os.cpu_count()} × {models[0] if models else platform.machine()}"
    python = f"CPython {platform.python_version()}"
    return f"{cores}, Linux {platform.release()}, {python}, load {os.getloadavg()[0]:.1f}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "no commit"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"one run of {QUICK:,} deliveries")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each system, in turn (3)")
    parser.add_argument("--profile", action="store_true", help="where the service's CPU goes (needs py-spy)")
    return parser.parse_args()


sys.exit(main())
