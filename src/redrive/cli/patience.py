"""Waiting when the service says it is too much at once: nothing of that call was stored."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from redrive.client import ProblemError

WAITS: Final = 10
LONGEST_SECONDS: Final = 30.0
Answer = TypeVar("Answer")


def patiently(call: Callable[[], Answer]) -> Answer:
    """What *call* answers, made again after each 429, as late as the service asks; at most WAITS times."""
    from redrive.client import ProblemError

    for _ in range(WAITS):
        try:
            return call()
        except ProblemError as problem:
            if problem.status != 429:
                raise
            time.sleep(_pause_seconds(problem))
    return call()


def _pause_seconds(problem: "ProblemError") -> float:
    return min(1.0 if problem.retry_after is None else problem.retry_after, LONGEST_SECONDS)
