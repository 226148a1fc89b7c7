"""What of payloads and answers is not for the eyes of operators: fields by JSON Pointer, headers by name."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from redrive.domain.errors import Fault
from redrive.domain.headers import HEADER_NAME

REDACTED: Final = "[REDACTED]"
MOST_RULES: Final = 64
ANY: Final = "*"
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
        for pointer in pointers:
            steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
            _redact(document, steps)
        return msgspec.json.encode(document)
    except (ValueError, RecursionError):  # UnicodeDecodeError among them
        return None


def _redact(within: Any, steps: Sequence[str]) -> None:
    first, *rest = steps
    for place in list(_places(within, first)):
        if rest:
            _redact(within[place], rest)
        else:
            within[place] = REDACTED


def _places(within: Any, step: str) -> Iterator[Any]:
    """Where in an object or an array a step leads."""
    if isinstance(within, dict):
        yield from within if step == ANY else (name for name in (step,) if name in within)
    elif isinstance(within, list):
        yield from (at for at in range(len(within)) if step in (ANY, str(at)))


def _as_written(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _refused(constant: str) -> None:
    raise ValueError(constant)
