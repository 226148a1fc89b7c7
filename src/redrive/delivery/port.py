"""What the engine asks of a deliverer."""

from collections.abc import Callable
from typing import Protocol

from redrive.delivery.hidden import Hidden
from redrive.delivery.tls import Identity
from redrive.domain.outcome import Outcome
from redrive.domain.target import Target


class Request(Hidden, frozen=True):
    """One request, complete: exactly these headers and bytes are sent. The timeout is for all of it.

    `integration_id`: whose it is, and so where it may go. `identity`: who we are there, if TLS asks for it.
    """

    method: str
    target: Target
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout_seconds: float
    integration_id: str
    identity: Identity | None = None


class OwnFault(Exception):
    """We could not even try (no file handles, no key): nothing was sent and no attempt is spent."""


class Deliverer(Protocol):
    """Sends requests. Safe to use from many tasks at once."""

    async def send(self, request: Request, leaving: Callable[[], None] = lambda: None) -> Outcome:
        """Make one HTTP exchange, never a second. A remote failure is a value and never raises.

        *leaving* is called right before the first byte may leave: what ends the sending before that, be it
        cancelled or a bug of ours, ends it with nothing sent.
        Should it raise, nothing is sent either.
        Raises OwnFault when nothing was sent for a reason of our own.
        """
        ...

    async def close(self) -> None:
        """Close every kept connection."""
        ...
