"""A database from before recovery, with a past of every kind in it: brought up, nothing of that is lost."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from redrive.audit.record import EventType, record_of
from redrive.domain.delivery import Delivery, Item, item_state
from redrive.domain.ids import EventId, first_id_at, recovery_id
from redrive.domain.item import Status
from redrive.domain.outcome import Failed
from redrive.domain.replay import Wanted
from redrive.domain.replay_judging import judge
from redrive.store.migration import Migration, migrations
from redrive.store.port import QueueFilter, Store
from redrive.store.postgres import migrate as postgres_migrate
from redrive.store.rows import to_ms
from redrive.store.sqlite import migrate, schema
from tests.factories import NOW, a_delivery, an_event, an_id, an_integration
from tests.store.told import found, replay, resolve, wrong_with
from tests.store.under_test import (
    ClockedDatabase,
    OffsetClock,
    PostgresUnderTest,
    StoreUnderTest,
    a_schema,
    attempts_of,
    sqlite_under_test,
)

BEFORE = {"sqlite": 4, "postgres": 5}  # the last step before the one that brought recovery
Row = dict[str, Any]
Rows = list[tuple[str, Row]]  # each with its table
Verb = Callable[[Store, Item], Awaitable[bool]]


@dataclass(frozen=True)
class Old:
    """An item as it was. `attempts`: code, reach and HTTP status of each; `risk`: what they amount to now."""

    name: str
    status: Status
    attempts: tuple[tuple[str | None, str, int | None], ...]
    risk: int
    resolved: bool = False
    imported: bool = False


PAST = [
    Old("fresh", Status.PENDING, (), 0),
    Old("never sent", Status.RETRYING, (("ECONNREFUSED", "not_sent", None),), 1),
    Old("refused", Status.RETRYING, (("HTTP_429", "answered", 429), ("DNS_NOT_FOUND", "not_sent", None)), 2),
    Old("perhaps acted on", Status.RETRYING, (("HTTP_500", "answered", 500),), 3),
    Old("dead, never sent", Status.DLQ, (("ECONNREFUSED", "not_sent", None),), 1),
    Old("dead, refused", Status.FAILED, (("HTTP_404", "answered", 404),), 2),
    Old("dead, unavailable", Status.DLQ, (("HTTP_503", "answered", 503),), 2),
    Old(
        "dead, lost on the way", Status.DLQ, (("HTTP_503", "answered", 503), ("ECONNRESET", "sent", None)), 3
    ),
    Old("dead, resolved", Status.FAILED, (("HTTP_404", "answered", 404),), 2, resolved=True),
    Old("dead, imported", Status.DLQ, (), 3, imported=True),
    Old("arrived", Status.SUCCEEDED, ((None, "answered", 200),), 0),
    Old("arrived at last", Status.SUCCEEDED, (("HTTP_503", "answered", 503), (None, "answered", 200)), 0),
]
DEAD = [old for old in PAST if old.status in (Status.DLQ, Status.FAILED) and not old.resolved]


@dataclass
class Scene:
    """A store of this version on what the earlier one left."""

    store: StoreUnderTest
    deliveries: dict[str, Delivery]
    first_event: int

    async def item(self, name: str) -> Item:
        return await found(self.store, self.deliveries[name])

    async def codes(self, item: Item) -> list[str | None]:
        """How its attempts ended; None: well."""
        told = await attempts_of(self.store, 1, item.delivery.id)
        return [one.outcome.code if isinstance(one.outcome, Failed) else None for one in told]


@pytest.fixture
async def scene(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    deliveries = {old.name: a_delivery(1) for old in PAST}
    rows = [row for old in PAST for row in _rows_of(old, deliveries[old.name])]
    first_event = min(row["id"] for table, row in rows if table == "audit")
    kind = _sqlite if store_kind == "sqlite" else _postgres
    async with kind(request, tmp_path, monkeypatch, [("integration", _integration()), *rows]) as store:
        await store.enter()
        store.ids.start(1, first_id_at(NOW))
        yield Scene(store, deliveries, first_event)


async def test_everything_is_readable_and_says_what_a_replay_would_risk(scene: Scene) -> None:
    items = {old.name: await scene.item(old.name) for old in PAST}

    told = {
        name: (item.status, int(item.risk), item.resolution is not None, await scene.codes(item))
        for name, item in items.items()
    }
    assert told == {
        old.name: (old.status, old.risk, old.resolved, [code for code, _, _ in old.attempts]) for old in PAST
    }
    assert {name: item.delivery for name, item in items.items()} == scene.deliveries


async def test_nothing_is_wrong_with_records_from_before_there_were_chains(scene: Scene) -> None:
    wrong = {name: await wrong_with(scene.store, delivery) for name, delivery in scene.deliveries.items()}

    assert wrong == {old.name: [] for old in PAST}


async def test_what_was_forgotten_before_nobody_knows(scene: Scene) -> None:
    assert await scene.store.chains.forgotten_before() == scene.first_event


async def test_the_queue_lists_every_old_item(scene: Scene) -> None:
    listed = [
        item.delivery.id
        for status in Status
        for item in (await scene.store.queue(1, QueueFilter(status=status), limit=50, below=None)).rows
        if status is not Status.SUCCEEDED
    ]

    assert sorted(listed) == [
        scene.deliveries[old.name].id for old in PAST if old.status is not Status.SUCCEEDED
    ]


async def test_an_old_dead_item_is_planned(scene: Scene) -> None:
    found = [
        one
        for status in (Status.DLQ, Status.FAILED)
        for one in await scene.store.replays.candidates(
            1, Wanted(status=status), as_of=NOW, after=-1, limit=50
        )
        if judge(one, as_of=NOW, sends=True) is None
    ]

    assert sorted((one.id, one.risk) for one in found) == [
        (scene.deliveries[old.name].id, old.risk) for old in DEAD
    ]


@pytest.mark.parametrize("verb", [replay, resolve])
async def test_old_dead_items_are_operated_on_and_their_chains_begin_there(scene: Scene, verb: Verb) -> None:
    for old in DEAD:
        assert await verb(scene.store, await scene.item(old.name))

    after = {old.name: await scene.item(old.name) for old in DEAD}
    assert {name: int(item.risk) for name, item in after.items()} == {old.name: old.risk for old in DEAD}
    assert {item.status is Status.REPLAYED for item in after.values()} == {verb is replay}
    assert {item.resolution is None for item in after.values()} == {verb is replay}
    wrong = {old.name: await wrong_with(scene.store, scene.deliveries[old.name]) for old in DEAD}
    assert wrong == {old.name: [] for old in DEAD}


# what the earlier version wrote


def _rows_of(old: Old, delivery: Delivery) -> Iterator[tuple[str, Row]]:
    yield "delivery", _delivery(delivery)
    for n, attempt in enumerate(old.attempts, 1):
        yield "attempt", _attempt(delivery, n, *attempt)
    place: Row = {"id": delivery.id, "integration": 1, "status": old.status, "cycle": 1, "max_attempts": 5}
    place |= {"attempt": 3 if old.imported else len(old.attempts)}
    if old.status in (Status.PENDING, Status.RETRYING):
        yield "live", place | {"due_at": to_ms(NOW)}
    elif old.status is not Status.SUCCEEDED:
        code = old.attempts[-1][0] if old.attempts else "HTTP_503"
        closed: Row = {"resolved_at": to_ms(NOW), "resolved_by": "ops", "resolved_reason": "handled"}
        yield "dead", place | {"failure_code": code, "died_at": 1} | (closed if old.resolved else {})
    if old.imported:
        yield "imported", {"integration": 1, "item": delivery.id, "failure_code": "HTTP_503"}
    if (told := _told(old)) is not None:
        yield "audit", _event(delivery, told, item_state(
            old.status, cycle=1, attempt_count=place["attempt"], resolved=old.resolved
        ))  # fmt: skip


def _told(old: Old) -> EventType | None:
    """The last event of it; none of what arrived at once."""
    match old.status:
        case Status.RETRYING:
            return EventType.RETRY_SCHEDULED
        case Status.DLQ:
            return EventType.IMPORTED if old.imported else EventType.RETRY_EXHAUSTED
        case Status.FAILED:
            return EventType.RESOLVED if old.resolved else EventType.REPROCESS_FAILED
        case Status.SUCCEEDED if len(old.attempts) > 1:
            return EventType.REPROCESS_SUCCEEDED
        case _:
            return None


def _delivery(delivery: Delivery) -> Row:
    same = ("id", "integration", "event_type", "request_id", "traceparent", "created_by", "max_attempts")
    return {name: getattr(delivery, name) for name in (*same, "content_type", "payload")}


def _attempt(delivery: Delivery, number: int, code: str | None, reach: str, status: int | None) -> Row:
    return {
        "integration": 1, "item": delivery.id, "cycle": 1, "attempt": number,
        "started_at": to_ms(delivery.created_at) + number, "duration_us": 1, "span_id": "b7ad6b7169203331",
        "failure_code": code, "failure_detail": code and "it went wrong", "retryable": code and True,
        "reach": reach, "http_status": status,
        "headers": None if status is None else "[]", "truncated": None if status is None else False,
        "body": None if status is None else b"told",
    }  # fmt: skip


def _event(delivery: Delivery, kind: EventType, after: Row) -> Row:
    """Its record names none before it: there were no chains."""
    event = an_event(
        kind,
        id=EventId(an_id()),
        target_type="recovery_item",
        target_id=recovery_id(delivery.id),
        after_state=after,
    )
    record = msgspec.json.decode(record_of(event))
    record.pop("previous", None)
    names = ("id", "event_type", "request_id", "integration_id", "target_id")
    return {name: getattr(event, name) for name in names} | {
        "integration": 1, "actor": event.actor.id, "record": json.dumps(record)
    }  # fmt: skip


def _integration() -> Row:
    document = msgspec.to_builtins(an_integration("acme")) | {"secrets": []}
    return {
        "integration_id": "acme", "lifecycle": "active", "version": 1, "config": json.dumps(document),
    }  # fmt: skip


# and where


def _up_to(number: int) -> Callable[[str], list[Migration]]:
    return lambda package: [step for step in migrations(package) if step.number <= number]


@asynccontextmanager
async def _sqlite(
    _: pytest.FixtureRequest, directory: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> AsyncIterator[StoreUnderTest]:
    path = directory / "redrive.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "migrations", _up_to(BEFORE["sqlite"]))
        migrate(path, OffsetClock())
    connection = apsw.Connection(str(path))
    for table, row in rows:
        lacking = table in ("attempt", "imported", "audit")  # of which an id says whose they are
        given = {name: value for name, value in row.items() if not (lacking and name == "integration")}
        marks = ", ".join("?" for _ in given)
        connection.execute(
            f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", tuple(given.values())
        )
    connection.close()
    async with sqlite_under_test(directory, migrates=True) as store:
        yield store


@asynccontextmanager
async def _postgres(
    request: pytest.FixtureRequest, _: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> AsyncIterator[StoreUnderTest]:
    clock, url = OffsetClock(), request.getfixturevalue("postgres").url()
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as earlier:
            earlier.setattr(postgres_migrate, "migrations", _up_to(BEFORE["postgres"]))
            where = await stack.enter_async_context(a_schema(url, clock))
        database = await ClockedDatabase.open(where, clock, connections=4)
        store = PostgresUnderTest(database, clock, where)
        stack.push_async_callback(store.close)
        await database.run(lambda session: _insert(session, rows))
        await database.run(postgres_migrate.migrate)
        yield store


async def _insert(session: Any, rows: Rows) -> None:
    for table, row in rows:
        given = row | ({"changed": 1, "shards": 1} if table == "integration" else {})
        marks = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        await session.execute(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", *given.values())
