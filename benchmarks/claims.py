"""W6: what a claim costs as the backlog grows, asked of the store itself."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from time import perf_counter, time
from typing import Final

from benchmarks.stores import EACH_MS, STORES, Subject
from benchmarks.tables import table
from redrive.domain.delivery import Claim
from redrive.domain.sharing import whole
from tests.factories import DONE, a_result

BACKLOGS: Final = (10_000, 100_000, 1_000_000, 10_000_000)
USUAL, QUICK = 3, 2  # how many of these
MANY: Final = 10_000  # integrations
ROUNDS: Final = 40
AT_ONCE: Final = 50
PINNED_AT_MOST: Final = 20_000
SWEEPS: Final = 7


def measure_claims(stores: Sequence[str], *, quick: bool, long: bool) -> None:
    """Print what a claim costs: of one integration and of many, also behind an old snapshot."""
    print("\n## W6: the cost of a claim as the backlog grows\n", flush=True)
    backlogs = BACKLOGS if long else BACKLOGS[: QUICK if quick else USUAL]
    found: dict[str, list[float]] = defaultdict(list)
    for store in stores:
        for integrations in (1, MANY):
            asyncio.run(_measure(store, integrations, backlogs, found))
    rows = [(name, *map("{:,.1f}".format, row), f"{row[-1] / row[0]:.2f}") for name, row in found.items()]
    print(f"\nµs an item, {AT_ONCE} claimed at once; medians of {ROUNDS}. To reach: growth within 1.5 ×.\n")
    print(table(("backlog", *map("{:,}".format, backlogs), "growth"), rows))


async def _measure(
    store: str, integrations: int, backlogs: Sequence[int], found: dict[str, list[float]]
) -> None:
    whose = f"{store}, one integration" if integrations == 1 else f"{store}, {integrations:,} integrations"
    async with STORES[store]() as subject:
        await subject.add_integrations(integrations)
        backlog = Backlog(subject, integrations)
        for rows in backlogs:
            print(f"{whose}: {rows:,} rows", flush=True)
            await backlog.grow(rows)
            found[whose].append(await backlog.claim())
            found[f"{whose}: a look for what is due, µs"].append(await backlog.look())
            if integrations == 1:
                pinned = f"{whose}, behind dead rows that an old snapshot pins"
                found[pinned].append(await backlog.claim_behind(min(rows // 2, PINNED_AT_MOST)))


class Backlog:
    """Items that are due, of as many integrations as there are, claimed in turn."""

    def __init__(self, subject: Subject, integrations: int) -> None:
        self._subject = subject
        self._integrations = integrations
        self._made = self._left = self._served = 0
        self._since_ms = int(time() * 1000) - 2 * BACKLOGS[-1] // EACH_MS  # all of it is due by now

    async def grow(self, rows: int) -> None:
        """To *rows* items that wait."""
        first, self._made = self._made + 1, self._made + rows - self._left
        await self._subject.fill(first, self._made, self._integrations, self._since_ms)
        self._left = rows

    async def claim(self) -> float:
        """Microseconds an item."""
        costs = []
        for _ in range(ROUNDS):
            began = perf_counter()
            claims = await self._claim(AT_ONCE)
            costs.append((perf_counter() - began) * 1e6 / len(claims))
            await self._finish(claims)
        return median(costs)

    async def claim_behind(self, dead: int) -> float:
        """The same behind so many rows that are done with and cannot be cleared away."""
        async with self._subject.old_snapshot():
            until = self._left - dead
            while self._left > until:
                await self._finish(await self._claim(500))
            return await self.claim()

    async def look(self) -> float:
        """Microseconds of the look for what is due, which every process takes each two seconds."""
        costs = []
        for _ in range(SWEEPS):
            began = perf_counter()
            await self._subject.store.next_due(self._subject.owner)
            costs.append((perf_counter() - began) * 1e6)
        return median(costs)

    async def _claim(self, most: int) -> Sequence[Claim]:
        lanes = min(self._integrations, most)
        numbers = [(self._served + lane) % self._integrations + 1 for lane in range(lanes)]
        self._served += lanes
        wants = {whole(number): most // lanes for number in numbers}
        claimed = await self._subject.store.claim(self._subject.owner, wants)
        self._left -= len(claimed.claims)
        return claimed.claims

    async def _finish(self, claims: Sequence[Claim]) -> None:
        await self._subject.store.record(self._subject.owner, [a_result(claim, DONE) for claim in claims])
