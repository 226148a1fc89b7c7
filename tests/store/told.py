"""Items whose every event is written as the engine does, and what verifying makes of them."""

from msgspec.structs import replace

from redrive.audit.chain import Chain, Finding, Record, check_end
from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import SYSTEM, Call
from redrive.domain.delivery import Claim, Delivery, Erasure, Item, Resolution
from redrive.domain.ids import recovery_id
from redrive.domain.item import Status, Step
from redrive.engine.audited import of_attempt, of_person
from redrive.store.port import Intake, Store
from tests.factories import NOW, a_delivery, a_replay, a_result, an_edit
from tests.store.under_test import claim_all

CALL = Call(SYSTEM, "req-of-a-person", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


async def tell(store: Store, claim: Claim, step: Step) -> None:
    """Record that *claim* led to *step*, with its events."""
    result = a_result(claim, step)
    events = of_attempt(store.ids.next, claim, "acme", result.attempt, step, now=NOW)
    assert list(await store.record(claim.owner, [replace(result, events=events)])) == [True]


async def a_told_item(
    store: Store, owner: int, number: int, *steps: Step, delivery: Delivery | None = None
) -> Delivery:
    """An item whose attempts led to these steps, the first one claimed as it was accepted."""
    delivery = delivery or a_delivery(number)
    await store.accept([Intake(delivery, b"one", owner)])
    claim = Claim(delivery, owner, 1, 1, delivery.max_attempts, delivery.request_id)
    for at, step in enumerate(steps):
        if at:
            [claim] = [c for c in await claim_all(store, owner, number) if c.delivery.id == delivery.id]
        await tell(store, claim, step)
    return delivery


async def found(store: Store, delivery: Delivery) -> Item:
    item = await store.item(delivery.integration, delivery.id)
    assert item is not None
    return item


def an_event_of(store: Store, item: Item, kind: EventType, *, resolved: bool = False) -> AuditEvent:
    """By a person, and after the last of the item as it was read."""
    after = replace(item, resolution=Resolution(NOW, "ops", "why")) if resolved else item
    if kind is EventType.REPLAYED:
        after = replace(item, status=Status.REPLAYED, cycle=item.cycle + 1, attempt_count=0)
    return of_person(
        store.ids.next,
        NOW,
        kind,
        CALL,
        integration_id="acme",
        item=item,
        before=item.state(),
        after=after.state(),
    )


async def replay(store: Store, item: Item) -> bool:
    event = an_event_of(store, item, EventType.REPLAYED)
    request_id = f"req-{event.id}"
    return await store.replay(
        a_replay(item.delivery, item.status, cycle=item.cycle, event=event, request_id=request_id), None
    )


async def edit(store: Store, item: Item) -> bool:
    return await store.edit(an_edit(item, events=(an_event_of(store, item, EventType.EDITED),)), None)


async def resolve(store: Store, item: Item) -> bool:
    event = an_event_of(store, item, EventType.RESOLVED, resolved=True)
    return await store.resolve(item, Resolution(NOW, "ops", "why"), event, None)


async def erase(store: Store, item: Item) -> bool:
    is_closed = item.status is not Status.SUCCEEDED
    event = an_event_of(store, item, EventType.ERASED, resolved=is_closed)
    return await store.erase(item, Erasure(NOW, "ops", "why"), event, None)


async def chain_of(store: Store, delivery: Delivery) -> list[Record]:
    return list(await store.chains.of([recovery_id(delivery.id)]))


async def wrong_with(store: Store, delivery: Delivery) -> list[Finding]:
    """What verifying its chain, and where that ends, finds."""
    forgotten_before = await store.chains.forgotten_before()
    chain = Chain(recovery_id(delivery.id), forgotten_before=forgotten_before)
    findings = [one for record in await chain_of(store, delivery) for one in chain.take(record)]
    [stood] = await store.chains.whereabouts(delivery.integration, above=delivery.id - 1, limit=1)
    end = check_end(stood.where, stood.last, forgotten_before=forgotten_before)
    return findings if end is None else [*findings, end]
