"""Query strings, strictly: known names, each once, none empty, ASCII numbers."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from urllib.parse import unquote_to_bytes

from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.integration import is_line

DEFAULT_LIMIT = 50
MOST = 200
_LIMIT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


class Query:
    """The parameters of one call. Getters collect what is wrong; `done` raises it all at once."""

    def __init__(self, raw: bytes, known: Iterable[str]) -> None:
        self.faults: list[Fault] = []
        self._values: dict[str, str] = {}
        names = frozenset(known)
        for part in raw.split(b"&") if raw else ():
            name, _, value = part.partition(b"=")
            self._take(_text(name), _text(value), names)

    def text(self, name: str, most: int = 256) -> str | None:
        """A text on one line."""
        value = self._values.get(name)
        if value is not None and not is_line(value, most):
            self.faults.append(Fault(name, f"1–{most} printable characters"))
            return None
        return value

    def choice(self, name: str, among: Iterable[str]) -> str | None:
        """One of the words *among*."""
        value = self._values.get(name)
        if value is not None and value not in (words := list(among)):
            self.faults.append(Fault(name, f"must be one of {', '.join(words)}"))
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.choice(name, ("true", "false"))
        return None if value is None else value == "true"

    def limit(self) -> int:
        """How many rows: 1 to 200, 50 when not said."""
        value = self._values.get("limit")
        if value is None:
            return DEFAULT_LIMIT
        if not _LIMIT.fullmatch(value) or int(value) > MOST:
            self.faults.append(Fault("limit", f"must be a whole number from 1 to {MOST}"))
            return DEFAULT_LIMIT
        return int(value)

    def instant(self, name: str) -> datetime | None:
        """An RFC 3339 instant."""
        value = self._values.get(name)
        instant = None if value is None else parse_instant(value)
        if value is not None and instant is None:
            self.faults.append(Fault(name, "must be an RFC 3339 instant such as 2026-03-01T14:02:11Z"))
        return instant

    def done(self) -> None:
        """Raise everything that was wrong."""
        if self.faults:
            raise InvalidPayload(*self.faults)

    def _take(self, name: str | None, value: str | None, known: frozenset[str]) -> None:
        if name is None or value is None:
            self.faults.append(Fault("", "the query is not percent-encoded UTF-8"))
        elif name not in known:
            near = get_close_matches(name, known, 1)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known)) or 'none'}"
            )
            self.faults.append(Fault(name[:64], f"unknown parameter{hint}"))
        elif name in self._values:
            self.faults.append(Fault(name, "stands twice"))
        elif not value:
            self.faults.append(Fault(name, "is empty; leave it out to not filter"))
        else:
            self._values[name] = value


def parse_instant(text: str) -> datetime | None:
    """An RFC 3339 instant with its offset, in UTC to the millisecond, or None."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        instant = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _text(raw: bytes) -> str | None:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        return None
