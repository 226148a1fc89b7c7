"""What `./dev sbom` and `./dev audit` say of the packages that running redrive needs."""

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from itertools import chain
from threading import Thread
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply.audit import Report, tell
from supply.lock import LOCK, ROOT, runtime
from supply.sbom import bill


@pytest.fixture(scope="module")
def components() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(bill())["components"]}


# the bill


def test_a_bill_is_valid_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill()) is None


def test_another_process_writes_the_same_bytes() -> None:
    """Hashes of strings, and with them the order of sets, differ between processes."""
    ended = subprocess.run(
        [sys.executable, "-m", "supply.sbom"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )

    assert ended.stdout.decode() == bill()


def test_whatever_runs_redrive_is_in_it_and_nothing_else(components: dict[str, Any]) -> None:
    """It may also hold what one of them needs elsewhere: on another platform, or with an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = set(chain(project["dependencies"], *project["optional-dependencies"].values()))
    may_be_needed = set[str]()
    for name in components:
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            may_be_needed.add(canonicalize_name(requirement.name))
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed.add(text)

    names = {canonicalize_name(Requirement(text).name) for text in needed}
    assert names <= components.keys() <= names | may_be_needed
    assert components.keys().isdisjoint({"pytest", "mypy", "pip-audit", "aiohttp"})


def test_each_is_there_as_it_is_pinned_and_installed(components: dict[str, Any]) -> None:
    lock = LOCK.read_text()
    for name, component in components.items():
        [pin] = re.findall(
            rf"^{re.escape(name)}==({re.escape(component['version'])})[ ;]", lock, re.MULTILINE
        )
        [files] = component["externalReferences"]
        block = lock[lock.index(f"{name}=={pin}") :].split("\n", 1)[1]
        hashes = re.match(r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+", block)
        assert hashes is not None
        assert {each["content"] for each in files["hashes"]} == set(
            re.findall("sha256:([0-9a-f]{64})", hashes[0])
        )
        assert component["purl"] == f"pkg:pypi/{name}@{pin}"
        assert distribution(name).version == pin


def test_each_names_its_license(components: dict[str, Any]) -> None:
    assert [name for name, component in components.items() if not component.get("licenses")] == []


# the audit


@contextmanager
def advisories(known: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """A service that answers as osv.dev does, with what is *known* of a package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": known.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def audited(service: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "supply.audit", "--vulnerability-service", "osv", "--osv-url", service]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def test_a_vulnerability_that_is_known_fails_the_audit() -> None:
    version = runtime()["rich"].version
    affected = {"package": {"ecosystem": "PyPI", "name": "rich"}, "versions": [version]}
    found = {"id": "PYSEC-2026-1", "summary": "It is too rich.", "affected": [affected]}

    with advisories({"rich": [found]}) as service:
        status, told = audited(service)

    assert status == 1
    assert f"VULNERABLE: rich {version}: PYSEC-2026-1" in told
    assert "not audited" not in told


def test_without_one_it_passes_and_says_how_many_were_asked_about() -> None:
    with advisories({}) as service:
        status, told = audited(service)

    assert (status, told) == (0, f"audited: {len(runtime())} packages, 0 of them vulnerable\n")


def test_what_the_service_does_not_know_is_not_taken_for_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """As pip-audit reports it while it says "No known vulnerabilities found"."""
    report = b"""{"dependencies": [
        {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich"},
        {"name": "pyjwt", "version": "2.15.1", "vulns": []}
    ], "fixes": []}"""

    status = tell(msgspec.json.decode(report, type=Report), ["pyjwt", "rich", "uvloop"])

    told = capsys.readouterr().out.splitlines()
    assert status == 0
    assert told == [
        "not audited: 2 of 3 packages, which the service does not know:",
        "  rich uvloop",
        "audited: 1 packages, 0 of them vulnerable",
    ]


def test_where_no_service_answers_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    status, told = audited(f"http://127.0.0.1:{port}/")

    assert status == 0
    assert told.startswith("not audited: ")
