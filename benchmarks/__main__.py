"""`./dev bench`: what deliveries cost, on both stores, under workloads that go well and that do not."""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bloat import measure_bloat
from benchmarks.claims import measure_claims
from benchmarks.harness import CEILING, POSTGRES, ROOT, SCRATCH, SQLITE, CannotRun, Run, prepare
from benchmarks.profile import find_py_spy, profile
from benchmarks.replays import measure_replays
from benchmarks.tables import table
from benchmarks.workloads import NEIGHBOURS, WORKLOADS, Figure, Workload

QUICKER: Final = 10  # times fewer deliveries
NOISY_PERCENT: Final = 10  # of the machine used by others: such a run counts only when there is no better one
STORES: Final = {"sqlite": SQLITE, "postgres": POSTGRES}
PEERS: Final = ("bullmq", "pgqueuer")
DIRECT: Final[Mapping[str, Callable[..., None]]] = {
    "W6": measure_claims,
    "bloat": measure_bloat,
    "replays": measure_replays,
}


def main() -> int:
    asked = _arguments()
    print(f"{_machine()}\n{_now()}, {_commit()}", flush=True)
    try:
        for name in asked.what or (*WORKLOADS, *DIRECT):
            if name in DIRECT:
                DIRECT[name](asked.store, quick=asked.quick, long=asked.long)
                continue
            prepare()
            if asked.profile:
                for store in asked.store:
                    profile(find_py_spy(), STORES[store], name)
            else:
                _compare(name, WORKLOADS[name], asked)
    except CannotRun as reason:
        print(f"the benchmark cannot run here:\n{reason}", file=sys.stderr)
        return 1
    return 0


def _compare(name: str, workload: Workload, asked: argparse.Namespace) -> None:
    """Every system in turn, so that all meet the same neighbours."""
    print(f"\n## {name}: {workload.title}\n", flush=True)
    homes = dict.fromkeys((STORES[store] for store in asked.store), SCRATCH)
    homes |= {CEILING: SCRATCH} if name == "W1" else {}
    homes |= dict.fromkeys(PEERS if asked.peers else (), asked.peers)
    deliveries = workload.deliveries // (QUICKER if asked.quick else 1)
    found: dict[str, list[Run]] = {system: [] for system in homes}
    for number in range(1, (1 if asked.quick else asked.runs) + 1):
        for system, runs in found.items():
            runs.append(one := workload.measure(system, deliveries, homes[system]))
            said = f"{one['wall_s']:.0f} s, {one['per_s']:,.0f} deliveries/s"
            print(f"run {number}: {system}: {said}; others used {_foreign(one):.1f} %", flush=True)
    rows = [[figure.name, *(_median(figure, runs) for runs in found.values())] for figure in workload.figures]
    counted = ", ".join(f"{len(_quiet(runs))} of {len(runs)}" for runs in found.values())
    to_reach = (
        "Too few to compare rates: read what they cost" if asked.quick else f"To reach: {workload.to_reach}"
    )
    print(f"\n{deliveries:,} deliveries; medians of {counted} runs. {to_reach}.\n")
    print(table((f"{_now()}, {_commit()}", *found), rows), flush=True)


def _median(figure: Figure, runs: Sequence[Run]) -> str:
    values = [value for one in _quiet(runs) if (value := figure.of(one)) is not None]
    return figure.form.format(median(values)) if values else "–"


def _quiet(runs: Sequence[Run]) -> Sequence[Run]:
    return [one for one in runs if _foreign(one) < NOISY_PERCENT] or runs


def _foreign(one: Run) -> float:
    return float(NEIGHBOURS.of(one))


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = f"{os.cpu_count()} × {models[0] if models else platform.machine()}"
    python = f"CPython {platform.python_version()}"
    return f"{cores}, Linux {platform.release()}, {python}, load {os.getloadavg()[0]:.1f}"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M}"


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "no commit"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    names = (*WORKLOADS, *DIRECT)
    parser.add_argument("what", nargs="*", metavar="WORKLOAD", help=f"{', '.join(names)} (all of them)")
    parser.add_argument("--store", action="append", choices=STORES, help="only this one (both, in turn)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each system, in turn (3)")
    parser.add_argument("--quick", action="store_true", help="one run each, of a tenth of the deliveries")
    parser.add_argument("--long", action="store_true", help="W6 up to 10,000,000 rows, bloat of 1,000,000")
    parser.add_argument("--profile", action="store_true", help="where the CPU goes (W1, W2; needs py-spy)")
    parser.add_argument(
        "--peers", type=Path, metavar="HOME", help=f"beside {' and '.join(PEERS)}, set up in this PEERS_HOME"
    )
    asked = parser.parse_args()
    asked.store = asked.store or list(STORES)
    if strange := [name for name in asked.what if name not in names]:
        parser.error(f"there is no workload {', '.join(strange)}; there are {', '.join(names)}")
    return asked


sys.exit(main())
