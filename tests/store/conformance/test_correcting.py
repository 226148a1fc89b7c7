"""Corrected copies: of an item and its copies one at most is under way, and none once one has succeeded."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType, digest_of, record_of
from redrive.domain.delivery import Claim, Erasure, Item, Resolution
from redrive.domain.ids import EventId, ItemId, recovery_id
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Finish, Status, Step
from redrive.store.port import EventFilter, QueueFilter
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    REFUSED,
    a_once,
    a_replay,
    a_result,
    an_edit,
    an_event,
    later,
)
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    add_integration,
    changed,
    claim_all,
    events_of,
    statuses,
)


async def found(store: StoreUnderTest, number: int, item_id: ItemId) -> Item:
    item = await store.item(number, item_id)
    assert item is not None
    return item


async def place(store: StoreUnderTest, number: int, item: Item) -> Item:
    """The item as it stands, whatever was written of it in the audit log since."""
    return replace(await found(store, number, item.delivery.id), head=item.head)


async def a_dead(store: StoreUnderTest, owner: int, number: int) -> Item:
    return await found(store, number, (await a_dead_item(store, owner, number)).id)


async def edited(store: StoreUnderTest, item: Item) -> ItemId:
    """The copy of an item that was corrected."""
    edit = an_edit(item)
    assert await store.edit(edit, None)
    return edit.copy.id


async def claimed(store: StoreUnderTest, owner: int, number: int) -> Claim:
    [claim] = await claim_all(store, owner, number)
    return claim


async def end(store: StoreUnderTest, claim: Claim, step: Step = DONE) -> bool:
    """Record what came of a copy, as the engine does."""
    event = an_event(EventType.SUPERSEDED, target_id="")
    [recorded] = await store.record(claim.owner, [replace(a_result(claim, step), superseded=event)])
    return recorded


async def test_a_copy_is_an_item_of_its_own_that_is_due_and_the_original_keeps_its_status(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    edit = an_edit(item)

    assert await store.edit(edit, a_once())

    copy = await found(store, number, edit.copy.id)
    assert copy.delivery == edit.copy
    assert (copy.status, copy.cycle, copy.attempt_count) == (Status.PENDING, 1, 0)
    assert await place(store, number, item) == replace(item, edited_as=edit.copy.id)
    assert sorted(await events_of(store, EventFilter(event_type=EventType.EDITED)), key=lambda e: e.id) == [
        *edit.events
    ]
    assert await store.recall(b"scope") == a_once()
    assert (await claimed(store, owner, number)).delivery == edit.copy


async def test_when_the_copy_succeeds_the_original_is_superseded_and_told_so(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)

    assert await end(store, await claimed(store, owner, number))

    after = await place(store, number, item)
    assert after == replace(item, superseded_by=copy)
    assert after.is_done
    [event] = await events_of(store, EventFilter(event_type=EventType.SUPERSEDED))
    assert (event.target_id, event.source_request_id) == (item.recovery_id, item.delivery.request_id)
    assert event.before_state == item.state()
    assert event.after_state == item.state() | {"superseded_by": recovery_id(copy)}
    assert await statuses(store, number, [copy]) == [Status.SUCCEEDED]


async def test_what_is_superseded_is_not_sent_again(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await a_dead(store, owner, number)
    await edited(store, item)
    await end(store, await claimed(store, owner, number))

    assert not await store.replay(a_replay(item.delivery), None)
    assert not await store.edit(an_edit(await found(store, number, item.delivery.id)), None)
    done = await store.queue(number, QueueFilter(status=Status.DLQ, done=False), limit=10, below=None)
    assert done.rows == []


@pytest.mark.parametrize("step", [EXHAUSTED, REFUSED], ids=["dlq", "failed"])
async def test_after_a_copy_that_failed_everything_may_be_sent_again(
    store: StoreUnderTest, number: int, owner: int, step: Finish
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    await end(store, await claimed(store, owner, number), step)

    assert await place(store, number, item) == item
    assert await events_of(store, EventFilter(event_type=EventType.SUPERSEDED)) == []
    assert (await found(store, number, copy)).status is step.status
    assert await store.edit(an_edit(await found(store, number, item.delivery.id)), None)


async def test_a_copy_that_is_to_be_retried_keeps_the_place(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)

    await end(store, await claimed(store, owner, number), later())

    assert await place(store, number, item) == replace(item, edited_as=copy)


async def test_while_a_copy_is_under_way_nothing_else_is(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    await edited(store, item)
    before = await found(store, number, item.delivery.id)

    sent = [
        await store.replay(a_replay(item.delivery), a_once()),
        await store.edit(an_edit(before), a_once()),
        await store.resolve(before, Resolution(NOW, "ops", "by phone"), an_event(), a_once()),
    ]

    assert sent == [False, False, False]
    assert await found(store, number, item.delivery.id) == before
    assert len(await claim_all(store, owner, number)) == 1
    assert await store.recall(b"scope") is None


async def test_while_the_original_is_under_way_or_has_succeeded_no_copy_is_sent_again(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    await end(store, await claimed(store, owner, number), EXHAUSTED)
    failed = await found(store, number, copy)
    await store.replay(a_replay(item.delivery), None)

    while_under_way = await store.replay(a_replay(failed.delivery, edit_of=item.delivery.id), None)
    edited_under_way = await store.edit(an_edit(failed), None)
    await end(store, await claimed(store, owner, number))
    after_success = await store.replay(a_replay(failed.delivery, edit_of=item.delivery.id), None)

    assert (while_under_way, edited_under_way, after_success) == (False, False, False)
    assert await statuses(store, number, [item.delivery.id, copy]) == [Status.SUCCEEDED, Status.DLQ]


async def test_a_copy_that_failed_is_replayed_in_the_place_of_the_original(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    await end(store, await claimed(store, owner, number), EXHAUSTED)
    failed = await found(store, number, copy)

    assert await store.replay(a_replay(failed.delivery, edit_of=item.delivery.id), None)

    assert (await found(store, number, item.delivery.id)).edited_as == copy
    assert not await store.replay(a_replay(item.delivery), None)
    await end(store, await claimed(store, owner, number))
    assert (await found(store, number, item.delivery.id)).superseded_by == copy


async def test_a_replay_of_a_copy_that_has_moved_on_takes_no_place(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    await end(store, await claimed(store, owner, number), EXHAUSTED)
    failed = await found(store, number, copy)

    assert not await store.replay(a_replay(failed.delivery, cycle=2, edit_of=item.delivery.id), None)
    assert not await store.edit(an_edit(failed, cycle=2), None)

    assert await place(store, number, item) == item


async def test_one_success_supersedes_the_original_and_every_copy_that_failed(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    first = await edited(store, item)
    await end(store, await claimed(store, owner, number), EXHAUSTED)
    second = await edited(store, await found(store, number, first))

    await end(store, await claimed(store, owner, number))

    items = [await found(store, number, each) for each in (item.delivery.id, first, second)]
    assert [each.superseded_by for each in items] == [second, second, None]
    assert items[2].edit_of == item.delivery.id
    told = await events_of(store, EventFilter(event_type=EventType.SUPERSEDED))
    assert {event.target_id for event in told} == {item.recovery_id, recovery_id(first)}
    assert len({event.id for event in told}) == 2


async def test_a_claim_that_was_lost_supersedes_nothing(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    late = await claimed(store, owner, number)
    await store.expire(owner)

    assert not await end(store, late)

    assert await place(store, number, item) == replace(item, edited_as=copy)
    assert await events_of(store, EventFilter(event_type=EventType.SUPERSEDED)) == []


async def test_the_event_stands_behind_what_was_written_of_the_original_before(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    await edited(store, item)
    claim = await claimed(store, owner, number)
    ahead = EventId(store.ids.next(store.clock.now()) + (1 << 40))
    item = await found(store, number, item.delivery.id)
    erased = an_event(EventType.ERASED, id=ahead, target_id=item.recovery_id, previous=item.head)
    assert await store.erase(item, Erasure(NOW, "dpo", "request 4711"), erased, None)

    assert await end(store, claim)

    [event, *_] = await events_of(store, EventFilter(target_id=item.recovery_id))
    assert (event.event_type, event.id > ahead) == (EventType.SUPERSEDED, True)
    assert event.before_state["resolved"] is True
    assert event.previous == digest_of(record_of(erased)).hex()


@pytest.mark.parametrize("lifecycle", [Lifecycle.PAUSED, Lifecycle.DRAFT, Lifecycle.RETIRED])
async def test_nothing_is_corrected_while_its_integration_does_not_send(
    store: StoreUnderTest, number: int, owner: int, lifecycle: Lifecycle
) -> None:
    item = await a_dead(store, owner, number)
    [integration] = await store.integrations()
    await store.update_integration(changed(integration, lifecycle_status=lifecycle), [])

    assert not await store.edit(an_edit(item), None)
    assert await found(store, number, item.delivery.id) == item


@pytest.mark.parametrize("moved", [{"status": Status.FAILED}, {"cycle": 2}], ids=str)
async def test_what_is_not_as_judged_is_not_corrected(
    store: StoreUnderTest, number: int, owner: int, moved: dict[str, Any]
) -> None:
    item = await a_dead(store, owner, number)
    edit = an_edit(item, **moved)

    assert not await store.edit(edit, None)
    assert await store.item(number, edit.copy.id) is None
    assert await found(store, number, item.delivery.id) == item


@pytest.mark.parametrize("verb", ["resolve", "erase"])
async def test_what_is_closed_for_good_is_not_corrected(
    store: StoreUnderTest, number: int, owner: int, verb: str
) -> None:
    item = await a_dead(store, owner, number)
    if verb == "resolve":
        await store.resolve(item, Resolution(NOW, "ops", "by phone"), an_event(), None)
    else:
        await store.erase(item, Erasure(NOW, "dpo", "request 4711"), an_event(), None)

    assert not await store.edit(an_edit(await found(store, number, item.delivery.id)), None)


@pytest.mark.parametrize("verb", ["resolve", "erase"])
async def test_what_is_closed_for_good_is_sent_through_none_of_its_copies(
    store: StoreUnderTest, number: int, owner: int, verb: str
) -> None:
    item = await a_dead(store, owner, number)
    copy = await edited(store, item)
    await end(store, await claimed(store, owner, number), EXHAUSTED)
    item, failed = [await found(store, number, each) for each in (item.delivery.id, copy)]
    if verb == "resolve":
        assert await store.resolve(item, Resolution(NOW, "ops", "by phone"), an_event(), None)
    else:
        assert await store.erase(item, Erasure(NOW, "dpo", "request 4711"), an_event(), None)

    assert not await store.edit(an_edit(failed), None)
    assert not await store.replay(a_replay(failed.delivery, edit_of=item.delivery.id), None)
    assert await claim_all(store, owner, number) == []


async def test_a_correction_whose_event_does_not_follow_the_last_of_its_item_changes_nothing(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    item = await a_dead(store, owner, number)
    await store.note([an_event(target_id=item.recovery_id)])

    assert not await store.edit(an_edit(item), None)
    assert await found(store, number, item.delivery.id) == replace(item, head=await head_of(store, item))


async def head_of(store: StoreUnderTest, item: Item) -> str:
    [event, *_] = await events_of(store, EventFilter(target_id=item.recovery_id))
    return digest_of(record_of(event)).hex()


async def test_nothing_is_corrected_through_another_integration(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    other = await add_integration(store, "other")
    item = await a_dead(store, owner, number)
    edit = an_edit(item)

    assert not await store.edit(replace(edit, copy=replace(edit.copy, integration=other)), None)
    assert await found(store, number, item.delivery.id) == item


async def test_of_a_correction_and_a_replay_at_once_one_happens(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    for _ in range(10):
        item = await a_dead(store, owner, number)

        replayed, is_edited = await asyncio.gather(
            store.replay(a_replay(item.delivery), None), store.edit(an_edit(item), None)
        )

        assert replayed is not is_edited
        assert len(await claim_all(store, owner, number)) == 1


async def test_of_corrections_at_once_one_happens(store: StoreUnderTest, number: int, owner: int) -> None:
    item = await a_dead(store, owner, number)

    done = await asyncio.gather(*(store.edit(an_edit(item), None) for _ in range(5)))

    assert sorted(done) == [False] * 4 + [True]
    assert len(await claim_all(store, owner, number)) == 1


async def test_when_a_copy_succeeds_while_the_original_is_replayed_only_the_copy_was_sent(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    for _ in range(10):
        item = await a_dead(store, owner, number)
        await edited(store, item)
        claim = await claimed(store, owner, number)

        recorded, replayed = await asyncio.gather(
            end(store, claim), store.replay(a_replay(item.delivery), None)
        )

        assert (recorded, replayed) == (True, False)
        assert (await found(store, number, item.delivery.id)).superseded_by == claim.delivery.id


async def test_of_a_replay_of_a_failed_copy_and_a_new_correction_at_once_one_happens(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    for _ in range(10):
        item = await a_dead(store, owner, number)
        copy = await edited(store, item)
        await end(store, await claimed(store, owner, number), EXHAUSTED)
        failed = await found(store, number, copy)
        original = await found(store, number, item.delivery.id)

        done = await asyncio.gather(
            store.replay(a_replay(failed.delivery, edit_of=item.delivery.id), None),
            store.edit(an_edit(original), None),
            store.edit(an_edit(failed), None),
            store.replay(a_replay(item.delivery), None),
        )

        assert sorted(done) == [False, False, False, True]
        await end(store, await claimed(store, owner, number))
