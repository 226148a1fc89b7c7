"""What is wrong with what a caller wrote, in the same words wherever it was written."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.integration import is_line

MOST_REASON: Final = 256  # characters
MOST_NAME: Final = 128
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


def refuse(found: Sequence[Fault]) -> None:
    """Raise InvalidPayload with all that was *found*, if there is anything."""
    if found:
        raise InvalidPayload(*found)


def of_reason(text: str | None) -> list[Fault]:
    """Of why a person does something."""
    return of_line("/reason", text, MOST_REASON)


def of_name(pointer: str, text: str | None) -> list[Fault]:
    """Of an incident, an owner, an event type."""
    return of_line(pointer, text, MOST_NAME)


def of_line(pointer: str, text: str | None, most: int) -> list[Fault]:
    """Of a text of at most so many characters; None is not there, which is not wrong."""
    if text is None or is_line(text, most):
        return []
    told = f"1–{most} characters on one line: no control characters, no space at either end"
    return [Fault(pointer, told)]


def read_instant(pointer: str, text: str | None, faults: list[Fault]) -> datetime | None:
    """The instant that *text* is; else None, and what is wrong with it among *faults*."""
    found = None if text is None else _instant(text)
    if text is not None and found is None:
        faults.append(Fault(pointer, "must be an RFC 3339 instant such as 2026-03-01T14:02:11Z"))
    return found


def _instant(text: str) -> datetime | None:
    """An RFC 3339 instant with its offset, in UTC to the millisecond."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
