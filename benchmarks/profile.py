"""Where the CPU goes: py-spy says where each thread of the service is, the kernel what each thread used, and
pg_stat_statements what each statement took.
"""

import json
import re
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from benchmarks.harness import SCRATCH, CannotRun, Run, group_of, run
from benchmarks.tables import table

SINK_PORT: Final = 9700
DELIVERIES: Final = {"W1": 60_000, "W2": 15_000}
FUNCTIONS, STATEMENTS = 60, 15
SAMPLES_PER_SECOND: Final = 400
SECONDS: Final = 4
PATIENCE_SECONDS: Final = 30
TICKS: Final = 100  # a second of /proc/*/stat

# A sample belongs to the innermost of its frames that is named here.
COMPONENTS: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("telemetry", r"redrive/telemetry/"),
        ("composing and signing", r"redrive/delivery/(compose|signing)|[ (]hmac\.py"),
        ("HTTP out", r"redrive/delivery/"),
        ("JSON and validation", r"redrive/api/(body|deliveries|query)\.py"),
        ("store: our side of it", r"redrive/store/|[ (]asyncpg/"),
        ("HTTP in", r"[ (]uvicorn/|redrive/api/"),
        ("engine", r"redrive/(engine|domain|clock|audit)"),
        ("event loop", r"redrive/app\.py"),
    )
)


@dataclass(slots=True)
class Profile:
    """Microseconds of CPU for each delivery, of all processes of the service."""

    components: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    functions: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # they overlap


def find_py_spy() -> str:
    """The program that takes the samples."""
    found = shutil.which("py-spy") or shutil.which(str(SCRATCH / "py-spy" / "bin" / "py-spy"))
    if found is None:
        place = SCRATCH / "py-spy"
        raise CannotRun(f"--profile needs py-spy: python3 -m venv {place} && {place}/bin/pip install py-spy")
    return found


def profile(py_spy: str, system: str, workload: str) -> None:
    """Print where the CPU of *system* goes under a workload."""
    if workload not in DELIVERIES:
        raise CannotRun(f"--profile is for {' and '.join(DELIVERIES)}")
    print(f"\n## {system}, {workload}\n", flush=True)
    found = Profile()
    one = run(
        system,
        workload,
        deliveries=DELIVERIES[workload],
        beside=lambda folder, bench: _watch(py_spy, folder, bench, found),
    )
    total = sum(found.components.values())
    parts = sorted(found.components.items(), key=lambda part: -part[1])
    rows = [(name, f"{us:.0f}", f"{us / total:.0%}") for name, us in parts]
    print(table(("where the service's CPU goes", "µs a delivery", "share"), rows))
    print(f"\n{total:.0f} µs in all. Functions, each with what it calls:\n")
    for name, us in sorted(found.functions.items(), key=lambda part: -part[1])[:FUNCTIONS]:
        print(f"{us:7.1f}  {name}")
    if "database" in one:
        print(f"\n{_statements(one)}")


def _statements(one: Run) -> str:
    asked = sorted(one["database"]["statements"].items(), key=lambda part: -part[1]["ms"])
    rows = [
        (name, f"{facts['ms'] * 1e3:.1f}", f"{facts['calls']:.4f}", f"{facts['wal_bytes']:.0f}")
        for name, facts in asked[:STATEMENTS]
    ]
    return table(("what a delivery takes in the database", "µs", "calls", "bytes of log"), rows)


def _watch(py_spy: str, folder: Path, bench: int, found: Profile) -> None:
    """Sample every process of the service for some seconds of the workload."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _attempts() < 500:  # the workload itself, not the warm-up
        if time.monotonic() > deadline:
            raise CannotRun(f"no load reached the target within {PATIENCE_SECONDS} s")
        time.sleep(0.05)
    members = (group_of(bench, "workers") / "cgroup.procs").read_text().split()
    pids = [pid for pid in map(int, members) if "redrive" in Path(f"/proc/{pid}/cmdline").read_text()]
    before, deliveries = {pid: _cpu(pid) for pid in pids}, _attempts()
    samples = _sample(py_spy, {pid: folder / f"samples-{pid}.txt" for pid in pids})
    after, deliveries = {pid: _cpu(pid) for pid in pids}, _attempts() - deliveries
    for pid in pids:
        ticks = {thread: cpu - before[pid].get(thread, 0) for thread, cpu in after[pid].items()}
        used = {thread: count * 1e6 / TICKS / deliveries for thread, count in ticks.items()}
        _divide(used, samples[pid], found)


def _divide(used: dict[int, float], samples: str, found: Profile) -> None:
    """The CPU of each thread among its components, by their share of its samples."""
    components: defaultdict[int, Counter[str]] = defaultdict(Counter)
    stacks: list[tuple[int, list[str], int]] = []
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        number = int(re.search(r"\((\d+)\)", thread)[1])  # type: ignore[index]  # py-spy's form
        name = "store: the writer's thread" if "redrive-writer" in thread else _component(frames)
        components[number][name] += int(count)
        stacks.append((number, frames, int(count)))
    for number, micros in used.items():
        if not components[number]:
            found.components["other threads (checkpoints, readers)"] += micros
        for name, samples_there in components[number].items():
            found.components[name] += micros * samples_there / components[number].total()
    for number, frames, times in stacks:
        for function in {re.sub(r":\d+\)$", ")", frame) for frame in frames}:
            found.functions[function] += used.get(number, 0) * times / components[number].total()


def _component(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in COMPONENTS:
            if pattern.search(frame):
                return name
    return "event loop"


def _sample(py_spy: str, files: dict[int, Path]) -> dict[int, str]:
    """Stacks of the threads that hold the interpreter, of several processes at once."""
    command = [py_spy, "record", "--gil", "--threads", "--nonblocking", "--format=raw"]
    command += [f"--duration={SECONDS}", f"--rate={SAMPLES_PER_SECOND}"]
    pipe = subprocess.PIPE
    spies = [
        subprocess.Popen([*command, f"--pid={pid}", f"--output={file}"], stdout=pipe, stderr=pipe, text=True)
        for pid, file in files.items()
    ]
    for spy in spies:
        _, told = spy.communicate(timeout=SECONDS + PATIENCE_SECONDS)
        if spy.returncode:
            raise CannotRun(f"py-spy failed: {told.strip()[-500:]}")
    return {pid: file.read_text() for pid, file in files.items()}


def _cpu(pid: int) -> dict[int, int]:
    """Ticks each thread has used, user and system."""
    ticks = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        words = (task / "stat").read_text().rpartition(")")[2].split()
        ticks[int(task.name)] = int(words[11]) + int(words[12])
    return ticks


def _attempts() -> int:
    """Attempts of the workload that reached the target; 0 when it does not answer."""
    try:
        connection = HTTPConnection("127.0.0.1", SINK_PORT, timeout=2)
        connection.request("GET", "/_sink/stats")
        paths = json.loads(connection.getresponse().read())["paths"]
        connection.close()
    except (OSError, ValueError, KeyError):
        return 0
    return int(sum(path["attempts"] for name, path in paths.items() if name.endswith("/a")))
