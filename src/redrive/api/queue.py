"""Calls on the recovery queue: list, show, hand over, replay, resolve, erase."""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.deliveries import FIELDS, MOST_BODY, submission
from redrive.api.faults import of_line, of_name, of_reason, read_instant, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.domain import outcome
from redrive.domain.delivery import Evidence, Item
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.headers import HEADER_NAME
from redrive.domain.ids import RECOVERY_ID, parse_group_id
from redrive.domain.item import Status
from redrive.domain.outcome import Risk
from redrive.engine.acting import Order
from redrive.engine.ingest import Receipt
from redrive.engine.once import Render, Told
from redrive.engine.operate import HandOver, Replayed
from redrive.store.port import QueueFilter

MOST_ANSWER = 64 * 1024
FAILURE_CODES = (
    frozenset(outcome.RETRYABLE_NETWORK_CODES) | outcome.ALWAYS_RETRYABLE | outcome.NEVER_RETRYABLE
)
IMPORT_FIELDS = FIELDS | frozenset(
    "status attempt_count failure_code failure_detail last_http_status response_snapshot occurred_at".split()
)
FILTERS = (
    "status", "limit", "cursor", "failure_code", "event_type", "since", "until", "held", "resolved", "group",
    "duplicate_risk",
)  # fmt: skip
_HTTP_CODE = re.compile(r"HTTP_[1-5][0-9]{2}", re.ASCII)


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """The body of what is done to an item or a group: why, and in which incident."""

    reason: str
    incident: str | None = None

    def check(self) -> None:
        """Raise InvalidPayload with all that is wrong."""
        refuse(of_reason(self.reason) + of_name("/incident", self.incident))


class Snapshot(msgspec.Struct, forbid_unknown_fields=True):
    """What a receiver answered elsewhere, as it is known."""

    body: Any
    encoding: Literal["json", "text", "base64"] = "text"
    content_type: str = ""
    status: int | None = None
    headers: list[tuple[str, str]] = []
    size: int | None = None
    truncated: bool = False


async def list_queue(asked: Asked) -> Reply:
    """A page of an integration's items, newest first; it may be short and still have a next one."""
    integration_id = path_id(asked)
    query = Query(asked.query_string, FILTERS)
    status = query.choice("status", [status.value for status in Status])
    wanted = QueueFilter(
        status=None if status is None else Status(status),
        failure_code=query.text("failure_code"),
        event_type=query.text("event_type"),
        since=query.instant("since"),
        until=query.instant("until"),
        resolved=query.flag("resolved"),
        group=_group(query),
        risk=_risk(query),
    )
    held, limit, cursor = query.flag("held"), query.limit(), query.text("cursor")
    query.done()
    listed = await asked.engine.look.queue(
        asked.call, integration_id, wanted, held=held, limit=limit, cursor=cursor
    )
    return asked.json(
        200,
        {
            "integration_id": integration_id,
            "lifecycle_status": listed.integration.lifecycle_status.value,
            "status": status,
            "limit": limit,
            "queue": [views.item(item, listed.integration, bodies=False) for item in listed.page.rows],
            "next_cursor": listed.next_cursor,
        },
    )


async def show_item(asked: Asked) -> Reply:
    """One item with its payload, its last answer and every attempt."""
    integration_id, recovery_id = path_id(asked), path_recovery_id(asked)
    Query(asked.query_string, ()).done()
    seen = await asked.engine.look.item(asked.call, integration_id, recovery_id)
    shown = views.item(seen.item, seen.integration, bodies=True)
    return asked.json(
        200, {"recovery": shown, "attempts": [views.attempt(one, seen.integration) for one in seen.attempts]}
    )


