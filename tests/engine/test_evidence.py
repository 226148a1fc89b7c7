"""What an integration went through meanwhile is told with an item, however much it was."""

from collections.abc import Sequence
from typing import Any

import pytest

from redrive.audit.chain import Record, read
from redrive.domain.item import Status
from redrive.engine import evidence
from redrive.store.port import EventFilter
from tests.engine.conftest import Harness, answered


@pytest.fixture
def pages(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each page held that was read; a page holds three."""
    monkeypatch.setattr(evidence, "AT_ONCE", 3)
    read, sizes = harness.store.chains.records, list[int]()

    async def records(wanted: EventFilter, **limits: Any) -> Sequence[Record]:
        page = await read(wanted, **limits)
        sizes.append(len(page))
        return page

    monkeypatch.setattr(harness.store.chains, "records", records)
    return sizes


async def test_records_of_an_integration_are_read_a_page_at_a_time_as_they_are_asked_for(
    harness: Harness, pages: list[int]
) -> None:
    await harness.integration("shop")
    harness.clock.move(1)
    harness.deliverer.scripts["/shop"] = lambda _: answered(404)
    [item] = await harness.deliver("shop")
    await harness.status("shop", item, Status.FAILED)
    harness.clock.move(1)
    for n in range(7):
        await harness.change("shop", name=f"Shop {n}")
    harness.clock.move(1)

    _, _, others = await harness.engine.evidence.item(harness.call(), "shop", item)
    assert pages == []
    first = await anext(others)
    assert pages == [3]
    rest = [record async for record in others]

    assert pages == [3, 3, 1, 0]
    told = [read(record.record) for record in (first, *rest)]
    assert [one.after_state["name"] for one in told if one is not None] == [f"Shop {n}" for n in range(7)]
