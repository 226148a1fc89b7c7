"""Which lanes are whose: the division that every process computes alike, and what one may take of it."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

from redrive.domain.sharing import Lane, divide
from redrive.store.port import Balance
from redrive.store.postgres.connection import Connection
from redrive.store.postgres.work import SQL

TIDY_EVERY: Final = 30  # rounds; in between only what a burial left is looked at


class Lanes:
    """One process's view of the lanes; divided anew when processes come or go, or integrations change."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_ms = int(timeout_seconds * 1000)  # of an attempt, where its integration does not say
        self._facts: tuple[tuple[int, ...], int] = ((), -1)
        self._mine: frozenset[Lane] = frozenset()
        self._rounds = 0
        self._must_free = False

    async def balance(self, connection: Connection, owner: int, grace_ms: int) -> Balance:
        """Bury whose lease ran out, take what should be *owner*'s and is free."""
        buried = await connection.fetch(SQL["bury_expired"], grace_ms)
        self._must_free = self._must_free or bool(buried) or self._rounds % TIDY_EVERY == 0
        if self._must_free:
            await self.free(connection)
            await connection.execute(SQL["drop_stale_lanes"])
            self._must_free = False
        self._rounds += 1
        await self._divide(connection, owner)
        held, free = set(), []
        for *lane, holder in await connection.fetch(SQL["lanes_of"], owner):
            if holder is not None:
                held.add(Lane(*lane))
            elif (found := Lane(*lane)) in self._mine:
                free.append(found)
        if free:
            held |= {Lane(*row) for row in await connection.fetch(SQL["acquire"], owner, *columns(free))}
        return Balance(frozenset(held), frozenset(held - self._mine))

    async def free(self, connection: Connection) -> None:
        """Let the lanes of processes that are no more go."""
        await connection.execute(SQL["free_lanes_of_the_dead"], self._timeout_ms)

    async def _divide(self, connection: Connection, owner: int) -> None:
        members = tuple(row[0] for row in await connection.fetch(SQL["senders"]))
        facts = (members, await connection.fetchval(SQL["version"]))
        if facts != self._facts:
            lanes = [Lane(*row) for row in await connection.fetch(SQL["lanes"])]
            owners = await asyncio.to_thread(divide, lanes, members)  # a second, for ten thousand lanes
            self._mine = frozenset(lane for lane, who in owners.items() if who == owner)
            self._facts = facts


def columns(lanes: Collection[Lane]) -> Sequence[Sequence[Any]]:
    """Lanes as the arrays that `acquire` and `release` take, in one order for all processes."""
    return list(zip(*sorted(lanes), strict=True)) or [(), (), ()]
