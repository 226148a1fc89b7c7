"""The peers' bench (../shared/bench/peers) as a tool: where it is, what it needs, one run of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(os.environ.get("REDRIVE_PEERS", ROOT.parent / "shared" / "bench" / "peers"))
SCRATCH = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redrive-bench"
IN_FLIGHT = 128
Run = dict[str, Any]


class CannotRun(Exception):
    """This machine lacks something; the message says what, and what to do."""


def prepare() -> None:
    """Make the scratch folder, or raise CannotRun with all that a run needs and does not find."""
    bench = PEERS / "bench.py"
    missing = [] if bench.exists() else [f"{bench} is not there: set REDRIVE_PEERS to the folder of bench.py"]
    if shutil.which("rustc") is None:
        missing.append("rustc is not there (the target, sink.rs, is compiled with it): apt-get install rustc")
    if not _may_make_groups():
        missing.append(
            "no control group, by which CPU is counted, can be made in /sys/fs/cgroup: run as root, on Linux"
        )
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
    beside: Callable[[Path], None] | None = None,
) -> Run:
    """One run; what bench.py measured. *beside* is called with the run's folder while it goes on."""
    command = [sys.executable, str(PEERS / "bench.py"), "run", system, workload, f"--n={deliveries}"]
    command += ["--procs=1", f"--conc={IN_FLIGHT}", f"--rate={rate}"]
    places = {"PEERS_HOME": str(SCRATCH), "BENCH_ADAPTERS": str(ROOT / "benchmarks" / "adapters")}
    pipe = subprocess.PIPE
    bench = subprocess.Popen(command, env={**os.environ, **places}, text=True, stdout=pipe, stderr=pipe)
    folder = SCRATCH / "run" / f"{system}-{workload}-{bench.pid}"
    try:
        if beside is not None:
            beside(folder)
        out, told = bench.communicate(timeout=300)
    finally:
        bench.terminate()  # it takes down what it started
        bench.wait()
    result: Run = json.loads(out) if out.strip() else {"error": told.strip()[-800:]}
    if "error" in result:
        raise CannotRun(f"{system} {workload} failed: {result['error']}\nits logs are in {folder}")
    if result["missing"] or result["capped"]:
        arrived = f"{result['ok']} of {result['n']} arrived"
        raise CannotRun(f"{system} {workload} did not finish: {arrived}; its logs are in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _may_make_groups() -> bool:
    root = Path("/sys/fs/cgroup")
    probe = (root / "cpuacct" if (root / "cpuacct").is_dir() else root) / f"redrive-bench-{os.getpid()}"
    try:
        probe.mkdir()
        counts = any((probe / name).exists() for name in ("cpuacct.usage", "cpu.stat"))
        probe.rmdir()
    except OSError:
        return False
    return counts
