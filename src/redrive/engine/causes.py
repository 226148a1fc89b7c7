"""Causes of failures, as many of an integration as somebody could look at.

A receiver that says something else each time would make a group of each failure, and lists of them slow.
"""

from typing import Final

from redrive.domain.grouping import Cause, broad, cause_of
from redrive.domain.integration import Integration
from redrive.domain.outcome import Failed

MOST: Final = 1_000  # of an integration, since this process began


class Causes:
    """Knows those that were seen here; past so many, new ones are told apart by class and code alone."""

    def __init__(self) -> None:
        self._known: dict[int, set[int]] = {}

    def of(self, integration: Integration, failed: Failed, *, reads_answer: bool) -> Cause:
        """Why *failed* failed, as `cause_of` says; or what it has in common with its class and code."""
        cause = cause_of(integration, failed, reads_answer=reads_answer)
        known = self._known.setdefault(integration.number, set())
        if cause.number not in known:
            if len(known) >= MOST:
                return broad(integration, cause)
            known.add(cause.number)
        return cause
