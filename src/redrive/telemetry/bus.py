"""From one announcer to many listeners, which can never harm it or each other."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from redrive.telemetry.events import Event

E = TypeVar("E")  # an event; a bound would have to repeat the whole union


class Bus:
    """Callable as Announce. Listeners run at once, in the order they subscribed, on the caller's thread."""

    __slots__ = ("_broken", "_listeners")

    def __init__(self) -> None:
        self._listeners: dict[type, tuple[Callable[[Any], None], ...]] = {}
        self._broken: set[Callable[[Any], None]] = set()

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> None:
        """Call *listener* with every event of exactly this class."""
        self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def __call__(self, event: Event) -> None:
        """Tell everyone who asked for this class of event."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - a listener's bug is not the announcer's
                self._report(listener, event, error)

    def _report(self, listener: Callable[[Any], None], event: Event, error: Exception) -> None:
        if listener in self._broken:  # once: it would fail the same way a thousand times a second
            return
        self._broken.add(listener)
        name = getattr(listener, "__qualname__", repr(type(listener)))
        with suppress(AttributeError, OSError, ValueError):  # there may be no standard error any more
            sys.stderr.write(
                f"redrive: the listener {name} failed on {type(event).__name__}"
                f" with {type(error).__name__}; further failures of it are not reported\n"
            )
