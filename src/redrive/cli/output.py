"""`--output`: the service's JSON for programs, tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from redrive.cli.inert import inert, inert_json

if TYPE_CHECKING:
    from redrive.client import Answer

Output = Annotated[
    Literal["table", "json", "jsonl"],
    Parameter(help="table for people, json for the service's JSON, jsonl for one object a line."),
]


def print_answer(answer: "Answer", output: Output) -> None:
    """Print what the service said, as it said it: no number or string of it is written anew."""
    text = answer.raw.decode("utf-8", "backslashreplace")
    if output == "jsonl":
        text = " ".join(text.split("\n"))  # JSON has line breaks between its tokens only
    elif sys.stdout.isatty():
        from msgspec.json import format as indent

        text = indent(text)
    _print(text.strip())


def print_json(value: Any) -> None:
    """Print one value on one line."""
    _print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one object a line, as they come."""
    for row in rows:
        print_json(row)


def note(text: str) -> None:
    """Say something to the person that is not part of the output."""
    print(inert(text), file=sys.stderr)


def _print(text: str) -> None:
    speaks_unicode = sys.stdout.encoding.lower().startswith("utf")
    print(inert_json(text, only_ascii=not speaks_unicode))