async def hand_over(asked: Asked) -> Reply:
    """Hand over a delivery that failed elsewhere, with its evidence."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BODY + 2 * MOST_ANSWER)
    given = _handed_over(raw, asked.idempotency_key())

    def render(receipt: Receipt) -> Told:
        shown = {"recovery_id": receipt.recovery_id, "status": given.status.value}
        return asked.told(201, shown, again=receipt.duplicate)

    told = await asked.engine.operate.hand_over(
        asked.call, integration_id, given, render=render, key=asked.key(raw)
    )
    return asked.reply(told)


async def replay(asked: Asked) -> Reply:
    """Open the next cycle of a failed or dlq item, with a reason."""
    order = await _order(asked)

    def render(done: Replayed) -> Told:
        integration = asked.engine.catalogue.find(order.integration_id)
        return asked.told(
            200,
            {
                "recovery": views.item(done.item, integration, bodies=False),
                "previous_status": done.previous_status.value,
                "current_status": "replayed",
                "replayed": True,
                "reason": done.reason,
            },
        )

    return asked.reply(await asked.engine.operate.replay(order, render))


async def resolve(asked: Asked) -> Reply:
    """Close a failed or dlq item for good, with a reason."""
    return await _end(asked, asked.engine.operate.resolve, "resolved")


async def erase(asked: Asked) -> Reply:
    """Erase payload, headers and answers of an item for good, with a reason; its history and audit stay."""
    return await _end(asked, asked.engine.operate.erase, "erased")


async def _end(asked: Asked, verb: Callable[[Order, Render[Item]], Awaitable[Told]], done: str) -> Reply:
    """A verb after which nothing more comes of an item; its answer says that it is *done*."""
    order = await _order(asked)

    def render(item: Item) -> Told:
        integration = asked.engine.catalogue.find(order.integration_id)
        shown = views.item(item, integration, bodies=False)
        return asked.told(200, {"recovery": shown, done: True, "reason": order.reason})

    return asked.reply(await verb(order, render))


def path_recovery_id(asked: Asked) -> str:
    """The recovery_id of the path, or InvalidPayload when it breaks its grammar."""
    found = asked.path["recovery_id"]
    if not RECOVERY_ID.fullmatch(found):
        raise InvalidPayload(Fault("recovery_id", "1–64 of a-z 0-9 _ -"))
    return found


def _group(query: Query) -> int | None:
    text = query.text("group")
    number = None if text is None else parse_group_id(text)
    if text is not None and number is None:
        query.faults.append(Fault("group", "must be a group_id: grp_ and 13 characters"))
    return number


def _risk(query: Query) -> Risk | None:
    word = query.choice("duplicate_risk", views.RISKS)
    return None if word is None else Risk[word.upper()]


async def _order(asked: Asked) -> Order:
    """What is asked of the item of the path, by a body that says why."""
    integration_id, recovery_id = path_id(asked), path_recovery_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    given = body.read(raw, Reason)
    given.check()
    return Order(asked.call, integration_id, recovery_id, given.reason, asked.key(raw), given.incident)


def _handed_over(raw: bytes, key: str | None) -> HandOver:
    found = body.members(raw)
    faults: list[Fault] = []
    status = body.value(found, "status", Literal["failed", "dlq"], faults)  # type: ignore[arg-type]
    if "status" not in found:
        faults.append(Fault("/status", "is missing: failed or dlq"))
    count = body.value(found, "attempt_count", int, faults) or 0
    if not 0 <= count <= 1_000:
        faults.append(Fault("/attempt_count", "must be between 0 and 1000"))
    answer = _snapshot(found, faults)
    http_status = body.value(found, "last_http_status", int, faults)
    if http_status is None and answer is not None and answer.status:
        http_status = answer.status
    if answer is not None and http_status is None:
        faults.append(Fault("/response_snapshot/status", "is missing: the HTTP status of that answer"))
    if http_status is not None and not 100 <= http_status <= 599:
        faults.append(Fault("/last_http_status", "must be between 100 and 599"))
    last = Evidence(
        failure_code=_failure_code(found, faults),
        failure_detail=_line(found, "failure_detail", 2_000, faults),
        last_http_status=http_status,
        occurred_at=_occurred_at(found, faults),
        answer=answer,
        is_told=True,
    )
    try:
        given = submission(found, IMPORT_FIELDS, key=key)
    except InvalidPayload as error:
        raise InvalidPayload(*error.faults, *faults) from error
    refuse(faults)
    return HandOver(given, Status(str(status)), count, last)


def _failure_code(found: body.Members, faults: list[Fault]) -> str | None:
    code = body.value(found, "failure_code", str | None, faults)  # type: ignore[arg-type]
    if code is not None and code not in FAILURE_CODES and not _HTTP_CODE.fullmatch(code):
        known = ", ".join(sorted(FAILURE_CODES))
        faults.append(Fault("/failure_code", f"must be HTTP_<status> or one of {known}"))
    return code


def _line(found: body.Members, name: str, most: int, faults: list[Fault]) -> str | None:
    text = body.value(found, name, str | None, faults)  # type: ignore[arg-type]
    faults += of_line(f"/{name}", text, most)
    return text


def _occurred_at(found: body.Members, faults: list[Fault]) -> datetime | None:
    text = body.value(found, "occurred_at", str | None, faults)  # type: ignore[arg-type]
    return read_instant("/occurred_at", text, faults)


def _snapshot(found: body.Members, faults: list[Fault]) -> outcome.Answer | None:
    given = body.value(found, "response_snapshot", Snapshot | None, faults)  # type: ignore[arg-type]
    if given is None:
        return None
    try:
        body.members(found["response_snapshot"], "/response_snapshot")  # no name twice
    except InvalidPayload as error:
        faults += error.faults
        return None
    content = _content(found["response_snapshot"], given, faults)
    if len(content) > MOST_ANSWER:
        faults.append(
            Fault("/response_snapshot/body", f"at most {MOST_ANSWER:,} bytes of an answer are kept")
        )
    if given.status is not None and not 100 <= given.status <= 599:
        faults.append(Fault("/response_snapshot/status", "must be between 100 and 599"))
    headers = tuple(given.headers)
    if any(not HEADER_NAME.fullmatch(name) or not value.isprintable() for name, value in headers):
        faults.append(
            Fault("/response_snapshot/headers", "each is a header name and a value of printable characters")
        )
    if given.content_type and not any(name.lower() == "content-type" for name, _ in headers):
        headers = (("Content-Type", given.content_type), *headers)
    truncated = given.truncated or (given.size is not None and given.size > len(content))
    return outcome.Answer(given.status or 0, headers, content, truncated)


def _content(raw: msgspec.Raw, given: Snapshot, faults: list[Fault]) -> bytes:
    match given.encoding, given.body:
        case "json", _:
            return bytes(body.members(raw)["body"])
        case "text", str(text):
            return text.encode()
        case "base64", str(text):
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                pass
    faults.append(Fault("/response_snapshot/body", f"is not {given.encoding}"))
    return b""
