"""Who waits longer than a second sees how far it is, and nothing of it in what they asked for."""

import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest

from redrive.cli import bar
from redrive.cli.bar import Bar
from redrive.cli.output import Output
from redrive.cli.pages import print_all
from redrive.cli.tables import column

DEADLINE_SECONDS: Final = 10
COLUMNS: Final = [column("ID", "id")]


class Screen:
    """A real (pseudo) terminal, and what was written to it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._seen = b""

    def shows(self, text: str) -> None:
        """Wait until *text* was written."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text.encode() not in self._seen:
            ready, _, _ = select.select([self._handle], [], [], 0.1)
            assert time.monotonic() < deadline, (text, self._seen)
            self._seen += os.read(self._handle, 65536) if ready else b""

    def showed(self, text: str) -> bool:
        return text.encode() in self._seen

    def is_untouched(self) -> bool:
        ready, _, _ = select.select([self._handle], [], [], 0)
        return not self._seen and not ready


@contextmanager
def standing_for(monkeypatch: pytest.MonkeyPatch, *streams: str) -> Iterator[Screen]:
    """Standard streams that go to a terminal."""
    here, there = os.openpty()
    with os.fdopen(there, "w") as terminal, monkeypatch.context() as patch:
        for stream in streams:
            patch.setattr(sys, stream, terminal)
        yield Screen(here)
    os.close(here)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "PATIENCE_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm")


def slowly(screen: Screen, *ids: int) -> Iterator[Mapping[str, Any]]:
    """Rows of which each comes once the bar has counted those before."""
    for count, row in enumerate(ids):
        if count:
            screen.shows(f"{count} rows")
        yield {"id": row}


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        ("table", "ID\n7\n8\n9\n"),
        ("json", '{"queue":[{"id":7},{"id":8},{"id":9}],"next_cursor":null}\n'),
        ("jsonl", '{"id":7}\n{"id":8}\n{"id":9}\n'),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_long_list_is_counted_beside_what_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: Output, printed: str
) -> None:
    with standing_for(monkeypatch, "stderr") as screen:
        print_all(slowly(screen, 7, 8, 9), "queue", COLUMNS, output)

    assert capsys.readouterr().out == printed


@pytest.mark.usefixtures("impatient")
def test_it_shows_also_while_nothing_has_come_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_for(monkeypatch, "stderr") as screen, Bar("table"):
        screen.shows("━")


@pytest.mark.usefixtures("impatient")
def test_how_long_it_takes_is_said_by_the_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    with standing_for(monkeypatch, "stderr") as screen, Bar("table", total=10) as shown:
        shown.show("eta 60 s", 1)
        screen.shows("eta 60 s")
        screen.shows("10%")

    assert not screen.showed("-:--:--")


@pytest.mark.usefixtures("impatient")
def test_lines_on_the_same_terminal_need_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_for(monkeypatch, "stderr", "stdout") as screen:
        with Bar("jsonl") as shown:
            shown.show("1 rows")

        assert screen.is_untouched()


def test_what_is_done_before_patience_ends_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "PATIENCE_SECONDS", DEADLINE_SECONDS)

    with standing_for(monkeypatch, "stderr") as screen:
        with Bar("table") as shown:
            shown.show("1 rows")

        assert screen.is_untouched()


@pytest.mark.usefixtures("impatient")
def test_programs_that_read_standard_error_see_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    print_all(iter([{"id": 7}]), "queue", COLUMNS, "json")

    assert capsys.readouterr().err == ""
