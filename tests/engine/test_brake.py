"""How often something may happen for each of many."""

import asyncio
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.access import Permission
from redrive.domain.errors import RateLimited, Unauthenticated
from redrive.engine import brake
from redrive.engine.access import TRUSTED_SECONDS, Access
from redrive.engine.brake import Buckets
from redrive.store.port import Store, StoreUnavailable
from redrive.store.tokens import Token
from tests.engine.clock import StandingClock
from tests.engine.conftest import Harness

STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=80)


@given(st.floats(0.1, 50), st.integers(1, 20), STEPS)
def test_nobody_takes_more_than_the_burst_and_the_rate_allow(
    per_second: float, burst: int, steps: list[tuple[str, float]]
) -> None:
    buckets, now, taken = Buckets(per_second, burst), 0.0, {"a": 0, "b": 0}
    for key, seconds in steps:
        now += seconds
        if not buckets.seconds_to_next(key, now):
            buckets.take(key, now)
            taken[key] += 1
        assert taken[key] <= burst + per_second * now + 1e-6


@given(st.floats(0.1, 50), st.integers(1, 20))
def test_whoever_has_none_left_has_one_when_it_was_said(per_second: float, burst: int) -> None:
    buckets = Buckets(per_second, burst)
    for _ in range(burst):
        assert not buckets.seconds_to_next("a", 7.0)
        buckets.take("a", 7.0)

    seconds = buckets.seconds_to_next("a", 7.0)

    assert seconds == pytest.approx(1 / per_second)
    assert buckets.seconds_to_next("a", 7.0 + seconds) == pytest.approx(0.0, abs=1e-9)
    assert not buckets.seconds_to_next("b", 7.0)


def test_what_is_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake, "MOST_KEPT", 10)
    buckets = Buckets(1.0, 2.0)

    for n in range(100):
        buckets.take(str(n), 0.0)
    assert len(buckets._left) <= 10
    for n in range(100):
        buckets.take(str(n), 100.0 + n)
    assert len(buckets._left) <= 10
    assert buckets.seconds_to_next("99", 199.0) == 0.0


async def wrong(access: Access, token: str, address: str = "192.0.2.1") -> type[Exception]:
    with pytest.raises((Unauthenticated, RateLimited)) as caught:
        await access.principal(token, address)
    return caught.type


async def test_who_shows_too_many_wrong_tokens_is_heard_no_more_and_others_are(harness: Harness) -> None:
    access = Access(harness.tools, failures_per_minute=10, calls_per_second=0)

    told = [await wrong(access, f"guess-{n}") for n in range(12)]
    elsewhere = await wrong(access, "guess", "192.0.2.2")
    harness.clock.move(6.0)  # a tenth of a minute
    later = [await wrong(access, f"later-{n}") for n in range(2)]

    assert told == [Unauthenticated] * 10 + [RateLimited] * 2
    assert elsewhere is Unauthenticated
    assert later == [Unauthenticated, RateLimited]


async def test_a_token_that_was_valid_lately_is_looked_up_whatever_others_show(harness: Harness) -> None:
    access = Access(harness.tools, failures_per_minute=1, calls_per_second=0)
    now, tokens = harness.clock.now(), ("known", "new")
    for name in tokens:
        token = Token(name, name, frozenset(Permission), now, None, None)
        await harness.store.tokens.add(token, hashlib.sha256(name.encode()).digest())
    await access.principal("known", "192.0.2.1")
    assert await wrong(access, "guess") is Unauthenticated
    harness.clock.move(TRUSTED_SECONDS)  # it must be looked up again

    assert (await access.principal("known", "192.0.2.1")).id == "known"
    assert await wrong(access, "new") is RateLimited, "nobody can tell it from a guess"
    await harness.store.tokens.revoke("known", harness.clock.now())
    harness.clock.move(TRUSTED_SECONDS)
    assert await wrong(access, "known") is Unauthenticated
    assert await wrong(access, "known") is RateLimited, "it is a guess like any other now"


async def test_guesses_at_the_same_time_are_braked_as_well(harness: Harness) -> None:
    access = Access(harness.tools, failures_per_minute=10, calls_per_second=0)

    told = await asyncio.gather(*(wrong(access, f"guess-{n}") for n in range(50)))

    assert sorted(told, key=str).count(Unauthenticated) == 10


async def test_a_store_that_is_away_counts_as_no_guess(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(harness.tools, failures_per_minute=1, calls_per_second=0)

    async def away(_: bytes) -> None:
        raise StoreUnavailable("it is away")

    with monkeypatch.context() as patched:
        patched.setattr(harness.store.tokens, "find", away)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await access.principal("token", "192.0.2.1")

    assert await wrong(access, "guess") is Unauthenticated


async def test_a_caller_calls_as_often_as_it_may(store: Store, clock: StandingClock) -> None:
    harness = Harness(store, clock)
    access = Access(harness.tools, failures_per_minute=10, calls_per_second=3)
    one = harness.call().principal

    for _ in range(3):
        access.admit(one)
    with pytest.raises(RateLimited) as caught:
        access.admit(one)
    clock.move(1 / 3 + 0.001)
    access.admit(one)

    assert caught.value.after == pytest.approx(1 / 3)
    await store.close()
