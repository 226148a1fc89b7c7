from collections.abc import Iterator

import pytest

from redrive.client import Client
from tests.client.peer import Peer, running_peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.url, "rdr_secret", timeout=5) as client:
        yield client
