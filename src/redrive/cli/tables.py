"""Tables for people: rich on a terminal, plain aligned text everywhere else."""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from redrive.cli.inert import inert
from redrive.cli.output import note

Row = Mapping[str, Any]
_GAP: Final = 2
_LEAST: Final = 8  # what a column that is cut or wrapped keeps
_COMFORT: Final = 20  # and what it should keep when there is a column to leave out
_STYLES = {
    "succeeded": "green",
    "active": "green",
    "ok": "green",
    "success": "green",
    "failed": "red",
    "failure": "red",
    "dlq": "red",
    "denied": "red",
    "retrying": "yellow",
    "replayed": "cyan",
    "paused": "yellow",
    "completed": "green",
    "completed_with_failures": "red",
    "halted": "red",
    "running": "cyan",
    "canary": "cyan",
}


class Fit(Enum):
    """What becomes of a cell that is too wide for a terminal."""

    WHOLE = "stays in one piece: it is copied"
    CUT = "ends in an ellipsis"
    WRAP = "goes on in the next line"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and what stands under it.

    A terminal that is too narrow shows it without the columns of least `worth`; 0 is shown always.
    """

    title: str
    cell: Callable[[Row], object]
    is_number: bool = False
    fit: Fit = Fit.WHOLE
    worth: int = 0


def column(title: str, name: str, *, is_number: bool = False, fit: Fit = Fit.WHOLE, worth: int = 0) -> Column:
    """The column of a plain field."""
    return Column(title, lambda row: row.get(name), is_number, fit, worth)


def print_table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print *rows* under headings; every cell is inert, and none is cut but on a narrow terminal."""
    cells = [[word(each.cell(row)) for each in columns] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
    else:
        _print_plain(columns, cells)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print a name and a value a line, aligned; what is None is left out."""
    shown = {name: word(value) for name, value in facts.items() if value is not None}
    widest = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{widest}}  {value}")


def word(value: object) -> str:
    """One value as people read it, inert."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(word, value)) or "-"
        case dict():
            return ", ".join(f"{inert(name)}: {word(each)}" for name, each in value.items()) or "-"
        case float():
            return f"{value:g}"
        case _:
            return inert(value)


def instant(text: object) -> str | None:
    """An RFC 3339 instant as people read it: to the second."""
    if not isinstance(text, str):
        return None
    return text[:10] + " " + text[11:19] + "Z" if len(text) == len("2026-01-01T00:00:00.000Z") else text


def _print_rich(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    columns = _empty_last(columns, cells)
    widths = fitted(columns, _natural(columns, cells), console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, width in widths.items():
        each = columns[at]
        table.add_column(
            each.title,
            justify="right" if each.is_number else "left",
            overflow="ellipsis" if each.fit is Fit.CUT else "fold",
            no_wrap=each.fit is not Fit.WRAP,
            width=width,
        )
    for row in cells:
        table.add_row(*(Text(row[at], style=_STYLES.get(row[at], "")) for at in widths))
    # An id that is wider than the terminal is wrapped by the terminal, which copies it in one piece.
    Console(file=sys.stdout, width=max(console.width, _total(widths))).print(table)
    if left_out := [each.title for at, each in enumerate(columns) if at not in widths]:
        note(f"Too narrow for {', '.join(left_out)}: a wider terminal or --output json shows them.")


def _empty_last(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[Column]:
    """A column in which nothing stands is worth less than any other that may go."""
    empty = {at for at, _ in enumerate(columns) if all(row[at] == "-" for row in cells)}
    return [
        replace(each, worth=-1) if at in empty and each.worth else each for at, each in enumerate(columns)
    ]


def fitted(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """Which columns to show in *width*, by their place, and how wide each is."""
    widths = dict(enumerate(natural))
    for at in sorted((at for at in widths if columns[at].worth), key=lambda at: columns[at].worth):
        wanted = {
            at: wide if columns[at].fit is Fit.WHOLE else min(wide, _COMFORT) for at, wide in widths.items()
        }
        if _total(wanted) > width:
            del widths[at]
    for fit in (Fit.CUT, Fit.WRAP):
        flexible = [at for at in widths if columns[at].fit is fit]
        for at in sorted(flexible, key=lambda at: -widths[at]):
            room = widths[at] - (_total(widths) - width)
            widths[at] = min(widths[at], max(room, _LEAST, len(columns[at].title)))
    return widths


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _natural(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    lines = [[each.title for each in columns], *cells]
    return [max(_width(line[at]) for line in lines) for at in range(len(columns))]


def _print_plain(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    lines = [[each.title for each in columns], *cells]
    widths = _natural(columns, cells)
    for line in lines:
        padded = [
            " " * (width - _width(cell)) + cell if each.is_number else cell + " " * (width - _width(cell))
            for each, width, cell in zip(columns, widths, line, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(c) or c == "\u200d"
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )
