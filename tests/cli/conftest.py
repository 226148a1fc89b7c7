from collections.abc import Iterator

import pytest

from tests.cli.terminal import Terminal
from tests.client.peer import Peer, running_peer


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    with running_peer() as peer:
        monkeypatch.setenv("REDRIVE_URL", peer.url)
        monkeypatch.setenv("REDRIVE_TOKEN", "rdr_secret")
        yield peer


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)
