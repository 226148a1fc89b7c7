import sys
from collections.abc import Callable

import pytest

from redrive.telemetry.bus import Bus
from redrive.telemetry.events import Announce, DrainStarted, Event, LeaseEnded


@pytest.fixture
def bus() -> Bus:
    return Bus()


def broken(event: Event) -> None:
    raise RuntimeError("a secret")


def test_a_listener_hears_its_own_class_of_event_and_no_other(bus: Bus) -> None:
    heard: list[Event] = []
    bus.subscribe(DrainStarted, heard.append)

    bus(DrainStarted(1))
    bus(LeaseEnded(7))

    assert heard == [DrainStarted(1)]


def test_listeners_hear_in_the_order_they_subscribed(bus: Bus) -> None:
    heard: list[str] = []
    bus.subscribe(DrainStarted, lambda _: heard.append("first"))
    bus.subscribe(DrainStarted, lambda _: heard.append("second"))

    bus(DrainStarted(1))

    assert heard == ["first", "second"]


def test_a_broken_listener_harms_neither_the_announcer_nor_the_others(bus: Bus) -> None:
    heard: list[Event] = []
    bus.subscribe(DrainStarted, broken)
    bus.subscribe(DrainStarted, heard.append)

    bus(DrainStarted(1))

    assert heard == [DrainStarted(1)]


def test_a_broken_listener_is_reported_once_without_what_it_said(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.subscribe(DrainStarted, broken)

    bus(DrainStarted(1))
    bus(DrainStarted(2))

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "broken failed on DrainStarted with RuntimeError" in said
    assert "secret" not in said


def test_a_broken_listener_is_harmless_when_standard_error_is_gone(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.subscribe(DrainStarted, broken)
    monkeypatch.setattr(sys, "stderr", None)

    bus(DrainStarted(1))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_bus_does_not_stop_a_stop(bus: Bus, stop: type[BaseException]) -> None:
    bus.subscribe(DrainStarted, raising(stop))

    with pytest.raises(stop):
        bus(DrainStarted(1))


def test_a_bus_is_what_the_engine_announces_to(bus: Bus) -> None:
    announce: Announce = bus

    announce(DrainStarted(1))


def raising(error: type[BaseException]) -> Callable[[Event], None]:
    def listener(event: Event) -> None:
        raise error

    return listener
