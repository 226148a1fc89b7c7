"""Groups of failures: what is counted, what people say of them, and their items closed together."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.domain import failure_group
from redrive.domain.delivery import Delivery, Erasure, Resolution
from redrive.domain.failure_group import Comment, DeadItem, FailureGroup, GroupState
from redrive.domain.grouping import Cause, cause_of
from redrive.domain.ids import ItemId
from redrive.domain.item import Status
from redrive.domain.outcome import Risk
from redrive.store import rows
from redrive.store.groups import Closed
from redrive.store.port import AlreadyAnswered, EventFilter, QueueFilter
from redrive.store.postgres import groups as postgres_groups
from redrive.store.sqlite import groups as sqlite_groups
from tests.factories import (
    EXHAUSTED,
    NOW,
    OUTAGE,
    TIMEOUT,
    a_cause,
    a_claim,
    a_delivery,
    a_once,
    a_replay,
    a_result,
    an_event,
    an_id,
    an_import,
    an_intake,
    an_integration,
    later,
)
from tests.store.under_test import (
    StoreUnderTest,
    a_dead_item,
    add_integration,
    attempts_of,
    claim_all,
    events_of,
)

DOWN, GONE, LATE = a_cause("down"), a_cause("gone"), a_cause("late")
RESOLUTION = Resolution(NOW, "ops", "sorted out")
ACKNOWLEDGED = EventType.GROUP_ACKNOWLEDGED
SECOND = timedelta(seconds=1)


async def fails(
    store: StoreUnderTest, number: int, cause: Cause | None = DOWN, *, risk: Risk = Risk.REFUSED
) -> Delivery:
    """A delivery that failed elsewhere, of *cause*."""
    delivery = a_delivery(number)
    await store.hand_over(an_import(delivery, cause=cause, risk=risk), None)
    return delivery


async def group_of(store: StoreUnderTest, number: int, cause: Cause = DOWN) -> FailureGroup:
    found = await store.groups.group(number, cause.number)
    assert found is not None
    return found


async def acknowledge(store: StoreUnderTest, group: FailureGroup, event: AuditEvent | None = None) -> bool:
    after = failure_group.acknowledged(group, at=NOW, by="ops")
    return await store.groups.judge(group, after, event or an_event(ACKNOWLEDGED), None)


async def closing(store: StoreUnderTest, number: int, cause: Cause = DOWN, limit: int = 100) -> list[Closed]:
    """What a call that closes the group's items has to write."""
    items = await store.groups.unresolved(number, cause.number, died_by=NOW, after=0, limit=limit)
    return [Closed(item, an_event(EventType.RESOLVED, target_id=f"rec_{item.id}")) for item in items]


# what is counted


async def test_what_is_handed_over_is_counted_with_its_cause(store: StoreUnderTest, number: int) -> None:
    first = await fails(store, number)
    last = await fails(store, number)

    group = await group_of(store, number)
    assert group == FailureGroup(
        integration=number,
        cause=DOWN,
        failures=2,
        first_seen_at=first.created_at,
        last_seen_at=last.created_at,
        sample=last.id,
        judgement=failure_group.Judgement(),
        items=2,
        items_is_exact=True,
    )


async def test_an_item_shows_its_group_and_what_sending_again_would_risk(
    store: StoreUnderTest, number: int
) -> None:
    for risk in (Risk.NEVER_SENT, Risk.REFUSED, Risk.AMBIGUOUS):
        delivery = await fails(store, number, risk=risk)

        item = await store.item(number, delivery.id)

        assert item is not None
        assert (item.risk, item.group) == (risk, DOWN.number)


async def test_what_nothing_is_known_of_is_in_no_group(store: StoreUnderTest, number: int) -> None:
    delivery = await fails(store, number, cause=None)

    item = await store.item(number, delivery.id)

    assert item is not None
    assert item.group is None
    assert (await store.groups.page(number, None, limit=10, below=None)).rows == []


async def test_a_duplicate_counts_nothing(store: StoreUnderTest, number: int) -> None:
    for _ in range(2):
        await store.hand_over(an_import(a_delivery(number, idempotency_key="key"), cause=DOWN), None)

    assert (await group_of(store, number)).failures == 1


