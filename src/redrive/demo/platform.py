"""The platform: a stream of deliveries as a shop would make them."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redrive.client import ProblemError
from redrive.demo.partners import PARTNERS, Partner
from redrive.demo.stage import Stage

_NAMES = ("Amara", "Björn", "Chiara", "Deniz", "Eleni", "Farid", "Grace", "Hanako")
_ROUND = [partner for partner in PARTNERS for _ in range(partner.share)]


class Platform:
    """Sends `rate_per_second` deliveries, each to a partner by its share."""

    def __init__(self, stage: Stage) -> None:
        self.rate_per_second = 10.0
        self._stage = stage
        self._number = 1000

    async def stream(self) -> None:
        """Until cancelled. What the service refuses is dropped: a shop would look into it."""
        while True:
            for partner in random.sample(_ROUND, len(_ROUND)):  # by chance, and still nobody is left out
                with suppress(ProblemError):
                    await self._stage.ask(self._deliver(partner))
                await asyncio.sleep(1 / self.rate_per_second)

    def _deliver(self, partner: Partner) -> Callable[[], Any]:
        event_type = random.choice(partner.events)  # noqa: S311
        self._number += 1
        payload = {
            "type": event_type,
            "number": self._number,
            "customer": random.choice(_NAMES),  # noqa: S311
            "amount_cents": random.randrange(500, 50_000),  # noqa: S311
            "currency": "EUR",
        }
        client = self._stage.client
        return lambda: client.deliver(partner.integration_id, event_type=event_type, payload=payload)
