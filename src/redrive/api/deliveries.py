"""Calls that hand deliveries over. The single one is the hot path: nothing is decoded that need not be."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from redrive.api import body, problems
from redrive.api.body import Members
from redrive.api.call import MIB, Asked, Reply
from redrive.api.faults import of_name, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.domain.delivery import Headers
from redrive.domain.errors import Fault, InvalidPayload, RedriveError, TooLarge
from redrive.domain.headers import check_headers
from redrive.engine.ingest import Receipt, Submission
from redrive.engine.once import Told

MOST_PAYLOAD = MIB
MOST_BODY = MIB * 4 // 3 + 64 * 1024  # a whole payload in base64, and the envelope
MOST_BATCH = 1_000
MOST_BATCH_BODY = 32 * MIB
FIELDS = frozenset({"event_type", "payload", "payload_base64", "content_type", "headers"})
BATCH_FIELDS = FIELDS | {"idempotency_key"}
_CONTENT_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:[ \t]*;[\x20-\x7e]{0,200})?", re.ASCII
)
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


async def deliver(asked: Asked) -> Reply:
    """Accept one delivery: 202 once it is durable."""
    integration_id = path_id(asked)
    if asked.query_string:
        Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BODY)
    key = asked.idempotency_key()
    given = submission(body.members(raw), FIELDS, key=key)
    receipt = await asked.engine.ingest.accept(asked.call, integration_id, given)
    reply = Reply(
        202,
        b'{"recovery_id":"%b","status":"pending","request_id":"%b"}'
        % (receipt.recovery_id.encode(), asked.request_id.encode()),
    )
    if receipt.duplicate:
        reply.headers.append((b"idempotency-replayed", b"true"))
    return reply


async def deliver_batch(asked: Asked) -> Reply:
    """Accept up to 1,000 deliveries; the answer has a receipt or a problem for each, in order."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BATCH_BODY)
    results = [_one(element, at) for at, element in enumerate(_elements(raw))]
    good = [one for one in results if isinstance(one, Submission)]

    def render(receipts: Sequence[Receipt | RedriveError]) -> Told:
        left = iter(receipts)
        whole = [next(left) if isinstance(one, Submission) else one for one in results]
        return asked.told(202, {"deliveries": [_shown(asked, one) for one in whole]})

    told = await asked.engine.ingest.accept_batch(
        asked.call, integration_id, good, render=render, key=asked.key(raw)
    )
    return asked.reply(told)


def submission(
    found: Members, allowed: frozenset[str], pointer: str = "", key: str | None = None
) -> Submission:
    """A delivery's envelope, or InvalidPayload with everything that is wrong with it."""
    faults = body.check_names(found, allowed, pointer) if not found.keys() <= allowed else []
    event_type = _event_type(found, faults, pointer)
    payload, content_type = payload_of(found, faults, pointer)
    headers = headers_of(found, faults, pointer) if "headers" in found else ()
    if "idempotency_key" in found and "idempotency_key" in allowed:
        given = body.value(found, "idempotency_key", str, faults, pointer)
        if given is not None and not _KEY.fullmatch(given):
            faults.append(Fault(f"{pointer}/idempotency_key", "1–255 visible ASCII characters"))
        key = given
    refuse(faults)
    check_size(payload)
    return Submission(event_type, payload, content_type, headers, key)


def _elements(raw: bytes) -> list[msgspec.Raw]:
    found = body.members(raw)
    faults = body.check_names(found, frozenset({"deliveries"}))
    elements = body.value(found, "deliveries", list[msgspec.Raw], faults)
    if elements is None and not faults:
        faults.append(Fault("/deliveries", "is missing: the list of deliveries"))
    if elements is not None and not 1 <= len(elements) <= MOST_BATCH:
        faults.append(Fault("/deliveries", f"holds 1 to {MOST_BATCH:,} deliveries, not {len(elements):,}"))
    if faults or elements is None:
        raise InvalidPayload(*faults)
    return elements


def _one(element: msgspec.Raw, at: int) -> Submission | RedriveError:
    pointer = f"/deliveries/{at}"
    try:
        return submission(body.members(element, pointer), BATCH_FIELDS, pointer)
    except RedriveError as error:
        return error


def _shown(asked: Asked, one: Receipt | RedriveError) -> dict[str, Any]:
    if isinstance(one, RedriveError):
        return problems.document(one, instance=asked.raw_path, request_id=asked.request_id)
    return {"recovery_id": one.recovery_id, "status": "pending", "duplicate": one.duplicate}


def _event_type(found: Members, faults: list[Fault], pointer: str) -> str:
    raw = found.get("event_type")
    if raw is None:
        faults.append(Fault(f"{pointer}/event_type", "is missing: what kind of event this is"))
        return ""
    event_type = body.value(found, "event_type", str, faults, pointer)
    faults += of_name(f"{pointer}/event_type", event_type)
    return event_type or ""


def check_size(payload: bytes) -> None:
    """Raise TooLarge for a payload that is."""
    if len(payload) > MOST_PAYLOAD:
        raise TooLarge(f"a payload holds at most {MOST_PAYLOAD:,} bytes; this one has {len(payload):,}")


def payload_of(found: Members, faults: list[Fault], pointer: str = "") -> tuple[bytes, str]:
    """Exactly the bytes that came, or the bytes that base64 stands for; and their type."""
    raw = found.get("payload")
    if raw is not None:
        faults += [
            Fault(f"{pointer}/{other}", "does not go with payload, which is JSON")
            for other in ("payload_base64", "content_type")
            if other in found
        ]
        return bytes(raw), "application/json"
    encoded = body.value(found, "payload_base64", str, faults, pointer)
    content_type = (
        "" if "content_type" not in found else body.value(found, "content_type", str, faults, pointer)
    )
    if "payload_base64" not in found:
        faults.append(Fault(f"{pointer}/payload", "is missing (or payload_base64 with content_type)"))
    elif content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
        faults.append(Fault(f"{pointer}/content_type", "a media type such as application/xml; charset=utf-8"))
    try:
        return base64.b64decode(encoded or "", validate=True), content_type or ""
    except (binascii.Error, ValueError):
        faults.append(Fault(f"{pointer}/payload_base64", "not base64 (RFC 4648 §4, with padding)"))
        return b"", ""


def headers_of(found: Members, faults: list[Fault], pointer: str = "") -> Headers:
    """The headers to send along, or faults."""
    try:
        body.members(found["headers"], f"{pointer}/headers")
    except InvalidPayload as error:
        faults += error.faults
        return ()
    headers = body.value(found, "headers", dict[str, str], faults, pointer) or {}
    faults += check_headers(headers, f"{pointer}/headers")
    return tuple(headers.items())
