"""What the demo prints: aligned lines, coloured on a terminal and plain elsewhere."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.text import Text

_READING_SECONDS = 1.5
_STYLES = {
    "succeeded": "green",
    "retrying": "yellow",
    "failed": "red",
    "dlq": "red",
    "replayed": "cyan",
    "repaired": "green",
}


class Screen:
    """A calm narrator. Times are seconds since it began."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._began = monotonic()
        self._live: Live | None = None

    async def scene(self, text: str) -> None:
        """What is going to be seen; somebody at a terminal is given time to read what was."""
        if self._console.is_terminal:
            await asyncio.sleep(_READING_SECONDS)
        self._print(Text(f"\n{text}", style="bold"))

    def plain(self, text: str = "") -> None:
        """A line as it is, to be read or copied."""
        self._print(Text(text))

    def fact(self, subject: str, state: str, told: str) -> None:
        """Something that happened just now."""
        seconds = monotonic() - self._began
        self._print(
            Text.assemble(
                (f"  {seconds:5.1f} s  ", "dim"),
                f"{subject:<11} ",
                (f"{state:<10} ", _STYLES.get(state, "")),
                told,
            )
        )

    def row(self, *cells: tuple[str, int]) -> None:
        """A line of a small table: each cell with its width."""
        text = "  ".join(f"{cell:<{width}}" for cell, width in cells)
        self._print(Text(f"           {text}".rstrip()))

    @contextmanager
    def live(self) -> Iterator[None]:
        """While this lasts, a terminal keeps one status line up to date; elsewhere lines follow lines."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield

    def status(self, text: str) -> None:
        """How it stands now."""
        if self._live is not None:
            self._live.update(Text(f"  {text}", style="dim", overflow="ellipsis", no_wrap=True), refresh=True)
        else:
            self._print(Text(f"  {text}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
