from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.receiver import Receiver
from tests.api.service import Partner, Service


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def service(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all: a test works on integrations of its own."""
    service = Service(tmp_path_factory.mktemp("service") / "redrive.db", receiver)
    yield service
    service.stop()


@pytest.fixture
def own_service(receiver: Receiver, tmp_path: Path) -> Iterator[Service]:
    """A service that a test may break, stop and start."""
    service = Service(tmp_path / "redrive.db", receiver)
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
