"""The chain of an item's audit records, each with the digest of the one before: what breaks it, and where."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from redrive.audit.record import EventType, digest_of
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


class Record(Struct, frozen=True):
    """An audit event as it is stored: its text, and the digest that was stored beside it."""

    id: EventId
    target_id: str
    record: bytes
    digest: bytes | None  # None: of before there were any

    @property
    def event_id(self) -> str:
        """The public name of the event."""
        return event_id(self.id)


class Told(Struct, frozen=True):
    """What a record says of itself, as far as a chain is concerned."""

    id: int
    event_type: str
    target_id: str
    target_type: str
    integration_id: str | None
    after_state: dict[str, Any]
    metadata: dict[str, Any]
    previous: str | UnsetType | None = UNSET

    @property
    def names(self) -> str | None:
        """The digest it gives of the record before it."""
        return None if self.previous is UNSET else self.previous

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
        if told is not None and record.digest is not None:
            self._followers.setdefault(told.names, record.event_id)
        if record.digest is not None:
            self._names.setdefault(record.digest.hex(), record.event_id)
        self.last, self.told = record, told
        self.length += 1

    def _finding(self, kind: Wrong, record: Record, detail: str) -> Finding:
        return Finding(kind, self.target_id, record.event_id, detail)


class Standing(Struct, frozen=True):
    """Where an item is: what the last of its records must say. `attempt_count`: that have ended."""

    target_id: str
    status: Status
    cycle: int
    attempt_count: int
    is_resolved: bool
    last_attempt: tuple[int, int] | None = None  # its cycle and number


def check_end(
    standing: Standing, last: Told | None, *, last_event: str | None = None, forgotten_before: int = 0
) -> Finding | None:
    """Whether the chain ends where the item is; else records are missing at its end, or it was altered."""
    target_id = standing.target_id
    if last is None:
        number = parse_recovery_id(target_id)
        if (
            last_event is not None
            or _is_quiet(standing)
            or (number is not None and number < forgotten_before)
        ):
            return None
        return Finding(
            Wrong.MISSING,
            target_id,
            None,
            f"{target_id} is {_place(standing)}, and no record says how it came there",
        )
    state = last.after_state
    told = (state.get("status"), state.get("cycle"), state.get("attempt_count"), bool(state.get("resolved")))
    if "status" not in state or told == (
        standing.status, standing.cycle, standing.attempt_count, standing.is_resolved
    ):  # fmt: skip
        return _unrecorded(standing, last, last_event)
    status, cycle, count, is_resolved = told
    said = f"{status}, cycle {cycle}, attempt {count}" + (", resolved" if is_resolved else "")
    return Finding(
        Wrong.MISSING,
        target_id,
        last_event,
        f"{target_id} is {_place(standing)}, and its last record, {last_event}, leaves it {said}:"
        " records are missing after that one, or the item was altered",
    )


def _unrecorded(standing: Standing, last: Told, last_event: str | None) -> Finding | None:
    """An attempt that ended after the last record, of which there should be one."""
    told = (last.after_state.get("cycle"), last.after_state.get("attempt_count"))
    if standing.last_attempt is None or not all(isinstance(number, int) for number in told):
        return None
    if standing.last_attempt <= told:
        return None
    cycle, attempt = standing.last_attempt
    return Finding(
        Wrong.MISSING,
        standing.target_id,
        last_event,
        f"attempt {attempt} of cycle {cycle} of {standing.target_id} left no record after {last_event}",
    )


def _is_quiet(standing: Standing) -> bool:
    """A first attempt that has not ended, or that succeeded, leaves no record."""
    first = standing.cycle == 1 and standing.attempt_count <= 1
    return standing.status is Status.PENDING or (first and standing.status is Status.SUCCEEDED)


def _place(standing: Standing) -> str:
    resolved = ", resolved" if standing.is_resolved else ""
    return f"{standing.status}, cycle {standing.cycle}, attempt {standing.attempt_count}{resolved}"
