"""What was seen lately is counted as a list of it would be, and a gate lets one trial through at a time."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redrive.domain.breaker import CLOSED, Breaker, Sign, Watch
from redrive.engine.gates import Gate, Recent, Trial
from tests.factories import NOW

SECONDS = 30.0
SIGNS = st.sampled_from(["well", "ill", "ill again"])


@given(st.lists(st.tuples(st.floats(0, 20), SIGNS), max_size=200), st.floats(0, 60))
def test_recent_outcomes_are_those_of_the_window_to_a_second(
    steps: list[tuple[float, str]], pause: float
) -> None:
    recent, now, every = Recent(SECONDS), 1_000.0, list[tuple[float, str]]()
    for gap, sign in steps:
        now += gap
        every.append((now, sign))
        if sign == "well":
            recent.well(now)
        else:
            recent.ill(now, again=sign == "ill again")
    now += pause

    seen, run = recent.seen(now)

    surely = [sign for at, sign in every if at > now - SECONDS + 1]
    perhaps = [sign for at, sign in every if at >= now - SECONDS - 1]
    assert len(surely) <= seen.outcomes <= len(perhaps)
    assert surely.count("ill again") <= seen.again <= perhaps.count("ill again")
    failures = len(surely) - surely.count("well")
    assert failures <= seen.failures <= len(perhaps) - perhaps.count("well")
    assert seen.seconds <= SECONDS + 1
    last_well = max((at for at, (_, sign) in enumerate(every) if sign == "well"), default=-1)
    assert (run.outcomes, run.failures) == (len(every) - last_well - 1,) * 2
    assert run.seconds == (now - every[last_well + 1][0] if run.outcomes else 0.0)


def test_what_was_counted_before_it_turned_speaks_of_another_time() -> None:
    gate = Gate()
    for second in range(20):
        gate.recent.ill(1_000.0 + second, again=True)

    gate.turn(CLOSED, NOW, 1_020.0)
    gate.recent.ill(1_021.0, again=True)

    seen, run = gate.recent.seen(1_021.0)
    assert (seen.outcomes, run.outcomes) == (1, 1)


def test_a_throttle_holds_a_trial_back_too() -> None:
    gate = Gate()
    gate.turn(CLOSED.opened(NOW, chance=0.5), NOW, 1_000.0)
    gate.throttle(1_100.0)

    assert not gate.wants_trial(1_050.0)
    assert gate.wait_seconds(1_050.0) == 50.0
    assert gate.wants_trial(1_100.0)


def test_the_longer_of_two_throttles_stands() -> None:
    gate = Gate()
    gate.throttle(1_100.0)
    gate.throttle(1_050.0)

    assert gate.shut_until == 1_100.0


def test_what_is_stored_is_followed_once_ours_is_stored_too() -> None:
    gate = Gate()
    opened = CLOSED.opened(NOW, chance=0.5)
    gate.turn(opened, NOW, 1_000.0)
    gate.ahead += 1

    assert not gate.follow(CLOSED, None, NOW, 1_001.0)
    assert gate.breaker == opened
    gate.ahead -= 1
    assert gate.follow(CLOSED, None, NOW, 1_001.0)
    assert gate.breaker == CLOSED


def test_another_watch_begins_to_count_anew() -> None:
    gate = Gate()
    gate.recent.ill(1_000.0, again=True)
    counted = gate.recent

    gate.heed(Watch())
    assert gate.recent is counted
    gate.heed(Watch(failure_share=0.5))
    assert gate.recent is not counted


class OneGate(RuleBasedStateMachine):
    """A gate, as the worker and the breakers use it; `trials` are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.passed = 1_000.0
        self.trials = 0
        self.until = 0.0  # no trial before, while it is not closed

    @property
    def now(self) -> timedelta:
        return timedelta(seconds=self.passed)

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.passed += seconds

    @precondition(lambda self: self.gate.breaker.is_closed)
    @rule(chance=st.floats(0, 1, exclude_max=True))
    def open(self, chance: float) -> None:
        self._turn(self.gate.breaker.opened(NOW + self.now, chance=chance))

    @rule(seconds=st.floats(0, 60))
    def throttle(self, seconds: float) -> None:
        self.gate.throttle(self.passed + seconds)

    @precondition(lambda self: self.gate.wants_trial(self.passed) and not self.trials)
    @rule(is_ours=st.booleans())
    def ask(self, is_ours: bool) -> None:  # noqa: FBT001 - drawn
        assert self.passed >= self.until - 1e-6
        self.gate.trial = Trial.ASKED_FOR
        assert self.gate.room(self.passed) == 0
        if is_ours:
            trying = self.gate.breaker.trying(NOW + self.now, 25.0)
            self.gate.turn(trying, NOW + self.now, self.passed)
            self.gate.grant(self.passed + 25.0)
        else:
            self.gate.put_off(self.passed + 1.0)

    @precondition(lambda self: self.gate.trial is Trial.GRANTED and self.gate.room(self.passed))
    @rule()
    def begin(self) -> None:
        self.gate.trial = Trial.UNDER_WAY
        self.trials += 1

    @precondition(lambda self: self.trials)
    @rule(sign=st.sampled_from(Sign), chance=st.floats(0, 1, exclude_max=True))
    def end(self, sign: Sign, chance: float) -> None:
        self.trials -= 1
        if self.gate.trial is Trial.UNDER_WAY:
            self._turn(self.gate.breaker.after(sign, NOW + self.now, chance=chance))
            assert self.gate.breaker.is_closed is (sign is Sign.WELL)

    @invariant()
    def one_at_a_time(self) -> None:
        assert self.trials <= 1
        if self.trials:
            assert self.gate.room(self.passed) == 0
        if self.gate.breaker.is_closed:
            assert self.gate.shut_until == self.gate.throttled_until
        else:
            assert self.gate.shut_until > self.passed
            assert self.gate.room(self.passed) <= 1

    @invariant()
    def time_makes_a_trial_possible(self) -> None:
        if self.gate.breaker.is_closed or self.gate.trial is Trial.ASKED_FOR:
            return
        at = self.passed
        for _ in range(2):  # a throttle may end before the breaker's own time
            at += (self.gate.wait_seconds(at) or 0.0) + 1e-3
        assert self.gate.wants_trial(at)

    def _turn(self, breaker: Breaker) -> None:
        self.gate.turn(breaker, NOW + self.now, self.passed)
        until = self.gate.breaker.until
        self.until = self.passed if until is None else (until - NOW).total_seconds()


TestOneGate = OneGate.TestCase
