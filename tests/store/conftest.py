"""The store every conformance test runs on, once per kind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.store.under_test import StoreUnderTest, add_integration, postgres_under_test, sqlite_under_test


@pytest.fixture(params=["sqlite", "postgres"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each test runs once per kind of store."""
    kind: str = request.param
    return kind


@pytest.fixture
async def store(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[StoreUnderTest]:
    async with a_store(store_kind, request, tmp_path) as store:
        yield store


@asynccontextmanager
async def a_store(
    kind: str, request: pytest.FixtureRequest, directory: Path, *, age: timedelta = timedelta()
) -> AsyncIterator[StoreUnderTest]:
    """A store of a *kind*, set up *age* ago."""
    if kind == "sqlite":
        async with sqlite_under_test(directory) as sqlite:
            yield sqlite
    else:
        async with postgres_under_test(request.getfixturevalue("postgres").url(), age=age) as postgres:
            yield postgres


@pytest.fixture
async def owner(store: StoreUnderTest) -> int:
    """This process, entered."""
    return await store.enter()


@pytest.fixture
async def number(store: StoreUnderTest) -> int:
    """An active integration."""
    return await add_integration(store)
