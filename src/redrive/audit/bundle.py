"""An evidence file: one JSON object a line, each with its own SHA-256, and a manifest at the end.

It is written from front to back and read the same way, a line at a time, whatever its size. The line of an
item is followed by all that is told of it. Every digest can be computed by hand: that of a line is of the
object without its last member, `sha256`; that of a record is of the text in `record`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from redrive.audit.chain import Chain, Finding, Record, Whereabouts, Wrong, check_end
from redrive.domain.ids import EventId, first_id_at, parse_event_id
from redrive.domain.item import OPEN

FORMAT: Final = "redrive-evidence/1"
MANIFEST: Final = "manifest"
_SEAL: Final = re.compile(rb',"sha256":"([0-9a-f]{64})"\}')
_SEAL_LENGTH: Final = len(b',"sha256":""}') + 64
_MOST_GAPS: Final = 1_000
_encode: Final = msgspec.json.Encoder().encode


class NoBundle(Exception):
    """It is no evidence file, or of another version; the message says why."""


class Part(Struct):
    """The lines of one kind: how many, and the digest of all of them together."""

    lines: int = 0
    hash: Any = None

    def take(self, line: bytes) -> None:
        """One more."""
        self.lines += 1
        self.hash = self.hash or hashlib.sha256()
        self.hash.update(line)

    def told(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"lines": self.lines, "digest": (self.hash or hashlib.sha256()).hexdigest()}


class Writer:
    """Makes the lines, in order; the manifest last."""

    def __init__(self) -> None:
        self._whole = Part()
        self._parts: dict[str, Part] = {}

    def line(self, kind: str, **fields: Any) -> bytes:
        """One line, with its break."""
        text = self._sealed({"line": self._whole.lines + 1, "kind": kind} | fields)
        self._whole.take(text)
        self._parts.setdefault(kind, Part()).take(text)
        return text

    def head(self, **fields: Any) -> bytes:
        """The first line."""
        return self.line("evidence", format=FORMAT, **fields)

    def record(self, record: Record, **fields: Any) -> bytes:
        """The line of an audit record, as it is stored."""
        digest = None if record.digest is None else record.digest.hex()
        text = record.record.decode("utf-8", "backslashreplace")
        return self.line(
            "event",
            event_id=record.event_id,
            target_id=record.target_id,
            digest=digest,
            record=text,
            **fields,
        )

    def manifest(self) -> bytes:
        """The last line."""
        parts = {kind: part.told() for kind, part in self._parts.items()}
        number = self._whole.lines + 1
        return self._sealed({"line": number, "kind": MANIFEST, **self._whole.told(), "parts": parts})

    @staticmethod
    def _sealed(fields: dict[str, Any]) -> bytes:
        # JSON has line breaks between its tokens only: a payload that was sent with some keeps its meaning.
        text = _encode(fields).replace(b"\n", b" ").replace(b"\r", b" ")
        return text[:-1] + b',"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


class _Line(Struct):
    """What the reader goes by; there may be more in a line."""

    line: int
    kind: str
    recovery_id: str | None = None
    event_id: str = ""
    target_id: str = ""
    digest: str | None = None
    record: str = ""
    format: str = ""
    item: "_Item | None" = None
    attempt: "_Attempt | None" = None
    audit_kept_since: datetime | None = None
    lines: int = 0
    parts: dict[str, dict[str, Any]] = {}


class _Item(Struct):
    status: str
    cycle: int
    attempt_count: int
    resolved: dict[str, Any] | None
    erased: dict[str, Any] | None = None


class _Attempt(Struct):
    cycle: int
    attempt: int
    outcome: str


_line: Final = msgspec.json.Decoder(_Line)


class _Group:
    """An item, and what its lines tell of it."""

    def __init__(self, recovery_id: str, item: _Item | None, forgotten_before: int) -> None:
        self.recovery_id = recovery_id
        self.chain = Chain(recovery_id, forgotten_before=forgotten_before)
        self._item = item
        self._forgotten_before = forgotten_before
        self._ended: Counter[int] = Counter()  # attempts, by cycle
        self._failed: set[tuple[int, int]] = set()
        self._told: set[tuple[int, int]] = set()

    def take_attempt(self, attempt: _Attempt) -> None:
        """One of its attempts."""
        self._ended[attempt.cycle] += 1
        if attempt.outcome == "failed":
            self._failed.add((attempt.cycle, attempt.attempt))

    def take_record(self, record: Record) -> Iterator[Finding]:
        """One of its records."""
        yield from self.chain.take(record)
        if self.chain.told is not None and self.chain.told.failed_attempt is not None:
            self._told.add(self.chain.told.failed_attempt)

    def end(self) -> Iterator[Finding]:
        """What does not fit together, now that all of it was read."""
        if self._item is None:
            return
        if (found := self._check_end(self._item)) is not None:
            yield found
        if self.chain.is_cut or self.chain.last is None:
            return
        for cycle, attempt in sorted(self._failed - self._told):
            detail = f"attempt {attempt} of cycle {cycle} of {self.recovery_id} failed, and no record says so"
            yield Finding(Wrong.MISSING, self.recovery_id, None, detail)
        for cycle, attempt in sorted(self._told - self._failed):
            detail = f"attempt {attempt} of cycle {cycle} of {self.recovery_id} is recorded, and is not there"
            yield Finding(Wrong.MISSING, self.recovery_id, None, detail)

    def _check_end(self, item: _Item) -> Finding | None:
        is_open = item.status in OPEN  # then an attempt may be under way, which the item counts already
        where = Whereabouts(
            self.recovery_id,
            item.status,
            item.cycle,
            self._ended[item.cycle] if is_open else item.attempt_count,
            item.resolved is not None,
            item.erased is not None,
        )
        return check_end(where, self.chain.last, forgotten_before=self._forgotten_before)


class Reader:
    """Takes the lines of a file from front to back, and says what is wrong with them."""

    def __init__(self) -> None:
        self.records = 0
        self.items = 0
        self._whole = Part()
        self._parts: dict[str, Part] = {}
        self._expected = 1
        self._gaps: set[int] = set()
        self.has_ended = False
        self._forgotten_before = 0
        self._group: _Group | None = None

    @property
    def lines(self) -> int:
        """How many were read, but for the manifest."""
        return self._whole.lines

    def take(self, raw: bytes) -> Iterator[Finding]:
        """The next line, with its break; NoBundle when the first is not that of an evidence file."""
        number = self._whole.lines + 1
        line = _read(raw)
        if number == 1:
            _must_begin(line)
        if line is not None and line.kind == MANIFEST:
            yield from self._close(line, raw)
            return
        self._whole.take(raw)
        if self.has_ended:
            yield _of_line(Wrong.FORKED, number, f"line {number} was added behind the manifest")
        if line is None:
            yield _of_line(Wrong.ALTERED, number, f"line {number} was altered: it cannot be read")
            self._expected += 1
            return
        self._parts.setdefault(line.kind, Part()).take(raw)
        yield from self._place(line)
        if not _is_sealed(raw):
            what = f" ({_named(line)})" if _named(line) else ""
            yield _of_line(
                Wrong.ALTERED, number, f"line {line.line}{what} was altered: its digest is another"
            )
        yield from self._tell(line)

    def end(self) -> Iterator[Finding]:
        """What shows only when there are no more lines."""
        yield from self._end_group()
        if not self.has_ended:
            detail = "the file ends before its manifest: lines are missing at its end"
            yield _of_line(Wrong.MISSING, self._whole.lines + 1, detail)
        for number in sorted(self._gaps):
            yield _of_line(Wrong.MISSING, number, f"line {number} is missing")

    def _place(self, line: _Line) -> Iterator[Finding]:
        number = line.line
        if number in self._gaps:
            self._gaps.remove(number)
            yield _of_line(Wrong.REORDERED, number, f"line {number} stands after line {self._expected - 1}")
        elif number < self._expected:
            yield _of_line(Wrong.FORKED, number, f"line {number} is there twice: one of them was added")
        elif number - self._expected > _MOST_GAPS:
            first, last = self._expected, number - 1
            yield _of_line(Wrong.MISSING, first, f"lines {first} to {last} are missing")
        else:
            self._gaps.update(range(self._expected, number))
        self._expected = max(self._expected, number + 1)

    def _tell(self, line: _Line) -> Iterator[Finding]:
        match line.kind:
            case "evidence":
                if line.audit_kept_since is not None:
                    self._forgotten_before = first_id_at(line.audit_kept_since)
            case "item" if line.recovery_id is not None:
                yield from self._end_group()
                self.items += 1
                self._group = _Group(line.recovery_id, line.item, self._forgotten_before)
            case "attempt" if line.attempt is not None and self._group is not None:
                self._group.take_attempt(line.attempt)
            case "event":
                self.records += 1
                yield from self._tell_record(line)

    def _tell_record(self, line: _Line) -> Iterator[Finding]:
        digest = None if line.digest is None else _bytes_of(line.digest)
        number = parse_event_id(line.event_id) or EventId(0)
        record = Record(number, line.target_id, line.record.encode(), digest)
        if self._group is not None and line.target_id == self._group.recovery_id:
            yield from self._group.take_record(record)
        else:  # by itself: there may be gaps between those that were asked for
            lone = Chain(line.target_id)
            yield from (found for found in lone.take(record) if found.kind is not Wrong.MISSING)

    def _end_group(self) -> Iterator[Finding]:
        if self._group is not None:
            yield from self._group.end()
        self._group = None

    def _close(self, line: _Line, raw: bytes) -> Iterator[Finding]:
        self.has_ended = True
        found = {kind: part.told() for kind, part in self._parts.items()}
        self._gaps.update(range(self._expected, min(line.line, self._expected + _MOST_GAPS)))
        if {"lines": line.lines, "digest": line.digest} != self._whole.told():
            detail = "the lines before the manifest are not those that it is of"
            yield _of_line(Wrong.ALTERED, line.line, detail)
        if not _is_sealed(raw):
            yield _of_line(Wrong.ALTERED, line.line, "the manifest was altered: its digest is another")
        for kind in sorted(found.keys() | line.parts.keys()):
            if found.get(kind) != line.parts.get(kind):
                detail = f"the lines of kind {kind} are not those of the manifest"
                yield _of_line(Wrong.ALTERED, line.line, detail)


def _read(raw: bytes) -> _Line | None:
    try:
        return _line.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None


def _must_begin(line: _Line | None) -> None:
    if line is None or line.kind != "evidence":
        raise NoBundle("it is no evidence file: the first line does not say so")
    if line.format != FORMAT:
        raise NoBundle(f"it is of format {line.format}, and this version reads {FORMAT}")


def _bytes_of(digest: str) -> bytes:
    """What is no digest is none of any record's."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def _is_sealed(raw: bytes) -> bool:
    text = raw.removesuffix(b"\n")
    seal = _SEAL.fullmatch(text, max(0, len(text) - _SEAL_LENGTH))
    if seal is None or not raw.endswith(b"\n"):
        return False
    return hashlib.sha256(text[:-_SEAL_LENGTH] + b"}").hexdigest().encode() == seal[1]


def _named(line: _Line) -> str:
    match line.kind:
        case "event":
            return line.event_id
        case "attempt" if line.attempt is not None:
            return f"attempt {line.attempt.attempt} of cycle {line.attempt.cycle} of {line.recovery_id}"
        case _:
            return line.recovery_id or line.kind


def _of_line(kind: Wrong, number: int, detail: str) -> Finding:
    return Finding(kind, f"line {number}", None, detail)
