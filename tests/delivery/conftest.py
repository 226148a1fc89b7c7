"""Every asynchronous test here runs on asyncio's own loop and on uvloop, which we run on."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from redrive.delivery.http import HttpDeliverer
from tests.delivery.receivers import Names, a_deliverer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def names() -> Names:
    return Names({"partner.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})


@pytest.fixture
async def deliverer(names: Names) -> AsyncIterator[HttpDeliverer]:
    async with a_deliverer(names) as made:
        yield made
