"""What became of each line of a file: counted, and told at the end."""

from dataclasses import asdict, dataclass, field

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.lines import Rejection
from redrive.cli.output import Output, note, print_json
from redrive.cli.tables import Fit, column, print_facts, print_table

SHOWN = 100  # runs of rejected lines a person is shown; jsonl has every line


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

    def so_far(self) -> str:
        """How it goes, in a few words."""
        return f"{self.accepted + self.duplicates} taken, {self.rejected} rejected"

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
