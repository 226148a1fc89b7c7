"""What every test shares: the `--long` option, and a PostgreSQL server."""

from collections.abc import Iterator

import pytest

from tests.postgres import Server, a_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of this test process's own; it starts when the first test asks for it."""
    with a_server() as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of tests as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
