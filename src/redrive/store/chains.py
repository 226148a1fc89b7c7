"""What the engine asks of a store about chains of audit records: questions, which change nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from redrive.audit.chain import Record, Whereabouts
from redrive.domain.ids import ItemId
from redrive.store.port import EventFilter


class Stood(Struct, frozen=True):
    """Where an item is, and the last record of its chain; both of the same moment."""

    where: Whereabouts
    last: Record | None


class Part(Struct, frozen=True):
    """An item's part in a replay job, as the job has it."""

    job: int
    state: str
    reason: str | None
    told_at: datetime | None


class Chains(Protocol):
    """The chains of audit records, one of each target, and what they can be held against."""

    async def records(self, wanted: EventFilter, *, limit: int, above: int) -> Sequence[Record]:
        """The first records after the id *above*, as they are stored, in the order of their ids."""
        ...

    async def of(self, targets: Sequence[str]) -> Sequence[Record]:
        """Every record of some targets: those of one stand together, in the order of their ids."""
        ...

    async def every(self, *, after: tuple[str, int], limit: int) -> Sequence[Record]:
        """As `of`, of every target there is: the next records after a target and an id."""
        ...

    async def whereabouts(self, integration: int, *, above: int, limit: int) -> Sequence[Stood]:
        """Where the next items after an id are, in the order of their ids."""
        ...

    async def jobs_of(self, integration: int, item_id: ItemId) -> Sequence[Part]:
        """The replay jobs that an item was planned for, the oldest first."""
        ...

    async def forgotten_before(self) -> int:
        """The id from which on no audit record was ever forgotten."""
        ...
