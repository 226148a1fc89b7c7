"""How values are written on the command line: durations, instants, headers, text from files."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from redrive.cli.errors import ExitCode, Stop

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str, option: str) -> timedelta:
    """`90d`, `12h`, `30m`; ends the command when *text* is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Stop(
            ExitCode.USAGE, f"{option}: {text!r} is not a duration", "write it like 90d, 12h, 30m or 45s"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str | None, option: str) -> str | None:
    """An instant for a filter: RFC 3339 as it is, or a duration counted back from now (`2h`)."""
    if text is None or not _DURATION.fullmatch(text):
        return text
    from redrive.clock import SystemClock
    from redrive.domain.delivery import rfc3339

    return rfc3339(SystemClock().now() - duration(text, option))


def ahead(text: str, option: str) -> str:
    """An instant to come: RFC 3339 as it is, or a duration counted from now (`2h`)."""
    if not _DURATION.fullmatch(text):
        return text
    from redrive.clock import SystemClock
    from redrive.domain.delivery import rfc3339

    return rfc3339(SystemClock().now() + duration(text, option))


def pinned(option: str, text: str | None, instant: str | None) -> list[str]:
    """What gives *instant* again, when *text* would be another one the next time."""
    return [] if instant is None or instant == text else [option, instant]


def share(text: str, option: str) -> float:
    """`50%` or `0.5`; ends the command when *text* is no share of a whole."""
    number, percent, rest = text.partition("%")
    try:
        found = float(number) / (100 if percent else 1)
    except ValueError:
        found = -1.0
    if rest or not 0 <= found <= 1:
        raise Stop(ExitCode.USAGE, f"{option}: {text!r} is not a share", "write it like 50% or 0.5")
    return found


def counted(count: int, noun: str) -> str:
    """`1 item`, `1,204 items`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def headers(lines: Sequence[str] | None) -> dict[str, str] | None:
    """`Name: value` lines as a mapping; ends the command when one is not such a line."""
    if lines is None:
        return None
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.strip() in found:
            wrong = "stands twice" if colon else "has no colon"
            raise Stop(
                ExitCode.USAGE, f"--header: {line!r} {wrong}", "write each one once, like 'X-Team: billing'"
            )
        found[name.strip()] = value.strip()
    return found


def content(text: str) -> bytes:
    """The bytes of an argument: its own, or with `@path` a file's, with `@-` standard input's."""
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    return read_file(text[1:])


def check_json(body: bytes) -> None:
    """End the command when a payload that is to go as it is would break the request around it."""
    try:  # it is going to stand inside the request's own JSON, so it must end where it seems to
        json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        advice = "correct it, or give --content-type when it is not meant to be JSON"
        raise Stop(ExitCode.USAGE, f"--payload is not JSON: {error}", advice) from error


def read_file(name: str) -> bytes:
    """All of a file; `-` is standard input."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError) -> Stop:
    """A file that was named cannot be read."""
    return Stop(ExitCode.USAGE, f"cannot read {name}: {error.strerror}", "check the path")