async def test_a_group_is_of_one_integration(store: StoreUnderTest, number: int) -> None:
    other = await add_integration(store, "other")
    await fails(store, number)

    assert await store.groups.group(other, DOWN.number) is None
    assert (await store.groups.page(other, None, limit=10, below=None)).rows == []


async def test_items_are_counted_while_they_wait(store: StoreUnderTest, number: int) -> None:
    replayed, resolved, waiting = [await fails(store, number) for _ in range(3)]
    await store.replay(a_replay(replayed), None)
    dead = await store.item(number, resolved.id)
    assert dead is not None
    await store.resolve(dead, RESOLUTION, an_event(), None)

    group = await group_of(store, number)

    assert (group.failures, group.items) == (3, 1)
    assert [item.id for item in await unresolved(store, number)] == [waiting.id]


async def test_a_count_that_is_cut_says_so(
    store: StoreUnderTest, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rows, postgres_groups, sqlite_groups):
        monkeypatch.setattr(module, "COUNTED_AT_MOST", 2)
    for expected in ((1, True), (2, True), (2, False), (2, False)):
        await fails(store, number)

        group = await group_of(store, number)

        assert (group.items, group.items_is_exact) == expected
        assert (await store.groups.page(number, None, limit=1, below=None)).rows == [group]


