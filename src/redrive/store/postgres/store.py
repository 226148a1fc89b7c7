"""PostgresStore: the port's verbs over a pool of sessions."""

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from redrive.audit.record import AuditEvent
from redrive.clock import Clock, FollowedClock
from redrive.config import without_secrets
from redrive.domain.delivery import Attempt, Claim, Erasure, Item, Resolution
from redrive.domain.draining import Arrivals
from redrive.domain.health import Tallies
from redrive.domain.ids import EventId, IdSequence, ItemId, first_id_at
from redrive.domain.integration import MAX_TIMEOUT_SECONDS, Integration
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
    StoreInconsistent,
    Verdict,
)
from redrive.store.postgres import copies, groups, operate, read, work
from redrive.store.postgres.chains import PostgresChains
from redrive.store.postgres.connection import Connection, Database, PooledDatabase
from redrive.store.postgres.cursors import Cursors
from redrive.store.postgres.duties import Duties
from redrive.store.postgres.groups import PostgresGroups
from redrive.store.postgres.guarded import Guarded, if_written
from redrive.store.postgres.hints import Hints
from redrive.store.postgres.lanes import Lanes, columns
from redrive.store.postgres.migrate import add_partitions, set_up_if_empty
from redrive.store.postgres.recording import Recording
from redrive.store.postgres.replays import PostgresReplays
from redrive.store.postgres.together import ItemsTogether
from redrive.store.postgres.tokens import PostgresTokens
from redrive.store.postgres.untold import Untold
from redrive.store.postgres.work import SQL
from redrive.store.replays import Replays
from redrive.store.results import Numbers, OutOfOrder, numbers_of
from redrive.store.rows import Row, from_ms, minute_of, to_ms
from redrive.store.tokens import Tokens

LEASE_SECONDS: Final = 15.0


