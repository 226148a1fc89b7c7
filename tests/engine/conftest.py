"""A whole engine over a real store, once per kind, with a deliverer that answers as told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from redrive.clock import unique_bytes
from redrive.delivery.port import Request
from redrive.domain.access import Call, Permission, Principal
from redrive.domain.delivery import Attempt, Item
from redrive.domain.ids import parse_recovery_id
from redrive.domain.integration import Defaults, Integration
from redrive.domain.item import Status
from redrive.domain.outcome import Answer, Failed, Outcome, Succeeded, classify
from redrive.engine.ingest import Submission
from redrive.engine.once import Told
from redrive.engine.runtime import Engine, Limits
from redrive.engine.tools import Tools
from redrive.store.port import Store
from redrive.store.sqlite import SqliteStore
from redrive.telemetry.events import Event
from tests.engine.clock import StandingClock
from tests.store.under_test import ClockedDatabase, ClockedPostgres, a_schema
from tests.vault import a_vault

DEADLINE_SECONDS = 30.0
TIMELESS = 1e6  # seconds: a lease that outlives what a test lets pass in a moment
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Fact = TypeVar("Fact")
Script = Callable[[Request], Awaitable[Outcome] | Outcome]


def answered(status: int) -> Outcome:
    """What comes of a complete answer with *status*."""
    return classify(Answer(status, (("Content-Type", "text/plain"),), b"told"))


def in_silence(_: object) -> Told:
    """Tells nothing of a verb's result."""
    return Told(200, b"")


def _fine(_: Request) -> Outcome:
    return answered(200)


@dataclass
class Deliverer:
    """Answers by path; notes every request that left, and how many were under way at once by path."""

    connecting: dict[str, Callable[[Request], Awaitable[object]]] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    under_way: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    most_at_once: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def send(self, request: Request, leaving: Callable[[], None] = lambda: None) -> Outcome:
        """Connect, then do as the script of the path says; 200 without one."""
        path = request.target.path
        self.under_way[path] += 1
        self.most_at_once[path] = max(self.most_at_once[path], self.under_way[path])
        try:
            if path in self.connecting:
                await self.connecting[path](request)
            leaving()
            self.requests.append(request)
            told = self.scripts.get(path, _fine)(request)
            return told if isinstance(told, Succeeded | Failed) else await told
        finally:
            self.under_way[path] -= 1

    async def close(self) -> None:
        """Nothing is kept."""

    def sent(self, path: str) -> int:
        """How many requests went to *path*."""
        return sum(request.target.path == path for request in self.requests)


