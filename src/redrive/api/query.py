"""Query strings, strictly: known names, each once, none empty, ASCII numbers."""

import re
from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches
from urllib.parse import unquote_to_bytes

from redrive.api.faults import of_line, read_instant, refuse
from redrive.domain.errors import Fault

DEFAULT_LIMIT = 50
MOST = 200
_LIMIT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


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
        wrong = of_line(name, value, most)
        self.faults += wrong
        return None if wrong else value

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
        return read_instant(name, self._values.get(name), self.faults)

    def done(self) -> None:
        """Raise everything that was wrong."""
        refuse(self.faults)

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


def _text(raw: bytes) -> str | None:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        return None
