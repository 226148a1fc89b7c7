"""Chains as the stores hold them, and what may be done to one."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from redrive.audit.chain import Chain, Filed, Finding, Record
from redrive.audit.record import AuditEvent, EventType, chained, digest_of, record_of
from redrive.domain.ids import recovery_id
from tests.factories import an_event, an_id


def stored(event: AuditEvent) -> Record:
    text = record_of(event)
    filed = Filed(event.event_type, event.request_id, event.integration_id, event.actor.id)
    return Record(event.id, event.target_id, text, digest_of(text), filed)


def a_chain(length: int, *, after: str | None = None, target_id: str | None = None) -> list[Record]:
    """Of a new item, unless one is named."""
    target_id = target_id or recovery_id(an_id())
    events = [
        an_event(EventType.REPLAYED, target_type="recovery_item", target_id=target_id, metadata={"n": n})
        for n in range(length)
    ]
    return [stored(event) for event in chained(*events, after=after)]


def rewritten(record: Record, *, covers: bool = False, **fields: object) -> Record:
    """Says something else; *covers*: with a digest that fits."""
    text = msgspec.json.encode(msgspec.json.decode(record.record) | fields)
    return replace(record, record=text, digest=digest_of(text) if covers else record.digest)


def findings(records: Sequence[Record], *, forgotten_before: int = 0) -> list[Finding]:
    chain = Chain(records[0].target_id if records else "rec_0000000000000", forgotten_before=forgotten_before)
    return [finding for record in records for finding in chain.take(record)]
