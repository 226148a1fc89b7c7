"""Why an attempt failed, as a value that is the same whenever it fails so again: its fingerprint.

Version 1 is a SHA-256 over the integration's id, the class of the failure, its code and its masked detail.
Whatever changes the fingerprint of the same failure is a new version: groups of both stand beside each other.
"""

import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from redrive.domain.delivery import Evidence
from redrive.domain.integration import Integration
from redrive.domain.masking import MARK, MOST, is_symbol, masked
from redrive.domain.outcome import Failed, Reach
from redrive.domain.redaction import REDACTED, redacted_json

VERSION: Final = "v1"
ANYTHING: Final = "(something else each time)"  # the detail where there were too many
_REMEMBERED: Final = 1_024  # bytes of a body up to which its cause is
_HEAD: Final = 8_192  # bytes of a body that is read as text
_HTTP: Final = re.compile(r"HTTP_([1-5])([0-9]{2})", re.ASCII)
_TITLE: Final = re.compile(r"<title[^>]{0,100}>([^<]{1,500})", re.IGNORECASE)
# The members that name an error, in the words of RFC 9457, RFC 6749 and of APIs that are used a lot.
_NAMES: Final = ("type", "__type", "code", "error_code", "errorcode", "error")
_INNER: Final = ("error", "errors", "fault")
_INNER_NAMES: Final = ("type", "__type", "code", "status", "error")
_SENTENCES: Final = ("title", "message", "error_description", "detail", "reason", "description", "msg")
_NO_TYPE: Final = "about:blank"  # RFC 9457 §4.2.1: it says no more than the status
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_scalar = msgspec.json.Decoder(str | int | float | bool | None)
_Members = Mapping[str, msgspec.Raw]


class FailureClass(StrEnum):
    """What kind of failure it is, each with what it means in `MEANING`."""

    DNS = "dns"
    CONNECT = "connect"
    TIMEOUT_CONNECT = "timeout_connect"
    TLS = "tls"
    RESET = "reset"
    TIMEOUT_READ = "timeout_read"
    PROTOCOL = "protocol"
    EGRESS_BLOCKED = "egress_blocked"
    HTTP_3XX = "http_3xx"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    UNKNOWN = "unknown"


MEANING: Final[Mapping[FailureClass, str]] = {
    FailureClass.DNS: "the name could not be looked up",
    FailureClass.CONNECT: "no connection could be made",
    FailureClass.TIMEOUT_CONNECT: "no connection was made in time",
    FailureClass.TLS: "TLS could not be agreed on, or the certificate was not accepted",
    FailureClass.RESET: "the connection broke while an answer was awaited",
    FailureClass.TIMEOUT_READ: "no answer came in time",
    FailureClass.PROTOCOL: "what was answered is not HTTP as it should be",
    FailureClass.EGRESS_BLOCKED: "the address is one that redrive may not send to",
    FailureClass.HTTP_3XX: "the receiver redirects, which is not followed",
    FailureClass.HTTP_429: "the receiver is asked too often",
    FailureClass.HTTP_4XX: "the receiver does not accept it",
    FailureClass.HTTP_5XX: "the receiver failed at it",
    FailureClass.UNKNOWN: "nobody knows how it ended",
}
_CLASSES: Final = {
    "DNS_NOT_FOUND": FailureClass.DNS,
    "EAI_AGAIN": FailureClass.DNS,
    "ECONNREFUSED": FailureClass.CONNECT,
    "EHOSTUNREACH": FailureClass.CONNECT,
    "ENETUNREACH": FailureClass.CONNECT,
    "TLS_ERROR": FailureClass.TLS,
    "PROTOCOL_ERROR": FailureClass.PROTOCOL,
    "BLOCKED_ADDRESS": FailureClass.EGRESS_BLOCKED,
    "HTTP_429": FailureClass.HTTP_429,
}
_BY_REACH: Final = {  # when nothing was sent, and when something was
    "ECONNRESET": (FailureClass.CONNECT, FailureClass.RESET),
    "ECONNABORTED": (FailureClass.CONNECT, FailureClass.RESET),
    "EPIPE": (FailureClass.CONNECT, FailureClass.RESET),
    "ETIMEDOUT": (FailureClass.TIMEOUT_CONNECT, FailureClass.TIMEOUT_READ),
    "RESPONSE_TIMEOUT": (FailureClass.TIMEOUT_CONNECT, FailureClass.TIMEOUT_READ),
}
_BY_HUNDRED: Final = {
    "1": FailureClass.PROTOCOL,
    "3": FailureClass.HTTP_3XX,
    "4": FailureClass.HTTP_4XX,
    "5": FailureClass.HTTP_5XX,
}


_NEVER_SENT: Final = (
    FailureClass.DNS,
    FailureClass.CONNECT,
    FailureClass.TLS,
    FailureClass.EGRESS_BLOCKED,
)


class Cause(Struct, frozen=True):
    """Why it failed. `number`, the first 64 bits of the fingerprint with their sign, names the group."""

    number: int
    fingerprint: str
    failure_class: str
    failure_code: str
    detail: str


def cause_of(integration: Integration, failed: Failed, *, reads_answer: bool = True) -> Cause:
    """Why *failed* failed. Nothing that the integration's rules hide gets into it.

    *reads_answer*: not so where answers are sealed at rest, for a group's detail is not.
    """
    answer = failed.answer
    body = answer.body if answer is not None and reads_answer else None
    find = _cause_of if body is None or len(body) <= _REMEMBERED else _cause_of.__wrapped__
    return find(
        (integration.integration_id, integration.redact_pointers),
        class_of(failed),
        failed.code,
        failed.detail,
        is_answered=answer is not None,
        body=body,
    )


