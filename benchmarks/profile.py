"""Where the service's CPU goes: py-spy says where each thread is, the kernel what each thread used."""

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

from benchmarks.harness import SCRATCH, CannotRun

SINK_PORT: Final = 9700
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
        ("HTTP out", r"[ (](aiohttp|yarl|multidict)/|redrive/delivery/"),
        ("JSON and validation", r"redrive/api/(body|deliveries|query)\.py"),
        ("handing to the store", r"redrive/store/"),
        ("HTTP in", r"[ (]uvicorn/|redrive/api/"),
        ("engine", r"redrive/(engine|domain|clock|audit)"),
        ("event loop", r"redrive/app\.py"),
    )
)


@dataclass(slots=True)
class Profile:
    """Microseconds of CPU for each delivery."""

    components: dict[str, float] = field(default_factory=dict)
    functions: list[tuple[str, float]] = field(default_factory=list)  # with what they call; they overlap

    @property
    def total(self) -> float:
        """What the service used for a delivery in all."""
        return sum(self.components.values())


def find_py_spy() -> str:
    """The program that takes the samples."""
    found = shutil.which("py-spy") or shutil.which(str(SCRATCH / "py-spy" / "bin" / "py-spy"))
    if found is None:
        place = SCRATCH / "py-spy"
        raise CannotRun(f"--profile needs py-spy: python3 -m venv {place} && {place}/bin/pip install py-spy")
    return found


def watch(py_spy: str, folder: Path, profile: Profile) -> None:
    """Fill *profile* from the run in *folder*, which must go on for some seconds yet."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _attempts() < 500:  # the workload itself, not the warm-up
        if time.monotonic() > deadline:
            raise CannotRun(f"no load reached the target within {PATIENCE_SECONDS} s")
        time.sleep(0.05)
    pid = int((folder / "redrive.db.lock").read_text().split()[-1])
    before, deliveries = _cpu(pid), _attempts()
    samples = _sample(py_spy, pid, folder / "samples.txt")
    after, deliveries = _cpu(pid), _attempts() - deliveries
    used = {thread: (cpu - before.get(thread, 0)) * 1e6 / TICKS / deliveries for thread, cpu in after.items()}
    _divide(used, samples, profile)


def _divide(used: dict[int, float], samples: str, profile: Profile) -> None:
    """The CPU of each thread among its components, by their share of its samples."""
    components: defaultdict[int, Counter[str]] = defaultdict(Counter)
    functions: defaultdict[str, float] = defaultdict(float)
    stacks: list[tuple[int, list[str], int]] = []
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        number = int(re.search(r"\((\d+)\)", thread)[1])  # type: ignore[index]  # py-spy's form
        name = "store: the writer's thread" if "redrive-writer" in thread else _component(frames)
        components[number][name] += int(count)
        stacks.append((number, frames, int(count)))
    parts: defaultdict[str, float] = defaultdict(float)
    for number, micros in used.items():
        if not components[number]:
            parts["other threads (checkpoints, readers)"] += micros
        for name, samples_there in components[number].items():
            parts[name] += micros * samples_there / components[number].total()
    for number, frames, times in stacks:
        for function in {re.sub(r":\d+\)$", ")", frame) for frame in frames}:
            functions[function] += used.get(number, 0) * times / components[number].total()
    profile.components = dict(sorted(parts.items(), key=lambda part: -part[1]))
    profile.functions = sorted(functions.items(), key=lambda one: -one[1])


def _component(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in COMPONENTS:
            if pattern.search(frame):
                return name
    return "event loop"


def _sample(py_spy: str, pid: int, raw: Path) -> str:
    """Stacks of the threads that hold the interpreter."""
    command = [py_spy, "record", "--gil", "--threads", "--nonblocking", "--format=raw", f"--output={raw}"]
    command += [f"--pid={pid}", f"--duration={SECONDS}", f"--rate={SAMPLES_PER_SECOND}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"py-spy failed: {done.stderr.strip()[-500:]}")
    return raw.read_text()


def _cpu(pid: int) -> dict[int, int]:
    """Ticks each thread has used, user and system."""
    ticks = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        words = (task / "stat").read_text().rpartition(")")[2].split()
        ticks[int(task.name)] = int(words[11]) + int(words[12])
    return ticks


def _attempts() -> int:
    """Deliveries of the workload that reached the target; 0 when it does not answer."""
    try:
        connection = HTTPConnection("127.0.0.1", SINK_PORT, timeout=2)
        connection.request("GET", "/_sink/stats")
        paths = json.loads(connection.getresponse().read())["paths"]
        connection.close()
    except (OSError, ValueError, KeyError):
        return 0
    return int(paths.get("/ok/a", {}).get("attempts", 0))