class PostgresStore:
    """The store on one database, shared by every process that has its address."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        url: str,
        *,
        sends: bool,
        lease_seconds: float = LEASE_SECONDS,
        timeout_seconds: float = MAX_TIMEOUT_SECONDS,
        hints: Hints | None = None,
    ) -> None:
        self._database = database
        self._reserved = database.reserved()
        self._followed = FollowedClock(clock)
        self.clock: Clock = self._followed
        self.ids = IdSequence()
        self._where = without_secrets(url)
        self._sends = sends
        self._lease_seconds = lease_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self.grace_ms = self._lease_ms  # after the database's own start, to renew before anyone is buried
        self._cursors = Cursors()
        self._untold = Untold(database)
        self._duties = Duties(database)
        self._recording = Recording(database, self.ids, lambda: self._cursors)
        self._guarded = Guarded(database, self.ids)
        self._items = ItemsTogether(database)
        self.replays: Replays = PostgresReplays(database, lambda: self._cursors, self._guarded)
        self.groups: Groups = PostgresGroups(database, self._guarded)
        self.chains: Chains = PostgresChains(database)
        self.tokens: Tokens = PostgresTokens(database)
        self._going_back: dict[tuple[int, Numbers], work.Standing] = {}  # by owner
        self._lanes = Lanes(timeout_seconds)
        self._hints = hints  # None: nobody would hear them through a pooler
        self._seen_version = -1
        self._confirmed = -1
        self._owner = 0
        self._last_stamp = 0
        self._version = ""
        self._made_schema = False

    @classmethod
    async def open(
        cls,
        url: str,
        clock: Clock,
        *,
        connections: int = 10,
        sends: bool = True,
        lease_seconds: float = LEASE_SECONDS,
        timeout_seconds: float = MAX_TIMEOUT_SECONDS,
        is_pooled: bool = False,
    ) -> Self:
        """Connect. An empty database is set up; an older schema waits for `redrive migrate`.

        *sends*: whether this process takes lanes. *timeout_seconds*: how long an attempt takes at most, where
        the integration does not say. *is_pooled*: a pooler in transaction mode stands before it.
        """
        kind = PooledDatabase if is_pooled else Database
        database = await kind.open(url, clock, connections=connections)
        hints = None if is_pooled else Hints(database, url, clock)
        store = cls(
            database,
            clock,
            url,
            sends=sends,
            lease_seconds=lease_seconds,
            timeout_seconds=timeout_seconds,
            hints=hints,
        )
        try:
            store._made_schema = await database.run(set_up_if_empty)
            store._version = (await database.ask("SHOW server_version"))[0][0]
            await store._follow_clock(SQL["now"])
        except BaseException:
            await database.close()
            raise
        return store

    async def enter(self) -> int:
        """Become a live process with a lease."""
        await self._database.run(add_partitions)

        async def enter(connection: Connection) -> int:
            values = (_process(os.getpid()), self._lease_ms, self._sends)
            while (owner := await connection.fetchval(SQL["enter"], *values)) is None:
                continue  # the next number; a thousand processes would have to live for this not to end
            return int(owner)

        self._cursors, self._seen_version, self._confirmed = Cursors(), -1, -1
        self._owner = await self._database.run(enter)
        return self._owner

    async def renew(self, owner: int) -> float | None:
        """Renew the lease, by the database's clock, which `clock` follows."""
        is_alive = await self._follow_clock(SQL["renew"], owner, self._lease_ms)
        return self._lease_seconds if is_alive else None

    async def balance(self, owner: int) -> Balance | None:
        """Take this process's part of the lanes."""
        if not self._sends:
            return Balance(frozenset())
        balance = await self._database.again(lambda c: self._lanes.balance(c, owner, self.grace_ms))
        self._cursors.follow(balance.owned - balance.surplus)
        return balance

    async def release(self, owner: int, lanes: Collection[Lane]) -> None:
        """Let go of lanes."""
        await self._database.again(lambda c: c.execute(SQL["release"], owner, *columns(lanes)))

    async def listen(self, hear: Callable[[Collection[int]], None]) -> None:
        """Hear of what other processes accept."""
        if self._hints is not None:
            self._hints.listen(hear)

    def hint(self, number: int) -> None:
        """Tell other processes of what is theirs to send."""
        if self._hints is not None:
            self._hints.tell(number)

    async def step_down(self, owner: int) -> None:
        """Send no more: the next division is without this process."""
        await self._database.again(lambda c: c.execute(SQL["step_down"], owner))

    async def leave(self, owner: int) -> None:
        """Delete the incarnation, and let its lanes go."""

        async def leave(connection: Connection) -> None:
            await connection.execute(SQL["leave"], owner)
            await self._lanes.free(connection)

        await self._database.again(leave)

    async def bury(self, pid: int) -> None:
        """A process of this machine is surely dead: end its lease, and let its lanes go."""

        async def bury(connection: Connection) -> None:
            await connection.execute(SQL["bury_process"], _process(pid))
            await self._lanes.free(connection)

        await self._database.again(bury)

    async def last_id(self) -> int:
        """The greatest id in use."""
        return int((await self._database.ask(SQL["last_id"]))[0][0])

    async def close(self) -> None:
        """Close every session."""
        if self._hints is not None:
            await self._hints.close()
        await self._database.close()

    # what arrives

    async def accept(
        self, intakes: Sequence[Intake], tell: Callable[[Sequence[Verdict]], Once | None] | None = None
    ) -> Sequence[Verdict]:
        """Store deliveries."""
        owner = next((intake.owner for intake in intakes if intake.owner is not None), None)
        stamp = self._stamp()

        async def accept(connection: Connection) -> list[Verdict]:
            if tell is None:
                return await work.accept(connection, intakes, owner, stamp)
            async with connection.transaction():
                verdicts = await work.accept(connection, intakes, owner, stamp)
                await operate.remember(connection, tell(verdicts))
                return verdicts

        async def look_up(connection: Connection) -> list[Verdict]:
            found = await work.accepted(connection, intakes, owner, stamp)
            return found or await accept(connection)  # it did not happen: now it does

        claims = [(i.delivery.integration, i.delivery.id, stamp) for i in intakes if i.owner is not None]

        async def undo(connection: Connection) -> None:
            if owner is not None:
                await work.give_back(connection, owner, claims)

        with self._untold.watched(undo, {number for number, *_ in claims}):
            verdicts = await self._database.write(accept, look_up)
        for intake, verdict in zip(intakes, verdicts, strict=True):
            if isinstance(verdict, Accepted) and not verdict.claimed:
                self._cursors.put_back(intake.delivery.integration, to_ms(intake.delivery.created_at))
        return verdicts

    async def hand_over(self, item: Import, once: Once | None) -> Verdict:
        """Store a delivery that failed elsewhere."""

        async def hand_over(connection: Connection) -> Verdict:
            async with connection.transaction():
                verdict = await work.hand_over(connection, item)
                if isinstance(verdict, Accepted):
                    await groups.count(connection, item)
                    await operate.remember(connection, once)
                return verdict

        return await self._database.write(hand_over, if_written([item.event], Accepted(claimed=False)))

    # work

    async def claim(self, owner: int, wants: Mapping[Lane, int]) -> Claimed:
        """Claim due items and count their attempts."""
        cursors = self._cursors  # those of this incarnation: the next begins with its own
        places = {cursors.place(lane): most for lane, most in wants.items()}
        stamp, now_ms = self._stamp(), to_ms(self.clock.now())

        async def claim(connection: Connection) -> list[Any]:
            return await work.claim(connection, owner, places, stamp)

        async def look_up(connection: Connection) -> list[Any]:
            return await work.claimed(connection, owner, places, stamp)

        async def read_claims(connection: Connection) -> Claimed:
            claimed, last_id = await work.read_claims(connection, owner, rows, stamp)
            self.ids.follow(last_id)
            due = await work.next_due(connection, owner, places)
            cursors.advance(places, due, now_ms)
            return Claimed(claimed.claims, due, claimed.set_aside, claimed.orphans)

        async def undo(connection: Connection) -> None:
            await work.undo_call(connection, owner, places, stamp)

        with self._untold.watched(undo, {lane.integration for lane in wants}):
            rows = await self._database.write(claim, look_up)
            return await self._database.again(read_claims)

    async def record(self, owner: int, results: Sequence[Result]) -> Sequence[bool]:
        """Write what came of attempts."""
        return await self._recording.record(owner, results, now=self.clock.now())

    async def give_back(self, owner: int, claims: Sequence[Claim]) -> None:
        """Undo claims that were not sent."""
        # What an earlier call of the same found stays: should that have happened, though it failed, they may
        # be claimed anew by now, under the same numbers.
        found = await self._database.run(lambda c: work.claims_to_give_back(c, owner, claims))
        for numbers, claimed in found.items():
            self._going_back.setdefault((owner, numbers), claimed)
        keys = [(owner, numbers_of(claim)) for claim in claims]
        standing = [self._going_back[key] for key in keys if key in self._going_back]
        await self._database.again(lambda connection: work.give_back(connection, owner, standing))
        for key in keys:
            self._going_back.pop(key, None)
        for claim in claims:
            self._cursors.put_back(claim.delivery.integration, 0)

    async def adopt(self, owner: int, limit: int) -> Claimed:  # noqa: ARG002 - see below
        """Nothing here: what the dead had claimed comes with the claims of whoever owns their lanes next."""
        return Claimed((), {})

    async def next_due(self, owner: int) -> Mapping[Lane, datetime]:
        """The earliest due time of each lane that this process owns."""
        for number in await self._untold.undo():
            self._cursors.put_back(number, 0)
        places, now_ms = self._cursors.sweep(), to_ms(self.clock.now())

        async def look(connection: Connection) -> dict[Lane, datetime | None]:
            return await work.next_due(connection, owner, places)

        found = await self._database.run(look)
        self._cursors.advance(places, found, now_ms)
        due = {lane: at for lane, at in found.items() if at is not None}
        for lane, at in due.items():
            self._cursors.put_back(lane.integration, to_ms(at))
        return due

    # a person's verbs

    async def create_integration(
        self, integration: Integration, event: AuditEvent, once: Once | None
    ) -> int | None:
        """Add an integration."""

        async def look_up(connection: Connection) -> int | None:
            if not await connection.fetch(SQL["has_event"], event.id):
                return None
            return int(await connection.fetchval(SQL["number_of"], integration.integration_id))

        return await self._database.write(
            lambda c: operate.create_integration(c, integration, event, once), look_up
        )

    async def update_integration(
        self, integration: Integration, events: Sequence[AuditEvent], once: Once | None = None
    ) -> bool:
        """Replace an integration."""
        return await self._guarded.write(
            lambda c: operate.update_integration(c, integration, events), events, once
        )

    async def replay(self, replay: Replay, once: Once | None) -> bool:
        """Open an item's next cycle."""
        replayed = await self._guarded.write(lambda c: copies.replay(c, replay), [replay.event], once)
        if replayed:
            self._cursors.put_back(replay.integration, to_ms(replay.opened_at))
        return replayed

    async def resolve(self, item: Item, resolution: Resolution, event: AuditEvent, once: Once | None) -> bool:
        """Close an item for good."""
        return await self._guarded.write(lambda c: operate.resolve(c, item, resolution, event), [event], once)

    async def edit(self, edit: Edit, once: Once | None) -> bool:
        """Store a corrected copy."""
        edited = await self._guarded.write(lambda c: copies.edit(c, edit), edit.events, once)
        if edited:
            self._cursors.put_back(edit.copy.integration, to_ms(edit.copy.created_at))
        return edited

    async def erase(self, item: Item, erasure: Erasure, event: AuditEvent, once: Once | None) -> bool:
        """Erase what an item was delivered with."""
        return await self._guarded.write(lambda c: operate.erase(c, item, erasure, event), [event], once)

    async def recall(self, scope: bytes) -> Once | None:
        """The stored reply to an idempotent call."""
        return await self._database.run(lambda connection: operate.recall(connection, scope))

    async def note(self, events: Sequence[AuditEvent]) -> None:
        """Write events alone."""

        async def note(connection: Connection) -> bool:
            await work.write_events(connection, events)
            return True

        await self._database.write(note, if_written(events, True))

    # containment

    @property
    def catalogue_version(self) -> int:
        """That was read last."""
        return self._seen_version

    async def steer(
        self,
        integration: Integration,
        traffic: Traffic,
        events: Sequence[AuditEvent],
        once: Once | None = None,
    ) -> Traffic | None:
        """Replace an integration's traffic."""
        steered: list[Traffic] = []

        async def steer(connection: Connection) -> bool:
            return await operate.steer(connection, integration, traffic, events, steered.append)

        async def look_up(connection: Connection) -> bool | None:
            if events or not steered:
                return await if_written(events, True)(connection)
            return await operate.is_steered(connection, integration, steered[-1]) or None

        return steered[-1] if await self._guarded.write(steer, events, once, look_up) else None

    async def follow(self, owner: int, version: int) -> None:
        """Confirm a version of the catalogue."""
        if version > self._confirmed:
            await self._database.again(lambda c: c.execute(SQL["follow"], owner, version))
            self._confirmed = version

    async def is_followed(self, version: int) -> bool:
        """Whether all who live confirmed it."""
        return bool((await self._database.ask(SQL["is_followed"], version))[0][0])

    async def standing(self, integration: int) -> Standing:
        """The open items of an integration."""
        return Standing(*(await self._database.ask(SQL["standing"], integration))[0])

    async def has_backlog(self, integration: int, until: datetime) -> bool:
        """Whether something of it was due by then."""
        return bool((await self._database.ask(SQL["has_backlog"], integration, to_ms(until)))[0][0])

    async def amend(self, once: Once) -> None:
        """Tell something else under a key."""
        await self._database.again(lambda connection: operate.amend(connection, once))

    async def is_elected(self, duty: str, owner: int) -> bool:
        """Whether a duty is *owner*'s."""
        return await self._duties.is_elected(duty, owner)

    # health and probes

    async def take(self, owner: int, item: Item, replay: Replay | None, once: Once | None) -> Claim | None:
        """Claim one item."""
        stamp = self._stamp()
        number, integration = item.delivery.id, item.delivery.integration

        async def take(connection: Connection) -> Row | None:
            async with connection.transaction():
                cycle, attempt = item.cycle, item.attempt_count
                if replay is not None:
                    if not await copies.replay(connection, replay):
                        return None
                    cycle, attempt = replay.cycle + 1, 0
                row = await work.take(connection, owner, item, cycle=cycle, attempt=attempt, claimed_at=stamp)
                if row is None and replay is not None:
                    raise _Fenced
                if row is not None:
                    await operate.remember(connection, once)
                return row

        async def look_up(connection: Connection) -> Row | None:
            return await work.taken(connection, owner, item, stamp)

        async def undo(connection: Connection) -> None:
            await work.give_back(connection, owner, [(integration, number, stamp)])

        async def read_claim(connection: Connection, row: Row) -> Claim:
            claimed, last_id = await work.read_claims(connection, owner, [row], stamp)
            self.ids.follow(last_id)
            if claimed.set_aside:
                raise StoreInconsistent(claimed.set_aside[0])
            return claimed.claims[0]

        try:
            with self._untold.watched(undo, {integration}):
                row = await self._database.write(take, look_up)
                return None if row is None else await self._database.again(partial(read_claim, row=row))
        except OutOfOrder as error:
            self.ids.follow(error.last_event)
            return None
        except _Fenced:
            return None

    async def tallies(self, integration: int, since: datetime) -> Tallies:
        """What came of attempts."""
        return await self._database.run(
            lambda connection: read.tallies(connection, integration, minute_of(since))
        )

    async def arrivals(self, integration: int, since: datetime) -> Arrivals:
        """How much was accepted."""
        return await self._database.run(lambda connection: read.arrivals(connection, integration, since))

    async def forget_tallies(self, before: datetime) -> int:
        """Forget what came of attempts long ago."""
        return await self._duties.forget_tallies(self._owner, before=minute_of(before))

    # questions

    async def count_dead(
        self, since: datetime, before: datetime | None = None, *, most: int
    ) -> Mapping[int, int]:
        """How many died lately."""
        until = (1 << 63) - 1 if before is None else to_ms(before)
        rows = await self._database.ask(SQL["count_dead"], to_ms(since), most, until)
        return {row[0]: row[1] for row in rows if row[1]}

    async def integrations(self) -> Sequence[Integration]:
        """Every integration."""
        return await self._database.run(lambda connection: read.integrations(connection, -1))

    async def changed_integrations(self) -> Sequence[Integration]:
        """What other processes changed since this was last asked."""

        async def look(connection: Connection) -> tuple[int, Sequence[Integration]]:
            version = await connection.fetchval(SQL["version"])
            if version == self._seen_version:
                return version, ()
            return version, await read.integrations(connection, self._seen_version)

        version, changed = await self._database.run(look)
        self._seen_version = max(version, self._seen_version)
        return changed

    async def item(self, integration: int, item_id: ItemId) -> Item | None:
        """One item."""
        return await self._items.item(integration, item_id)

    async def history(self, integration: int, item_id: ItemId) -> tuple[Item, Sequence[Attempt]] | None:
        """One item with its attempts."""
        return await self._database.run(lambda connection: read.history(connection, integration, item_id))

    async def queue(
        self, integration: int, wanted: QueueFilter, *, limit: int, below: int | None
    ) -> Page[Item]:
        """A page of items."""
        return await self._database.run(
            lambda connection: read.queue(connection, integration, wanted, limit, below)
        )

    async def events(self, wanted: EventFilter, *, limit: int, below: EventId | None) -> Page[AuditEvent]:
        """A page of audit events."""
        return await self._database.run(lambda connection: read.events(connection, wanted, limit, below))

    async def count_events(self, wanted: EventFilter, *, most: int) -> int:
        """How many audit events."""
        return await self._database.run(lambda connection: read.count_events(connection, wanted, most))

    async def backlog(self) -> Backlog:
        """What is due."""
        [(due, oldest)] = await self._database.ask(SQL["backlog"])
        return Backlog(due, read.instant(oldest))

    # duties

    async def prune(self, before: datetime) -> int:
        """Forget old idempotency keys."""
        return await self._duties.prune(self._owner, before_id=first_id_at(before), before_ms=to_ms(before))

    async def forget_deliveries(self, before: datetime, *, resolved_before: datetime) -> int:
        """Forget finished deliveries."""
        return await self._duties.forget_deliveries(
            self._owner, before_id=first_id_at(before), resolved_before_id=first_id_at(resolved_before)
        )

    async def forget_events(self, before: datetime) -> int:
        """Forget old events."""
        return await self._duties.forget_events(self._owner, before_id=first_id_at(before))

    async def kept(self, name: str) -> bytes | None:
        """What is kept under a name."""
        return await self._database.run(lambda connection: operate.kept(connection, name))

    async def keep(self, name: str, value: bytes) -> bytes:
        """Keep something, unless something is."""
        return await self._database.again(lambda connection: operate.keep(connection, name, value))

    async def exchange(self, name: str, old: bytes, new: bytes) -> bool:
        """Keep one thing in the place of another."""
        return await self._database.again(lambda connection: operate.exchange(connection, name, old, new))

    def describe(self) -> Mapping[str, Any]:
        """What this store is."""
        return {
            "kind": "postgresql",
            "path": self._where,
            "version": self._version,
            "made_schema": self._made_schema,
        }

    def _stamp(self) -> int:
        """A millisecond that this process never stamped a claim with before, nor the one after it."""
        self._last_stamp = max(self._last_stamp + 2, to_ms(self.clock.now()))
        return self._last_stamp

    async def _follow_clock(self, query: str, *values: Any) -> bool:
        """Run a *query* that gives the database's time; whether it gave one."""
        before = self.clock.elapsed()
        patience = self._lease_seconds / 3  # a session that went silent must leave time for another
        rows = await self._reserved.again(lambda c: c.fetch(query, *values, timeout=patience))
        if rows:
            self._followed.follow(from_ms(rows[0][0]), before, self.clock.elapsed())
        return bool(rows)


class _Fenced(Exception):
    """What was replayed could not be claimed: nothing of it is to be written."""


def _process(pid: int) -> str:
    """What tells a process from all others: containers may share a host's name, but not its process ids."""
    namespace = Path("/proc/self/ns/pid")
    where = namespace.stat().st_ino if namespace.exists() else 0
    return f"{socket.gethostname()} {where} pid {pid}"
