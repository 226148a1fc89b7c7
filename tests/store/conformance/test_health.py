"""What came of attempts and of deliveries, as figures; and one item that is taken whatever is held."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Item
from redrive.domain.draining import Arrivals
from redrive.domain.health import Tallies, Tally
from redrive.domain.ids import ItemId, first_id_at
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Status
from redrive.domain.traffic import Containment, Mode
from redrive.store import rows
from redrive.store.port import AlreadyAnswered, EventFilter, Once
from redrive.store.rows import minute_of
from tests.factories import DONE, EXHAUSTED, NOW, a_delivery, a_once, a_replay, an_event, an_intake
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    accept,
    add_integration,
    attempts_of,
    changed,
    claim_all,
    events_of,
    finish,
)

MINUTE = timedelta(minutes=1)
THIS_MINUTE = NOW.replace(second=0)


async def tally(store: StoreUnderTest, number: int, ago: int, owner: int, *counts: int) -> None:
    """As `record` keeps it: succeeded, failed, microseconds."""
    await store.meddle(
        "INSERT INTO tally (integration, minute, owner, succeeded, failed, duration_us)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        number, minute_of(NOW) - ago, owner, *counts,
    )  # fmt: skip


def a_tally(ago: int, succeeded: int, failed: int, microseconds: int) -> Tally:
    return Tally(THIS_MINUTE - ago * MINUTE, succeeded, failed, timedelta(microseconds=microseconds))


# tallies


async def test_what_several_processes_recorded_in_a_minute_is_one_tally(
    store: StoreUnderTest, number: int
) -> None:
    await tally(store, number, 2, 1, 5, 1, 600)
    await tally(store, number, 2, 2, 3, 0, 300)
    await tally(store, number, 0, 1, 0, 4, 90)

    found = await store.tallies(number, NOW - timedelta(hours=1))

    assert list(found.minutes) == [a_tally(2, 8, 1, 900), a_tally(0, 0, 4, 90)]
    assert (found.last_success, found.last_failure) == (THIS_MINUTE - 2 * MINUTE, THIS_MINUTE)


async def test_the_last_minutes_are_known_however_long_ago(store: StoreUnderTest, number: int) -> None:
    await tally(store, number, 3_000, 1, 5, 0, 1)
    await tally(store, number, 2_000, 1, 0, 5, 1)

    found = await store.tallies(number, NOW - timedelta(hours=1))

    assert found == Tallies([], THIS_MINUTE - 3_000 * MINUTE, THIS_MINUTE - 2_000 * MINUTE)


async def test_tallies_are_of_one_integration(store: StoreUnderTest, number: int) -> None:
    other = await add_integration(store, "other")
    await tally(store, other, 0, 1, 5, 5, 1)

    assert await store.tallies(number, NOW - timedelta(hours=1)) == Tallies([], None, None)


async def test_old_tallies_are_forgotten(store: StoreUnderTest, number: int, owner: int) -> None:
    await tally(store, number, 100, owner, 1, 0, 1)
    await tally(store, number, 99, owner, 1, 0, 1)

    forgotten = await store.forget_tallies(NOW - 99 * MINUTE)

    found = await store.tallies(number, NOW - timedelta(days=1))
    assert (forgotten, list(found.minutes)) == (1, [a_tally(99, 1, 0, 1)])


# arrivals


async def test_what_was_accepted_since_is_counted(store: StoreUnderTest, number: int) -> None:
    await accept(store, *[a_delivery(number, id=_at(seconds)) for seconds in (400, 200, 100)])
    await accept(store, a_delivery(await add_integration(store, "other"), id=_at(50)))
    since = NOW - timedelta(seconds=300)

    assert await store.arrivals(number, since) == Arrivals(2, since)


async def test_of_very_many_the_last_are_counted(
    store: StoreUnderTest, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("redrive.store.sqlite.read", "redrive.store.postgres.read"):
        monkeypatch.setattr(f"{module}.ARRIVALS_COUNTED", 2)
    assert rows.ARRIVALS_COUNTED > 2
    await accept(store, *[a_delivery(number, id=_at(seconds)) for seconds in (40, 30, 20)])

    found = await store.arrivals(number, NOW - timedelta(seconds=300))

    assert found == Arrivals(2, NOW - timedelta(seconds=30))


# one item


async def test_an_open_item_is_taken_with_its_attempt_counted(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)

    claim = await store.take(owner, await _item(store, number, delivery.id), None, None)

    assert claim is not None
    assert (claim.delivery, claim.owner, claim.cycle, claim.attempt) == (delivery, owner, 1, 1)
    assert await claim_all(store, owner, number) == []
    await finish(store, claim, DONE)
    assert (await _item(store, number, delivery.id)).status is Status.SUCCEEDED


async def test_a_dead_item_is_taken_in_the_cycle_that_its_replay_opens(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = await a_dead_item(store, owner, number)
    replay = a_replay(delivery, max_attempts=1, is_trial=True)

    claim = await store.take(owner, await _item(store, number, delivery.id), replay, None)

    assert claim is not None
    assert (claim.cycle, claim.attempt, claim.max_attempts) == (2, 1, 1)
    assert claim.request_id == replay.request_id
    assert await events_of(store, EventFilter(event_type=EventType.REPLAYED)) == [replay.event]
    await finish(store, claim, EXHAUSTED)
    item = await _item(store, number, delivery.id)
    assert (item.status, item.cycle, item.attempt_count, item.max_attempts) == (Status.DLQ, 2, 1, 1)
    assert len(await attempts_of(store, number, delivery.id)) == 2


async def test_what_is_contained_is_taken_all_the_same(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead, waiting = await a_dead_item(store, owner, number), a_delivery(number)
    await accept(store, waiting)
    await _contain(store)
    assert await claim_all(store, owner, number) == []

    for delivery, replay in ((dead, a_replay(dead, is_trial=True)), (waiting, None)):
        assert await store.take(owner, await _item(store, number, delivery.id), replay, None) is not None


@pytest.mark.parametrize("lifecycle", [Lifecycle.PAUSED, Lifecycle.RETIRED])
async def test_nothing_is_taken_of_an_integration_that_is_not_active(
    store: StoreUnderTest, number: int, owner: int, lifecycle: Lifecycle
) -> None:
    dead, waiting = await a_dead_item(store, owner, number), a_delivery(number)
    await accept(store, waiting)
    [integration] = await store.integrations()
    assert await store.update_integration(changed(integration, lifecycle_status=lifecycle), [])

    for delivery, replay in ((dead, a_replay(dead, is_trial=True)), (waiting, None)):
        assert await store.take(owner, await _item(store, number, delivery.id), replay, None) is None


async def test_what_is_claimed_or_moved_on_is_not_taken(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    claimed, retried, dead = a_delivery(number), a_delivery(number), await a_dead_item(store, owner, number)
    await store.accept([an_intake(claimed, owner=owner)])
    await accept(store, retried)
    seen = {one.id: await _item(store, number, one.id) for one in (claimed, retried, dead)}
    assert await store.take(owner, seen[retried.id], None, None) is not None
    assert await store.replay(a_replay(dead), None)

    assert await store.take(owner, seen[claimed.id], None, None) is None
    assert await store.take(owner, seen[retried.id], None, None) is None
    again = a_replay(dead, is_trial=True, event=an_event(EventType.REPLAYED))
    assert await store.take(owner, seen[dead.id], again, None) is None
    assert len(await events_of(store, EventFilter(event_type=EventType.REPLAYED))) == 1


async def test_a_process_that_lost_its_lease_takes_nothing(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead, waiting = await a_dead_item(store, owner, number), a_delivery(number)
    await accept(store, waiting)
    await store.expire(owner)

    for delivery, replay in ((dead, a_replay(dead, is_trial=True)), (waiting, None)):
        assert await store.take(owner, await _item(store, number, delivery.id), replay, None) is None
    assert (await _item(store, number, dead.id)).status is Status.DLQ


async def test_what_was_answered_before_is_not_taken_again(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    dead, waiting = await a_dead_item(store, owner, number), a_delivery(number)
    await accept(store, waiting)
    once: Once = a_once()
    assert await store.take(owner, await _item(store, number, waiting.id), None, once) is not None

    with pytest.raises(AlreadyAnswered):
        await store.take(owner, await _item(store, number, dead.id), a_replay(dead, is_trial=True), once)

    assert (await _item(store, number, dead.id)).status is Status.DLQ
    assert await store.recall(once.scope) == once


async def _item(store: StoreUnderTest, number: int, item_id: ItemId) -> Item:
    found = await store.item(number, item_id)
    assert found is not None
    return found


async def _contain(store: StoreUnderTest) -> None:
    [integration] = await store.integrations()
    contained = Containment(Mode.HOLD, "an outage", "ada", "ada", NOW, NOW + timedelta(hours=1), "req-9")
    traffic = replace(integration.traffic, containment=contained, version=integration.traffic.version + 1)
    assert await store.steer(integration, traffic, [], None) is not None


def _at(seconds_ago: int) -> int:
    return first_id_at(NOW - timedelta(seconds=seconds_ago))
