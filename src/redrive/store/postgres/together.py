"""Items that many ask for at once, read together: a round trip costs both sides more than an item."""

import asyncio
from collections.abc import Sequence
from functools import partial

from redrive.batch import Questions
from redrive.domain.delivery import Item
from redrive.domain.ids import ItemId
from redrive.store.port import StoreInconsistent
from redrive.store.postgres import read
from redrive.store.postgres.connection import Database

Asked = tuple[int, ItemId]  # an integration, and an id that it may have
MOST = 16  # their payloads are in memory together


class ItemsTogether:
    """Reads what is asked for while others are read with the next: one statement for each integration."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._questions: Questions[Asked, Item | StoreInconsistent | None] = Questions(self._read_all, MOST)

    async def item(self, integration: int, item_id: ItemId) -> Item | None:
        """One item, whole, as it is once this was asked."""
        [found] = await self._questions.submit(((integration, item_id),))
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
        ids: dict[int, list[ItemId]] = {}
        for integration, item_id in dict.fromkeys(asked):
            ids.setdefault(integration, []).append(item_id)
        found = await asyncio.gather(
            *(
                self._database.run(partial(read.items, integration=integration, ids=own, whole=True))
                for integration, own in ids.items()
            )
        )
        return {(item.delivery.integration, item.delivery.id): item for items in found for item in items}
