"""Every command's --help, as it is printed."""

import io
from collections.abc import Iterator

from cyclopts import App
from rich.console import Console

from redrive.cli import app
from redrive.cli.errors import ExitCode
from redrive.docs.markdown import block, page, table

WIDTH = 100


def command_line() -> str:
    """The page of the command line."""
    codes = [(str(code.value), code.name.lower().replace("_", " ")) for code in ExitCode]
    parts = [part for words in _commands(app, ()) for part in (_title(words), block(_help(words), "text"))]
    return page("Command line", *parts, "## Exit codes", table(("code", "meaning"), codes))


def _commands(parent: App, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name in parent:
        if not name.startswith("-"):
            yield from _commands(parent[name], (*words, name))


def _title(words: tuple[str, ...]) -> str:
    return f"## {' '.join(('redrive', *words))}"


def _help(words: tuple[str, ...]) -> str:
    printed = io.StringIO()
    app.help_print(list(words), console=Console(file=printed, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
