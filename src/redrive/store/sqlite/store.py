"""SqliteStore: the port's verbs over one writer thread and a few readers."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import apsw

from redrive.audit.record import AuditEvent
from redrive.clock import Clock
from redrive.domain.delivery import Attempt, Claim, Erasure, Item, Resolution
from redrive.domain.draining import Arrivals
from redrive.domain.health import Tallies
from redrive.domain.ids import EventId, IdSequence, ItemId, first_id_at
from redrive.domain.integration import Integration
from redrive.domain.sharing import Lane
from redrive.domain.traffic import Standing, Traffic
from redrive.store.chains import Chains
from redrive.store.groups import Groups
from redrive.store.port import (
    Accepted,
    Backlog,
    Balance,
    Claimed,
    Edit,
    EventFilter,
    Import,
    Intake,
    Once,
    Page,
    QueueFilter,
    Replay,
    Result,
    Verdict,
)
from redrive.store.replays import Replays
from redrive.store.results import OutOfOrder
from redrive.store.rows import from_ms, minute_of, to_ms
from redrive.store.sqlite import copies, groups, operate, read, retention, work
from redrive.store.sqlite.chains import SqliteChains
from redrive.store.sqlite.connection import ask, connect_to_read, translated
from redrive.store.sqlite.file import OpenedFile, located, sign, take_lock
from redrive.store.sqlite.groups import SqliteGroups
from redrive.store.sqlite.guarded import guarded
from redrive.store.sqlite.replays import SqliteReplays
from redrive.store.sqlite.schema import check, prepare, upgrade
from redrive.store.sqlite.tokens import SqliteTokens
from redrive.store.sqlite.work import SQL
from redrive.store.sqlite.writer import Writer
from redrive.store.superseding import Ended, Ids, IdsMissing, ended_copies
from redrive.store.tokens import Tokens

Done = TypeVar("Done")
Given = ParamSpec("Given")
PRUNED_AT_ONCE = 1_000


class SqliteStore:
    """The store on one file. Several may have it open; one process at a time enters it."""

    def __init__(self, path: Path, clock: Clock, writer: Writer, readers: int, *, made_schema: bool) -> None:
        self._path = path
        self._made_schema = made_schema
        self.clock = clock
        self.ids = IdSequence()
        self._writer = writer
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="redrive-reader")
        self._reading: list[apsw.Connection] = []
        self._lock: int | None = None
        self._has_told = False
        self._file = OpenedFile(path)
        self.replays: Replays = SqliteReplays(self._read, self._write)
        self.groups: Groups = SqliteGroups(self._read, self._write)
        self.chains: Chains = SqliteChains(self._read)
        self.tokens: Tokens = SqliteTokens(self._read, self._write)

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, readers: int = 2, migrates: bool = False) -> Self:
        """Open *path*, or make it. An older schema is refused, unless *migrates*: then `enter` sees to it."""
        path = await asyncio.to_thread(located, path)  # an alias of the file must find the same lock
        made = await asyncio.to_thread(prepare, path, clock)
        if not migrates:
            await asyncio.to_thread(check, path)
        writer = await asyncio.to_thread(Writer, path)
        return cls(path, clock, writer, readers, made_schema=bool(made))

    async def enter(self) -> int:
        """Take the file's lock, bring its schema up to this version, and take a fresh incarnation.

        The lock goes with the process, however it ends.
        """
        self._lock = take_lock(self._path, "redrive serve")
        await asyncio.to_thread(upgrade, self._path, self.clock)
        self._has_told = False

        def enter(connection: apsw.Connection) -> int:
            [(owner,)] = ask(connection, SQL["enter"], (to_ms(self.clock.now()), f"pid {os.getpid()}"))
            return int(owner)

        return await self._writer.run(enter)

    async def renew(self, owner: int) -> float | None:
        """The file's lock is the lease: it lasts as long as the process, its row, and the file itself."""
        await asyncio.to_thread(self._file.check)
        return inf if await self._write(work.renew, owner, self.clock.now()) else None

    async def balance(self, owner: int) -> Balance | None:  # noqa: ARG002 - as the port has it
        """The one process owns every lane."""
        return None

    async def release(self, owner: int, lanes: Collection[Lane]) -> None:
        """Nobody else could take them."""

    async def listen(self, hear: Callable[[Collection[int]], None]) -> None:
        """Nobody else accepts anything."""

    def hint(self, number: int) -> None:
        """Nobody else listens."""

    async def step_down(self, owner: int) -> None:  # noqa: ARG002 - as the port has it
        """Nobody else could take over; whoever waits for the file is told that it will be free."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # it is only told: no reason not to leave
                sign(self._lock, "redrive serve, stopping")

    async def leave(self, owner: int) -> None:
        """Delete the incarnation and let go of the lock."""
        await self._write(lambda c: c.execute(SQL["leave"], (owner,)))
        self._unlock()

    async def last_id(self) -> int:
        """The greatest id in use."""
        [(number,)] = await self._read(ask, SQL["last_id"])
        return int(number)

    async def close(self) -> None:
        """Commit what was handed over and close the file."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._reading:
            connection.close()
        self._unlock()

    async def accept(
        self, intakes: Sequence[Intake], tell: Callable[[Sequence[Verdict]], Once | None] | None = None
    ) -> Sequence[Verdict]:
        """Store deliveries."""

        def accept(connection: apsw.Connection) -> list[Verdict]:
            verdicts = work.accept(connection, intakes, self.clock.now())
            if tell is not None:
                operate.remember(connection, tell(verdicts))
            return verdicts

        return await self._writer.run(accept)

    async def hand_over(self, item: Import, once: Once | None) -> Verdict:
        """Store a delivery that failed elsewhere."""

        def hand_over(connection: apsw.Connection) -> Verdict:
            verdict = work.hand_over(connection, item)
            if isinstance(verdict, Accepted):
                groups.count(connection, item)
                operate.remember(connection, once)
            return verdict

        return await self._write(hand_over)

    async def claim(self, owner: int, wants: Mapping[Lane, int]) -> Claimed:
        """Claim due items and count their attempts."""
        return await self._write(lambda connection: work.claim(connection, owner, wants, self.clock.now()))

    async def record(self, owner: int, results: Sequence[Result]) -> Sequence[bool]:
        """Write what came of attempts."""
        while ended := ended_copies(results):
            ids = await self._superseding(ended)
            try:
                return await self._write(copies.record, owner, results, ids)
            except OutOfOrder as error:
                self.ids.follow(error.last_event)
            except IdsMissing:
                continue
        return await self._write(work.record, owner, results)

    async def give_back(self, owner: int, claims: Sequence[Claim]) -> None:
        """Undo claims that were not sent."""
        await self._write(work.give_back, owner, claims)

    async def adopt(self, owner: int, limit: int) -> Claimed:
        """Take over the claims of dead owners."""
        return await self._write(work.adopt, owner, limit, self.clock.now())

    async def next_due(self, owner: int) -> Mapping[Lane, datetime]:  # noqa: ARG002 - it may claim all of it
        """The earliest due time of each integration."""
        return await self._read(read.next_due)

    async def create_integration(
        self, integration: Integration, event: AuditEvent, once: Once | None
    ) -> int | None:
        """Add an integration."""

        def create(connection: apsw.Connection) -> int | None:
            number = operate.create_integration(connection, integration)
            if number is not None:
                work.write_events(connection, [event])
                operate.remember(connection, once)
            return number

        return await self._write(create)

    async def update_integration(
        self, integration: Integration, events: Sequence[AuditEvent], once: Once | None = None
    ) -> bool:
        """Replace an integration."""
        return await self._write(guarded(lambda c: operate.update_integration(c, integration), events, once))

    async def replay(self, replay: Replay, once: Once | None) -> bool:
        """Open an item's next cycle."""
        return await self._write(guarded(lambda c: operate.replay(c, replay), [replay.event], once))

    async def resolve(self, item: Item, resolution: Resolution, event: AuditEvent, once: Once | None) -> bool:
        """Close an item for good."""
        return await self._write(guarded(lambda c: operate.resolve(c, item, resolution), [event], once))

    async def edit(self, edit: Edit, once: Once | None) -> bool:
        """Store a corrected copy."""
        return await self._write(guarded(lambda c: copies.edit(c, edit), edit.events, once))

    async def erase(self, item: Item, erasure: Erasure, event: AuditEvent, once: Once | None) -> bool:
        """Erase what an item was delivered with."""
        return await self._write(guarded(lambda c: operate.erase(c, item, erasure), [event], once))

    async def recall(self, scope: bytes) -> Once | None:
        """The stored reply to an idempotent call."""
        return await self._read(operate.recall, scope)

    async def note(self, events: Sequence[AuditEvent]) -> None:
        """Write events alone."""
        await self._write(work.write_events, events)

    # containment

    @property
    def catalogue_version(self) -> int:
        """The one process knows of every change."""
        return 0

    async def steer(
        self,
        integration: Integration,
        traffic: Traffic,
        events: Sequence[AuditEvent],
        once: Once | None = None,
    ) -> Traffic | None:
        """Replace an integration's traffic."""
        steered = await self._write(guarded(lambda c: operate.steer(c, integration, traffic), events, once))
        return traffic if steered else None

    async def follow(self, owner: int, version: int) -> None:
        """Nobody else would ask."""

    async def is_followed(self, version: int) -> bool:  # noqa: ARG002 - as the port has it
        """The one process that may start something is the one that asks."""
        return True

    async def standing(self, integration: int) -> Standing:
        """The open items of an integration."""
        return await self._read(read.standing, integration)

    async def has_backlog(self, integration: int, until: datetime) -> bool:
        """Whether something of it was due by then."""
        return await self._read(read.has_backlog, integration, to_ms(until))

    async def amend(self, once: Once) -> None:
        """Tell something else under a key."""
        await self._write(operate.amend, once)

    async def is_elected(self, duty: str, owner: int) -> bool:  # noqa: ARG002 - as the port has it
        """Nobody else could do it."""
        return True

    async def count_dead(
        self, since: datetime, before: datetime | None = None, *, most: int
    ) -> Mapping[int, int]:
        """How many died lately."""
        until = (1 << 63) - 1 if before is None else to_ms(before)
        values = {"since": to_ms(since), "before": until, "now": to_ms(self.clock.now()), "most": most}
        rows = await self._read(lambda c: ask(c, SQL["count_dead"], values))
        return {number: count for number, count in rows if count}

    # health and probes

    async def take(self, owner: int, item: Item, replay: Replay | None, once: Once | None) -> Claim | None:
        """Claim one item."""
        now = self.clock.now()

        def take(connection: apsw.Connection) -> Claim | None:
            cycle, attempt = item.cycle, item.attempt_count
            if replay is not None:
                if not (
                    work.is_alive(connection, owner)
                    and work.follows(connection, replay.event)
                    and operate.replay(connection, replay)
                ):
                    return None
                work.write_events(connection, [replay.event])  # first: the claim tells the last one
                cycle, attempt = replay.cycle + 1, 0
            claim = work.take(connection, owner, item, cycle=cycle, attempt=attempt, now=now)
            if claim is not None:
                operate.remember(connection, once)
            return claim

        return await self._write(take)

    async def tallies(self, integration: int, since: datetime) -> Tallies:
        """What came of attempts."""
        return await self._read(read.tallies, integration, minute_of(since))

    async def arrivals(self, integration: int, since: datetime) -> Arrivals:
        """How much was accepted."""
        return await self._read(read.arrivals, integration, since)

    async def forget_tallies(self, before: datetime) -> int:
        """Forget what came of attempts long ago."""

        def forget(connection: apsw.Connection) -> int:
            connection.execute(SQL["forget_tallies"], (minute_of(before),))
            return connection.changes()

        return await self._write(forget)

    async def integrations(self) -> Sequence[Integration]:
        """Every integration."""
        return await self._read(read.integrations)

    async def changed_integrations(self) -> Sequence[Integration]:
        """Only the one process changes any; it knows."""
        changed = () if self._has_told else await self.integrations()
        self._has_told = True
        return changed

    async def item(self, integration: int, item_id: ItemId) -> Item | None:
        """One item."""
        return await self._read(read.item, integration, item_id)

    async def history(self, integration: int, item_id: ItemId) -> tuple[Item, Sequence[Attempt]] | None:
        """One item and its attempts."""
        return await self._read(read.history, integration, item_id)

    async def queue(
        self, integration: int, wanted: QueueFilter, *, limit: int, below: int | None
    ) -> Page[Item]:
        """A page of items."""
        return await self._read(read.queue, integration, wanted, limit, below)

    async def events(self, wanted: EventFilter, *, limit: int, below: EventId | None) -> Page[AuditEvent]:
        """A page of audit events."""
        return await self._read(read.events, wanted, limit, below)

    async def count_events(self, wanted: EventFilter, *, most: int) -> int:
        """How many audit events."""
        return await self._read(read.count_events, wanted, most)

    async def backlog(self) -> Backlog:
        """What is due."""
        now_ms = to_ms(self.clock.now())

        def count(connection: apsw.Connection) -> Backlog:
            [(due, oldest)] = ask(connection, SQL["backlog"], {"now": now_ms})
            return Backlog(due, None if oldest is None else from_ms(oldest))

        return await self._read(count)

    async def prune(self, before: datetime) -> int:
        """Forget old idempotency keys, a little at a time so that no commit grows long."""
        gone = 0
        for query, bound in (("prune_keys", first_id_at(before)), ("prune_answers", to_ms(before))):
            while True:
                count = await self._write(_delete, query, bound)
                gone += count
                if count < PRUNED_AT_ONCE:
                    break
        return gone

    async def forget_deliveries(self, before: datetime, *, resolved_before: datetime) -> int:
        """Forget finished deliveries, a little at a time."""
        gone, after, bounds = 0, -1, (first_id_at(before), first_id_at(resolved_before))
        while True:
            count, last = await self._write(retention.forget_deliveries, after, *bounds)
            gone += count
            if last is None:
                break
            after = last
        while await self._write(groups.forget, before, PRUNED_AT_ONCE) == PRUNED_AT_ONCE:
            continue
        return gone

    async def forget_events(self, before: datetime) -> int:
        """Forget old events, a little at a time."""
        gone, bound = 0, first_id_at(before)
        while count := await self._write(retention.forget_events, bound):
            gone += count
        return gone

    async def kept(self, name: str) -> bytes | None:
        """What is kept under a name."""
        return await self._read(operate.kept, name)

    async def keep(self, name: str, value: bytes) -> bytes:
        """Keep something, unless something is."""
        return await self._write(operate.keep, name, value)

    async def exchange(self, name: str, old: bytes, new: bytes) -> bool:
        """Keep one thing in the place of another."""
        return await self._write(operate.exchange, name, old, new)

    def describe(self) -> Mapping[str, Any]:
        """What this store is."""
        return {
            "kind": "sqlite",
            "path": str(self._path),
            "version": apsw.sqlite_lib_version(),
            "made_schema": self._made_schema,
        }

    async def _write(
        self,
        verb: Callable[Concatenate[apsw.Connection, Given], Done],
        *args: Given.args,
        **kw: Given.kwargs,
    ) -> Done:
        return await self._writer.run(lambda connection: verb(connection, *args, **kw))

    async def _superseding(self, ended: Sequence[Ended]) -> Ids:
        """Ids for the events of what copies that ended supersede."""
        ids: dict[ItemId, EventId] = {}
        for copy in ended:
            if copy.event is not None:
                family = await self._read(copies.family, copy.integration, copy.of)
                ids |= {number: EventId(self.ids.next(self.clock.now())) for number in family}
        return ids

    async def _read(
        self,
        question: Callable[Concatenate[apsw.Connection, Given], Done],
        *args: Given.args,
        **kw: Given.kwargs,
    ) -> Done:
        def ask() -> Done:
            with self._file.explained(), translated():
                connection = self._reader()
                connection.execute("BEGIN")  # one snapshot for all of it
                try:
                    return question(connection, *args, **kw)
                finally:
                    connection.execute("ROLLBACK")

        return await asyncio.get_running_loop().run_in_executor(self._readers, ask)

    def _reader(self) -> apsw.Connection:
        """The connection of this thread, made when first asked for."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect_to_read(self._path)
            self._reading.append(connection)
        return connection

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _delete(connection: apsw.Connection, query: str, bound: int) -> int:
    connection.execute(SQL[query], (bound, PRUNED_AT_ONCE))
    return connection.changes()
