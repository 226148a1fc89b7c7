"""What became of each line of a file: counted, shown while it lasts, and told at the end."""

import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.lines import Rejection
from redrive.cli.output import Output, note, print_json
from redrive.cli.tables import Fit, column, print_facts, print_table

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

SHOWN = 100  # runs of rejected lines a person is shown; jsonl has every line
_PATIENCE_SECONDS = 1.0


@dataclass(slots=True)
class _Run:
    """Lines that follow each other and were rejected for the same reason."""

    first: int
    last: int
    error_code: str | None
    detail: str

    def takes(self, rejection: Rejection) -> bool:
        why = (rejection.error_code, rejection.detail)
        return rejection.line == self.last + 1 and why == (self.error_code, self.detail)


@dataclass(slots=True)
class Tally:
    """Counts lines; with jsonl prints each as it is decided, else says at the end how it went."""

    output: Output
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list)  # for json
    runs: list[_Run] = field(default_factory=list)  # for people

    def accept(self, line: int, recovery_id: str, status: str, *, is_duplicate: bool) -> None:
        """The service has it, or had it already."""
        if is_duplicate:
            self.duplicates += 1
        else:
            self.accepted += 1
        if self.output == "jsonl":
            print_json(
                {"line": line, "recovery_id": recovery_id, "status": status, "duplicate": is_duplicate}
            )

    def reject(self, rejection: Rejection) -> None:
        """It was not taken."""
        self.rejected += 1
        if self.output == "jsonl":
            print_json(asdict(rejection))
        elif self.output == "json":
            self.rejections.append(rejection)
        elif self.runs and self.runs[-1].takes(rejection):
            self.runs[-1].last = rejection.line
        elif len(self.runs) < SHOWN:
            self.runs.append(_Run(rejection.line, rejection.line, rejection.error_code, rejection.detail))

    def cut_short(self, stop: Stop, key_prefix: str | None) -> Stop:
        """The same end as *stop*, after saying what was done before it."""
        taken = self.accepted + self.duplicates
        if not taken and not self.rejected:
            return stop
        self.tell()
        again = "run the same command again: lines that were taken count as duplicates"
        if key_prefix is None:
            again = (
                f"at least {taken} lines were taken: send only the others"
                " (with --key-prefix all could be run again)"
            )
        return Stop(stop.code, stop.wrong, again)

    def interrupted(self, key_prefix: str | None) -> Stop:
        """The end after Ctrl-C; when nothing was decided yet, the interrupt itself goes on."""
        if not self.accepted + self.duplicates + self.rejected:
            raise KeyboardInterrupt
        return self.cut_short(Stop(ExitCode.INTERRUPTED, "interrupted", ""), key_prefix)

    def tell(self) -> ExitCode:
        """Say how it went, and with which code the command ends."""
        counts = {"accepted": self.accepted, "duplicates": self.duplicates, "rejected": self.rejected}
        if self.output == "json":
            print_json({**counts, "rejections": [asdict(each) for each in self.rejections]})
        elif self.output == "table":
            print_facts(counts)
            self._show_rejections()
        return ExitCode.FAILURES if self.rejected else ExitCode.OK

    def _show_rejections(self) -> None:
        if not self.runs:
            return
        self.runs.sort(key=lambda run: run.first)
        print()
        columns = [
            column("LINES", "lines", is_number=True),
            column("WHY", "detail", fit=Fit.WRAP),
            column("CODE", "error_code"),
        ]
        print_table(columns, [asdict(run) | {"lines": _lines(run)} for run in self.runs])
        if untold := self.rejected - sum(run.last - run.first + 1 for run in self.runs):
            note(f"{untold} more; --output jsonl lists every one.")


def _lines(run: _Run) -> str:
    return str(run.first) if run.first == run.last else f"{run.first}-{run.last}"


class Bar:
    """A progress bar on a terminal's stderr, once it has taken longer than a second."""

    def __init__(self, total_bytes: int | None) -> None:
        self._total_bytes = total_bytes
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, tally: Tally, done_bytes: int) -> None:
        """Say how far it is."""
        if self._progress is None:
            if time.monotonic() - self._started < _PATIENCE_SECONDS or not sys.stderr.isatty():
                return
            self._start()
        if self._progress is not None and self._task is not None:
            told = f"{tally.accepted + tally.duplicates} taken, {tally.rejected} rejected"
            self._progress.update(self._task, completed=done_bytes, description=told)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(file=sys.stderr), transient=True)
        self._task = self._progress.add_task("", total=self._total_bytes)
        self._progress.start()
