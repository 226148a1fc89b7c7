"""The chain of an item's audit records: who writes one names the last, and nobody forks it."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from redrive.audit.chain import Record, Wrong, read
from redrive.audit.record import AuditEvent, EventType, digest_of, record_of
from redrive.domain.delivery import Claim, Item
from redrive.domain.ids import instant_of, recovery_id
from redrive.domain.item import Status, Step
from redrive.store.port import EventFilter, Store
from tests.factories import DONE, EXHAUSTED, NOW, REFUSED, a_delivery, an_event, an_id, an_import, later
from tests.store import told
from tests.store.conftest import a_store
from tests.store.told import a_told_item, chain_of, erase, found, replay, resolve, tell, wrong_with
from tests.store.under_test import StoreUnderTest, accept, add_integration, claim_all, events_of

Verb = Callable[[Store, Item], Awaitable[bool]]


async def test_every_event_of_an_item_names_the_one_before_it(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = await a_told_item(store, owner, number, later(0), EXHAUSTED)
    assert await replay(store, await found(store, delivery))
    [claim] = await claim_all(store, owner, number)
    await tell(store, claim, REFUSED)
    assert await resolve(store, await found(store, delivery))
    assert await erase(store, await found(store, delivery))

    records = await chain_of(store, delivery)

    assert [one.event_type.rpartition(".")[2] for one in map(said, records)] == [
        "reprocess_failed", "retry_scheduled", "reprocess_failed", "retry_exhausted", "replayed",
        "reprocess_failed", "resolved", "erased",
    ]  # fmt: skip
    digests = [digest_of(record.record) for record in records]
    assert [record.digest for record in records] == digests
    assert [said(record).previous for record in records] == [None, *(digest.hex() for digest in digests[:-1])]
    assert (await found(store, delivery)).head == digests[-1].hex()
    assert await wrong_with(store, delivery) == []


async def test_an_import_is_the_first_of_its_chain(store: StoreUnderTest, owner: int, number: int) -> None:
    delivery = a_delivery(number)
    state = {"status": "dlq", "cycle": 1, "attempt_count": 3, "resolved": False}
    event = an_event(
        EventType.IMPORTED,
        id=store.ids.next(NOW),
        target_type="recovery_item",
        target_id=recovery_id(delivery.id),
        after_state=state,
    )
    await store.hand_over(an_import(delivery, Status.DLQ, event=event), None)
    assert await wrong_with(store, delivery) == []

    assert await replay(store, await found(store, delivery))

    assert [said(record).previous is None for record in await chain_of(store, delivery)] == [True, False]
    assert await wrong_with(store, delivery) == []


@pytest.mark.parametrize("verb", [replay, resolve, erase])
async def test_who_read_an_item_before_its_last_record_was_written_changes_nothing(
    store: StoreUnderTest, owner: int, number: int, verb: Verb
) -> None:
    delivery = await a_told_item(store, owner, number, EXHAUSTED)
    stale = await found(store, delivery)
    meanwhile = told.an_event_of(store, stale, EventType.UPDATED)
    await store.note([meanwhile])
    fresh = await found(store, delivery)

    assert not await verb(store, stale)

    assert await found(store, delivery) == fresh
    assert (await chain_of(store, delivery))[-1].id == meanwhile.id
    assert await verb(store, fresh)
    assert await wrong_with(store, delivery) == []


async def test_what_succeeded_is_erased_after_its_last_record_alone(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = await a_told_item(store, owner, number, later(0), DONE)
    stale = await found(store, delivery)
    await store.note([told.an_event_of(store, stale, EventType.UPDATED)])

    assert not await erase(store, stale)
    assert await erase(store, await found(store, delivery))
    assert await wrong_with(store, delivery) == []


async def test_a_quiet_success_has_no_chain(store: StoreUnderTest, owner: int, number: int) -> None:
    delivery = await a_told_item(store, owner, number, DONE)

    assert (await found(store, delivery)).head is None
    assert await wrong_with(store, delivery) == []


@pytest.mark.parametrize(
    "steps", [(), (later(0),), (later(0), DONE), (EXHAUSTED,), (REFUSED,)], ids=lambda steps: str(len(steps))
)
async def test_a_chain_ends_where_its_item_is(
    store: StoreUnderTest, owner: int, number: int, steps: tuple[Step, ...]
) -> None:
    delivery = await a_told_item(store, owner, number, *steps)

    assert await wrong_with(store, delivery) == []
    await claim_all(store, owner, number)  # an attempt that has not ended is not counted
    assert await wrong_with(store, delivery) == []


# what is done by hand shows


async def test_a_tail_that_was_taken_away_shows(store: StoreUnderTest, owner: int, number: int) -> None:
    delivery = await a_told_item(store, owner, number, later(0), EXHAUSTED)
    for record in reversed(await chain_of(store, delivery)):
        await store.meddle("DELETE FROM audit WHERE id = ?", record.id)

        [finding] = await wrong_with(store, delivery)

        assert finding.kind is Wrong.MISSING


@pytest.mark.parametrize("verb", [replay, resolve, erase])
async def test_a_persons_verb_that_was_taken_out_of_the_log_shows(
    store: StoreUnderTest, owner: int, number: int, verb: Verb
) -> None:
    delivery = await a_told_item(store, owner, number, EXHAUSTED)
    if verb is erase:
        assert await resolve(store, await found(store, delivery))
    assert await verb(store, await found(store, delivery))
    *_, last = await chain_of(store, delivery)

    await store.meddle("DELETE FROM audit WHERE id = ?", last.id)

    [finding] = await wrong_with(store, delivery)
    assert finding.kind is Wrong.MISSING


@pytest.mark.parametrize("at", range(4))
async def test_a_record_that_was_altered_shows(
    store: StoreUnderTest, owner: int, number: int, at: int
) -> None:
    delivery = await a_told_item(store, owner, number, later(0), EXHAUSTED)
    record = (await chain_of(store, delivery))[at]

    text = record.record.decode().replace('"redrive"', '"nobody"')
    await store.meddle("UPDATE audit SET record = ? WHERE id = ?", text, record.id)

    [finding] = await wrong_with(store, delivery)
    assert (finding.kind, finding.event_id) == (Wrong.ALTERED, record.event_id)


@pytest.mark.parametrize("at", range(3))
async def test_a_record_that_is_missing_shows(
    store: StoreUnderTest, owner: int, number: int, at: int
) -> None:
    delivery = await a_told_item(store, owner, number, later(0), EXHAUSTED)
    records = await chain_of(store, delivery)

    await store.meddle("DELETE FROM audit WHERE id = ?", records[at].id)

    [finding] = await wrong_with(store, delivery)
    assert (finding.kind, finding.event_id) == (Wrong.MISSING, records[at + 1].event_id)


async def test_an_item_that_was_put_back_by_hand_shows(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = await a_told_item(store, owner, number, EXHAUSTED)

    await store.meddle("UPDATE dead SET status = 'failed' WHERE id = ?", delivery.id)

    [finding] = await wrong_with(store, delivery)
    assert "is failed, cycle 1, attempt 1" in finding.detail


async def test_an_item_that_was_taken_out_of_the_queue_by_hand_shows(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = await a_told_item(store, owner, number, EXHAUSTED)

    await store.meddle("DELETE FROM dead WHERE id = ?", delivery.id)

    [finding] = await wrong_with(store, delivery)
    assert "is succeeded" in finding.detail


# what is forgotten


@pytest.fixture
async def old_store(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """One whose partitions reach back."""
    async with a_store(store_kind, request, tmp_path, age=timedelta(days=120)) as store:
        yield store


async def test_a_chain_whose_beginning_was_forgotten_is_whole(old_store: StoreUnderTest) -> None:
    store = old_store
    owner, number = await store.enter(), await add_integration(store)
    long_ago = NOW - timedelta(days=100)
    delivery = await a_told_item(store, owner, number, delivery=a_delivery(number, id=an_id(long_ago)))
    record = an_event(
        EventType.RETRY_SCHEDULED,
        id=an_id(long_ago + timedelta(seconds=1)),
        target_type="recovery_item",
        target_id=recovery_id(delivery.id),
    )
    await store.note([record])
    head = digest_of(record_of(record)).hex()
    claim = Claim(delivery, owner, 1, 1, delivery.max_attempts, delivery.request_id, head=head)
    await tell(store, claim, EXHAUSTED)
    assert await resolve(store, await found(store, delivery))
    assert await wrong_with(store, delivery) == []

    assert await store.forget_events(NOW - timedelta(days=50)) == 1

    bound = await store.chains.forgotten_before()
    assert record.id < bound
    assert instant_of(bound) <= NOW - timedelta(days=50)
    assert await wrong_with(store, delivery) == []
    assert await store.forget_events(NOW - timedelta(days=90)) == 0
    assert await store.chains.forgotten_before() == bound


async def test_where_nothing_was_forgotten_nothing_may_be_missing(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    assert await store.chains.forgotten_before() == 0


# what is read for a verification


async def test_records_come_as_they_are_stored_and_in_order(store: StoreUnderTest) -> None:
    events = [an_event(request_id=f"req-{n % 2}", target_id="é") for n in range(7)]
    await store.note(events)

    every = await paged(store, EventFilter())

    assert [record.record for record in every] == [record_of(event) for event in events]
    assert [record.digest for record in every] == [digest_of(record_of(event)) for event in events]
    odd = await paged(store, EventFilter(request_id="req-1", since=instant_of(events[2].id)))
    assert [record.id for record in odd] == [event.id for event in events[3::2]]


async def test_a_tenant_has_the_records_of_its_own_integrations_alone(store: StoreUnderTest) -> None:
    names = ["acme.a", "acme.b", "other.a"]
    made = [an_event(integration_id=name, target_id=name) for _ in range(3) for name in names]
    for name in names:
        await add_integration(store, name)
    await store.note(made)

    found = await paged(store, EventFilter(tenant="acme"))

    assert [record.id for record in found] == ids(e for e in made if e.integration_id != "other.a")


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_what_was_done_under_the_name_of_an_incident_is_found(
    store: StoreUnderTest, tenant: str | None
) -> None:
    for name in ("acme.a", "other.a"):
        await add_integration(store, name)
    metadata = [
        {"incident": "INC-7"},
        {"incident": "INC-8"},
        {"incident": None},
        {"reason": '"incident":"INC-7"'},
    ]
    made = [
        an_event(integration_id=name, target_id=name, metadata=each)
        for _ in range(3)
        for name in ("acme.a", "other.a")
        for each in metadata
    ]
    await store.note(made)

    wanted = EventFilter(incident="INC-7", tenant=tenant)
    found = await paged(store, wanted)

    expected = [
        event
        for event in made
        if event.metadata.get("incident") == "INC-7" and (tenant is None or event.integration_id == "acme.a")
    ]
    assert [record.id for record in found] == ids(expected)
    assert await events_of(store, wanted) == expected[::-1]
    assert await store.count_events(wanted, most=100) == len(expected)


async def test_all_chains_come_one_after_another_however_they_are_cut(store: StoreUnderTest) -> None:
    targets = ["rec_1", "acme", "rec_2"]
    events = [an_event(target_id=targets[n % 3]) for n in range(12)]
    await store.note(events)

    for limit in (1, 2, 5, 100):
        every: list[Record] = []
        after = ("", 0)
        while page := await store.chains.every(after=after, limit=limit):
            every += page
            after = (page[-1].target_id, page[-1].id)
        assert sorted(record.id for record in every) == ids(events)
        groups = [record.target_id for record in every]
        assert len([1 for one, other in pairwise(groups) if one != other]) == 2
        of_one = [record.id for record in every if record.target_id == "rec_2"]
        assert of_one == ids(event for event in events if event.target_id == "rec_2")

    both = await store.chains.of(["rec_2", "nothing", "acme"])
    assert [record.id for record in both] == ids(events[2::3]) + ids(events[1::3])


async def test_a_text_that_is_none_is_read_as_bytes(store: StoreUnderTest, store_kind: str) -> None:
    if store_kind == "postgres":
        return  # which keeps no such text
    [event] = [an_event()]
    await store.note([event])
    await store.meddle("UPDATE audit SET record = CAST(x'ff7b' AS TEXT) WHERE id = ?", event.id)

    [record] = await store.chains.every(after=("", 0), limit=10)

    assert record.record == b"\xff{"
    assert read(record.record) is None


async def test_items_are_walked_in_the_order_of_their_ids(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    other = await add_integration(store, "other")
    deliveries = [a_delivery(number) for _ in range(5)]
    await accept(store, *deliveries, a_delivery(other))

    walked: list[str] = []
    above = -1
    while page := await store.chains.whereabouts(number, above=above, limit=2):
        walked += [stood.where.target_id for stood in page]
        above = deliveries[len(walked) - 1].id

    assert walked == [recovery_id(delivery.id) for delivery in deliveries]


async def test_the_jobs_of_an_item_are_told(store: StoreUnderTest, number: int) -> None:
    delivery = a_delivery(number)
    for job, state, at in ((9, "failed", 1_000), (7, "cancelled", None)):
        await store.meddle(
            "INSERT INTO replay_item (integration, job, item, cycle, risk, state, reason, told_at)"
            " VALUES (?, ?, ?, 1, 3, ?, 'HTTP_503', ?)",
            number, job, delivery.id, state, at,
        )  # fmt: skip

    parts = await store.chains.jobs_of(number, delivery.id)

    assert [(part.job, part.state, part.reason, part.told_at is None) for part in parts] == [
        (7, "cancelled", "HTTP_503", True),
        (9, "failed", "HTTP_503", False),
    ]
    assert await store.chains.jobs_of(number, a_delivery(number).id) == []


async def paged(store: Store, wanted: EventFilter) -> list[Record]:
    """By twos."""
    found: list[Record] = []
    while page := await store.chains.records(wanted, limit=2, above=found[-1].id if found else -1):
        found += page
    return found


def ids(events: Iterable[AuditEvent]) -> list[int]:
    return [event.id for event in events]


def said(record: Record) -> Any:
    return read(record.record)
