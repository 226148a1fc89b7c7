from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from redrive.audit.record import Actor, AuditEvent, EventType
from redrive.domain.ids import EventId
from redrive.store.port import EventFilter
from tests.factories import NOW, an_event, an_integration
from tests.store.under_test import StoreUnderTest, events_of

VALUES: dict[str, tuple[Any, ...]] = {
    "request_id": ("req-1", "req-2", None),
    "event_type": (EventType.RESOLVED, EventType.REPLAYED),
    "integration_id": ("acme", None),
    "target_id": ("rec_1", "rec_2"),
}
FILTERS: dict[str, tuple[Any, ...]] = {
    "request_id": (None, "req-1"),
    "event_type": (None, EventType.RESOLVED),
    "integration_id": (None, "acme"),
    "target_id": (None, "rec_2", "nothing"),
    "actor": (None, "ops"),
}


@pytest.fixture
async def events(store: StoreUnderTest) -> list[AuditEvent]:
    """Every combination of what can be asked for; newest first."""
    made = [
        an_event(**dict(zip(VALUES, values, strict=True)), actor=Actor(actor, "token"))
        for values, actor in product(product(*VALUES.values()), ("ops", "shop"))
    ]
    await store.note(made)
    return made[::-1]


async def test_an_event_comes_back_as_it_was_written(store: StoreUnderTest) -> None:
    given = an_event(
        EventType.ACCESS_DENIED,
        request_id=None,
        traceparent=None,
        integration_id=None,
        source_request_id="req-0",
        actor=Actor("é", "token", None),
        target_type="route",
        target_id="GET /platform",
        result="denied",
        before_state={"exists": False},
        after_state={"deep": [1, 2.5, None, {"a": "é"}]},
        metadata={"permission": "x"},
    )

    await store.note([given])

    page = await store.events(EventFilter(), limit=10, below=None)
    assert list(page.rows) == [given]


async def test_every_combination_of_filters_gives_what_it_says(
    store: StoreUnderTest, events: list[AuditEvent]
) -> None:
    for values in product(*FILTERS.values()):
        wanted = EventFilter(**dict(zip(FILTERS, values, strict=True)))
        expected = [event for event in events if matches(event, wanted)]

        page = await store.events(wanted, limit=100, below=None)

        assert list(page.rows) == expected, wanted
        assert await store.count_events(wanted, most=100) == len(expected), wanted


async def test_instants_bound_when_an_event_occurred(store: StoreUnderTest, events: list[AuditEvent]) -> None:
    wanted = EventFilter(since=events[-2].occurred_at, until=events[0].occurred_at)

    page = await store.events(wanted, limit=100, below=None)

    assert list(page.rows) == events[1:-1]
    assert await store.count_events(wanted, most=100) == len(events) - 2


async def test_instants_and_a_cursor_hold_together(store: StoreUnderTest, events: list[AuditEvent]) -> None:
    wanted = EventFilter(actor="ops", since=events[-1].occurred_at, until=NOW)

    page = await store.events(wanted, limit=100, below=events[4].id)

    assert list(page.rows) == [event for event in events[5:] if event.actor.id == "ops"]


@pytest.mark.parametrize("limit", [1, 5, 23, 24, 25])
async def test_pages_have_no_gap_and_no_repetition_while_new_events_arrive(
    store: StoreUnderTest, limit: int
) -> None:
    first = an_event(actor=Actor("ops", "token"))
    events = [replace(first, id=EventId(first.id + n)) for n in range(24)]  # within one millisecond
    await store.note(events)
    found: list[AuditEvent] = []
    below: EventId | None = None
    while True:
        page = await store.events(EventFilter(actor="ops"), limit=limit, below=below)
        found += page.rows
        await store.note([an_event(actor=Actor("ops", "token"))])
        if page.next_below is None:
            break
        below = EventId(page.next_below)

    assert found == events[::-1]


@pytest.mark.parametrize("most", [1, 5, 47, 48, 49])
async def test_a_count_stops_at_its_bound(store: StoreUnderTest, events: list[AuditEvent], most: int) -> None:
    assert await store.count_events(EventFilter(), most=most) == min(most, 48)


def matches(event: AuditEvent, wanted: EventFilter) -> bool:
    return (
        wanted.request_id in (None, event.request_id)
        and wanted.event_type in (None, event.event_type)
        and wanted.integration_id in (None, event.integration_id)
        and wanted.target_id in (None, event.target_id)
        and wanted.actor in (None, event.actor.id)
    )


async def test_what_was_written_of_an_integration_before_there_was_one_is_found_with_the_rest(
    store: StoreUnderTest,
) -> None:
    early = [
        an_event(integration_id="later"),
        an_event(integration_id="other"),
        an_event(integration_id="later"),
    ]
    await store.note(early)
    created = an_event(EventType.CREATED, integration_id="later")
    await store.create_integration(an_integration("later"), created, None)
    await store.note([late := an_event(integration_id="later")])
    wanted = EventFilter(integration_id="later")

    assert await events_of(store, wanted) == [late, created, early[2], early[0]]
    assert await store.count_events(wanted, most=3) == 3
    page = await store.events(wanted, limit=3, below=None)
    assert page.next_below is not None
    assert list((await store.events(wanted, limit=3, below=EventId(page.next_below))).rows) == [early[0]]


TENANTS = ("acme.a", "acme.b", "acme", "acme-x.a", "acmez.a", "other.acme.a")


@pytest.fixture
async def of_many(store: StoreUnderTest) -> list[AuditEvent]:
    """Events of integrations of several tenants, and of none; newest first."""
    made = []
    for round_number in range(3):
        for name in TENANTS:
            if round_number == 0:
                await store.create_integration(
                    an_integration(name), event := an_event(integration_id=name), None
                )
            else:
                event = an_event(integration_id=name, request_id=f"req-{round_number}")
                await store.note([event])
            made.append(event)
    await store.note([nowhere := an_event(integration_id=None)])
    return [nowhere, *made[::-1]]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"request_id": "req-1"},
        {"event_type": EventType.UPDATED},
        {"event_type": EventType.RESOLVED},
        {"integration_id": "acme.b"},
        {"integration_id": "acme-x.a"},
        {"target_id": "acme"},
        {"actor": "ops"},
    ],
    ids=str,
)
async def test_a_tenant_has_the_events_of_its_own_integrations_alone(
    store: StoreUnderTest, of_many: list[AuditEvent], wanted: dict[str, Any]
) -> None:
    own = [event for event in of_many if event.integration_id in ("acme.a", "acme.b")]
    expected = [event for event in own if all(_of(event, name) == value for name, value in wanted.items())]

    of_tenant = EventFilter(tenant="acme", **wanted)
    first = await store.events(of_tenant, limit=2, below=None)
    rest = (
        await store.events(of_tenant, limit=50, below=EventId(first.next_below)) if first.next_below else None
    )

    assert [*first.rows, *(rest.rows if rest else ())] == expected
    assert await store.count_events(of_tenant, most=100) == len(expected)
    assert await store.count_events(of_tenant, most=1) == min(1, len(expected))


def _of(event: AuditEvent, name: str) -> Any:
    return event.actor.id if name == "actor" else getattr(event, name)
