"""Containment: what is stored of it, and what it keeps the other verbs from."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.integration import Integration, Lifecycle
from redrive.domain.item import Status
from redrive.domain.sharing import whole
from redrive.domain.traffic import Mode, Release, Standing, Traffic
from redrive.store.port import Accepted, AlreadyAnswered, Duplicate, EventFilter, Refused, StoreInconsistent
from tests.factories import (
    NOW,
    a_containment,
    a_delivery,
    a_once,
    a_replay,
    an_event,
    an_import,
    an_intake,
    contained,
    later,
)
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    accept,
    add_integration,
    changed,
    claim_all,
    events_of,
    finish,
    statuses,
)

CONTAINED = EventFilter(event_type=EventType.CONTAINED)
RELEASE = Release(20.0, NOW, "ops", "it is back")


async def stored(store: StoreUnderTest) -> Integration:
    [integration] = await store.integrations()
    return integration


async def contain(store: StoreUnderTest, mode: Mode = Mode.HOLD) -> Integration:
    old = await stored(store)
    traffic = await store.steer(old, contained(old.traffic, mode=mode), [])
    assert traffic is not None
    return replace(old, traffic=traffic)


async def release(store: StoreUnderTest) -> None:
    old = await stored(store)
    free = Traffic(version=old.traffic.version + 1)
    assert await store.steer(old, free, []) is not None


async def test_what_was_steered_comes_back_with_its_event(store: StoreUnderTest, number: int) -> None:
    event = an_event(EventType.CONTAINED)
    old = await stored(store)
    given = replace(contained(old.traffic, incident="4711"), release=RELEASE)

    told = await store.steer(old, given, [event])

    assert told == replace(given, containment=a_containment(incident="4711", version=_version(told)))
    assert (await stored(store)).traffic == told
    assert await events_of(store, CONTAINED) == [event]


async def test_whoever_read_an_older_traffic_changes_nothing(store: StoreUnderTest, number: int) -> None:
    old = await stored(store)
    first = await contain(store)

    told = await store.steer(old, Traffic(release=RELEASE, version=1), [an_event(EventType.CONTAINED)])

    assert told is None
    assert await stored(store) == first
    assert await events_of(store, CONTAINED) == []


async def test_who_changes_the_configuration_and_who_steers_do_not_stand_in_each_others_way(
    store: StoreUnderTest, number: int
) -> None:
    old = await stored(store)
    steered = await contain(store)

    assert await store.update_integration(changed(old, name="Renamed"), [])
    assert (await stored(store)).traffic == steered.traffic
    assert await store.steer(steered, Traffic(version=2), []) is not None

    left = await stored(store)
    assert (left.name, left.version, left.traffic) == ("Renamed", 2, Traffic(version=2))


async def test_a_reply_is_stored_with_what_it_tells_and_only_once(store: StoreUnderTest, number: int) -> None:
    old = await stored(store)
    await store.steer(old, contained(old.traffic), [], a_once())

    with pytest.raises(AlreadyAnswered):
        await store.steer(await stored(store), Traffic(version=2), [], a_once())

    assert (await stored(store)).traffic.containment is not None
    assert await store.recall(b"scope") == a_once()


async def test_a_reply_can_be_told_anew(store: StoreUnderTest, number: int) -> None:
    old = await stored(store)
    await store.steer(old, contained(old.traffic), [], a_once(status=202, body=b"{}"))

    await store.amend(a_once(status=200, body=b'{"done":true}'))

    assert await store.recall(b"scope") == a_once(status=200, body=b'{"done":true}')


@pytest.mark.parametrize("mode", Mode)
async def test_nothing_that_is_contained_is_claimed_until_it_is_released(
    store: StoreUnderTest, number: int, owner: int, mode: Mode
) -> None:
    delivery = a_delivery(number)
    await accept(store, delivery)
    await contain(store, mode)

    held = await store.claim(owner, {whole(number): 10})

    assert list(held.claims) == []
    assert held.next_due[whole(number)] is not None
    await release(store)
    [claim] = await claim_all(store, owner, number)
    assert (claim.delivery, claim.attempt) == (delivery, 1)


async def test_what_is_accepted_on_hold_is_due_and_not_claimed(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await contain(store)
    delivery = a_delivery(number)

    verdicts = await store.accept([an_intake(delivery, owner=owner)])

    assert list(verdicts) == [Accepted(claimed=False)]
    assert await statuses(store, number, [delivery.id]) == [Status.PENDING]


async def test_one_that_rejects_refuses_deliveries_and_nothing_is_stored(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await contain(store, Mode.REJECT)
    other = await add_integration(store, "other")
    refused, taken = a_delivery(number, idempotency_key="k"), a_delivery(other)

    verdicts = await store.accept([an_intake(refused, owner=owner), an_intake(taken, owner=owner)])

    assert list(verdicts) == [Refused(Lifecycle.ACTIVE), Accepted(claimed=True)]
    assert await store.item(number, refused.id) is None


async def test_a_key_that_was_used_before_is_told_also_where_deliveries_are_refused(
    store: StoreUnderTest, number: int
) -> None:
    first = a_delivery(number, idempotency_key="k")
    await accept(store, first)
    await contain(store, Mode.REJECT)

    again = await store.accept([an_intake(a_delivery(number, idempotency_key="k"))])

    assert list(again) == [Duplicate(first.id)]


@pytest.mark.parametrize("mode", Mode)
async def test_what_failed_elsewhere_is_taken_in_whatever_is_contained(
    store: StoreUnderTest, number: int, mode: Mode
) -> None:
    await contain(store, mode)
    given = an_import(a_delivery(number))

    verdict = await store.hand_over(given, None)

    assert verdict == Accepted(claimed=False)


@pytest.mark.parametrize("mode", Mode)
async def test_nothing_that_is_contained_is_replayed(
    store: StoreUnderTest, number: int, owner: int, mode: Mode
) -> None:
    dead = await a_dead_item(store, owner, number)
    await contain(store, mode)

    assert not await store.replay(a_replay(dead), None)

    assert await statuses(store, number, [dead.id]) == [Status.DLQ]
    await release(store)
    assert await store.replay(a_replay(dead), None)


async def test_an_attempt_that_had_begun_is_recorded_after_it_was_contained(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await accept(store, a_delivery(number))
    [claim] = await claim_all(store, owner, number)
    await contain(store)

    await finish(store, claim, later())

    assert await statuses(store, number, [claim.delivery.id]) == [Status.RETRYING]


async def test_what_was_given_back_waits_with_its_count(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await accept(store, a_delivery(number))
    [claim] = await claim_all(store, owner, number)
    await contain(store)

    await store.give_back(owner, [claim])

    assert await store.standing(number) == Standing(waiting=1, in_flight=0)
    await release(store)
    [again] = await claim_all(store, owner, number)
    assert again.attempt == 1


async def test_open_items_are_counted_by_whether_they_are_in_flight(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other = await add_integration(store, "other")
    await accept(store, *[a_delivery(number) for _ in range(5)], a_delivery(other))
    first, _ = await claim_all(store, owner, number, limit=2)
    await a_dead_item(store, owner, number)
    await finish(store, first, later())

    assert await store.standing(number) == Standing(waiting=4, in_flight=1)


async def test_a_backlog_is_what_was_due_by_then_and_is_not_claimed(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    assert not await store.has_backlog(number, NOW)
    await accept(store, a_delivery(number))
    assert await store.has_backlog(number, NOW)
    assert not await store.has_backlog(number, NOW - timedelta(days=2))

    [claim] = await claim_all(store, owner, number)

    assert not await store.has_backlog(number, NOW)
    await finish(store, claim, later(60))
    assert not await store.has_backlog(number, NOW)
    assert await store.has_backlog(number, NOW + timedelta(seconds=60))


async def test_a_duty_is_its_holders_while_it_lives(store: StoreUnderTest, owner: int) -> None:
    assert await store.is_elected("containment", owner)
    assert await store.is_elected("containment", owner)


async def test_a_record_that_says_two_things_is_reported(store: StoreUnderTest, number: int) -> None:
    await contain(store)
    await store.meddle("UPDATE integration SET containment = NULL WHERE number = ?", number)

    with pytest.raises(StoreInconsistent, match="acme"):
        await store.integrations()


def _version(traffic: Traffic | None) -> int:
    assert traffic is not None
    assert traffic.containment is not None
    return traffic.containment.version
