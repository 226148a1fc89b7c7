"""Items that many ask for at once, read by one statement: a round trip costs both sides more than an item."""

from collections.abc import Sequence
from functools import partial

from redrive.batch import Batcher
from redrive.domain.delivery import Item
from redrive.domain.ids import ItemId
from redrive.store.port import StoreInconsistent
from redrive.store.postgres import read
from redrive.store.postgres.connection import Database

Asked = tuple[int, ItemId]  # an integration, and an id that it may have
MOST = 16  # their payloads are in memory together


class Together:
    """Reads what is asked for while another is read with the next; whoever asks alone waits for nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batcher: Batcher[Asked, Item | StoreInconsistent | None] = Batcher(self._read_all, most=MOST)

    async def item(self, integration: int, item_id: ItemId) -> Item | None:
        """One item, whole, as it is once this was asked."""
        [found] = await self._batcher.submit(((integration, item_id),))
        if isinstance(found, StoreInconsistent):
            raise found
        return found

    async def _read_all(self, asked: Sequence[Asked]) -> Sequence[Item | StoreInconsistent | None]:
        """One answer each; an item that makes no sense is answered with why, and takes no others with it."""
        try:
            found = await self._read(asked)
        except StoreInconsistent as error:
            if len(asked) == 1:
                return [error]
            return [answer for one in asked for answer in await self._read_all([one])]
        return [found.get(one) for one in asked]

    async def _read(self, asked: Sequence[Asked]) -> dict[Asked, Item]:
        found: dict[Asked, Item] = {}
        for integration in {integration for integration, _ in asked}:
            ids = list({item_id for of, item_id in asked if of == integration})
            items = await self._database.run(
                partial(read.items, integration=integration, ids=ids, whole=True)
            )
            found |= {(integration, item.delivery.id): item for item in items}
        return found
