"""A real `redrive serve` beside the test, and a token that may do everything."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redrive.client import Client, ServiceUnreachable

PATIENCE = 30.0  # a deadline for facts that come in a second or two; reached only by a broken test


@dataclass(frozen=True)
class Service:
    url: str
    token: str

    def client(self) -> Client:
        return Client(self.url, self.token)


@contextmanager
def serving(directory: Path, **variables: str) -> Iterator[Service]:
    """Start it on a free port, wait until it is ready, and stop it afterwards."""
    port = free_port()
    environ = bare_environ() | {"REDRIVE_DATA_DIR": str(directory)} | variables
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "redrive", "serve", "--port", str(port)],
            cwd=directory,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield Service(url, _token(directory, environ))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    with Client(url) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.ready()
            except ServiceUnreachable:
                time.sleep(0.05)
            else:
                return
    raise AssertionError(f"the service is not ready (exit code {process.poll()})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bare_environ() -> dict[str, str]:
    """The environment without settings of whoever runs the tests, and `redrive` on the path."""
    found: Mapping[str, str] = os.environ
    scripts = Path(sys.executable).parent
    kept = {name: value for name, value in found.items() if not name.startswith("REDRIVE_")}
    return kept | {"PATH": f"{scripts}{os.pathsep}{found.get('PATH', '')}"}


def _token(directory: Path, environ: Mapping[str, str]) -> str:
    words = "token create --subject tester --permission view --permission operate --permission deliver"
    made = subprocess.run(
        [sys.executable, "-m", "redrive", *words.split()],
        cwd=directory,
        env=environ,
        capture_output=True,
        check=True,
    )
    return made.stdout.decode().strip()
