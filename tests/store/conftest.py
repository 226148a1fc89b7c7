"""The store every conformance test runs on, once per kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.under_test import StoreUnderTest, add_integration, postgres_under_test, sqlite_under_test


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreUnderTest]:
    if request.param == "sqlite":
        async with sqlite_under_test(tmp_path) as store:
            yield store
    else:
        async with postgres_under_test(request.getfixturevalue("postgres").url()) as store:
            yield store


@pytest.fixture
async def owner(store: StoreUnderTest) -> int:
    """This process, entered."""
    return await store.enter()


@pytest.fixture
async def number(store: StoreUnderTest) -> int:
    """An active integration."""
    return await add_integration(store)
