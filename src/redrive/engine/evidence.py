"""What is handed out as proof: an item with all that is known of it, or all that a cut of the log touched."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.chain import Record, Told, read
from redrive.domain.access import Call, Permission
from redrive.domain.errors import DependencyUnavailable, IntegrationNotFound, RecoveryNotFound
from redrive.domain.ids import EventId, first_id_at, instant_of, parse_recovery_id, replay_id
from redrive.domain.integration import Integration
from redrive.engine.audited import of_export
from redrive.engine.catalogue import Catalogue
from redrive.engine.look import Look, Seen
from redrive.engine.tools import Tools
from redrive.store.chains import Part
from redrive.store.port import EventFilter, StoreInconsistent
from redrive.telemetry.events import AuditWritten

AT_ONCE = 100  # records, or items
MILLISECOND = timedelta(milliseconds=1)


class Export(Struct, frozen=True):
    """An evidence file that is going to be made: under which name, when, and of what."""

    number: EventId
    made_at: datetime
    of: dict[str, Any]
    kept_since: datetime | None  # records from before that were forgotten


class Dossier(Struct, frozen=True):
    """All that is known of an item. Not *seen*: it was forgotten, or cannot be read, which is the *fault*."""

    integration_id: str
    recovery_id: str
    seen: Seen | None
    records: Sequence[Record]
    jobs: Sequence[Part] = ()
    fault: str | None = None


class Evidence:
    """For whoever may view, each time with an audit event: what left the service can leave it again."""

    def __init__(self, tools: Tools, catalogue: Catalogue, look: Look) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.catalogue = catalogue
        self.look = look

    async def item(
        self, call: Call, integration_id: str, recovery_id: str
    ) -> tuple[Export, Dossier, AsyncIterator[Record]]:
        """One item; what is told of it must be noted before it is handed out.

        And by themselves records of its integration, and of the replay jobs it was in, of its time.
        """
        seen = await self.look.item(call, integration_id, recovery_id)
        dossier = await self._dossier(integration_id, recovery_id, seen)
        export = await self._export({"integration_id": integration_id, "recovery_id": recovery_id})
        return export, dossier, self._of_its_time(seen, dossier, export.made_at)

    async def cut(self, call: Call, wanted: EventFilter) -> tuple[Export, AsyncIterator[Dossier | Record]]:
        """What a cut of the log touched, however much: items whole, other records by themselves.

        Of an integration: every item that was accepted then, too.
        """
        call.require(Permission.VIEW)
        integration = None
        if wanted.integration_id is not None:
            integration = await self.catalogue.current(call, wanted.integration_id)
        await self.catalogue.refresh()
        export = await self._export(_told(wanted))
        until = export.made_at if wanted.until is None else min(wanted.until, export.made_at)
        wanted = replace(wanted, tenant=call.principal.tenant, until=until)
        await self.note(call, export, integration_id=wanted.integration_id)
        return export, self._cut(wanted, integration)

    async def note(
        self, call: Call, export: Export, *, integration_id: str | None, digest: str | None = None
    ) -> None:
        """Write down that it is handed out; a file that was made in one piece with its *digest*."""
        event = of_export(
            export.number, export.made_at, call, of=export.of, integration_id=integration_id, digest=digest
        )
        await self.store.note([event])
        self.announce(AuditWritten(event.event_type.value))

    async def _export(self, of: dict[str, Any]) -> Export:
        now = self.clock.now()
        return Export(EventId(self.next_id(now)), now, of, await self._kept_since())

    async def _kept_since(self) -> datetime | None:
        bound = await self.store.chains.forgotten_before()
        return None if not bound else instant_of(bound) + MILLISECOND

    async def _cut(
        self, wanted: EventFilter, integration: Integration | None
    ) -> AsyncIterator[Dossier | Record]:
        above = -1
        while page := await self.store.chains.records(wanted, limit=AT_ONCE, above=above):
            async for piece in self._touched(page, wanted):
                yield piece
            above = page[-1].id
        if integration is not None:
            async for dossier in self._untouched(integration, wanted):
                yield dossier

    async def _touched(self, page: Sequence[Record], wanted: EventFilter) -> AsyncIterator[Dossier | Record]:
        """An item comes with the first of its records that is wanted: so it comes once."""
        chains = await self._chains(record.target_id for record in page)
        for record in page:
            chain = chains.get(record.target_id)
            told = read(record.record)
            if chain is None or told is None or told.integration_id is None:
                yield record
            elif record.id == next((one.id for one in chain if _is_wanted(one, wanted)), record.id):
                yield await self._known(told.integration_id, record.target_id, chain)

    async def _untouched(self, integration: Integration, wanted: EventFilter) -> AsyncIterator[Dossier]:
        """Items of which there are no records that are wanted, such as those that were just delivered."""
        above = -1 if wanted.since is None else first_id_at(wanted.since) - 1
        while page := await self.store.chains.whereabouts(integration.number, above=above, limit=AT_ONCE):
            names = [stood.where.target_id for stood in page if _is_before(stood.where.target_id, wanted)]
            chains = await self._chains(names)
            for name in names:
                chain = chains.get(name, [])
                if not any(_is_wanted(record, wanted) for record in chain):
                    yield await self._known(integration.integration_id, name, chain)
            if len(names) < len(page):
                return
            above = parse_recovery_id(names[-1]) or above

    async def _chains(self, targets: Any) -> dict[str, list[Record]]:
        names = sorted({name for name in targets if parse_recovery_id(name) is not None})
        found = await self.store.chains.of(names) if names else ()
        return {name: list(records) for name, records in groupby(found, key=lambda one: one.target_id)}

    async def _known(self, integration_id: str, recovery_id: str, chain: Sequence[Record]) -> Dossier:
        try:
            seen = await self.look.seen(self.catalogue.find(integration_id), recovery_id)
            return await self._dossier(integration_id, recovery_id, seen)
        except (KeyError, IntegrationNotFound, RecoveryNotFound):
            return Dossier(integration_id, recovery_id, None, chain)
        except (StoreInconsistent, DependencyUnavailable) as error:
            return Dossier(integration_id, recovery_id, None, chain, fault=str(error))

    async def _dossier(self, integration_id: str, recovery_id: str, seen: Seen) -> Dossier:
        """The records up to the last that there was when the item was read: so both are of one moment."""
        item = seen.item
        records = await self.store.chains.of([recovery_id])
        jobs = await self.store.chains.jobs_of(seen.integration.number, item.delivery.id)
        return Dossier(integration_id, recovery_id, seen, _until(records, item.head), jobs)

    async def _of_its_time(self, seen: Seen, dossier: Dossier, now: datetime) -> AsyncIterator[Record]:
        """What was done to its integration, and by the jobs that it was in, in the order of ids.

        From when it was accepted until its last record, once nothing more can come of it.
        """
        until = now
        if seen.item.is_done:
            last = instant_of(dossier.records[-1].id) if dossier.records else seen.item.updated_at
            until = last + MILLISECOND
        names = (seen.integration.integration_id, *(replay_id(part.job) for part in dossier.jobs))
        walks = [
            self._walk(
                EventFilter(
                    target_id=name,
                    integration_id=names[0],
                    since=seen.item.delivery.created_at,
                    until=until,
                )
            )
            for name in names
        ]
        async for record in _in_order(walks):
            yield record

    async def _walk(self, wanted: EventFilter) -> AsyncIterator[Record]:
        above = -1
        while page := await self.store.chains.records(wanted, limit=AT_ONCE, above=above):
            for record in page:
                yield record
            above = page[-1].id


async def _in_order(walks: Sequence[AsyncIterator[Record]]) -> AsyncIterator[Record]:
    """Of several that are each in the order of ids: all of them are."""
    heads = [(record, walk) for walk in walks if (record := await anext(walk, None)) is not None]
    while heads:
        record, walk = min(heads, key=lambda head: head[0].id)
        yield record
        heads.remove((record, walk))
        if (following := await anext(walk, None)) is not None:
            heads.append((following, walk))


def _until(records: Sequence[Record], head: str | None) -> Sequence[Record]:
    """As far as the one that is the *head*; all when there is none of that digest."""
    digests = [None if record.digest is None else record.digest.hex() for record in records]
    return records[: digests.index(head) + 1] if head is not None and head in digests else records


def _is_wanted(record: Record, wanted: EventFilter) -> bool:
    told = read(record.record)
    return (
        told is not None
        and (wanted.since is None or record.id >= first_id_at(wanted.since))
        and (wanted.until is None or record.id < first_id_at(wanted.until))
        and wanted.request_id in (None, told.request_id)
        and wanted.integration_id in (None, told.integration_id)
        and wanted.incident in (None, _incident(told))
    )


def _is_before(recovery_id: str, wanted: EventFilter) -> bool:
    number = parse_recovery_id(recovery_id)
    return wanted.until is None or (number is not None and number < first_id_at(wanted.until))


def _incident(told: Told) -> Any:
    return told.metadata.get("incident")


def _told(wanted: EventFilter) -> dict[str, Any]:
    """What was asked for, as the file and the event tell it."""
    given = {
        name: getattr(wanted, name) for name in ("incident", "integration_id", "request_id", "since", "until")
    }
    return {name: value for name, value in given.items() if value is not None}
