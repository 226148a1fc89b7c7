"""A running service, a token that may do everything, and a caller that has it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.caller import Caller
from tests.e2e.service import Service
from tests.postgres import a_database


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of a store: a file in the data directory, or a new database."""
    if request.param == "sqlite":
        return {}
    return {"database": asyncio.run(a_database(request.getfixturevalue("postgres")))}


@pytest.fixture
def a_service(tmp_path: Path, kept: dict[str, str]) -> Iterator[Callable[..., Service]]:
    """Makes a service that is not started yet; settings by name."""
    with ExitStack() as stack:

        def make(**settings: str) -> Service:
            service = Service(tmp_path, **kept | settings)
            stack.callback(service.close)
            return service

        yield make


@pytest.fixture
def service(a_service: Callable[..., Service]) -> Service:
    service = a_service()
    service.start()
    return service


@pytest.fixture
def token(service: Service) -> str:
    return service.a_token()


@pytest.fixture
def caller(service: Service, token: str) -> Iterator[Caller]:
    with Caller(service, token) as caller:
        yield caller
