"""`redrive` as its users run it: a service in a process of its own, and commands beside it."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.waiting import PATIENCE_SECONDS, until

REDRIVE = (sys.executable, "-m", "redrive")
EVERYTHING = ("view", "operate", "deliver")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Service:
    """`redrive serve` on one data directory, to be started, ended and started again."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.database = home / "data" / "redrive.db"
        self.environment = {name: value for name, value in os.environ.items() if "REDRIVE" not in name} | {
            "REDRIVE_DATA_DIR": str(home / "data"),
            "REDRIVE_PORT": "0",
            "REDRIVE_ALLOW_TARGETS": "127.0.0.0/8",
            "REDRIVE_ALLOW_HTTP": "true",
            "REDRIVE_BASE_DELAY_SECONDS": "0.05",
            "REDRIVE_MAX_DELAY_SECONDS": "0.2",
            **{f"REDRIVE_{name.upper()}": value for name, value in settings.items()},
        }
        self.log: list[dict[str, Any]] = []  # of the present run
        self.address: tuple[str, int] | None = None  # None: it is not up
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        assert self.address is not None
        return f"http://{self.address[0]}:{self.address[1]}"

    def spawn(self) -> None:
        """Start the process; what it logs is read as it comes."""
        self.log = []
        # A pipe, not a file: a limit on the size of files must not silence the log.
        self._process = subprocess.Popen(
            [*REDRIVE, "serve"], cwd=self.home, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._process, self.log))
        self._reader.start()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.spawn()
        self.is_started()

    def insist(self) -> None:
        """Start the process as whoever looks after it does: again, when it could not."""
        self.spawn()
        while True:
            until(lambda: self._line(("started",)) or not self._reader.is_alive(), self.log)
            if self._line(("started",)):
                return self.is_started()
            self.ended()
            self.spawn()

    def is_started(self) -> None:
        """Wait until the process says that it is ready, and learn where."""
        host, _, port = self.says("started")["address"].rpartition(":")
        self.address = (host, int(port))

    def says(self, *events: str) -> dict[str, Any]:
        """Wait for a log line of this run about one of *events*."""
        until(lambda: self._line(events) or not self._reader.is_alive(), (events, "said in", self.log))
        line = self._line(events)
        assert line is not None, f"it ended without {' or '.join(events)}: {self.log}"
        return line

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait until the process has ended by itself; its exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_SECONDS)
        self.address = None
        self._reader.join(PATIENCE_SECONDS)
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    def kill(self) -> None:
        """End it as a power cut would: `kill -9`."""
        self.address = None
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def stop(self) -> int:
        """Ask it to stop, and wait; its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process is not None:
            self._process.kill()
            self.ended()

    def run(self, *words: str, token: str | None = None, stdin: bytes = b"") -> Ended:
        """Run a command beside the service, as the caller *token*."""
        environment = dict(self.environment)
        if self.address is not None:
            environment["REDRIVE_URL"] = self.url
        if token is not None:
            environment["REDRIVE_TOKEN"] = token
        done = subprocess.run(
            [*REDRIVE, *words],
            cwd=self.home,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def a_token(self, *permissions: str, subject: str = "e2e") -> str:
        """A token that may do *permissions* (everything, when none is named)."""
        words = [word for name in permissions or EVERYTHING for word in ("--permission", name)]
        ended = self.run("token", "create", "--subject", subject, *words)
        assert ended.code == 0, ended.err
        return ended.out.strip()

    def _line(self, events: tuple[str, ...]) -> dict[str, Any] | None:
        return next((line for line in list(self.log) if line.get("event") in events), None)

    @staticmethod
    def _read(process: subprocess.Popen[str], log: list[dict[str, Any]]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                log.append(json.loads(line))
            except ValueError:
                log.append({"event": None, "text": line})
