"""64-bit, time-ordered ids and the text they wear outside.

id = milliseconds since 2024-01-01 UTC << 22 | slot << 12 | sequence. The text is a prefix and 13
characters of Crockford's base32 in lower case, so texts sort as their ids do.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

ItemId = NewType("ItemId", int)
EventId = NewType("EventId", int)
JobId = NewType("JobId", int)

ID_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_SHIFT = 22
SEQUENCE_BITS = 12
MOST_SHARDS = 64  # what ids are split into
ITEM_PREFIX = "rec_"
EVENT_PREFIX = "evt_"
GROUP_PREFIX = "grp_"
REPLAY_PREFIX = "rpl_"
EXPORT_PREFIX = "exp_"
RECOVERY_ID = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
GROUP_ID = re.compile(f"{GROUP_PREFIX}[0-9a-f][{ALPHABET}]{{12}}", re.ASCII)
_UNSIGNED = 1 << 64
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_TEXT = re.compile(f"[0-7][{ALPHABET}]{{12}}", re.ASCII)
_VALUE = {character: value for value, character in enumerate(ALPHABET)}


@lru_cache(maxsize=4096)  # of what is under way, asked for a dozen times
def recovery_id(item_id: int) -> str:
    """The public name of an item; also its `webhook-id`."""
    return ITEM_PREFIX + _encode(item_id)


def event_id(number: int) -> str:
    """The public name of an audit event."""
    return EVENT_PREFIX + _encode(number)


def replay_id(number: int) -> str:
    """The public name of a plan, and of the job that it becomes."""
    return REPLAY_PREFIX + _encode(number)


def export_id(number: int) -> str:
    """The public name of an evidence file: that of the event that it was handed out, otherwise spelt."""
    return EXPORT_PREFIX + _encode(number)


def parse_recovery_id(text: str) -> ItemId | None:
    """The id behind *text*, or None when no item can have that name."""
    number = _parse(text, ITEM_PREFIX)
    return None if number is None else ItemId(number)


def parse_event_id(text: str) -> EventId | None:
    """The id behind *text*, or None when no audit event can have that name."""
    number = _parse(text, EVENT_PREFIX)
    return None if number is None else EventId(number)


def group_id(number: int) -> str:
    """The public name of a failure group: of 64 bits of a hash, which a store keeps with a sign."""
    return GROUP_PREFIX + _encode(number % _UNSIGNED)


def parse_group_id(text: str) -> int | None:
    """The number behind *text*, or None when no group can have that name."""
    if not GROUP_ID.fullmatch(text):
        return None
    number = _value(text.removeprefix(GROUP_PREFIX))
    return number - _UNSIGNED if number >> 63 else number


def parse_replay_id(text: str) -> JobId | None:
    """The id behind *text*, or None when no job can have that name."""
    number = _parse(text, REPLAY_PREFIX)
    return None if number is None else JobId(number)


def first_id_at(instant: datetime) -> int:
    """The smallest id that can be made at *instant* or later (never below 0)."""
    milliseconds = -((ID_EPOCH - instant) // timedelta(milliseconds=1))
    return min(max(0, milliseconds), (1 << 41) - 1) << TIME_SHIFT


def instant_of(number: int) -> datetime:
    """When an id was made, to the millisecond."""
    return ID_EPOCH + timedelta(milliseconds=number >> TIME_SHIFT)


class IdSequence:
    """Makes ids that only grow, also when the clock steps back. One per process; not thread-safe."""

    def __init__(self) -> None:
        self._low = 0
        self._last = 0
        self._sequence = -1

    def start(self, slot: int, above: int) -> None:
        """From now on make ids of *slot* (its low ten bits), never *above*, nor anything before it."""
        self._low = (slot & 0x3FF) << SEQUENCE_BITS
        self._last = max(self._last, (above >> TIME_SHIFT) + 1)

    def follow(self, seen: int) -> None:
        """From now on make only greater ids than *seen*, whoever made that: what was read came before."""
        if seen >= self._last << TIME_SHIFT | self._low | max(self._sequence, 0):
            self._last = (seen >> TIME_SHIFT) + 1

    def next(self, now: datetime) -> int:
        """The next id, stamped *now* or, when that many were made in a millisecond, just after."""
        milliseconds = (now - ID_EPOCH) // timedelta(milliseconds=1)
        if milliseconds > self._last:  # not always from 0: what is split by id must get all remainders
            self._last, self._sequence = milliseconds, (self._sequence + 1) % MOST_SHARDS
        else:
            self._sequence += 1
            if self._sequence >> SEQUENCE_BITS:
                self._last, self._sequence = self._last + 1, 0
        return self._last << TIME_SHIFT | self._low | self._sequence


def _parse(text: str, prefix: str) -> int | None:
    body = text.removeprefix(prefix)
    return None if body == text or not _TEXT.fullmatch(body) else _value(body)


def _encode(number: int) -> str:
    pairs = _PAIRS
    return (
        ALPHABET[number >> 60]
        + pairs[number >> 50 & 1023]
        + pairs[number >> 40 & 1023]
        + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023]
        + pairs[number >> 10 & 1023]
        + pairs[number & 1023]
    )


def _value(text: str) -> int:
    number = 0
    for character in text:
        number = number << 5 | _VALUE[character]
    return number
