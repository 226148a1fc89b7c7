"""Evidence files: JSON Lines, sent as they are made."""

import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Final

from redrive import __version__
from redrive.api import views
from redrive.api.call import Asked, Reply
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.api.queue import path_recovery_id
from redrive.audit.bundle import Writer
from redrive.audit.chain import Record
from redrive.domain.delivery import rfc3339
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.ids import export_id, instant_of, replay_id
from redrive.engine.evidence import Dossier, Export
from redrive.store.port import EventFilter

MEDIA_TYPE: Final = b"application/jsonl"
CUTS: Final = ("incident", "integration_id", "request_id")
FILTERS: Final = (*CUTS, "since", "until")
AT_ONCE: Final = 64 * 1024  # bytes that leave together


async def show_evidence(asked: Asked) -> Reply:
    """One item as an evidence file: attempts and answers, audit records, and all that concerned it."""
    integration_id, recovery_id = path_id(asked), path_recovery_id(asked)
    Query(asked.query_string, ()).done()
    export, dossier, others = await asked.engine.evidence.item(asked.call, integration_id, recovery_id)
    writer = Writer()
    made = bytearray(_head(writer, asked, export))
    async for line in _lines(writer, dossier, others):
        made += line
    body = bytes(made + writer.manifest())
    digest = hashlib.sha256(body).hexdigest()
    await asked.engine.evidence.note(asked.call, export, integration_id=integration_id, digest=digest)
    return _file(export, Reply(200, body))


async def export_audit(asked: Asked) -> Reply:
    """What an incident, an integration or a call touched, as an evidence file of any size."""
    query = Query(asked.query_string, FILTERS)
    wanted = EventFilter(
        incident=query.text("incident"),
        integration_id=query.text("integration_id"),
        request_id=query.text("request_id"),
        since=query.instant("since"),
        until=query.instant("until"),
    )
    query.done()
    if sum(getattr(wanted, name) is not None for name in CUTS) != 1:
        raise InvalidPayload(Fault("", f"give one of {', '.join(CUTS)}"))
    export, pieces = await asked.engine.evidence.cut(asked.call, wanted)
    return _file(export, Reply(200, b"", stream=_together(_written(asked, export, pieces))))


def _file(export: Export, reply: Reply) -> Reply:
    name = f"{export_id(export.number)}.jsonl"
    reply.content_type = MEDIA_TYPE
    reply.headers.append((b"content-disposition", f'attachment; filename="{name}"'.encode()))
    return reply


async def _written(
    asked: Asked, export: Export, pieces: AsyncIterator[Dossier | Record]
) -> AsyncIterator[bytes]:
    writer = Writer()
    yield _head(writer, asked, export)
    async for piece in pieces:
        if isinstance(piece, Dossier):
            async for line in _lines(writer, piece, _none()):
                yield line
        else:
            yield _record(writer, piece)
    yield writer.manifest()


async def _together(lines: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    held = bytearray()
    async for line in lines:
        held += line
        if len(held) >= AT_ONCE:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _head(writer: Writer, asked: Asked, export: Export) -> bytes:
    principal = asked.call.principal
    return writer.head(
        export_id=export_id(export.number),
        made_at=rfc3339(export.made_at),
        made_by={"id": principal.id, "type": principal.type},
        request_id=asked.request_id,
        version=__version__,
        of=export.of,
        audit_kept_since=views.instant(export.kept_since),
    )


async def _lines(writer: Writer, dossier: Dossier, others: AsyncIterator[Record]) -> AsyncIterator[bytes]:
    """An item, and then what happened, in the order in which it did, *others* among it."""
    name, seen = dossier.recovery_id, dossier.seen
    shown = None if seen is None else views.item(seen.item, seen.integration, bodies=True)
    about = {"fault": dossier.fault} if dossier.fault is not None else {}
    at = None if seen is None else rfc3339(seen.item.delivery.created_at)
    yield writer.line(
        "item", at=at, recovery_id=name, integration_id=dossier.integration_id, item=shown, **about
    )
    own = deque(sorted(_timeline(writer, dossier), key=lambda entry: entry[0]))
    async for record in others:
        while own and own[0][0] < _place(record):
            yield own.popleft()[1]()
        yield _record(writer, record)
    for _, line in own:
        yield line()


async def _none() -> AsyncIterator[Record]:
    for record in tuple[Record, ...]():
        yield record


Place = tuple[datetime, int]  # of one instant, an attempt comes before what it led to, records by their ids


def _timeline(writer: Writer, dossier: Dossier) -> Iterator[tuple[Place, Callable[[], bytes]]]:
    name, seen = dossier.recovery_id, dossier.seen
    if seen is not None:
        for attempt in seen.attempts:
            shown = views.attempt(attempt, seen.integration)
            at = rfc3339(attempt.started_at)
            yield (
                (attempt.started_at, -1),
                partial(writer.line, "attempt", at=at, recovery_id=name, attempt=shown),
            )
    for record in dossier.records:
        yield _place(record), partial(_record, writer, record)
    for part in dossier.jobs:
        job = {
            "replay_id": replay_id(part.job),
            "state": part.state,
            "reason": part.reason,
            "told_at": views.instant(part.told_at),
        }
        planned_at = instant_of(part.job)
        at = rfc3339(planned_at)
        yield (planned_at, part.job), partial(writer.line, "job", at=at, recovery_id=name, job=job)


def _place(record: Record) -> Place:
    return instant_of(record.id), record.id


def _record(writer: Writer, record: Record) -> bytes:
    return writer.record(record, at=rfc3339(instant_of(record.id)))