async def test_what_fails_here_is_in_the_group_of_its_cause_attempt_by_attempt(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = await a_dead_item(store, owner, number, Status.DLQ)
    cause = cause_of(an_integration(), OUTAGE)

    item = await store.item(number, delivery.id)
    group = await group_of(store, number, cause)

    assert item is not None
    assert (item.group, item.risk) == (cause.number, Risk.REFUSED)
    assert [attempt.group for attempt in await attempts_of(store, number, delivery.id)] == [cause.number]
    assert (group.cause, group.failures, group.items, group.sample) == (cause, 1, 1, delivery.id)
    assert [each.id for each in await unresolved(store, number, cause=cause)] == [delivery.id]


async def test_what_failed_elsewhere_and_what_failed_here_are_counted_together(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    cause = cause_of(an_integration(), OUTAGE)
    await fails(store, number, cause)
    here = await a_dead_item(store, owner, number, Status.DLQ)

    group = await group_of(store, number, cause)

    assert (group.failures, group.items, group.sample) == (2, 2, here.id)


async def test_what_is_still_tried_is_in_no_group_yet_but_tells_its_risk(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = a_delivery(number)
    await store.accept([an_intake(delivery, owner=owner)])
    await store.record(owner, [a_result(a_claim(delivery, owner=owner), later(), TIMEOUT)])

    item = await store.item(number, delivery.id)

    assert item is not None
    assert (item.status, item.group, item.risk) == (Status.RETRYING, None, Risk.AMBIGUOUS)
    assert (await group_of(store, number, cause_of(an_integration(), TIMEOUT))).items == 0
    page = await store.queue(number, QueueFilter(risk=Risk.AMBIGUOUS), limit=10, below=None)
    assert [each.delivery.id for each in page.rows] == [delivery.id]


# lists


async def test_groups_are_listed_by_when_they_failed_last(store: StoreUnderTest, number: int) -> None:
    for cause in (DOWN, GONE, LATE, DOWN):
        await fails(store, number, cause)

    page = await store.groups.page(number, None, limit=10, below=None)

    assert [group.cause for group in page.rows] == [DOWN, LATE, GONE]
    assert page.next_below is None


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7])
async def test_pages_of_groups_have_no_gap_and_no_repetition(
    store: StoreUnderTest, number: int, limit: int
) -> None:
    for n in range(6):  # of two each: seen in the same millisecond
        delivery = a_delivery(number, id=an_id(NOW + n // 2 * SECOND))
        given = replace(delivery, id=ItemId(delivery.id + n))
        await store.hand_over(an_import(given, cause=a_cause(f"cause {n}")), None)
    whole = (await store.groups.page(number, None, limit=100, below=None)).rows

    found: list[FailureGroup] = []
    page = await store.groups.page(number, None, limit=limit, below=None)
    while page.next_below is not None:
        assert len(page.rows) == limit
        found += page.rows
        page = await store.groups.page(number, None, limit=limit, below=page.next_below)
    found += page.rows

    assert len(found) == 6
    assert found == list(whole)
    assert [g.last_seen_at for g in found] == sorted((g.last_seen_at for g in found), reverse=True)


async def test_a_filter_goes_by_the_state_as_it_is_now(store: StoreUnderTest, number: int) -> None:
    for cause in (DOWN, GONE, LATE):
        await fails(store, number, cause)
    await acknowledge(store, await group_of(store, number, GONE))
    await settle(store, await group_of(store, number, LATE))

    async def listed(state: GroupState | None) -> list[Cause]:
        page = await store.groups.page(number, state, limit=10, below=None)
        assert all(group.state is state for group in page.rows) or state is None
        return [group.cause for group in page.rows]

    assert await listed(GroupState.OPEN) == [DOWN]
    assert await listed(GroupState.ACKNOWLEDGED) == [GONE]
    assert await listed(GroupState.RESOLVED) == [LATE]
    assert await listed(None) == [LATE, GONE, DOWN]
    late = a_delivery(number, id=an_id(NOW + SECOND))
    await store.hand_over(an_import(late, cause=LATE), None)
    assert await listed(GroupState.OPEN) == [LATE, DOWN]
    assert await listed(GroupState.RESOLVED) == []


# what people say


async def test_what_was_said_of_a_group_is_kept_with_its_event(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    before, event = await group_of(store, number), an_event(ACKNOWLEDGED)
    after = failure_group.acknowledged(before, at=NOW, by="ops")
    after = failure_group.muted(after, NOW + SECOND, at=NOW)

    done = await store.groups.judge(before, after, event, a_once())

    assert done
    assert await group_of(store, number) == after
    assert await events_of(store, EventFilter(event_type=ACKNOWLEDGED)) == [event]
    assert await store.recall(b"scope") is not None


async def test_of_two_that_judge_at_once_one_is_late_and_changes_nothing(
    store: StoreUnderTest, number: int
) -> None:
    await fails(store, number)
    before = await group_of(store, number)
    muted = failure_group.muted(before, NOW + SECOND, at=NOW)
    await acknowledge(store, before)
    late = an_event(EventType.GROUP_MUTED)

    done = await store.groups.judge(before, muted, late, a_once())

    assert not done
    assert (await group_of(store, number)).judgement.muted_until is None
    assert await events_of(store, EventFilter(event_type=EventType.GROUP_MUTED)) == []
    assert await store.recall(b"scope") is None


async def test_a_failure_meanwhile_does_not_undo_what_was_said(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    before = await group_of(store, number)
    await fails(store, number)

    assert await acknowledge(store, before)

    group = await group_of(store, number)
    assert (group.state, group.failures) == (GroupState.ACKNOWLEDGED, 2)


async def test_a_call_that_was_answered_before_changes_nothing(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    before = await group_of(store, number)
    muted = failure_group.muted(before, NOW + SECOND, at=NOW)
    await store.groups.judge(before, muted, an_event(EventType.GROUP_MUTED), a_once())

    with pytest.raises(AlreadyAnswered):
        await store.groups.judge(muted, before, an_event(EventType.GROUP_MUTED), a_once())

    assert await group_of(store, number) == muted
    assert len(await events_of(store, EventFilter(event_type=EventType.GROUP_MUTED))) == 1


async def test_a_group_that_failed_again_is_open_and_regressed(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    await settle(store, await group_of(store, number))

    settled = await group_of(store, number)
    await store.hand_over(an_import(a_delivery(number, id=an_id(NOW + SECOND)), cause=DOWN), None)
    again = await group_of(store, number)

    assert (settled.state, settled.is_regressed) == (GroupState.RESOLVED, False)
    assert (again.state, again.is_regressed) == (GroupState.OPEN, True)


async def test_comments_stay_as_they_were_written_newest_first(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    made = [Comment(an_id(), number, DOWN.number, "ops", f"note {n}\nand more") for n in range(5)]
    for each in made:
        assert await store.groups.comment(each, an_event(EventType.GROUP_COMMENTED), None)

    first = await store.groups.comments(number, DOWN.number, limit=3, below=None)
    rest = await store.groups.comments(number, DOWN.number, limit=3, below=first.next_below)

    assert [*first.rows, *rest.rows] == made[::-1]
    assert rest.next_below is None
    assert len(await events_of(store, EventFilter(event_type=EventType.GROUP_COMMENTED))) == 5
    assert (await store.groups.comments(number, GONE.number, limit=3, below=None)).rows == []


async def test_what_is_no_group_takes_no_comment(store: StoreUnderTest, number: int) -> None:
    comment = Comment(an_id(), number, GONE.number, "ops", "hm")

    done = await store.groups.comment(comment, an_event(EventType.GROUP_COMMENTED), a_once())

    assert not done
    assert await events_of(store, EventFilter(event_type=EventType.GROUP_COMMENTED)) == []
    assert await store.recall(b"scope") is None


# closing its items


async def test_items_of_a_group_are_closed_each_with_its_event(store: StoreUnderTest, number: int) -> None:
    dead = [await fails(store, number) for _ in range(3)]
    other = await fails(store, number, GONE)
    given = await closing(store, number)

    count = await store.groups.close_items(number, given, RESOLUTION)

    assert count == 3
    assert [one.item.id for one in given] == [delivery.id for delivery in dead]
    assert [one.item.request_id for one in given] == [delivery.request_id for delivery in dead]
    for delivery in dead:
        item = await store.item(number, delivery.id)
        assert item is not None
        assert item.resolution == RESOLUTION
    assert await resolution_of(store, number, other.id) is None
    assert (await group_of(store, number)).items == 0
    written = await events_of(store, EventFilter(event_type=EventType.RESOLVED))
    assert written == [one.event for one in reversed(given)]


async def test_an_item_that_moved_on_is_left_alone_and_leaves_no_event(
    store: StoreUnderTest, number: int
) -> None:
    moved, resolved, waiting = [await fails(store, number) for _ in range(3)]
    given = await closing(store, number)
    await store.replay(a_replay(moved), None)
    item = await store.item(number, resolved.id)
    assert item is not None
    first = Resolution(NOW, "another", "first")
    await store.resolve(item, first, an_event(), None)

    count = await store.groups.close_items(number, given, RESOLUTION)

    assert count == 1
    assert await resolution_of(store, number, moved.id) is None
    assert await resolution_of(store, number, resolved.id) == first
    assert await resolution_of(store, number, waiting.id) == RESOLUTION
    [event] = await events_of(store, EventFilter(event_type=EventType.RESOLVED))
    assert event == given[-1].event


async def test_what_is_closed_twice_is_closed_once(store: StoreUnderTest, number: int) -> None:
    await fails(store, number)
    given = await closing(store, number)
    await store.groups.close_items(number, given, RESOLUTION)
    again = [Closed(one.item, an_event(EventType.RESOLVED)) for one in given]

    assert await store.groups.close_items(number, again, RESOLUTION) == 0

    assert len(await events_of(store, EventFilter(event_type=EventType.RESOLVED))) == 1
    assert await closing(store, number) == []
    assert await store.groups.close_items(number, [], RESOLUTION) == 0


async def test_items_to_close_come_by_id_and_died_by_then(store: StoreUnderTest, number: int) -> None:
    dead = [await fails(store, number) for _ in range(3)]
    late = a_delivery(number, id=an_id(NOW + SECOND))
    await store.hand_over(an_import(late, cause=DOWN), None)

    async def ids(after: int, limit: int) -> list[ItemId]:
        found = await store.groups.unresolved(number, DOWN.number, died_by=NOW, after=after, limit=limit)
        return [item.id for item in found]

    assert await ids(0, 10) == [delivery.id for delivery in dead]
    assert await ids(0, 2) == [delivery.id for delivery in dead[:2]]
    assert await ids(dead[1].id, 10) == [dead[2].id]
    assert [item.id for item in await unresolved(store, number, late.created_at)][-1] == late.id


async def test_what_was_accepted_before_and_died_after_is_not_among_them(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = a_delivery(number)
    await store.accept([an_intake(delivery, owner=owner)])
    claim = a_claim(delivery, owner=owner)
    await store.record(owner, [a_result(claim, EXHAUSTED, OUTAGE, finished_at=NOW + SECOND)])
    cause = cause_of(an_integration(), OUTAGE)

    assert await unresolved(store, number, cause=cause) == []
    assert len(await unresolved(store, number, NOW + SECOND, cause)) == 1


async def test_an_item_that_died_again_in_its_next_cycle_is_left_alone(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    delivery = await fails(store, number)
    given = await closing(store, number)
    await store.replay(a_replay(delivery), None)
    [claim] = await claim_all(store, owner, number)
    await store.record(owner, [a_result(claim, EXHAUSTED, OUTAGE)])

    assert await store.groups.close_items(number, given, RESOLUTION) == 0

    assert await resolution_of(store, number, delivery.id) is None


# the queue


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_the_queue_is_filtered_by_group_and_by_risk(
    store: StoreUnderTest, number: int, limit: int
) -> None:
    made = [
        (await fails(store, number, cause, risk=risk), cause, risk)
        for cause in (DOWN, GONE, None)
        for risk in (Risk.NEVER_SENT, Risk.REFUSED, Risk.AMBIGUOUS)
    ]
    for cause in (DOWN, GONE, LATE):
        for risk in (None, Risk.REFUSED, Risk.AMBIGUOUS):
            for status in (None, Status.DLQ, Status.FAILED, Status.PENDING):
                wanted = QueueFilter(group=cause.number, risk=risk, status=status)

                found = await walk(store, number, wanted, limit)

                assert found == [
                    delivery.id
                    for delivery, its_cause, its_risk in reversed(made)
                    if its_cause == cause and risk in (None, its_risk) and status in (None, Status.DLQ)
                ]
    assert len(await walk(store, number, QueueFilter(risk=Risk.NEVER_SENT), limit)) == 3


# what is forgotten


async def test_a_group_that_nothing_waits_in_is_forgotten_with_its_comments(
    store: StoreUnderTest, number: int
) -> None:
    await store.enter()
    for cause in (DOWN, GONE):
        await fails(store, number, cause)
        await store.groups.comment(
            Comment(an_id(), number, cause.number, "ops", "hm"), an_event(EventType.GROUP_COMMENTED), None
        )
    await settle(store, await group_of(store, number, GONE))
    await store.groups.close_items(number, await closing(store, number, GONE), RESOLUTION)
    far = NOW + timedelta(days=30)

    await store.forget_deliveries(far, resolved_before=far)

    assert await store.groups.group(number, GONE.number) is None
    assert (await store.groups.comments(number, GONE.number, limit=9, below=None)).rows == []
    assert (await group_of(store, number)).items == 1
    assert len((await store.groups.comments(number, DOWN.number, limit=9, below=None)).rows) == 1


async def test_a_group_that_failed_since_is_kept(store: StoreUnderTest, number: int) -> None:
    await store.enter()
    delivery = await fails(store, number)
    await store.groups.close_items(number, await closing(store, number), RESOLUTION)

    await store.forget_deliveries(delivery.created_at, resolved_before=delivery.created_at)

    assert await store.groups.group(number, DOWN.number) is not None


@pytest.mark.parametrize("others", [0, 1])
async def test_what_a_group_says_is_erased_with_the_one_item_it_was_of(
    store: StoreUnderTest, number: int, others: int
) -> None:
    delivery = await fails(store, number)
    for _ in range(others):
        await fails(store, number)
    await fails(store, number, GONE)
    item = await store.item(number, delivery.id)
    assert item is not None

    await store.erase(item, Erasure(NOW, "ops", "asked for"), an_event(EventType.ERASED), None)

    assert (await group_of(store, number)).cause.detail == ("down" if others else "[ERASED]")
    assert (await group_of(store, number, GONE)).cause.detail == "gone"


# helpers


async def unresolved(
    store: StoreUnderTest, number: int, died_by: datetime = NOW, cause: Cause = DOWN
) -> Sequence[DeadItem]:
    return await store.groups.unresolved(number, cause.number, died_by=died_by, after=0, limit=100)


async def settle(store: StoreUnderTest, group: FailureGroup) -> None:
    after = failure_group.resolved(group, at=NOW, by="ops")
    assert await store.groups.judge(group, after, an_event(EventType.GROUP_RESOLVED), None)


async def resolution_of(store: StoreUnderTest, number: int, item_id: ItemId) -> Resolution | None:
    item = await store.item(number, item_id)
    assert item is not None
    return item.resolution


async def walk(store: StoreUnderTest, number: int, wanted: QueueFilter, limit: int) -> list[ItemId]:
    found: list[ItemId] = []
    below = None
    while True:
        page = await store.queue(number, wanted, limit=limit, below=below)
        found += [item.delivery.id for item in page.rows]
        if page.next_below is None:
            return found
        below = page.next_below
