import pytest

from redrive.domain.ids import ItemId
from redrive.domain.integration import Lifecycle
from redrive.domain.item import Status
from redrive.store.port import Accepted, Duplicate, KeyReused, Refused, StoreInconsistent
from tests.factories import a_delivery, a_once, an_intake
from tests.store.under_test import StoreUnderTest, accept, add_integration, changed, claim_all


async def test_what_is_accepted_comes_back_as_it_came(store: StoreUnderTest, number: int) -> None:
    payload = b'{"b": 1,\n "a": [\xc3\xa9, 1e400, 0.1] }'
    given = a_delivery(
        number,
        payload=payload,
        headers=(("X-A", "1"), ("x-b", "ü")),
        tracestate="a=1",
        idempotency_key="key",
        content_type="application/x",
    )

    verdicts = await store.accept([an_intake(given)])

    item = await store.item(number, given.id)
    assert list(verdicts) == [Accepted(claimed=False)]
    assert item is not None
    assert item.delivery == given
    assert (item.status, item.cycle, item.attempt_count) == (Status.PENDING, 1, 0)
    assert item.payload_size == len(payload)
    assert (item.updated_at, item.updated_by) == (given.created_at, given.created_by)


async def test_an_empty_payload_is_a_payload(store: StoreUnderTest, number: int) -> None:
    given = a_delivery(number, payload=b"")

    await accept(store, given)

    item = await store.item(number, given.id)
    assert item is not None
    assert item.delivery.payload == b""


