"""Tables for people: rich on a terminal, plain aligned text everywhere else."""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redrive.cli.inert import inert

Row = Mapping[str, Any]
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
}


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and what stands under it."""

    title: str
    cell: Callable[[Row], object]
    is_number: bool = False


def column(title: str, name: str, *, is_number: bool = False) -> Column:
    """The column of a plain field."""
    return Column(title, lambda row: row.get(name), is_number)


def print_table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print *rows* under headings; every cell is inert, none is cut."""
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

    table = Table(box=None, pad_edge=False, header_style="bold")
    for each in columns:
        table.add_column(each.title, justify="right" if each.is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=sys.stdout).print(table)


def _print_plain(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    lines = [[each.title for each in columns], *cells]
    widths = [max(_width(line[at]) for line in lines) for at in range(len(columns))]
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
