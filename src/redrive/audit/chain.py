"""The chain of an item's audit records, each with the digest of the one before: what breaks it, and where."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from redrive.audit.record import Actor, EventType, digest_of
from redrive.domain.ids import EventId, event_id, parse_recovery_id
from redrive.domain.item import Status


class Wrong(StrEnum):
    """What can be wrong with a record."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    FORKED = "forked"  # two records follow the same one: one of them was added


class Finding(Struct, frozen=True):
    """One thing that is wrong, in a sentence; `event_id` is the record that shows it, if one does."""

    kind: Wrong
    target_id: str
    event_id: str | None
    detail: str


class Filed(Struct, frozen=True):
    """What stands beside a record, for lists to find it by; its text says the same."""

    event_type: str
    request_id: str | None
    integration_id: str | None
    actor: str


class Record(Struct, frozen=True):
    """An audit event as it is stored: its text, and the digest that was stored beside it."""

    id: EventId
    target_id: str
    record: bytes
    digest: bytes | None  # None: of before there were any
    filed: Filed | None = None  # None: not known, as of a file

    @property
    def event_id(self) -> str:
        """The public name of the event."""
        return event_id(self.id)


class Told(Struct, frozen=True):
    """What a record says of itself, as far as a chain is concerned."""

    id: int
    event_type: str
    target_id: str
    integration_id: str | None
    request_id: str | None
    actor: Actor
    after_state: dict[str, Any]
    metadata: dict[str, Any]
    previous: str | UnsetType | None = UNSET

    @property
    def names(self) -> str | None:
        """The digest it gives of the record before it."""
        return None if self.previous is UNSET else self.previous

    @property
    def filed(self) -> Filed:
        """What lists are to find it by."""
        return Filed(self.event_type, self.request_id, self.integration_id, self.actor.id)

    @property
    def failed_attempt(self) -> tuple[int, int] | None:
        """The cycle and number of the attempt whose failure it tells."""
        if self.event_type != EventType.REPROCESS_FAILED:
            return None
        cycle, attempt = (self.metadata.get(name) for name in ("cycle", "attempt"))
        return (cycle, attempt) if isinstance(cycle, int) and isinstance(attempt, int) else None


_told: Final = msgspec.json.Decoder(Told)


def read(record: bytes) -> Told | None:
    """What a record says; None when it cannot be read."""
    try:
        return _told.decode(record)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None


class Chain:
    """The records of one target, taken one after another in the order they stand in.

    Those of an item are chained; of any other target each is looked at by itself. Records from before an id
    *forgotten_before* may have been forgotten: such a chain may begin in the middle.
    """

    def __init__(self, target_id: str, *, forgotten_before: int = 0) -> None:
        number = parse_recovery_id(target_id)
        self.target_id = target_id
        self.last: Record | None = None
        self.told: Told | None = None  # what the last says
        self.is_cut = False  # what it began with was forgotten
        self.length = 0
        self._is_chained = number is not None
        self._may_be_cut = number is not None and number < forgotten_before
        self._names: dict[str, str] = {}  # of the records, by their digests
        self._followers: dict[str | None, str] = {}  # by the digest that they name

    def take(self, record: Record) -> Iterator[Finding]:
        """Take the next record; what is wrong with it, or between it and the last."""
        told = read(record.record)
        if told is None:
            yield self._finding(Wrong.ALTERED, record, f"{record.event_id} was altered: it cannot be read")
        else:
            yield from self._check(record, told)
        self._keep(record, told)

    def _check(self, record: Record, told: Told) -> Iterator[Finding]:
        name = record.event_id
        if self.last is not None and record.id <= self.last.id:
            yield self._finding(
                Wrong.REORDERED, record, f"{name} stands after {self.last.event_id}, which was written later"
            )
        if record.digest is None and told.previous is not UNSET:
            yield self._finding(Wrong.ALTERED, record, f"{name} was altered: its digest was taken away")
        if record.digest is not None and record.digest != digest_of(record.record):
            yield self._finding(
                Wrong.ALTERED,
                record,
                f"{name} was altered: its text has another digest than was stored with it",
            )
        elif record.filed is not None and record.filed != told.filed:
            by = " and ".join(_differing(record.filed, told.filed))
            yield self._finding(
                Wrong.ALTERED, record, f"{name} was altered: lists find it by another {by} than it says"
            )
        if (told.id, told.target_id) != (record.id, record.target_id):
            said = event_id(told.id) if told.id != record.id else f"of {told.target_id}"
            yield self._finding(
                Wrong.REORDERED, record, f"what stands as {name} of {self.target_id} says that it is {said}"
            )
        elif self._is_chained and not self._follows(record, told.names):
            yield self._broken(record, told.names)

    def _follows(self, record: Record, named: str | None) -> bool:
        """Whether a record that names this digest may stand after the last."""
        if record.digest is None and named is None:  # written by a version that knew of no chains
            return True
        if self.last is None:
            self.is_cut = named is not None and self._may_be_cut
            return named is None or self.is_cut
        if self.last.digest is None:
            return named is None
        return named in (self.last.digest.hex(), digest_of(self.last.record).hex())

    def _broken(self, record: Record, named: str | None) -> Finding:
        """How a record does not follow the last."""
        name = record.event_id
        if self.last is None:
            return self._finding(
                Wrong.MISSING,
                record,
                f"{name} is the first that is there; the one that it names before it is missing",
            )
        last = self.last.event_id
        if (other := self._followers.get(named)) is not None:
            first = f"follow {self._names.get(named, 'the same')}" if named else "say that they are the first"
            return self._finding(
                Wrong.FORKED, record, f"{other} and {name} both {first}: one of them was added"
            )
        if named is None:
            return self._finding(
                Wrong.FORKED, record, f"{name} says that it is the first, but {last} stands before it"
            )
        if named in self._names:
            return self._finding(
                Wrong.REORDERED, record, f"{name} follows {self._names[named]}, but {last} stands before it"
            )
        if self.last.digest is None:
            return Finding(
                Wrong.ALTERED,
                self.target_id,
                last,
                f"{last} was altered: {name} names its digest, which was taken away",
            )
        return self._finding(
            Wrong.MISSING,
            record,
            f"a record between {last} and {name} is missing, or {last} was altered together with its digest",
        )

    def _keep(self, record: Record, told: Told | None) -> None:
        if told is not None and record.digest is not None and self._is_chained:
            self._followers.setdefault(told.names, record.event_id)
        if record.digest is not None and self._is_chained:
            self._names.setdefault(record.digest.hex(), record.event_id)
        self.last, self.told = record, told
        self.length += 1

    def _finding(self, kind: Wrong, record: Record, detail: str) -> Finding:
        return Finding(kind, self.target_id, record.event_id, detail)


