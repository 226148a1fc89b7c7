"""What every verb works with: handed to constructors as one value, since nearly all need nearly all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from redrive.clock import Chance, Clock
from redrive.store.port import Store
from redrive.telemetry.events import Announce

NextId = Callable[[datetime], int]


@dataclass(frozen=True, slots=True)
class Tools:
    """The collaborators of a verb: `next_id` makes ids, `unique_bytes` what needs no secrecy."""

    store: Store
    clock: Clock
    chance: Chance
    unique_bytes: Callable[[int], bytes]
    next_id: NextId
    announce: Announce
