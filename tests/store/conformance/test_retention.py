"""What is forgotten, and that nothing open ever is."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.delivery import Erasure, Resolution
from redrive.domain.ids import instant_of
from redrive.domain.item import Status
from redrive.store.port import EventFilter, Replay
from tests.factories import (
    DONE,
    NOW,
    a_delivery,
    a_replay,
    a_result,
    an_edit,
    an_event,
    an_id,
    an_import,
    an_intake,
    later,
)
from tests.store.conftest import a_store
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    accept,
    attempts_of,
    claim_all,
    finish,
    statuses,
)

RESOLUTION = Resolution(NOW, "ops", "handled by phone")
LONG_AGO = NOW - timedelta(days=100)
BEFORE = NOW - timedelta(days=50)  # a whole partition lies between


@pytest.fixture
async def store(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[StoreUnderTest]:
    """One that is old already: its partitions reach back."""
    async with a_store(store_kind, request, tmp_path, age=timedelta(days=120)) as store:
        yield store


async def test_what_succeeded_long_ago_is_forgotten_with_its_attempts(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    old, new = a_delivery(number, id=an_id(LONG_AGO)), a_delivery(number)
    await accept(store, old, new)
    for claim in await claim_all(store, owner, number):
        await finish(store, claim, DONE)

    forgotten = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)

    assert forgotten == 1
    assert await statuses(store, number, [old.id, new.id]) == [None, Status.SUCCEEDED]
    assert await store.history(number, old.id) is None
    assert await store.forget_deliveries(BEFORE, resolved_before=BEFORE) == 0


async def test_what_was_superseded_long_ago_is_forgotten_and_so_is_what_it_was_a_copy_of(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead = await a_dead_item(store, owner, number, id=an_id(LONG_AGO))
    item = await store.item(number, dead.id)
    assert item is not None
    copy = a_delivery(number, id=an_id(LONG_AGO + timedelta(days=1)))
    assert await store.edit(an_edit(item, copy=copy), None)
    while_open = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)
    [claim] = await claim_all(store, owner, number)
    result = replace(a_result(claim, DONE), superseded=an_event(EventType.SUPERSEDED))
    await store.record(owner, [result])

    forgotten = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)

    assert (while_open, forgotten) == (0, 2)
    assert await statuses(store, number, [dead.id, copy.id]) == [None, None]
    await accept(store, copy)
    again = await store.item(number, copy.id)
    assert again is not None
    assert again.edit_of is None


@pytest.mark.parametrize("status", [Status.FAILED, Status.DLQ])
async def test_what_waits_for_a_person_is_kept_until_it_is_resolved(
    store: StoreUnderTest, number: int, owner: int, status: Status
) -> None:
    dead = await a_dead_item(store, owner, number, status, id=an_id(LONG_AGO))
    done = a_delivery(number, id=an_id(LONG_AGO + timedelta(hours=1)))
    await store.accept([an_intake(done)])
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, DONE)

    first = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)
    kept = await store.item(number, dead.id)
    attempts = await attempts_of(store, number, dead.id)
    assert kept is not None
    await store.resolve(kept, RESOLUTION, an_event(), None)
    second = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)

    assert (first, second) == (1, 1)
    assert (kept.status, kept.delivery, len(attempts)) == (status, dead, 1)
    assert await statuses(store, number, [dead.id]) == [None]


async def test_what_is_unfinished_is_kept_and_can_still_be_finished(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    waiting, replayed = (a_delivery(number, id=an_id(LONG_AGO + timedelta(hours=hours))) for hours in (0, 1))
    await accept(store, waiting)
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, later(0))
    await store.hand_over(an_import(replayed, Status.DLQ), None)
    replay: Replay = a_replay(replayed, Status.DLQ)
    assert await store.replay(replay, None)

    assert await store.forget_deliveries(BEFORE, resolved_before=BEFORE) == 0

    assert await statuses(store, number, [waiting.id, replayed.id]) == [Status.RETRYING, Status.REPLAYED]
    for claim in await claim_all(store, owner, number):
        await finish(store, claim, DONE)
    assert await store.forget_deliveries(BEFORE, resolved_before=BEFORE) == 2


async def test_old_events_are_forgotten_but_none_since_the_oldest_open_item(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    ages = [100, 90, 60, 1]
    events = [an_event(id=an_id(NOW - timedelta(days=days))) for days in ages]
    await store.note(events)
    open_item = await a_dead_item(store, owner, number, id=an_id(NOW - timedelta(days=75)))

    await store.forget_events(BEFORE)
    while_open = {event.id for event in (await everything(store))}
    item = await store.item(number, open_item.id)
    assert item is not None
    await store.resolve(item, RESOLUTION, an_event(), None)
    await store.forget_events(BEFORE)
    afterwards = {event.id for event in (await everything(store))}

    assert {e.id for e in events} & while_open == {e.id for e in events[2:]}
    assert {e.id for e in events} & afterwards == {events[3].id}
    assert instant_of(min(afterwards)) >= BEFORE - timedelta(days=7)


async def everything(store: StoreUnderTest) -> list[AuditEvent]:
    return list((await store.events(EventFilter(), limit=100, below=None)).rows)


async def test_what_was_resolved_may_be_kept_longer_than_what_succeeded(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead = await a_dead_item(store, owner, number, Status.FAILED, id=an_id(LONG_AGO))
    kept = await store.item(number, dead.id)
    assert kept is not None
    await store.resolve(kept, RESOLUTION, an_event(), None)
    done = a_delivery(number, id=an_id(LONG_AGO + timedelta(hours=1)))
    await store.accept([an_intake(done)])
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, DONE)

    first = await store.forget_deliveries(BEFORE, resolved_before=LONG_AGO - timedelta(days=1))
    assert (first, await statuses(store, number, [dead.id, done.id])) == (1, [Status.FAILED, None])

    second = await store.forget_deliveries(BEFORE, resolved_before=BEFORE)
    assert (second, await statuses(store, number, [dead.id])) == (1, [None])


async def test_that_something_was_erased_is_forgotten_with_it(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead = await a_dead_item(store, owner, number, Status.FAILED, id=an_id(LONG_AGO))
    item = await store.item(number, dead.id)
    assert item is not None
    await store.erase(item, Erasure(NOW, "dpo", "request 4711"), an_event(), None)

    assert await store.forget_deliveries(BEFORE, resolved_before=BEFORE) == 1

    await accept(store, dead)  # nobody gives an id twice; it shows that nothing of the first is left
    again = await store.item(number, dead.id)
    assert again is not None
    assert again.erasure is None
