"""Verifying what a store holds: all that was meddled with is found and named, however it is read."""

import pytest

from redrive.audit.chain import Finding, Wrong
from redrive.domain.ids import recovery_id
from redrive.engine import verifying
from redrive.engine.verifying import Tally, verify
from tests.factories import DONE, EXHAUSTED, REFUSED, an_event, later
from tests.store.told import a_told_item, chain_of, erase, found, replay, resolve
from tests.store.under_test import StoreUnderTest, add_integration, claim_all


@pytest.fixture(params=[1, 3, 500], autouse=True)
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is read at once."""
    monkeypatch.setattr(verifying, "AT_ONCE", request.param)


async def findings(store: StoreUnderTest, tally: Tally | None = None) -> list[Finding]:
    told: list[str] = []
    found = [finding async for finding in verify(store, tally or Tally(), told.append)]
    assert told
    return found


async def test_what_nobody_meddled_with_is_whole(store: StoreUnderTest, owner: int, number: int) -> None:
    other = await add_integration(store, "other")
    told = [
        await a_told_item(store, owner, number, later(0), EXHAUSTED),
        await a_told_item(store, owner, other, REFUSED),
        await a_told_item(store, owner, number, DONE),
        await a_told_item(store, owner, number, later(0), DONE),
        await a_told_item(store, owner, number),
    ]
    assert await replay(store, await found(store, told[0]))
    assert await resolve(store, await found(store, told[1]))
    assert await erase(store, await found(store, told[3]))
    await claim_all(store, owner, number)
    tally = Tally()

    assert await findings(store, tally) == []
    assert tally.items == 5
    assert tally.records == sum([len(await chain_of(store, each)) for each in told]) + 2  # two were created
    assert tally.cut == 0


async def test_each_thing_that_was_done_by_hand_is_named(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    told = [await a_told_item(store, owner, number, later(0), EXHAUSTED) for _ in range(6)]
    chains = [await chain_of(store, each) for each in told]
    altered, missing, tail, item, swapped = chains[0][1], chains[1][1], chains[2][3], told[3], chains[4]
    await store.meddle(
        "UPDATE audit SET record = replace(record, 'redrive', 'nobody') WHERE id = ?", altered.id
    )
    await store.meddle("DELETE FROM audit WHERE id = ?", missing.id)
    await store.meddle("DELETE FROM audit WHERE id = ?", tail.id)
    await store.meddle("UPDATE dead SET cycle = 7 WHERE id = ?", item.id)
    for place, other in ((0, 2), (2, 0)):
        text, digest = swapped[other].record.decode(), swapped[other].digest
        sql = "UPDATE audit SET record = ?, digest = ? WHERE id = ?"
        await store.meddle(sql, text, digest, swapped[place].id)

    named = {(one.kind, one.target_id, one.event_id) for one in await findings(store)}

    assert {
        (Wrong.ALTERED, recovery_id(told[0].id), altered.event_id),
        (Wrong.MISSING, recovery_id(told[1].id), chains[1][2].event_id),
        (Wrong.MISSING, recovery_id(told[2].id), chains[2][2].event_id),
        (Wrong.MISSING, recovery_id(item.id), chains[3][3].event_id),
        (Wrong.REORDERED, recovery_id(told[4].id), swapped[0].event_id),
        (Wrong.REORDERED, recovery_id(told[4].id), swapped[2].event_id),
    } <= named
    assert recovery_id(told[5].id) not in {one[1] for one in named}


async def test_records_without_a_digest_are_counted(store: StoreUnderTest, owner: int, number: int) -> None:
    await a_told_item(store, owner, number, later(0), EXHAUSTED)
    await store.note([event := an_event()])
    await store.meddle("UPDATE audit SET digest = NULL WHERE id = ?", event.id)
    tally = Tally()

    async for _ in verify(store, tally, lambda _: None):
        pass

    assert tally.bare == 1


async def test_a_record_of_an_integration_that_was_altered_is_named(store: StoreUnderTest) -> None:
    await store.note([event := an_event()])

    await store.meddle("UPDATE audit SET record = replace(record, 'ops', 'nobody') WHERE id = ?", event.id)

    [finding] = await findings(store)
    assert (finding.kind, finding.event_id) == (Wrong.ALTERED, event.event_id)


@pytest.mark.parametrize("column", ["event_type", "request_id", "integration_id", "actor"])
async def test_a_record_that_lists_would_find_by_something_else_is_named(
    store: StoreUnderTest, column: str
) -> None:
    await store.note([event := an_event()])

    await store.meddle(f"UPDATE audit SET {column} = 'hidden' WHERE id = ?", event.id)

    [finding] = await findings(store)
    assert (finding.kind, finding.event_id) == (Wrong.ALTERED, event.event_id)
    assert column in finding.detail


async def test_an_item_that_makes_no_sense_is_a_finding_like_others(
    store: StoreUnderTest, owner: int, number: int
) -> None:
    delivery = await a_told_item(store, owner, number, EXHAUSTED)

    await store.meddle("UPDATE dead SET status = 'nonsense' WHERE id = ?", delivery.id)

    [finding] = await findings(store)
    assert "is nonsense" in finding.detail
