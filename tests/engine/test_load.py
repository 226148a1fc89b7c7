"""When a process says that it is short of CPU, and for whom."""

import pytest

from redrive.engine.load import LOOK_SECONDS, Load
from tests.engine.clock import StandingClock


class Machine:
    """A clock and a core that a test has used."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.used = 7.0
        self.load = Load(self.clock, lambda: self.used)

    def step(self, *, arrived: int, claimed: int, busy: float, seconds: float = 0.05) -> bool:
        """Let a step pass; whether what arrives is favoured after it."""
        for _ in range(arrived):
            self.load.arrived()
        self.load.claimed(claimed)
        self.clock.move(seconds)
        self.used += busy * seconds
        self.load.look()
        return self.load.favours_arrivals


@pytest.mark.parametrize(
    ("arrived", "claimed", "busy", "favours"),
    [
        (100, 100, 0.95, True),
        (100, 0, 1.4, True),  # threads that hold no interpreter count as well
        (100, 100, 0.7, False),  # there is CPU for both
        (0, 0, 1.0, False),  # nothing arrives: what waits shall go on
        (0, 100, 1.0, False),
        (26, 100, 1.0, True),
        (25, 100, 1.0, False),  # it is what waits that fills the core, and would be slowed for little
    ],
)
def test_what_arrives_is_favoured_while_it_is_much_of_what_fills_the_core(
    *, arrived: int, claimed: int, busy: float, favours: bool
) -> None:
    assert Machine().step(arrived=arrived, claimed=claimed, busy=busy) is favours


def test_each_look_judges_what_came_after_the_last() -> None:
    machine = Machine()

    assert machine.step(arrived=100, claimed=10, busy=1.0)
    assert not machine.step(arrived=0, claimed=10, busy=1.0)
    assert machine.step(arrived=100, claimed=10, busy=1.0)
    assert not machine.step(arrived=100, claimed=10, busy=0.1)


def test_a_look_just_after_another_judges_nothing() -> None:
    machine = Machine()
    assert machine.step(arrived=100, claimed=10, busy=1.0)

    assert machine.step(arrived=0, claimed=0, busy=0.0, seconds=LOOK_SECONDS / 2)
    assert not machine.step(arrived=0, claimed=0, busy=0.0, seconds=LOOK_SECONDS / 2)
