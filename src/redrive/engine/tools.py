"""What every verb works with: handed to constructors as one value, since nearly all need nearly all of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from redrive.batch import Turn
from redrive.clock import Chance, Clock, cpu_seconds
from redrive.engine.content import Content
from redrive.engine.vault import Vault
from redrive.store.port import Store
from redrive.telemetry.events import Announce

NextId = Callable[[datetime], int]


@dataclass(frozen=True, slots=True)
class Tools:
    """The collaborators of a verb. `unique_bytes` need no secrecy; who writes in batches takes the `turn`."""

    store: Store
    clock: Clock
    chance: Chance
    unique_bytes: Callable[[int], bytes]
    announce: Announce
    vault: Vault
    seals_content: bool = False  # payloads and answers at rest, besides secrets
    turn: Turn = field(default_factory=Turn)
    cpu_seconds: Callable[[], float] = cpu_seconds

    @property
    def content(self) -> Content:
        """How payloads and answers are stored."""
        return Content(self.vault, seals=self.seals_content)

    @property
    def next_id(self) -> NextId:
        """Makes an id, stamped with an instant."""
        return self.store.ids.next
