"""Strict JSON: UTF-8, one value, no duplicate names, no unknown fields, nothing nested without end."""

import json
import re
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from redrive.api.faults import refuse
from redrive.domain.errors import Fault, InvalidPayload

Value = TypeVar("Value")
Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(Members)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
MOST_FAULTS = 20  # what is told of one object; a caller's mistake must not cost us seconds
MOST_NAME = 64
_SHORTEST_PAIR = 5  # ,"":0


def members(body: bytes | msgspec.Raw, pointer: str = "") -> Members:
    """The members of a JSON object, each value exactly as it stands (its grammar is checked)."""
    raw = bytes(body)
    try:
        raw.decode("utf-8")
        found = _members.decode(raw)
        if _may_hold_duplicates(raw, found) and _count_pairs(raw) != len(found):
            raise InvalidPayload(Fault(pointer, "a name stands twice in this object"))
    except UnicodeDecodeError as error:
        raise InvalidPayload(Fault(pointer, f"not UTF-8 (byte {error.start})")) from error
    except RecursionError as error:
        raise InvalidPayload(Fault(pointer, "nested too deeply")) from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidPayload(Fault(pointer, _grammar(raw, error))) from error
    return found


def check_names(found: Members, allowed: frozenset[str], pointer: str = "") -> list[Fault]:
    """A fault for each unknown name, with the nearest known one."""
    faults = []
    for name in sorted(found.keys() - allowed)[:MOST_FAULTS]:
        near = get_close_matches(name, allowed, 1) if len(name) <= MOST_NAME else []
        hint = f"; did you mean {near[0]}?" if near else ""
        faults.append(Fault(f"{pointer}/{_token(name[:MOST_NAME])}", f"unknown field{hint}"))
    return faults


def read(body: bytes, shape: type[Value]) -> Value:
    """*body* as *shape* (a msgspec Struct), or every unknown name and the first wrong value."""
    found = members(body)
    names = frozenset(field.encode_name for field in msgspec.structs.fields(shape))  # type: ignore[arg-type]
    faults = check_names(found, names)
    refuse(faults)
    for name, value in found.items():
        if bytes(value).startswith(b"{"):
            members(value, f"/{_token(name)}")  # no duplicates one level down either
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise InvalidPayload(fault(error)) from error


def value(
    found: Members, name: str, shape: type[Value], faults: list[Fault], pointer: str = ""
) -> Value | None:
    """One member as *shape*; None when it is not there, or wrong, which is then among *faults*."""
    if name not in found:
        return None
    try:
        return msgspec.json.decode(found[name], type=shape)
    except msgspec.ValidationError as error:
        faults.append(fault(error, f"{pointer}/{name}"))
    return None


def fault(error: msgspec.ValidationError, pointer: str = "") -> Fault:
    """Msgspec's `… - at `$.a[0].b`` as a pointer and a sentence."""
    told, _, path = str(error).partition(" - at `$")
    steps = path.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "").split(".")
    if (missing := _MISSING.fullmatch(told)) is not None:
        steps, told = [*steps, missing[1]], "is missing"
    return Fault(pointer + "".join(f"/{_token(step)}" for step in steps if step), told[:1].lower() + told[1:])


def _may_hold_duplicates(raw: bytes, found: Members) -> bool:
    """False when the bytes the kept members do not explain are too few for another pair."""
    explained = 1 + sum(len(name) + 4 + len(bytes(value)) for name, value in found.items())
    return len(raw) - explained >= _SHORTEST_PAIR


def _count_pairs(raw: bytes) -> int:
    """How many pairs the object has, whatever their names. Numbers may be longer than Python reads."""
    count: int = json.loads(raw, object_pairs_hook=len, parse_int=len, parse_float=len)
    return count


def _grammar(raw: bytes, error: Exception) -> str:
    if not raw.strip():
        return "the body is empty; send a JSON object"
    told = str(error)
    if told.startswith("Expected"):
        return "must be a JSON object"
    if "truncated" in told and not raw.rstrip().endswith(b"}"):
        return "the JSON ends too early"
    if "truncated" in told:
        return "not well-formed JSON: it ends too early, or holds half of a surrogate pair (\\ud800–\\udfff)"
    return (
        told[:1].lower() + told[1:] if "number out of range" in told.lower() else f"not well-formed: {told}"
    )


def _token(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
