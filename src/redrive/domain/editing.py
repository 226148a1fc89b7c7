"""What a correction changed: operations in the manner of RFC 6902, each of which also tells what `was` there.

Paths begin with /payload or /headers. What is not for the eyes of operators is `[REDACTED]`; of headers only
the names are told, as everywhere. A long value is told by its size, and of very many operations the first.
"""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec

from redrive.domain.delivery import Delivery
from redrive.domain.redaction import REDACTED, is_json, redacted_json

MOST_CHANGES: Final = 100
MOST_VALUE: Final = 256  # bytes, as JSON
_LONGEST_NUMBER: Final = 15  # characters of one that is the same for everybody who reads it
_GONE: Final = object()
_Change = dict[str, Any]


def correction(was: Delivery, now: Delivery, *, pointers: Sequence[str], is_open: bool) -> dict[str, Any]:
    """The `changes` between two deliveries, and how many more there are; no changes when both send the same.

    *pointers* lead to what is hidden; unless content *is_open*, no value is told.
    """
    changes = chain(
        _headers(dict(was.headers), dict(now.headers)), _payload(was, now, pointers, is_open=is_open)
    )
    told = list(islice(changes, MOST_CHANGES))
    omitted = sum(1 for _ in changes)
    return {"changes": told} | ({"changes_omitted": omitted} if omitted else {})


class _Value(NamedTuple):
    """A value, and what is shown of it."""

    true: Any
    shown: Any

    def within(self, place: Any) -> "_Value | None":
        """What is at a *place* in it, if anything is."""
        is_there = place < len(self.true) if isinstance(self.true, list) else place in self.true
        return _Value(self.true[place], self.shown[place]) if is_there else None


def _headers(was: dict[str, str], now: dict[str, str]) -> Iterator[_Change]:
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            old, new = (REDACTED if name in headers else _GONE for headers in (was, now))
            yield _change(f"/headers{_step(name)}", old, new)


def _payload(was: Delivery, now: Delivery, pointers: Sequence[str], *, is_open: bool) -> Iterator[_Change]:
    if (was.payload, was.content_type) == (now.payload, now.content_type):
        return
    if not is_open:
        yield _change("/payload", REDACTED, REDACTED)
        return
    old, new = (_read(each, pointers) for each in (was, now))
    changes = iter(()) if old is None or new is None else _differences("/payload", old, new)
    first = next(changes, None)
    if first is None:  # not JSON, or the same value in other words
        yield _change("/payload", *(_digest(each, is_hidden=bool(pointers)) for each in (was, now)))
    else:
        yield from chain((first,), changes)


def _read(delivery: Delivery, pointers: Sequence[str]) -> _Value | None:
    """A JSON payload; None when it is something else, or cannot be written again."""
    shown = redacted_json(delivery.payload, pointers) if is_json(delivery.content_type) else None
    if shown is None:
        return None
    try:
        return _Value(_parsed(delivery.payload), _parsed(shown))
    except (ValueError, RecursionError):
        return None


def _parsed(text: bytes) -> Any:
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> int | float | str:
    """As it is written, where not everybody would read the same."""
    if len(text) > _LONGEST_NUMBER:
        return text
    found = msgspec.json.decode(text)
    return found if msgspec.json.encode(found) == text.encode() else text


def _differences(path: str, was: _Value | None, now: _Value | None) -> Iterator[_Change]:
    if was is None or now is None:
        yield _change(path, *(_GONE if each is None else each.shown for each in (was, now)))
    elif all(isinstance(each, dict) for each in (*was, *now)):
        for name in sorted(was.true.keys() | now.true.keys()):
            yield from _differences(f"{path}{_step(name)}", was.within(name), now.within(name))
    elif all(isinstance(each, list) for each in (*was, *now)):
        for at in _places(len(was.true), len(now.true)):
            yield from _differences(f"{path}/{at}", was.within(at), now.within(at))
    elif type(was.true) is not type(now.true) or was.true != now.true:
        yield _change(path, was.shown, now.shown)


def _places(was: int, now: int) -> Iterator[int]:
    """Of two arrays, in the order in which operations apply: what goes, goes from the end."""
    common = min(was, now)
    return chain(range(common), range(common, now), reversed(range(common, was)))


def _change(path: str, was: Any, now: Any) -> _Change:
    op = "add" if was is _GONE else "remove" if now is _GONE else "replace"
    return {"op": op, "path": path, **_told("value", now), **_told("was", was)}


def _told(name: str, value: Any) -> dict[str, Any]:
    if value is _GONE:
        return {}
    size = len(msgspec.json.encode(value))
    return {name: value} if size <= MOST_VALUE else {f"{name}_size": size}


def _digest(delivery: Delivery, *, is_hidden: bool) -> dict[str, Any]:
    """What is told of bytes; of a few that a rule may hide, a digest would tell too much."""
    told = {"content_type": delivery.content_type, "size": len(delivery.payload)}
    return told if is_hidden else told | {"sha256": sha256(delivery.payload).hexdigest()}


def _step(name: str) -> str:
    return f"/{name.replace('~', '~0').replace('/', '~1')}"
