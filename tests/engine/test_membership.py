"""A process among others: when it renews its lease."""

from itertools import pairwise

import pytest

from redrive.store.port import Store
from tests.engine.clock import StandingClock
from tests.engine.conftest import Harness, eventually


@pytest.mark.parametrize("lease", [3.0, 15.0])
async def test_a_lease_is_renewed_several_times_before_it_may_end(
    store: Store, clock: StandingClock, monkeypatch: pytest.MonkeyPatch, lease: float
) -> None:
    renewed_at: list[float] = []

    async def renew(_: int) -> float:
        renewed_at.append(clock.elapsed())
        return lease

    monkeypatch.setattr(store, "renew", renew)
    harness = Harness(store, clock)
    await harness.engine.start()

    async def looked_at() -> bool | None:
        clock.move(0.1)
        return renewed_at[-1] - renewed_at[0] > lease or None

    await eventually(looked_at)
    assert max(later - sooner for sooner, later in pairwise(renewed_at)) < lease / 5
    await harness.close()
