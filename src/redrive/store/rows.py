"""Between values and rows: instants as milliseconds, headers and records as JSON text."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from redrive.audit.chain import Filed, Record, Whereabouts
from redrive.audit.record import AuditEvent, digest_of, record_of
from redrive.domain.access import Permission
from redrive.domain.delivery import Attempt, Delivery, Erasure, Evidence, Headers
from redrive.domain.draining import Arrivals
from redrive.domain.failure_group import (
    COUNTED_AT_MOST,
    Comment,
    DeadItem,
    FailureGroup,
    GroupState,
    Judgement,
)
from redrive.domain.grouping import Cause
from redrive.domain.health import Tallies, Tally
from redrive.domain.ids import EventId, ItemId, instant_of, recovery_id
from redrive.domain.integration import Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Answer, Failed, Outcome, Reach, Risk, Succeeded
from redrive.domain.traffic import FLOWING, Traffic
from redrive.store.chains import Part, Stood
from redrive.store.groups import Position
from redrive.store.port import StoreInconsistent
from redrive.store.tokens import Token

Row = tuple[Any, ...]
Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=StrEnum)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
MINUTE = timedelta(minutes=1)
ARRIVALS_COUNTED = 1_000
_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_integration = msgspec.json.Decoder(Integration)
_event = msgspec.json.Decoder(AuditEvent)
_traffic = msgspec.json.Decoder(Traffic)


def to_ms(instant: datetime) -> int:
    """Milliseconds since 1970."""
    return (instant - EPOCH) // MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """The instant *milliseconds* after 1970."""
    try:
        return EPOCH + milliseconds * MILLISECOND
    except OverflowError as error:
        raise StoreInconsistent(f"{milliseconds} is stored as an instant") from error


def to_choice(kind: type[Choice], text: str) -> Choice:
    """The member of *kind* that is stored as *text*."""
    try:
        return kind(text)
    except ValueError as error:
        raise StoreInconsistent(f"{text!r} is stored as a {kind.__name__.lower()}") from error


def to_risk(number: int) -> Risk:
    """The risk that is stored as *number*."""
    try:
        return Risk(number)
    except ValueError as error:
        raise StoreInconsistent(f"{number} is stored as a risk") from error


def delivery_row(d: Delivery) -> Row:
    """As `insert_delivery` wants it."""
    return (
        d.id, d.integration, d.event_type, d.request_id, d.traceparent, d.tracestate, d.idempotency_key,
        d.created_by, d.max_attempts, d.content_type, _pack(d.headers), d.payload,
    )  # fmt: skip


def to_delivery(row: Row) -> Delivery:
    """From the columns of `delivery`, in the order of the table."""
    (number, integration, event_type, request_id, traceparent, tracestate, key, created_by, max_attempts,
     content_type, headers, payload) = row  # fmt: skip
    return Delivery(
        id=ItemId(number),
        integration=integration,
        event_type=event_type,
        payload=payload,
        content_type=content_type,
        headers=_unpack(headers),
        request_id=request_id,
        traceparent=traceparent,
        tracestate=tracestate,
        idempotency_key=key,
        created_by=created_by,
        created_at=instant_of(number),
        max_attempts=max_attempts,
    )


def attempt_row(item: int, attempt: Attempt, cause: int | None) -> Row:
    """As `insert_attempt` wants it, with the number of the group that its failure is of."""
    code = detail = retry_after = None
    outcome = attempt.outcome
    if isinstance(outcome, Failed):
        code, detail = outcome.code, outcome.detail
        retry_after = None if outcome.retry_after is None else outcome.retry_after // MILLISECOND
    return (
        item, attempt.cycle, attempt.attempt, to_ms(attempt.started_at),
        attempt.duration // timedelta(microseconds=1), code, detail, attempt.retryable, outcome.reach,
        retry_after, attempt.span_id, *answer_columns(outcome.answer), cause,
    )  # fmt: skip


def to_attempt(row: Row) -> Attempt:
    """From the columns of `attempts`."""
    (
        cycle,
        number,
        started_at,
        duration,
        code,
        detail,
        retryable,
        reach,
        retry_after,
        span_id,
        group,
        *answer,
    ) = row
    return Attempt(
        cycle=cycle,
        attempt=number,
        started_at=from_ms(started_at),
        duration=timedelta(microseconds=duration),
        outcome=_outcome(code, detail, reach, retry_after, to_answer(answer)),
        retryable=None if retryable is None else bool(retryable),
        span_id=span_id,
        group=group,
    )


def answer_columns(answer: Answer | None) -> Row:
    """http_status, headers, truncated, body."""
    if answer is None:
        return (None, None, None, None)
    return (answer.status, _pack(answer.headers), answer.truncated, answer.body)


def to_answer(columns: list[Any]) -> Answer | None:
    """From http_status, headers, truncated, body; an import may know the status alone."""
    status, headers, truncated, body = columns
    if status is None or body is None:
        return None
    return Answer(status, _unpack(headers), body, bool(truncated))


def imported_row(item: int, last: Evidence) -> Row:
    """As `insert_imported` wants it."""
    _, *answer = answer_columns(last.answer)
    return (
        item, last.failure_code, last.failure_detail, last.retryable,
        None if last.occurred_at is None else to_ms(last.occurred_at), last.last_http_status, *answer,
    )  # fmt: skip


def to_evidence(row: Row) -> Evidence:
    """From the columns of `imported`, with the size of its body."""
    code, detail, retryable, occurred_at, *answer, size = row
    known = to_answer(answer)
    return Evidence(
        failure_code=code,
        failure_detail=detail,
        last_http_status=answer[0],
        retryable=None if retryable is None else bool(retryable),
        occurred_at=None if occurred_at is None else from_ms(occurred_at),
        answer=known,
        answer_size=0 if known is None else size,
        is_told=True,
    )


def to_erasure(row: Row) -> Erasure:
    """From erased_at, erased_by and reason."""
    at, by, reason = row
    return Erasure(from_ms(at), by, reason)


def event_row(event: AuditEvent) -> Row:
    """As `insert_event` wants it."""
    record = record_of(event)
    return (
        event.id, event.event_type, event.request_id, event.integration_id, event.target_id,
        event.actor.id, record.decode(), digest_of(record),
    )  # fmt: skip


def previous_of(event: AuditEvent) -> bytes | None:
    """The digest that an event names, as it is stored."""
    return None if event.previous is None else bytes.fromhex(event.previous)


def to_event(record: str) -> AuditEvent:
    """From the stored record."""
    return _decode(_event, record)


def to_record(row: Row) -> Record:
    """From id, target_id, record and digest of `audit`, and perhaps its other columns.

    What is damaged is for whoever verifies it.
    """
    number, target_id, text, digest, *filed = row
    record = text if isinstance(text, bytes) else str(text).encode()
    known = None if digest is None else bytes(digest)
    return Record(EventId(number), target_id, record, known, Filed(*filed) if filed else None)


def to_stood(row: Row) -> Stood:
    """From the columns of `whereabouts`."""
    (number, live, live_cycle, ended, dead, dead_cycle, dead_attempt, is_resolved, is_erased,
     last_cycle, last_attempt, event, text, digest) = row  # fmt: skip
    name = recovery_id(number)
    last = None if last_cycle is None else (last_cycle, last_attempt)
    if live is not None:
        status, cycle, attempt = live, live_cycle, ended
    elif dead is not None:
        status, cycle, attempt = dead, dead_cycle, dead_attempt
    else:
        status, (cycle, attempt) = "succeeded", last or (1, 0)
    where = Whereabouts(name, status, cycle, attempt, bool(is_resolved), bool(is_erased), last)
    return Stood(where, None if event is None else to_record((event, name, text, digest)))


def to_part(row: Row) -> Part:
    """From the columns of `jobs_of`."""
    job, state, reason, told_ms = row
    return Part(job, state, reason, None if told_ms is None else from_ms(told_ms))


def pack_integration(integration: Integration) -> str:
    """The `config` column: everything but its traffic; what is secret in it is sealed."""
    return _encoder.encode(replace(integration, traffic=FLOWING)).decode()


def traffic_columns(traffic: Traffic) -> Row:
    """Containment and traffic."""
    contained = traffic.containment
    return None if contained is None else contained.mode.value, _encoder.encode(traffic).decode()


def to_integration(row: Row) -> Integration:
    """From the columns of `integrations`."""
    number, lifecycle, version, config, containment, kept = row
    try:
        found = _decode(_integration, config)
        traffic = FLOWING if kept is None else _decode(_traffic, kept)
    except StoreInconsistent as error:
        raise StoreInconsistent(f"integration number {number}: {error}") from error
    if found.lifecycle_status != lifecycle:
        raise StoreInconsistent(f"{found.integration_id} is stored as {lifecycle} and as something else")
    if traffic_columns(traffic)[0] != containment:
        raise StoreInconsistent(f"{found.integration_id} is stored as contained, and as not contained")
    return replace(found, number=number, version=version, traffic=traffic)


def cause_row(cause: Cause) -> Row:
    """As `count_failure` wants it."""
    return (cause.number, cause.fingerprint, cause.failure_class, cause.failure_code, cause.detail)


def to_group(row: Row) -> FailureGroup:
    """From the columns of `groups`."""
    (integration, number, fingerprint, kind, code, detail, failures, first_ms, last_ms, sample,
     state, at_ms, by, muted_ms, items) = row  # fmt: skip
    return FailureGroup(
        integration=integration,
        cause=Cause(number, fingerprint, kind, code, detail),
        failures=failures,
        first_seen_at=from_ms(first_ms),
        last_seen_at=from_ms(last_ms),
        sample=ItemId(sample),
        judgement=Judgement(to_choice(GroupState, state), _instant(at_ms), by, _instant(muted_ms)),
        items=min(items, COUNTED_AT_MOST),
        items_is_exact=items <= COUNTED_AT_MOST,
    )


def judgement_row(judged: Judgement) -> Row:
    """As `judge` wants it."""
    muted = judged.muted_until
    return (
        judged.state.value, None if judged.at is None else to_ms(judged.at), judged.by,
        None if muted is None else to_ms(muted),
    )  # fmt: skip


def to_dead_item(row: Row, head: bytes | None) -> DeadItem:
    """From the columns of `unresolved`, and the digest of its last record."""
    number, status, cycle, attempt, code, request_id = row
    told = None if head is None else head.hex()
    return DeadItem(ItemId(number), to_choice(Status, status), cycle, attempt, code, request_id, told)


def to_comment(row: Row) -> Comment:
    """From the columns of `comments`."""
    return Comment(*row)


def position_of(group: FailureGroup) -> Position:
    """Where it stands in a list."""
    return to_ms(group.last_seen_at), group.cause.number


def token_row(token: Token, digest: bytes) -> Row:
    """As `add_token` wants it."""
    return (
        token.token_id, digest, token.subject, " ".join(sorted(token.permissions)),
        to_ms(token.created_at), None if token.expires_at is None else to_ms(token.expires_at),
        token.tenant,
    )  # fmt: skip


def to_token(row: Row) -> Token:
    """From the columns of `tokens`."""
    token_id, subject, permissions, created, expires, revoked, tenant = row
    return Token(
        token_id=token_id,
        subject=subject,
        permissions=frozenset(to_choice(Permission, name) for name in permissions.split()),
        created_at=from_ms(created),
        expires_at=None if expires is None else from_ms(expires),
        revoked_at=None if revoked is None else from_ms(revoked),
        tenant=tenant,
    )


def minute_of(instant: datetime) -> int:
    """The minute since 1970 that *instant* is in."""
    return (instant - EPOCH) // MINUTE


def to_tallies(rows: Iterable[Row], last: Row) -> Tallies:
    """From minute, succeeded, failed and microseconds; and the minutes of the last success and failure."""
    minutes = [
        Tally(EPOCH + minute * MINUTE, succeeded, failed, timedelta(microseconds=duration_us))
        for minute, succeeded, failed, duration_us in rows
    ]
    success, failure = (None if minute is None else EPOCH + minute * MINUTE for minute in last)
    return Tallies(minutes, success, failure)


def to_arrivals(count: int, first: int | None, since: datetime, most: int) -> Arrivals:
    """From how many were counted, *most* at most, and the least of their ids."""
    return Arrivals(count, since if first is None or count < most else instant_of(first))


def _outcome(
    code: str | None, detail: str | None, reach: str, retry_after: int | None, answer: Answer | None
) -> Outcome:
    if code is None:
        if answer is None:
            raise StoreInconsistent("a successful attempt is stored without its answer")
        return Succeeded(answer)
    asked = None if retry_after is None else timedelta(milliseconds=retry_after)
    return Failed(code, detail or "", to_choice(Reach, reach), answer, asked)


def _decode(decoder: msgspec.json.Decoder[Value], text: str) -> Value:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreInconsistent(f"a stored record cannot be read: {error}") from error


def _pack(headers: Headers) -> str | None:
    return _encoder.encode(headers).decode() if headers else None


def _unpack(text: str | None) -> Headers:
    return () if text is None else _decode(_headers, text)


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_ms(milliseconds)
