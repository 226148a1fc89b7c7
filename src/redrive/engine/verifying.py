"""Verifying the audit records of a database: all of them, or now and then what was written lately."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

from redrive.audit.chain import Chain, Finding, Record, check_end, read
from redrive.audit.record import AuditEvent, EventType
from redrive.domain.ids import first_id_at, instant_of, parse_recovery_id
from redrive.engine.audited import of_system
from redrive.engine.tools import Tools
from redrive.engine.worker import Worker
from redrive.store.port import EventFilter, Store
from redrive.telemetry.events import AuditWritten, ChainBroken, ChainsSkipped

AT_ONCE: Final = 500
DUTY: Final = "chains"
KEPT_AS: Final = "chains_checked"
SETTLED: Final = timedelta(seconds=60)  # what is older is there, but for what was recorded late
MOST: Final = 1_000  # records a turn
MINUTE: Final = timedelta(minutes=1)
BEHIND: Final = timedelta(hours=1)  # it may be, before it gives up what it did not get to


@dataclass(slots=True)
class Tally:
    """How far a verification is, and in the end how much there was."""

    records: int = 0
    items: int = 0
    cut: int = 0  # chains whose beginning was forgotten, as retention does
    bare: int = 0  # records without a digest: of a version that knew of none, or of somebody who forged them


async def verify(store: Store, tally: Tally, tell: Callable[[str], None]) -> AsyncIterator[Finding]:
    """Whatever is wrong with the records there are, and with where items are according to them.

    It holds a page at a time, and may run beside a service: what is written meanwhile is no finding. *tell*
    is told how far it is.
    """
    async for finding in _chains(store, tally, tell):
        yield finding
    for integration in await store.integrations():
        async for finding in _ends(store, integration.number, tally, tell):
            yield finding


async def _chains(store: Store, tally: Tally, tell: Callable[[str], None]) -> AsyncIterator[Finding]:
    chain: Chain | None = None
    after = ("", 0)
    while page := await store.chains.every(after=after, limit=AT_ONCE):
        forgotten_before = (
            await store.chains.forgotten_before()
        )  # read after them: what is missing then was forgotten
        for record in page:
            if chain is None or chain.target_id != record.target_id:
                chain = Chain(record.target_id, forgotten_before=forgotten_before)
            for finding in chain.take(record):
                yield finding
            tally.cut += chain.is_cut and chain.length == 1
        tally.records += len(page)
        tally.bare += sum(record.digest is None for record in page)
        tell(f"{tally.records} records")
        after = (page[-1].target_id, page[-1].id)


async def _ends(
    store: Store, integration: int, tally: Tally, tell: Callable[[str], None]
) -> AsyncIterator[Finding]:
    above = -1
    while page := await store.chains.whereabouts(integration, above=above, limit=AT_ONCE):
        forgotten_before = await store.chains.forgotten_before()
        for stood in page:
            finding = check_end(stood.where, stood.last, forgotten_before=forgotten_before)
            if finding is not None:
                yield finding
        tally.items += len(page)
        tell(f"{tally.records} records, {tally.items} items")
        above = parse_recovery_id(page[-1].where.target_id) or above


class SpotCheck:
    """Looks at the chains of what was written since it last looked. One process does it for all.

    A turn looks at so many records, and the next goes on there. What it does not get to within the hour it
    skips, which is announced: all of them is what `verify` is for.
    """

    def __init__(self, tools: Tools, worker: Worker) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.worker = worker

    async def look(self) -> None:
        """Once more; what is wrong is audited and announced."""
        if not await self.store.is_elected(DUTY, self.worker.owner):
            return
        until = self.clock.now() - SETTLED
        bound = first_id_at(until)
        kept = await self.store.keep(KEPT_AS, bound.to_bytes(8))
        if (since := int.from_bytes(kept)) >= bound:
            return
        written = await self.store.chains.records(EventFilter(until=until), limit=MOST, above=since - 1)
        await self._check_all(written)
        looked = bound if len(written) < MOST else written[-1].id + 1
        behind = until - instant_of(looked)
        following = bound if behind > BEHIND else looked
        if await self.store.exchange(KEPT_AS, kept, following.to_bytes(8)) and following != looked:
            self.announce(ChainsSkipped(instant_of(looked), behind // MINUTE))

    async def _check_all(self, written: Sequence[Record]) -> None:
        names = sorted({one.target_id for one in written if parse_recovery_id(one.target_id) is not None})
        for at in range(0, len(names), AT_ONCE):
            await self._check(await self.store.chains.of(names[at : at + AT_ONCE]))

    async def _check(self, records: Sequence[Record]) -> None:
        forgotten_before = await self.store.chains.forgotten_before()
        for target_id, chained in groupby(records, key=lambda record: record.target_id):
            chain, found = list(chained), Chain(target_id, forgotten_before=forgotten_before)
            findings = [finding for record in chain for finding in found.take(record)]
            if findings:
                await self._tell(chain, findings)

    async def _tell(self, chain: Sequence[Record], findings: Sequence[Finding]) -> None:
        first = findings[0]
        told = next((told for record in chain if (told := read(record.record)) is not None), None)
        integration_id = None if told is None else told.integration_id
        if integration_id is not None:
            event = self._event(integration_id, first, len(findings))
            await self.store.note([event])
            self.announce(AuditWritten(event.event_type.value))
        self.announce(ChainBroken(integration_id, first.target_id, first.kind.value, first.detail))

    def _event(self, integration_id: str, first: Finding, count: int) -> AuditEvent:
        return of_system(
            self.next_id,
            self.clock.now(),
            EventType.CHAIN_BROKEN,
            integration_id=integration_id,
            before={"whole": True},
            after={"whole": False},
            metadata={
                "recovery_id": first.target_id,
                "event_id": first.event_id,
                "finding": first.kind.value,
                "detail": first.detail,
                "findings": count,
            },
            result="failure",
        )
