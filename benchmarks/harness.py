"""The peers' bench (../shared/bench/peers) as a tool: where it is, what it needs, one run of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redrive.store.named import load_queries
from tests.postgres import programs

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(os.environ.get("REDRIVE_PEERS", ROOT.parent / "shared" / "bench" / "peers"))
# A disk, and open to the user that PostgreSQL runs as when we are root: not in root's home, not in memory.
SCRATCH = Path(os.environ.get("REDRIVE_BENCH_HOME", f"/var/tmp/redrive-bench-{os.getuid()}"))
CGROUPS = Path("/sys/fs/cgroup")
SQLITE, POSTGRES, CEILING = "redrive", "redrive:postgres", "ceiling"
ONE_PROCESS, TWO_PROCESSES = ("--procs=1", "--conc=128"), ("--procs=2", "--conc=64")
SECONDS = 110  # more than any workload is given
Run = dict[str, Any]


class CannotRun(Exception):
    """This machine lacks something, or a run failed; the message says what, and what to do."""


def prepare() -> None:
    """Make the scratch folder, or raise CannotRun with all that a run needs and does not find."""
    bench = PEERS / "bench.py"
    missing = [] if bench.exists() else [f"{bench} is not there: set REDRIVE_PEERS to the folder of bench.py"]
    if shutil.which("rustc") is None:
        missing.append("rustc is not there (the target, sink.rs, is compiled with it): apt-get install rustc")
    if not _may_make_groups():
        missing.append(f"no control group, by which CPU is counted, can be made in {CGROUPS}: run as root")
    if os.geteuid() == 0 and subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
        missing.append("there is no user that PostgreSQL may run as when we are root: useradd postgres")
    if missing:
        raise CannotRun("\n".join(missing))
    SCRATCH.mkdir(parents=True, exist_ok=True)
    # The ceiling runs in PEERS_HOME/v. Ours has the same uvloop and aiohttp, so both use the very same.
    environment = SCRATCH / "v"
    if environment.is_symlink() or not environment.exists():
        environment.unlink(missing_ok=True)
        environment.symlink_to(sys.prefix)


def run(
    system: str,
    workload: str,
    *,
    deliveries: int,
    rate: float = 0,
    cap_seconds: int = 72,
    home: Path = SCRATCH,
    beside: Callable[[Path, int], None] | None = None,
) -> Run:
    """One run; what bench.py measured, and what the database did. Whoever is cut off by the cap says so.

    *beside* is called while the run goes on, with its folder and bench.py's process id.
    """
    command: Sequence[str] = [sys.executable, str(PEERS / "bench.py"), "run", system, workload]
    processes = ONE_PROCESS if system in (SQLITE, CEILING) else TWO_PROCESSES
    numbers = (f"--n={deliveries}", f"--rate={rate}", f"--cap={cap_seconds}")
    pipe = subprocess.PIPE
    bench = subprocess.Popen(
        [*command, *processes, *numbers], env=_environment(home), text=True, stdout=pipe, stderr=pipe
    )
    folder = home / "run" / f"{system.replace(':', '-')}-{workload}-{bench.pid}"
    try:
        if beside is not None:
            beside(folder, bench.pid)
        out, told = bench.communicate(timeout=cap_seconds + SECONDS)
    finally:
        bench.terminate()  # it takes down what it started
        bench.wait()
    result: Run = json.loads(out) if out.strip() else {"error": told.strip()[-800:]}
    if "error" in result:
        raise CannotRun(f"{system} {workload} failed: {result['error']}\nits logs are in {folder}")
    if (folder / "database.jsonl").exists():
        result["database"] = _database(folder / "database.jsonl", int(result["n"]))
    shutil.rmtree(folder, ignore_errors=True)
    return result


def group_of(bench: int, role: str) -> Path:
    """The control group of a run's processes."""
    return _groups() / f"peerbench-{bench}-{role}"


def _environment(home: Path) -> dict[str, str]:
    """Every PostgreSQL is the one that the tests use, whoever works on it."""
    postgres = programs(SCRATCH / "postgres-programs", "postgres" if os.geteuid() == 0 else None)
    return {
        **os.environ,
        "PEERS_HOME": str(home),
        "BENCH_ADAPTERS": str(ROOT / "benchmarks" / "adapters"),
        "PG_BIN": str(postgres),
        "PATH": f"{postgres}:{os.environ['PATH']}",
    }


def _database(notes: Path, deliveries: int) -> dict[str, Any]:
    """For a delivery: WAL and calls of statements, in all and by name."""
    first, *_, last = map(json.loads, notes.read_text().splitlines())
    names = {_shape(text): name for name, text in load_queries("redrive.store.postgres").items()}
    nothing = {"calls": 0, "ms": 0, "wal_bytes": 0}
    statements = {}
    for text, asked in last["statements"].items():
        before = first["statements"].get(text, nothing)
        name = names.get(_shape(text), " ".join(text.split())[:60])
        statements[name] = {fact: (asked[fact] - before[fact]) / deliveries for fact in nothing}
    return {
        "wal_bytes": (last["wal_bytes"] - first["wal_bytes"]) / deliveries,
        "calls": sum(one["calls"] for one in statements.values()),
        "statements": statements,
    }


def _shape(statement: str) -> str:
    """What pg_stat_statements, which replaces constants and lists of them, leaves of a statement."""
    return re.sub(r"--.*|/\*.*?\*/|'[^']*'|\$?\b\d+\b|\bNULL\b|[\s,]", "", statement)


def _may_make_groups() -> bool:
    probe = group_of(os.getpid(), "probe")
    try:
        probe.mkdir()
        counts = any((probe / name).exists() for name in ("cpuacct.usage", "cpu.stat"))
        probe.rmdir()
    except OSError:
        return False
    return counts


def _groups() -> Path:
    return CGROUPS / "cpuacct" if (CGROUPS / "cpuacct").is_dir() else CGROUPS
