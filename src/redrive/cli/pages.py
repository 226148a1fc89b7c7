"""Lists that come in pages: one of them, or all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redrive.cli.bar import Bar
from redrive.cli.output import Output, note, print_answer, print_json, print_lines
from redrive.cli.tables import Column, print_table

if TYPE_CHECKING:
    from redrive.client import Answer


Why = Callable[[], str | None]


def print_page(
    answer: "Answer", rows: str, columns: Sequence[Column], output: Output, *, why: Why | None = None
) -> None:
    """Print one page whose rows stand under the name *rows*, and how to go on; when there is none, *why*."""
    match output:
        case "json":
            print_answer(answer, output)
            return
        case "jsonl":
            print_lines(answer[rows])
        case _:
            _print_rows(answer[rows], columns, why)
    if answer["next_cursor"] is not None:
        note(f"There is more: --cursor {answer['next_cursor']}, or --all.")


def print_all(
    each: Iterator[Mapping[str, Any]],
    rows: str,
    columns: Sequence[Column],
    output: Output,
    *,
    why: Why | None = None,
) -> None:
    """Print every row of every page; jsonl prints them as they come. When there is none, *why*."""
    with Bar(output) as bar:
        counted = bar.counting(each)
        if output == "jsonl":
            print_lines(counted)
            return
        found = list(counted)
    if output == "json":
        print_json({rows: found, "next_cursor": None})
    else:
        _print_rows(found, columns, why)


def _print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], why: Why | None) -> None:
    if rows:
        print_table(columns, rows)
        return
    note("Nothing matches.")
    if why is not None and (told := why()) is not None:
        note(told)
