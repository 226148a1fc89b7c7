"""Calls that claimed, or may have, and failed before they could say what."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from redrive.store.port import StoreUnavailable
from redrive.store.postgres.connection import Backend, Connection, Database, Unsettled, Verb, have_ended


@dataclass(frozen=True, slots=True)
class Call:
    """How to undo it, what integrations it claimed from, and which sessions may still be at it."""

    undo: Verb[None]
    numbers: Collection[int]
    backends: Sequence[Backend]


class Untold:
    """What nobody was told of would stay claimed for as long as this process lives: here it is undone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls: list[Call] = []

    @contextmanager
    def watched(self, undo: Verb[None], numbers: Collection[int]) -> Iterator[None]:
        """Remember a call that fails inside, unless it claims from nowhere."""
        try:
            yield
        except BaseException as error:
            if numbers:
                backends = error.backends if isinstance(error, Unsettled) else ()
                self._calls.append(Call(undo, numbers, backends))
            raise

    async def undo(self) -> Sequence[int]:
        """Let go of what is surely claimed, or surely not; the integrations that have it again."""
        numbers: list[int] = []
        for call in self._calls.copy():

            async def undo(connection: Connection, call: Call = call) -> bool:
                if is_sure := await have_ended(connection, call.backends):
                    await call.undo(connection)
                return is_sure

            try:
                is_undone = await self._database.again(undo)
            except StoreUnavailable:  # the next time, then, and after the others: it may fail each time
                self._calls.remove(call)
                self._calls.append(call)
                break  # what can be claimed must not wait for this
            if is_undone:
                self._calls.remove(call)
                numbers += call.numbers
        return numbers