@lru_cache(maxsize=1024)  # an outage fails in few ways, and many times
def _cause_of(
    of: tuple[str, tuple[str, ...]],
    kind: FailureClass,
    code: str,
    detail: str,
    *,
    is_answered: bool,
    body: bytes | None,
) -> Cause:
    integration_id, pointers = of
    told = None if body is None else _told(body, pointers)
    # Of an answer our own sentence says nothing but its status; what else failed is told with ports.
    said = told or (detail[:MOST] if is_answered else masked(detail))
    return _cause(integration_id, kind.value, code, said)


def broad(integration: Integration, cause: Cause) -> Cause:
    """What *cause* has in common with all of its class and code, whatever the receiver says."""
    return _cause(integration.integration_id, cause.failure_class, cause.failure_code, ANYTHING)


def _cause(integration_id: str, kind: str, code: str, said: str) -> Cause:
    told_of = msgspec.json.encode((integration_id, kind, code, said))
    digest = hashlib.sha256(told_of).digest()
    number = int.from_bytes(digest[:8], "big", signed=True)
    return Cause(number, f"{VERSION}:{digest.hex()}", kind, code, said)


def cause_elsewhere(integration: Integration, last: Evidence, *, reads_answer: bool = True) -> Cause | None:
    """Why a delivery failed that was handed over; None when nothing is known of it."""
    failed = failed_elsewhere(last)
    if failed is None:
        return None
    return cause_of(integration, replace(failed, detail=masked(failed.detail)), reads_answer=reads_answer)


def failed_elsewhere(last: Evidence) -> Failed | None:
    """What is known of a failed attempt that others made, as if it were ours; None when that is nothing.

    Who made it does not tell how far it got: not sent is only what cannot have been.
    """
    code = last.failure_code
    if code is None:
        if last.last_http_status is None or 200 <= last.last_http_status <= 299:
            return None
        code = f"HTTP_{last.last_http_status}"
    if _HTTP.fullmatch(code):
        reach = Reach.ANSWERED
    else:
        reach = Reach.NOT_SENT if _CLASSES.get(code) in _NEVER_SENT else Reach.SENT
    return Failed(code, last.failure_detail or "", reach, last.answer)


def class_of(failed: Failed) -> FailureClass:
    """The class of a failure, by its code and by how far the request got."""
    if (found := _CLASSES.get(failed.code)) is not None:
        return found
    if (either := _BY_REACH.get(failed.code)) is not None:
        return either[failed.reach is not Reach.NOT_SENT]
    if (match := _HTTP.fullmatch(failed.code)) is not None:
        return _BY_HUNDRED.get(match[1], FailureClass.UNKNOWN)
    return FailureClass.UNKNOWN


def why_grouped(cause: Cause) -> str:
    """A sentence: what all failures of a group have in common."""
    kind = cause.failure_class
    meaning = MEANING[FailureClass(kind)] if kind in list(FailureClass) else kind
    said = f", and it says “{cause.detail}”" if cause.detail else ""
    version = cause.fingerprint.partition(":")[0]
    return f"{meaning} (class {kind}), the code is {cause.failure_code}{said}; fingerprint {version}"


def _told(body: bytes, pointers: Sequence[str]) -> str | None:
    """What an answer says of its failure; None: nothing that can be read, or shown."""
    if body and pointers:
        shown = redacted_json(body, pointers)
        if shown is None:  # the rules cannot be applied: nothing of it is shown anywhere
            return None
        body = shown
    members = _object(body)
    named = None if members is None else _named(members)
    if named:
        return named[:MOST]
    text = _text(body)
    return None if text is None else masked(text) or None


def _object(body: bytes | msgspec.Raw | None) -> _Members | None:
    """The members of a JSON object, or of the first of an array of them; names in lower case."""
    if body is None:
        return None
    try:
        body = bytes(body).removeprefix(codecs.BOM_UTF8)
        if body.lstrip()[:1] == b"[":
            body = next(iter(_elements.decode(body)), b"")
        return {name.lower(): value for name, value in _members.decode(body).items()}
    except (ValueError, RecursionError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _named(members: _Members) -> str:
    """How the answer names its error: its members of that kind, with their values."""
    found = list(_pairs(members, _NAMES))
    for inner in _INNER:
        found += _pairs(_object(members.get(inner)) or {}, _INNER_NAMES, f"{inner}.")
    if not found:
        found = [pair for within in _within(members) for pair in _pairs(within, _SENTENCES)][:1]
    return ", ".join(found)


def _within(members: _Members) -> Iterator[_Members]:
    yield members
    yield from (found for inner in _INNER if (found := _object(members.get(inner))) is not None)


def _pairs(members: _Members, names: Sequence[str], prefix: str = "") -> Iterator[str]:
    for name in names:
        value = _value(members.get(name))
        if value and value != _NO_TYPE:
            yield f"{prefix}{name}={value}"


def _value(raw: msgspec.Raw | None) -> str | None:
    """What a member says: a symbol as it is, any other text masked; None of what is hidden or has parts."""
    if raw is None:
        return None
    try:
        value: Any = _scalar.decode(raw)
    except (ValueError, RecursionError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    match value:
        case bool() | None | "":
            return None
        case str() if value == REDACTED:
            return None
        case str():
            return value if is_symbol(value) else masked(value)
        case int() if abs(value) < 100_000:
            return str(value)
        case _:
            return MARK


def _text(body: bytes) -> str | None:
    """The beginning of a body that is text; of a page of HTML its title."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(body[:_HEAD])
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    title = _TITLE.search(text[:_HEAD]) if text.lstrip()[:1] == "<" else None
    return text if title is None else title[1]
