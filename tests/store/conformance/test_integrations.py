import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.audit.record import EventType
from redrive.domain.integration import Integration, Lifecycle, SigningSecret
from redrive.store.port import EventFilter
from tests.factories import NOW, an_event, an_integration, secrets
from tests.store.under_test import StoreUnderTest, add_integration, changed, events_of

UPDATES = EventFilter(event_type=EventType.UPDATED)


async def test_an_integration_comes_back_as_it_was_given(store: StoreUnderTest) -> None:
    given = an_integration(
        name="Acme é",
        method="PUT",
        headers=(("X-B", "2"), ("X-A", "1")),
        auth_mode="hmac",
        lifecycle_status=Lifecycle.PAUSED,
        timeout_seconds=1.5,
        max_attempts=3,
        base_delay_seconds=0.1,
        max_delay_seconds=30.0,
        jitter=0.0,
        retryable_network_codes=("EPIPE",),
        concurrency=2,
        rate_per_second=0.5,
        health_url="https://acme.example/up",
        message_signature=True,
        secrets=(
            SigningSecret("sealed 1", public_key="whpk_1"),
            SigningSecret("sealed 2", ends_at=NOW + timedelta(hours=1)),
        ),
        credentials="sealed 3",
    )

    number = await store.create_integration(given, an_event(EventType.CREATED), None)

    assert number is not None
    assert list(await store.integrations()) == [replace(given, number=number)]


async def test_an_integration_that_leaves_all_to_the_defaults_still_does(store: StoreUnderTest) -> None:
    number = await add_integration(store)

    assert list(await store.integrations()) == [an_integration(number=number)]


async def test_a_taken_integration_id_is_told_and_leaves_no_event(store: StoreUnderTest) -> None:
    await store.create_integration(an_integration(), an_event(EventType.CREATED), None)

    second = await store.create_integration(
        an_integration(name="Another", secrets=secrets("whsec_x")), an_event(EventType.CREATED), None
    )

    [kept] = await store.integrations()
    assert second is None
    assert (kept.name, kept.secrets) == ("Acme", ())
    assert len(await events_of(store, EventFilter(event_type=EventType.CREATED))) == 1


async def test_integrations_come_by_their_id_each_with_its_own_secrets(store: StoreUnderTest) -> None:
    for name in ("b", "c", "a"):
        await add_integration(store, name, secrets=secrets(f"whsec_{name}", "whsec_shared"))

    found = await store.integrations()

    assert [(one.integration_id, one.secrets[0].sealed) for one in found] == [
        ("a", "whsec_a"),
        ("b", "whsec_b"),
        ("c", "whsec_c"),
    ]


async def test_an_update_replaces_fields_and_secrets_and_leaves_its_events(store: StoreUnderTest) -> None:
    await add_integration(store, secrets=secrets("whsec_1", "whsec_2"))
    new = changed(await the_only_one(store), name="New", secrets=secrets("whsec_3"))
    event = an_event(EventType.LIFECYCLE_CHANGED)

    updated = await store.update_integration(new, [event])

    assert updated
    assert await the_only_one(store) == new
    assert await events_of(store, EventFilter(event_type=EventType.LIFECYCLE_CHANGED)) == [event]


async def test_an_update_of_a_stale_version_changes_nothing(store: StoreUnderTest, number: int) -> None:
    old = await the_only_one(store)
    new = changed(old, name="New", secrets=secrets("whsec_1"))
    await store.update_integration(new, [])

    stale = await store.update_integration(
        changed(old, name="Stale", secrets=()), [an_event(EventType.LIFECYCLE_CHANGED)]
    )

    assert not stale
    assert await the_only_one(store) == new
    assert await events_of(store, EventFilter(event_type=EventType.LIFECYCLE_CHANGED)) == []


@pytest.mark.parametrize("version", [1, 3, 0])
async def test_an_update_must_be_the_very_next_version(
    store: StoreUnderTest, number: int, version: int
) -> None:
    old = await the_only_one(store)

    updated = await store.update_integration(replace(old, name="New", version=version), [])

    assert not updated
    assert await the_only_one(store) == old


async def test_of_many_updates_at_once_one_wins(store: StoreUnderTest, number: int) -> None:
    old = await the_only_one(store)

    updated = await asyncio.gather(
        *(store.update_integration(changed(old, name=f"{n}"), [an_event()]) for n in range(20))
    )

    assert sorted(updated) == [False] * 19 + [True]
    assert (await the_only_one(store)).name == str(updated.index(True))


async def the_only_one(store: StoreUnderTest) -> Integration:
    [integration] = await store.integrations()
    return integration
