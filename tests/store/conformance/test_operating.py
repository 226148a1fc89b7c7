"""A person's verbs on an item: hand over, replay, resolve."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.delivery import Evidence, Item, Resolution
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Status
from redrive.domain.outcome import Answer
from redrive.store.port import Accepted, Duplicate, EventFilter, KeyReused, Refused
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    a_delivery,
    a_once,
    a_replay,
    an_event,
    an_import,
    an_intake,
    later,
)
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    add_integration,
    attempts_of,
    changed,
    claim_all,
    events_of,
    finish,
    statuses,
)

RESOLUTION = Resolution(NOW, "ops", "handled by phone")


# hand over


@pytest.mark.parametrize("status", [Status.FAILED, Status.DLQ])
async def test_what_is_handed_over_is_dead_from_the_start_with_what_is_known(
    store: StoreUnderTest, number: int, status: Status
) -> None:
    given = an_import(a_delivery(number), status)

    verdict = await store.hand_over(given, None)

    item = await store.item(number, given.delivery.id)
    assert verdict == Accepted(claimed=False)
    assert item is not None
    assert (item.status, item.cycle, item.attempt_count) == (status, 1, 3)
    assert (item.delivery, item.last) == (given.delivery, replace(given.last, is_told=True))
    assert await events_of(store, EventFilter(event_type=EventType.IMPORTED)) == [given.event]
    assert await attempts_of(store, number, given.delivery.id) == []


@pytest.mark.parametrize(
    "last",
    [
        Evidence(),
        Evidence(failure_code="ECONNRESET", failure_detail="it broke", retryable=True),
        Evidence(last_http_status=404, retryable=False),
        Evidence(
            last_http_status=500, answer=Answer(500, (("a", "b"),), b"oh", truncated=True), answer_size=2
        ),
        Evidence(last_http_status=500, answer=Answer(500, (), b""), answer_size=0),
    ],
)
async def test_evidence_from_elsewhere_comes_back_as_it_was_given(
    store: StoreUnderTest, number: int, last: Evidence
) -> None:
    given = an_import(a_delivery(number), last=last)

    await store.hand_over(given, None)

    item = await store.item(number, given.delivery.id)
    assert item is not None
    assert item.last == replace(last, is_told=True)


async def test_what_was_handed_over_is_replayed_like_any_other(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = an_import(a_delivery(number))
    await store.hand_over(given, None)

    replayed = await store.replay(a_replay(given.delivery), None)

    [claim] = await claim_all(store, owner, number)
    assert replayed
    assert (claim.delivery, claim.cycle, claim.attempt) == (given.delivery, 2, 1)


@pytest.mark.parametrize("fingerprint", [b"one", b"two"])
async def test_a_key_protects_an_import_too_and_leaves_one_event(
    store: StoreUnderTest, number: int, fingerprint: bytes
) -> None:
    first = an_import(a_delivery(number, idempotency_key="key"))
    await store.hand_over(first, None)
    second = an_import(a_delivery(number, idempotency_key="key"), fingerprint=fingerprint)

    verdict = await store.hand_over(second, None)

    assert verdict == (Duplicate(first.delivery.id) if fingerprint == b"one" else KeyReused())
    assert await events_of(store, EventFilter(event_type=EventType.IMPORTED)) == [first.event]
    assert await store.item(number, second.delivery.id) is None


@pytest.mark.parametrize("lifecycle", [Lifecycle.DRAFT, Lifecycle.RETIRED])
async def test_a_closed_integration_takes_nothing_over(store: StoreUnderTest, lifecycle: Lifecycle) -> None:
    closed = await add_integration(store, lifecycle_status=lifecycle)
    given = an_import(a_delivery(closed))

    verdict = await store.hand_over(given, a_once())

    assert verdict == Refused(lifecycle)
    assert await store.item(closed, given.delivery.id) is None
    assert await events_of(store, EventFilter(event_type=EventType.IMPORTED)) == []
    assert await store.recall(b"scope") is None


# replay


@pytest.mark.parametrize("status", [Status.FAILED, Status.DLQ])
async def test_a_replay_opens_the_next_cycle_due_now_and_erases_nothing(
    store: StoreUnderTest, number: int, owner: int, status: Status
) -> None:
    delivery = await a_dead_item(store, owner, number, status)
    replay = a_replay(delivery, status, max_attempts=7)

    replayed = await store.replay(replay, None)

    item = await store.item(number, delivery.id)
    assert replayed
    assert item is not None
    assert (item.status, item.cycle, item.attempt_count, item.max_attempts) == (Status.REPLAYED, 2, 0, 7)
    assert (item.request_id, item.updated_by) == (replay.request_id, "ops")
    assert item.delivery == delivery
    assert len(await attempts_of(store, number, delivery.id)) == 1
    assert await events_of(store, EventFilter(event_type=EventType.REPLAYED)) == [replay.event]


async def test_a_cycle_of_a_replay_is_claimed_under_its_own_request(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = await a_dead_item(store, owner, number)
    await store.replay(a_replay(delivery, max_attempts=7), None)

    [claim] = await claim_all(store, owner, number)

    assert (claim.cycle, claim.attempt, claim.max_attempts) == (2, 1, 7)
    assert (claim.request_id, claim.delivery.request_id) == ("req-of-the-replay", delivery.request_id)


async def test_an_item_is_replayed_once(store: StoreUnderTest, number: int, owner: int) -> None:
    delivery = await a_dead_item(store, owner, number)

    first = await store.replay(a_replay(delivery), None)
    second = await store.replay(a_replay(delivery, request_id="another"), None)

    assert (first, second) == (True, False)
    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.request_ids == (delivery.request_id, "req-of-the-replay")
    assert len(await events_of(store, EventFilter(event_type=EventType.REPLAYED))) == 1


@pytest.mark.parametrize(
    "moved",
    [{"status": Status.FAILED}, {"cycle": 2}],
    ids=["another status", "another cycle"],
)
async def test_a_replay_of_an_item_that_is_not_as_judged_changes_nothing(
    store: StoreUnderTest, number: int, owner: int, moved: dict[str, Any]
) -> None:
    delivery = await a_dead_item(store, owner, number)
    before = await store.item(number, delivery.id)

    replayed = await store.replay(replace(a_replay(delivery), **moved), a_once())

    assert not replayed
    assert await store.item(number, delivery.id) == before
    assert await events_of(store, EventFilter(event_type=EventType.REPLAYED)) == []
    assert await store.recall(b"scope") is None


async def test_a_replay_through_another_integration_changes_nothing(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other = await add_integration(store, "other")
    delivery = await a_dead_item(store, owner, number)

    replayed = await store.replay(replace(a_replay(delivery), integration=other), None)

    assert not replayed
    assert await statuses(store, number, [delivery.id]) == [Status.DLQ]


@pytest.mark.parametrize("lifecycle", [Lifecycle.PAUSED, Lifecycle.DRAFT, Lifecycle.RETIRED])
async def test_nothing_is_replayed_while_its_integration_does_not_send(
    store: StoreUnderTest, number: int, owner: int, lifecycle: Lifecycle
) -> None:
    delivery = await a_dead_item(store, owner, number)
    [integration] = await store.integrations()
    await store.update_integration(changed(integration, lifecycle_status=lifecycle), [])

    replayed = await store.replay(a_replay(delivery), None)

    assert not replayed
    assert await statuses(store, number, [delivery.id]) == [Status.DLQ]


async def test_an_unfinished_or_succeeded_item_is_not_replayed(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    open_, done = a_delivery(number), a_delivery(number)
    await store.accept([an_intake(done)])
    [claim] = await claim_all(store, owner, number)
    await finish(store, claim, DONE)
    await store.accept([an_intake(open_)])

    replayed = [await store.replay(a_replay(delivery), None) for delivery in (open_, done)]

    assert replayed == [False, False]
    assert await statuses(store, number, [open_.id, done.id]) == [Status.PENDING, Status.SUCCEEDED]


async def test_attempts_and_limits_of_each_cycle_stand_apart(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = await a_dead_item(store, owner, number)
    for cycle, step in ((2, EXHAUSTED), (3, DONE)):
        request = f"replay-{cycle}"
        await store.replay(a_replay(delivery, cycle=cycle - 1, request_id=request, max_attempts=cycle), None)
        [claim] = await claim_all(store, owner, number)
        await finish(store, claim, later(0))
        [claim] = await claim_all(store, owner, number)
        await finish(store, claim, step)

    item = await store.item(number, delivery.id)
    attempts = await attempts_of(store, number, delivery.id)
    assert item is not None
    assert (item.status, item.cycle, item.attempt_count, item.max_attempts) == (Status.SUCCEEDED, 3, 2, 3)
    assert item.request_ids == (delivery.request_id, "replay-2", "replay-3")
    assert [(a.cycle, a.attempt) for a in attempts] == [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]


async def test_the_first_cycle_has_the_request_of_the_delivery(store: StoreUnderTest, number: int) -> None:
    delivery = a_delivery(number)
    await store.accept([an_intake(delivery)])

    item = await store.item(number, delivery.id)
    assert item is not None
    assert item.request_ids == (delivery.request_id,)


async def test_an_item_has_no_history_under_another_integration(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other = await add_integration(store, "other")
    delivery = await a_dead_item(store, owner, number)

    assert await store.history(other, delivery.id) is None


# resolve


async def test_a_resolved_item_keeps_its_status_and_says_who_and_why(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await dead(store, owner, number)
    event = an_event(EventType.RESOLVED)

    resolved = await store.resolve(item, RESOLUTION, event, None)

    after = await store.item(number, item.delivery.id)
    assert resolved
    assert after == replace(item, resolution=RESOLUTION, updated_at=RESOLUTION.resolved_at, updated_by="ops")
    assert await events_of(store, EventFilter(event_type=EventType.RESOLVED)) == [event]


async def test_an_item_is_resolved_once(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await dead(store, owner, number)
    await store.resolve(item, RESOLUTION, an_event(), None)

    again = await store.resolve(item, replace(RESOLUTION, reason="another"), an_event(), a_once())

    after = await store.item(number, item.delivery.id)
    assert not again
    assert after is not None
    assert after.resolution == RESOLUTION
    assert await store.recall(b"scope") is None


async def test_a_resolved_item_is_not_replayed(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await dead(store, owner, number)
    await store.resolve(item, RESOLUTION, an_event(), None)

    assert not await store.replay(a_replay(item.delivery), None)


async def test_a_replayed_item_is_not_resolved(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await dead(store, owner, number)
    await store.replay(a_replay(item.delivery), None)

    resolved = await store.resolve(item, RESOLUTION, an_event(EventType.RESOLVED), None)

    assert not resolved
    assert await statuses(store, number, [item.delivery.id]) == [Status.REPLAYED]
    assert await events_of(store, EventFilter(event_type=EventType.RESOLVED)) == []


@pytest.mark.parametrize(
    "moved",
    [{"status": Status.FAILED}, {"cycle": 2}, {"integration": 99}],
    ids=["another status", "another cycle", "another integration"],
)
async def test_resolving_an_item_that_is_not_as_judged_changes_nothing(
    store: StoreUnderTest, number: int, owner: int, moved: dict[str, Any]
) -> None:
    item = await dead(store, owner, number)
    judged = item
    if "integration" in moved:
        judged = replace(item, delivery=replace(item.delivery, **moved))
    else:
        judged = replace(item, **moved)

    resolved = await store.resolve(judged, RESOLUTION, an_event(), None)

    assert not resolved
    assert await store.item(number, item.delivery.id) == item


async def test_an_item_shows_when_it_was_last_touched_and_by_whom(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await dead(store, owner, number)
    await store.replay(a_replay(item.delivery, opened_at=NOW + timedelta(hours=1)), None)

    after = await store.item(number, item.delivery.id)

    assert (item.updated_at, item.updated_by) == (NOW - timedelta(milliseconds=988), "redrive")
    assert after is not None
    assert (after.updated_at, after.updated_by) == (NOW + timedelta(hours=1), "ops")


async def dead(store: StoreUnderTest, owner: int, number: int) -> Item:
    delivery = await a_dead_item(store, owner, number)
    item = await store.item(number, delivery.id)
    assert item is not None
    return item
