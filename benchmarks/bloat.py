"""How large the table of unfinished work stays while deliveries pass through it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from time import perf_counter
from typing import Final

from benchmarks.stores import STORES, Subject
from benchmarks.tables import table
from redrive.domain.delivery import Claim
from redrive.domain.item import RetryAt
from redrive.domain.sharing import whole
from tests.factories import DONE, a_claim, a_delivery, a_result, an_intake

DELIVERIES, LONG, QUICK = 100_000, 1_000_000, 10_000
BATCH: Final = 250
RATE: Final = 5_000  # deliveries a second: in real time, for autovacuum looks once a minute
UNFINISHED: Final = 1_000  # at any time, beside what waits for its retry
REFUSED_ONCE: Final = 10  # one in so many
LOOKS: Final = 10


def measure_bloat(stores: Sequence[str], *, quick: bool, long: bool) -> None:
    """Print the size of `live` and of its indexes, at the most and in the end."""
    deliveries = QUICK if quick else LONG if long else DELIVERIES
    print(
        f"\n## bloat: {deliveries:,} deliveries at {RATE:,}/s, {UNFINISHED:,} of them unfinished at a time\n",
        flush=True,
    )
    rows = [row for store in stores for row in asyncio.run(_measure(store, deliveries))]
    print(f"\nOne in {REFUSED_ONCE} is refused once and retried a second later.\n")
    print(table(("bytes", "at the most", "in the end"), rows))


async def _measure(store: str, deliveries: int) -> list[tuple[str, str, str]]:
    most: dict[str, int] = {}
    sizes: dict[str, int] = {}
    async with STORES[store]() as subject:
        await subject.add_integrations(1)
        passing = Passing(subject)
        for look in range(1, LOOKS + 1):
            await passing.until(deliveries * look // LOOKS)
            sizes = await subject.sizes()
            most = {name: max(size, most.get(name, 0)) for name, size in sizes.items()}
            print(f"{store}: {passing.accepted:,} in {perf_counter() - passing.began:.0f} s", flush=True)
    return [(f"{store}: {name}", f"{most[name]:,}", f"{size:,}") for name, size in sizes.items()]


class Passing:
    """Deliveries that are accepted as claimed, and recorded in the order they came."""

    def __init__(self, subject: Subject) -> None:
        self._store = subject.store
        self._owner = subject.owner
        self._unfinished: list[Claim] = []
        self.began = perf_counter()
        self.accepted = 0

    async def until(self, accepted: int) -> None:
        """Go on until so many were accepted."""
        while self.accepted < accepted:
            await asyncio.sleep(self.began + self.accepted / RATE - perf_counter())
            self._unfinished += await self._accept()
            retried = await self._store.claim(self._owner, {whole(1): BATCH})
            self._unfinished += retried.claims
            while len(self._unfinished) > UNFINISHED:
                await self._record(self._unfinished[:BATCH])
                del self._unfinished[:BATCH]

    async def _accept(self) -> list[Claim]:
        deliveries = [a_delivery(1) for _ in range(BATCH)]
        await self._store.accept([an_intake(delivery, owner=self._owner) for delivery in deliveries])
        self.accepted += BATCH
        return [a_claim(delivery, owner=self._owner) for delivery in deliveries]

    async def _record(self, claims: Sequence[Claim]) -> None:
        again = RetryAt(self._store.clock.now() + timedelta(seconds=1))
        await self._store.record(
            self._owner,
            [
                a_result(claim, again if claim.attempt == 1 and at % REFUSED_ONCE == 0 else DONE)
                for at, claim in enumerate(claims)
            ],
        )