class Harness:
    """An engine under test, with what a test asks of it."""

    def __init__(self, store: Store, clock: StandingClock, slots: int = 64, *, sends: bool = True) -> None:
        self.store = store
        self.clock = clock
        self.deliverer = Deliverer()
        self.events: list[Event] = []
        self.cpu_seconds = 0.0
        self.tools = Tools(
            store,
            clock,
            lambda: 0.5,
            unique_bytes,
            self.events.append,
            a_vault(),
            cpu_seconds=lambda: self.cpu_seconds,
        )
        self.engine = Engine(
            self.tools,
            self.deliverer,
            Defaults(),
            Limits(slots=slots),
            allow_http=True,
            judge=lambda *_: None,
            sends=sends,
        )

    def call(self, request_id: str = "req-1") -> Call:
        """A call of someone who may do everything."""
        return Call(Principal("tester", "token", "tok_1", frozenset(Permission)), request_id, TRACE)

    def fill_core(self, *, arrivals: int) -> None:
        """Let a step pass in which so many arrive, and the process has no CPU to spare."""
        for _ in range(arrivals):
            self.engine.worker.load.arrived()
        self.cpu_seconds += 1.0
        self.clock.move(0.05)

    async def integration(self, name: str, **fields: Any) -> Integration:
        """A new integration that delivers to /<name>."""
        fields = {"integration_id": name, "name": name, "url": f"https://partner.example/{name}"} | fields
        await self.engine.catalogue.create(self.call(), fields, render=in_silence)
        await self.engine.membership.balance()  # its lanes are taken now, not in a second
        await eventually(lambda: self._looked(name))
        return self.engine.catalogue.find(name)

    async def change(self, integration_id: str, **changes: Any) -> None:
        """Change an integration."""
        await self.engine.catalogue.update(self.call(), integration_id, changes, render=in_silence)

    async def deliver(self, integration_id: str, count: int = 1) -> list[str]:
        """Accept *count* deliveries; their recovery ids."""
        receipts = await asyncio.gather(
            *(
                self.engine.ingest.accept(self.call(), integration_id, Submission("made", b'{"n": 1}'))
                for _ in range(count)
            )
        )
        return [receipt.recovery_id for receipt in receipts]

    def number(self, integration_id: str) -> int:
        """What the store calls an integration."""
        return self.engine.catalogue.find(integration_id).number

    async def item(self, integration_id: str, recovery_id: str) -> Item:
        """The item as it is stored."""
        number = parse_recovery_id(recovery_id)
        assert number is not None
        found = await self.store.item(self.number(integration_id), number)
        assert found is not None
        return found

    async def attempts(self, item: Item) -> list[Attempt]:
        """What was recorded of *item*, oldest first."""
        found = await self.store.history(item.delivery.integration, item.delivery.id)
        assert found is not None
        return list(found[1])

    async def status(self, integration_id: str, recovery_id: str, status: Status) -> Item:
        """The item, once it is in *status*."""
        return await eventually(lambda: self.reached(integration_id, recovery_id, status))

    async def reached(self, integration_id: str, recovery_id: str, status: Status) -> Item | None:
        """The item, if it is in *status*."""
        item = await self.item(integration_id, recovery_id)
        return item if item.status is status else None

    async def retry(self, integration_id: str, recovery_id: str) -> None:
        """Let time pass until the next retry is due, once it is scheduled."""

        async def scheduled() -> datetime | None:
            at = (await self.item(integration_id, recovery_id)).next_retry_at
            return at if at is not None and at > self.clock.now() else None

        self.clock.move_to(await eventually(scheduled))

    async def in_time(self, look: Callable[[], Awaitable[Fact | None]]) -> Fact:
        """What *look* finds, once it finds something; time passes until then."""

        async def look_a_second_later() -> Fact | None:
            self.clock.move(1.0)
            return await look()

        return await eventually(look_a_second_later)

    async def die(self) -> None:
        """End as a killed process does: nothing is finished, written down or given back."""
        self.engine.worker.stopping = True
        self.engine.worker.abort()
        for loop in self.engine._loops:
            loop.cancel()
        await self.store.leave(self.engine.worker.owner)  # as the system lets go of the lock

    async def _looked(self, integration_id: str) -> bool | None:
        """Whether a lane that was just taken, if it sends, was looked at for what waited in it."""
        worker = self.engine.worker
        paces = [worker.lanes.pace(lane) for lane in worker.owned.lanes_of(self.number(integration_id))]
        is_looking = worker._claiming.locked()
        return all(not pace.sends or (pace.next_due is None and not is_looking) for pace in paces) or None

    async def close(self) -> None:
        """Stop at once: whatever a test left hanging must not hang the tests."""
        await self.engine.close()
        await self.store.close()


class AlonePostgres(ClockedPostgres):
    """PostgreSQL with one process on it."""

    async def listen(self, hear: Callable[[Collection[int]], None]) -> None:
        """There is nobody to hear of; a test need not wait until that is known."""


async def eventually(look: Callable[[], Awaitable[Fact | None]]) -> Fact:
    """What *look* finds, once it finds something; looked for until a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (found := await look()) is None:  # noqa: ASYNC110 - a stored fact has no event
            await asyncio.sleep(0.005)
    return found


@pytest.fixture
def clock() -> StandingClock:
    """The one clock of the engine and its store."""
    return StandingClock()


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: StandingClock) -> AsyncIterator[Store]:
    """A fresh database; the engine closes the store."""
    if request.param == "sqlite":
        yield await SqliteStore.open(tmp_path / "redrive.db", clock)
        return
    async with a_schema(request.getfixturevalue("postgres").url(), clock) as where:
        database = await ClockedDatabase.open(where, clock, connections=4)
        yield AlonePostgres(database, clock, where, lease_seconds=TIMELESS)


@pytest.fixture
async def harness(store: Store, clock: StandingClock) -> AsyncIterator[Harness]:
    """A running engine."""
    harness = Harness(store, clock)
    await harness.engine.start()
    yield harness
    await harness.close()
