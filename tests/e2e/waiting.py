"""Waiting for facts: never for time alone."""

import time
from collections.abc import Callable
from typing import TypeVar

Fact = TypeVar("Fact")
PATIENCE_SECONDS = 30.0  # reached only by a broken test
_LOOK_AGAIN_SECONDS = 0.01


def until(fact: Callable[[], Fact | None], what: object, *, seconds: float = PATIENCE_SECONDS) -> Fact:
    """What *fact* answers, once it is true; after *seconds* it fails and shows *what* as it is then."""
    deadline = time.monotonic() + seconds
    while True:
        if found := fact():
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(_LOOK_AGAIN_SECONDS)
