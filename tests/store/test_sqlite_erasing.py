"""What was erased is in no page of the file, whatever was split, moved and freed around it."""

from pathlib import Path

from redrive.domain.delivery import Erasure
from redrive.domain.item import Status
from tests.factories import NOW, a_delivery, an_event, an_import
from tests.store.under_test import add_integration, sqlite_under_test

ITEMS = 200


async def test_not_a_byte_of_it_is_left(tmp_path: Path) -> None:
    async with sqlite_under_test(tmp_path) as store:
        number = await add_integration(store)
        deliveries = [
            a_delivery(number, payload=b"personal-%05d-" % at * (1 + at % 60), headers=(("X-A", "personal"),))
            for at in range(ITEMS)
        ]
        for delivery in deliveries:
            await store.hand_over(an_import(delivery, Status.FAILED), None)
        assert b"personal" in whole(tmp_path)
        for delivery in deliveries:
            item = await store.item(number, delivery.id)
            assert item is not None
            assert await store.erase(item, Erasure(NOW, "dpo", "request 4711"), an_event(), None)

    assert b"personal" not in whole(tmp_path)


def whole(directory: Path) -> bytes:
    """The file and its log, which is gone once the last connection is closed."""
    return b"".join(path.read_bytes() for path in directory.iterdir() if path.name.startswith("redrive.db"))
