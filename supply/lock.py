"""What the lock pins for those who run redrive: its dependencies with every extra, and what these need."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements-dev.lock"
# One for everybody, so that the answer is the same everywhere. A later Python needs the same or less.
_ENVIRONMENT: Final = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}


@dataclass(frozen=True)
class Pinned:
    """A package as the lock pins it; `needs` are the names of those it needs itself."""

    name: str
    version: str
    hashes: tuple[str, ...]
    needs: tuple[str, ...]


def declared() -> list[Requirement]:
    """What pyproject.toml declares for running redrive, with every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [
        Requirement(text)
        for text in (*project["dependencies"], *(each for extra in extras for each in extra))
    ]


def runtime() -> dict[str, Pinned]:
    """Every package that running redrive needs, by name, sorted."""
    pins, found = _pins(LOCK.read_text()), dict[str, Pinned]()
    waiting = declared()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        needed = list(_needed_by(name, wanted.extras))
        before = found[name].needs if name in found else ()
        needs = tuple(sorted({*before, *(canonicalize_name(each.name) for each in needed)}))
        if name in found and needs == before:
            continue
        version, hashes = pins[name]
        found[name] = Pinned(name, version, hashes, needs)
        waiting += needed
    return dict(sorted(found.items()))


def _needed_by(name: str, extras: set[str]) -> Iterator[Requirement]:
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        asked = [_ENVIRONMENT | {"extra": extra} for extra in ("", *extras)]
        if marker is None or any(marker.evaluate(environment) for environment in asked):
            yield requirement


def _pins(lock: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Versions and hashes by name."""
    found = dict[str, tuple[str, tuple[str, ...]]]()
    for line in lock.replace("\\\n", " ").splitlines():
        requirement = Requirement(line.partition(" --hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate(dict(_ENVIRONMENT)):
            [pin] = requirement.specifier
            found[canonicalize_name(requirement.name)] = (
                pin.version,
                tuple(re.findall("--hash=sha256:([0-9a-f]{64})", line)),
            )
    return found
