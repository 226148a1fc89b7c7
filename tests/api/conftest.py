import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.api.receiver import Receiver
from tests.api.service import Partner, Service
from tests.api.storage import PostgresStorage, SqliteStorage, Storage
from tests.postgres import a_database


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def new_storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Storage]:
    """Makes an empty database, once for each kind of store."""
    if request.param == "sqlite":
        return lambda: SqliteStorage(tmp_path_factory.mktemp("storage") / "redrive.db")
    server = request.getfixturevalue("postgres")
    return lambda: PostgresStorage(asyncio.run(a_database(server)))


@pytest.fixture(scope="session")
def service(receiver: Receiver, new_storage: Callable[[], Storage]) -> Iterator[Service]:
    """One service for all: a test works on integrations of its own."""
    service = Service(new_storage(), receiver)
    yield service
    service.stop()


@pytest.fixture
def own_service(receiver: Receiver, new_storage: Callable[[], Storage]) -> Iterator[Service]:
    """A service that a test may break, stop and start."""
    service = Service(new_storage(), receiver)
    yield service
    service.stop()


@pytest.fixture
def partner(service: Service) -> Partner:
    return service.partner()


@pytest.fixture
def quiet(service: Service) -> Partner:
    """A partner to whom nothing is sent: what is open stays as it is."""
    return service.partner(rate_per_second=0.001)


@pytest.fixture
def unchanged(quiet: Partner) -> Callable[[], None]:
    """Call it at the end: nothing was stored since the test began."""
    before = quiet.facts()

    def check() -> None:
        assert quiet.facts() == before

    return check
