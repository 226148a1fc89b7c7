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
MOST_WAYS: Final = 2048  # that rules may lead together in one document
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
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


def is_json(content_type: str) -> bool:
    """Whether a body of this type says that it is JSON."""
    return content_type.partition(";")[0].strip().lower().endswith(("application/json", "+json"))


def redacted_json(body: bytes, pointers: Sequence[str]) -> bytes | None:
    """A JSON *body* with `[REDACTED]` wherever a pointer leads; None for one that cannot be read.

    A step of `*` is every member or element. Numbers stay as they are written; of a name that stands twice,
    the last is shown. Nor is one read that leads the rules too many ways: nobody waits for it long.
    """
    try:
        document = json.loads(
            body.decode(), parse_int=_as_written, parse_float=_as_written, parse_constant=_refused
        )
        _redact(document, _Rules([_tree(pointers)], {}))
        return msgspec.json.encode(document)
    except (ValueError, RecursionError):  # UnicodeDecodeError among them
        return None


class _Rules:
    """What may still apply at a place, whichever way led there; what follows is found out once a step."""

    def __init__(self, trees: Sequence[_Tree], known: "dict[frozenset[int], _Rules]") -> None:
        if len(known) > MOST_WAYS:
            raise ValueError("the rules lead too many ways")
        self._trees = trees
        self._known = known
        self.named = {step for tree in trees for step in tree if step != ANY}
        self._after: dict[str, _Rules | bool] = {}

    def after(self, step: str) -> "_Rules | bool":
        """What may apply one *step* further: True when all of it is hidden, False when nothing is."""
        key = step if step in self.named else ANY
        found = self._after.get(key)
        if found is None:
            deeper = [
                tree[each] for tree in self._trees for each in dict.fromkeys((key, ANY)) if each in tree
            ]
            found = self._after[key] = self._of(deeper)
        return found

    def _of(self, deeper: Sequence[_Tree | None]) -> "_Rules | bool":
        trees = [tree for tree in deeper if tree is not None]
        if len(trees) < len(deeper) or not trees:
            return len(trees) < len(deeper)
        which = frozenset(map(id, trees))
        if which not in self._known:
            self._known[which] = _Rules(trees, self._known)
        return self._known[which]


def _tree(pointers: Sequence[str]) -> _Tree:
    """Where all of them lead, step by step; behind a last step there is none."""
    tree: _Tree = {}
    for pointer in pointers:
        *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
        within: _Tree | None = tree
        for step in steps:
            within = None if within is None else within.setdefault(step, {})
        if within is not None:
            within[last] = None
    return tree


def _redact(within: Any, rules: _Rules) -> None:
    for place in _places(within, rules):
        after = rules.after(str(place))
        if after is True:
            within[place] = REDACTED
        elif after is not False and isinstance(within[place], dict | list):
            _redact(within[place], after)


def _places(within: Any, rules: _Rules) -> Collection[Any]:
    """Where in an object or an array some rule may lead."""
    is_any = rules.after(ANY) is not False
    if isinstance(within, dict):
        return list(within) if is_any else within.keys() & rules.named
    if isinstance(within, list):
        return range(len(within)) if is_any else [at for at in map(_index, rules.named) if at < len(within)]
    return ()


def _index(step: str) -> int:
    """The element that a step leads to (RFC 6901 §4); of one that leads to none, one that there cannot be."""
    return int(step) if _INDEX.fullmatch(step) else 1 << 62


def _as_written(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _refused(constant: str) -> None:
    raise ValueError(constant)