async def test_what_is_accepted_for_an_owner_is_its_first_attempt_already(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    given = a_delivery(number)

    verdicts = await store.accept([an_intake(given, owner=owner)])

    item = await store.item(number, given.id)
    assert list(verdicts) == [Accepted(claimed=True)]
    assert item is not None
    assert (item.status, item.attempt_count) == (Status.PENDING, 1)
    assert await claim_all(store, owner, number) == []


async def test_an_owner_whose_lease_is_gone_claims_nothing(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    await store.expire(owner)

    verdicts = await store.accept([an_intake(a_delivery(number), owner=owner)])

    assert list(verdicts) == [Accepted(claimed=False)]


async def test_a_paused_integration_accepts_and_holds(store: StoreUnderTest, owner: int) -> None:
    paused = await add_integration(store, lifecycle_status=Lifecycle.PAUSED)
    given = a_delivery(paused)

    verdicts = await store.accept([an_intake(given, owner=owner)])

    item = await store.item(paused, given.id)
    assert list(verdicts) == [Accepted(claimed=False)]
    assert item is not None
    assert item.attempt_count == 0
    assert await claim_all(store, owner, paused) == []


@pytest.mark.parametrize("lifecycle", [Lifecycle.DRAFT, Lifecycle.RETIRED])
async def test_a_draft_or_retired_integration_refuses_and_nothing_is_stored(
    store: StoreUnderTest, lifecycle: Lifecycle
) -> None:
    closed = await add_integration(store, lifecycle_status=lifecycle)
    given = a_delivery(closed, idempotency_key="key")

    verdicts = await store.accept([an_intake(given)])

    assert list(verdicts) == [Refused(lifecycle)]
    assert await store.item(closed, given.id) is None


async def test_a_refused_delivery_does_not_use_up_its_key(store: StoreUnderTest) -> None:
    number = await add_integration(store, lifecycle_status=Lifecycle.DRAFT)
    await store.accept([an_intake(a_delivery(number, idempotency_key="key"))])
    [draft] = await store.integrations()
    await store.update_integration(changed(draft, lifecycle_status=Lifecycle.ACTIVE), [])

    verdicts = await store.accept([an_intake(a_delivery(number, idempotency_key="key"))])

    assert list(verdicts) == [Accepted(claimed=False)]


async def test_an_integration_that_is_not_there_accepts_nothing(store: StoreUnderTest) -> None:
    assert list(await store.accept([an_intake(a_delivery(99))])) == [Refused(Lifecycle.RETIRED)]


async def test_a_key_used_again_for_the_same_delivery_names_the_first(
    store: StoreUnderTest, number: int
) -> None:
    first = a_delivery(number, idempotency_key="key")
    await accept(store, first)
    second = a_delivery(number, idempotency_key="key")

    verdicts = await store.accept([an_intake(second)])

    assert list(verdicts) == [Duplicate(first.id)]
    assert await store.item(number, second.id) is None


async def test_a_key_used_again_for_another_delivery_is_told_apart(
    store: StoreUnderTest, number: int
) -> None:
    await accept(store, a_delivery(number, idempotency_key="key"))
    second = a_delivery(number, idempotency_key="key")

    verdicts = await store.accept([an_intake(second, fingerprint=b"two")])

    assert list(verdicts) == [KeyReused()]
    assert await store.item(number, second.id) is None


async def test_keys_are_told_apart_within_a_batch_and_one_fails_alone(
    store: StoreUnderTest, number: int
) -> None:
    first, same, other, free = (
        a_delivery(number, idempotency_key=key) for key in ("key", "key", "key", "KEY")
    )

    verdicts = await store.accept(
        [an_intake(first), an_intake(same), an_intake(other, fingerprint=b"two"), an_intake(free)]
    )

    assert list(verdicts) == [
        Accepted(claimed=False),
        Duplicate(first.id),
        KeyReused(),
        Accepted(claimed=False),
    ]
    assert len(await claim_all(store, await store.enter(), number)) == 2


async def test_a_key_belongs_to_its_integration(store: StoreUnderTest, number: int) -> None:
    other = await add_integration(store, "other")

    verdicts = await store.accept(
        [an_intake(a_delivery(n, idempotency_key="key"), fingerprint=b"%d" % n) for n in (number, other)]
    )

    assert list(verdicts) == [Accepted(claimed=False)] * 2


async def test_a_duplicate_is_recognised_also_after_the_integration_closed(
    store: StoreUnderTest, number: int
) -> None:
    first = a_delivery(number, idempotency_key="key")
    await accept(store, first)
    [integration] = await store.integrations()
    await store.update_integration(changed(integration, lifecycle_status=Lifecycle.RETIRED), [])

    verdicts = await store.accept([an_intake(a_delivery(number, idempotency_key="key"))])

    assert list(verdicts) == [Duplicate(first.id)]


async def test_verdicts_keep_the_order_of_a_mixed_batch(
    store: StoreUnderTest, number: int, owner: int
) -> None:
    closed = await add_integration(store, "closed", lifecycle_status=Lifecycle.RETIRED)
    paused = await add_integration(store, "paused", lifecycle_status=Lifecycle.PAUSED)

    verdicts = await store.accept([an_intake(a_delivery(n), owner=owner) for n in (closed, number, paused)])

    assert list(verdicts) == [Refused(Lifecycle.RETIRED), Accepted(claimed=True), Accepted(claimed=False)]


async def test_the_reply_is_made_of_the_verdicts_and_stored_with_them(
    store: StoreUnderTest, number: int
) -> None:
    await store.accept([an_intake(a_delivery(number))], lambda verdicts: a_once(body=repr(verdicts).encode()))

    stored = await store.recall(b"scope")

    assert stored is not None
    assert stored.body == repr([Accepted(claimed=False)]).encode()


async def test_an_id_is_never_taken_twice_and_the_first_stays(store: StoreUnderTest, number: int) -> None:
    first = a_delivery(number, payload=b"first")
    await accept(store, first)
    bystander = a_delivery(number)

    with pytest.raises(StoreInconsistent):
        await accept(store, bystander, a_delivery(number, id=first.id, payload=b"second"))

    item = await store.item(number, first.id)
    assert item is not None
    assert item.delivery.payload == b"first"
    assert await store.item(number, bystander.id) is None


async def test_an_item_belongs_to_its_integration(store: StoreUnderTest, number: int) -> None:
    given = a_delivery(number)
    await accept(store, given)

    assert await store.item(number + 1, given.id) is None
    assert await store.item(number, ItemId(given.id + 1)) is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 65, 127, 200])
async def test_a_batch_of_any_size_is_stored_whole(store: StoreUnderTest, number: int, size: int) -> None:
    given = [a_delivery(number, payload=b"%d" % n, headers=(("n", f"{n}"),)) for n in range(size)]

    verdicts = await store.accept([an_intake(delivery) for delivery in given])

    assert list(verdicts) == [Accepted(claimed=False)] * size
    assert [claim.delivery for claim in await claim_all(store, await store.enter(), number, 500)] == given
