"""A person at a terminal that is none: runs commands in this process, and reads what they print."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from redrive.cli import run


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


class Terminal:
    """Runs `redrive` with the words it is given."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *words: str) -> Ended:
        self._capsys.readouterr()
        code = run(words)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


def on_a_terminal(*words: str, typed: str = "") -> str:
    """What `redrive` prints when its output is a real (pseudo) terminal, at which *typed* is typed."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "redrive", *words], stdout=there, stderr=there, stdin=there
    )
    os.close(there)
    os.write(here, typed.encode())
    printed = b""
    while True:
        try:
            chunk = os.read(here, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        printed += chunk
    os.close(here)
    process.wait()
    return printed.decode()
