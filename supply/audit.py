"""`./dev audit`: asks pip-audit about every package that running redrive needs.

pip-audit says "no known vulnerabilities" also of packages that its service does not know, and fails alike
when it finds one and when it reaches no service. So what counts here is its report, not its status.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from supply.lock import Pinned, runtime


class Vulnerability(msgspec.Struct):
    """What is known of a package."""

    id: str
    fix_versions: list[str]


class Package(msgspec.Struct):
    """What pip-audit says of a package."""

    name: str
    version: str = ""
    vulns: list[Vulnerability] = []
    skip_reason: str | None = None


class Report(msgspec.Struct):
    """All that it says."""

    dependencies: list[Package]


def audit(arguments: Sequence[str]) -> int:
    """Print what is found; 1 for a vulnerability, 0 for none, also where nobody could be asked."""
    pinned = list(runtime().values())
    report = _report(pinned, arguments)
    if report is None:
        print("not audited: pip-audit could not ask its service; why stands above")
        return 0
    return tell(report, [each.name for each in pinned])


def tell(report: Report, asked: Sequence[str]) -> int:
    """As `audit`, of what was reported of the packages that were *asked* about."""
    vulnerable = [package for package in report.dependencies if package.vulns]
    for package in vulnerable:
        for known in package.vulns:
            fixed = " ".join(known.fix_versions) or "no version yet"
            print(f"VULNERABLE: {package.name} {package.version}: {known.id}, fixed in {fixed}")
    answered = {package.name for package in report.dependencies if package.skip_reason is None}
    unknown = [name for name in asked if name not in answered]
    if unknown:
        print(f"not audited: {len(unknown)} of {len(asked)} packages, which the service does not know:")
        print(f"  {' '.join(unknown)}")
    print(f"audited: {len(answered)} packages, {len(vulnerable)} of them vulnerable")
    return 1 if vulnerable else 0


def _report(pinned: Sequence[Pinned], arguments: Sequence[str]) -> Report | None:
    """None when there is none: then what pip-audit said last is passed on."""
    with TemporaryDirectory() as directory:
        wanted, written = Path(directory, "requirements.txt"), Path(directory, "report.json")
        wanted.write_text("".join(_line(each) for each in pinned))
        command = [
            sys.executable,
            *"-m pip_audit --disable-pip --require-hashes --progress-spinner off".split(),
        ]
        command += ["--requirement", str(wanted), "--format", "json", "--output", str(written), *arguments]
        ended = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        if written.exists():
            return msgspec.json.decode(written.read_bytes(), type=Report)
    print(*ended.stderr.decode().splitlines()[-1:], file=sys.stderr)
    return None


def _line(pinned: Pinned) -> str:
    hashes = " ".join(f"--hash=sha256:{each}" for each in pinned.hashes)
    return f"{pinned.name}=={pinned.version} {hashes}\n"


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1:]))
