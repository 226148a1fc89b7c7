"""W3C Trace Context (Level 1): parse `traceparent` and `tracestate`, derive what is sent on."""

import re

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_KNOWN_FLAGS = 0x03  # sampled, and Level 2's random-trace-id
_MEMBER = re.compile(
    r"(?:[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}|[a-z][a-z0-9_\-*/]{0,255})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
MAX_STATE_MEMBERS = 32
MAX_STATE_LENGTH = 2048


def parse_traceparent(text: str) -> str | None:
    """*text* when it is a valid traceparent, else None: its receiver then starts a new trace.

    A later version than 00 is read as its first 55 characters, as the standard asks.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if trace_id == "0" * 32 or parent_id == "0" * 16:
        return None
    return text if version == "00" else f"00-{trace_id}-{parent_id}-{flags}"


def parse_tracestate(text: str) -> str | None:
    """*text* when it is a valid tracestate, else None: the whole header is then dropped."""
    if len(text) > MAX_STATE_LENGTH:
        return None
    members = [member for raw in text.split(",") if (member := raw.strip(" \t"))]
    keys = {member.split("=", 1)[0] for member in members}
    if not members or len(members) > MAX_STATE_MEMBERS or len(keys) != len(members):
        return None
    return text if all(_MEMBER.fullmatch(member) for member in members) else None


def new_traceparent(trace_id: bytes, span_id: bytes) -> str:
    """A trace of our own from 16 and 8 random bytes: not sampled, its id random (Level 2 flag)."""
    return f"00-{trace_id.hex()}-{span_id.hex()}-02"


def child(traceparent: str, span_id: bytes) -> str:
    """The same trace one hop on: trace-id kept, *span_id* new, only the flags we know kept."""
    flags = int(traceparent[53:55], 16) & _KNOWN_FLAGS
    return f"{traceparent[:36]}{span_id.hex()}-{flags:02x}"