def _differing(one: Filed, other: Filed) -> list[str]:
    return [name for name in Filed.__struct_fields__ if getattr(one, name) != getattr(other, name)]


class Whereabouts(Struct, frozen=True):
    """Where an item is: what the last of its records must say. `attempt_count`: that have ended.

    As it is stored, which may be nonsense.
    """

    target_id: str
    status: str
    cycle: int
    attempt_count: int
    is_resolved: bool
    is_erased: bool = False
    last_attempt: tuple[int, int] | None = None  # its cycle and number


def check_end(where: Whereabouts, last: Record | None, *, forgotten_before: int = 0) -> Finding | None:
    """Whether the *last* record leaves the item where it is; else there is none of what came then.

    Or the item was altered, which looks the same from here.
    """
    if last is None:
        number = parse_recovery_id(where.target_id)
        if _is_quiet(where) or (number is not None and number < forgotten_before):
            return None
        why = f"{where.target_id} is {_place(where)}, and no record says how it came there"
        return Finding(Wrong.MISSING, where.target_id, None, why)
    told = read(last.record)
    why_not = None if told is None else _why_not_last(where, told, last.event_id)
    return None if why_not is None else Finding(Wrong.MISSING, where.target_id, last.event_id, why_not)


def _why_not_last(where: Whereabouts, told: Told, name: str) -> str | None:
    """Why a record cannot be the last of an item; None: it can."""
    is_there = f"{where.target_id} is {_place(where)}"
    then = "records are missing after that one, or the item was altered"
    place = _place_of(told)
    if place is not None and place != _place(where):
        return f"{is_there}, and its last record, {name}, leaves it {place}: {then}"
    if told.event_type == EventType.REPROCESS_FAILED and where.status != Status.FAILED:
        return (
            f"{is_there}, and its last record, {name}, does not say what followed from that failure: {then}"
        )
    if where.is_erased and told.event_type not in (EventType.ERASED, EventType.SUPERSEDED):
        return f"{where.target_id} is erased, and its last record, {name}, is of something else: {then}"
    if where.last_attempt is not None and place is not None:
        cycle, attempt = where.last_attempt
        if (cycle, attempt) > (told.after_state["cycle"], told.after_state["attempt_count"]):
            return f"attempt {attempt} of cycle {cycle} of {where.target_id} left no record after {name}"
    return None


def _is_quiet(where: Whereabouts) -> bool:
    """A first attempt that has not ended, or that succeeded, leaves no record."""
    first = where.cycle == 1 and where.attempt_count <= 1
    is_silent = where.status == Status.PENDING or (first and where.status == Status.SUCCEEDED)
    return is_silent and not where.is_erased


def _place(where: Whereabouts) -> str:
    return _in_words(where.status, where.cycle, where.attempt_count, is_resolved=where.is_resolved)


def _place_of(told: Told) -> str | None:
    """Where a record leaves the item; None when it tells of something else."""
    state = told.after_state
    status, cycle, count = (state.get(name) for name in ("status", "cycle", "attempt_count"))
    if not (isinstance(status, str) and isinstance(cycle, int) and isinstance(count, int)):
        return None
    return _in_words(status, cycle, count, is_resolved=bool(state.get("resolved")))


def _in_words(status: str, cycle: int, count: int, *, is_resolved: bool) -> str:
    return f"{status}, cycle {cycle}, attempt {count}" + (", resolved" if is_resolved else "")
