"""A progress bar for people who wait, on standard error."""

import sys
from collections.abc import Iterable, Iterator
from threading import Lock, Timer
from typing import TYPE_CHECKING, Final, Self, TypeVar

from redrive.cli.output import Output

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

PATIENCE_SECONDS: Final = 1.0
BAR_WIDTH: Final = 12
Row = TypeVar("Row")


class Bar:
    """Appears on a terminal once its block has taken longer than a second, and goes with it.

    There is none where *output* prints lines to the same terminal meanwhile: these show how far it is.
    """

    def __init__(self, output: Output, total: int | None = None) -> None:
        self._is_wanted = sys.stderr.isatty() and not (output == "jsonl" and sys.stdout.isatty())
        self._total = total
        self._told, self._done = "", 0
        self._lock = Lock()
        self._timer = Timer(PATIENCE_SECONDS, self._start)
        self._timer.daemon = True
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._is_wanted:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        if self._is_wanted:
            self._timer.cancel()
            self._timer.join()
        if self._progress is not None:
            self._progress.stop()

    def show(self, told: str, done: int = 0) -> None:
        """Say how far it is: in words, and as a part of the total when there is one."""
        with self._lock:
            self._told, self._done = told, done
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, description=told, completed=done)

    def counting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, counted as they pass."""
        for count, row in enumerate(rows, 1):
            self.show(f"{count} rows")
            yield row

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column

        # The words are wanted most: on a narrow terminal the bar makes room, and they say how long it takes.
        words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        columns = (words, BarColumn(bar_width=BAR_WIDTH), TaskProgressColumn())
        # Standard output stays what it is: it may be a file, and is nothing to print on standard error.
        progress = Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False)
        with self._lock:
            self._task = progress.add_task(self._told, total=self._total, completed=self._done)
            self._progress = progress
        progress.start()
