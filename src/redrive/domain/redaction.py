"""What of payloads and answers is not for the eyes of operators: fields by JSON Pointer, headers by name."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from redrive.domain.errors import Fault
from redrive.domain.headers import HEADER_NAME

REDACTED: Final = "[REDACTED]"
MOST_RULES: Final = 64
ANY: Final = "*"
_Tree = dict[str, "dict[str, Any] | None"]
POINTER: Final = re.compile(r"(?:/(?:[^/~\x00-\x1f]|~[01])*){1,32}")
_MOST_CHARACTERS: Final = 512


def check_rules(pointers: Sequence[str], headers: Sequence[str]) -> list[Fault]:
    """The faults of an integration's rules."""
    faults = [
        Fault(f"/redact_pointers/{at}", "must be a JSON Pointer (RFC 6901) such as /card/number; * is any")
        for at, pointer in enumerate(pointers)
        if len(pointer) > _MOST_CHARACTERS or not POINTER.fullmatch(pointer)
    ]
    faults += [
        Fault(f"/redact_headers/{at}", "not a header name")
        for at, name in enumerate(headers)
        if not HEADER_NAME.fullmatch(name)
    ]
    faults += [
        Fault(f"/{field}", f"at most {MOST_RULES} rules")
        for field, rules in (("redact_pointers", pointers), ("redact_headers", headers))
        if len(rules) > MOST_RULES
    ]
    return faults


def redacted_json(body: bytes, pointers: Sequence[str]) -> bytes | None:
    """A JSON *body* with `[REDACTED]` wherever a pointer leads; None for one that cannot be read.

    A step of `*` is every member or element. Numbers stay as they are written; of a name that stands twice,
    the last is shown.
    """
    try:
        document = json.loads(
            body.decode(), parse_int=_as_written, parse_float=_as_written, parse_constant=_refused
        )
        _redact(document, [_tree(pointers)])
        return msgspec.json.encode(document)
    except (ValueError, RecursionError):  # UnicodeDecodeError among them
        return None


def _tree(pointers: Sequence[str]) -> _Tree:
    """Where all of them lead, step by step, so that a document is walked once."""
    tree: _Tree = {}
    for pointer in pointers:
        *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
        within: _Tree | None = tree
        for step in steps:
            within = None if within is None else within.setdefault(step, {})
        if within is not None:
            within[last] = None
    return tree


def _redact(within: Any, trees: Sequence[_Tree]) -> None:
    for place in _places(within, trees):
        steps = (str(place), ANY)
        deeper = [tree[step] for tree in trees for step in dict.fromkeys(steps) if step in tree]
        if None in deeper:
            within[place] = REDACTED
        elif deeper:
            _redact(within[place], [tree for tree in deeper if tree is not None])


def _places(within: Any, trees: Sequence[_Tree]) -> Collection[Any]:
    """Where in an object or an array some step may lead."""
    is_any = any(ANY in tree for tree in trees)
    if isinstance(within, dict):
        return list(within) if is_any else {step for tree in trees for step in tree if step in within}
    return range(len(within)) if isinstance(within, list) else ()


def _as_written(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _refused(constant: str) -> None:
    raise ValueError(constant)
