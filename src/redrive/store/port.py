"""What the engine asks of a store: verbs, one transaction each, each with its guarantee.

Every verb may raise StoreUnavailable; then it changed nothing, or (never acknowledged) its outcome is
unknown. After any other exception it changed nothing. A verb given a Once may raise AlreadyAnswered. A 2xx
waits for its verb to return: returned means durable.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from msgspec import Struct

from redrive.audit.record import AuditEvent, EventType
from redrive.clock import Clock
from redrive.domain.delivery import Attempt, Claim, Delivery, Erasure, Evidence, Item, Resolution
from redrive.domain.draining import Arrivals
from redrive.domain.grouping import Cause
from redrive.domain.health import Tallies
from redrive.domain.ids import EventId, IdSequence, ItemId
from redrive.domain.integration import Integration, Lifecycle
from redrive.domain.item import Status, Step
from redrive.domain.outcome import Risk
from redrive.domain.sharing import Lane
from redrive.domain.traffic import Standing, Traffic

if TYPE_CHECKING:
    from redrive.store.chains import Chains
    from redrive.store.groups import Groups
    from redrive.store.replays import Replays
    from redrive.store.tokens import Tokens

Row = TypeVar("Row")


class StoreUnavailable(Exception):
    """The store cannot do it now; the message says why. `fatal`: only a restart can help.

    `advice`: what a person can do about it, if that is known. Nothing was changed, unless it
    `may_have_happened`: then nobody could learn whether it was.
    """

    may_have_happened = False

    def __init__(self, reason: str, *, fatal: bool = False, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal
        self.advice = advice


class StoreInconsistent(Exception):
    """A stored record violates its own rules; it is reported, never served."""


class AlreadyAnswered(Exception):
    """A call with the same idempotency scope was answered first; nothing of this one was written."""


class StoreOwned(Exception):
    """Another live process owns this store; the message names it."""


class Intake(Struct, frozen=True):
    """One delivery to accept; `owner` claims it at once, as attempt 1. `fingerprint` compares key reuse."""

    delivery: Delivery
    fingerprint: bytes
    owner: int | None


class Accepted(Struct, frozen=True):
    """It is durable; not `claimed` although an owner was named: its integration does not send now."""

    claimed: bool


class Duplicate(Struct, frozen=True):
    """Its idempotency key was used before for the same delivery: `id` is that one."""

    id: ItemId


class KeyReused(Struct, frozen=True):
    """Its idempotency key was used before for another delivery; nothing was stored."""


class Refused(Struct, frozen=True):
    """Its integration does not accept deliveries in `lifecycle`; nothing was stored."""

    lifecycle: Lifecycle


Verdict = Accepted | Duplicate | KeyReused | Refused


class Once(Struct, frozen=True):
    """An Idempotency-Key in force: the reply that is stored with the effect and given to the same request."""

    scope: bytes  # digest of caller, method, path and key
    fingerprint: bytes  # digest of the body
    status: int
    body: bytes
    created_at: datetime
    item: int | None = None  # what it tells of: erased with it


class Claimed(Struct, frozen=True):
    """What a claim gave, and when the next unclaimed item of each lane asked for is due (None: never).

    `set_aside` says of damaged records why they were not claimed; they are looked at again in an hour.
    `orphans` were taken over from dead owners, uncounted: their attempts ended, nobody knows how.
    """

    claims: Sequence[Claim]
    next_due: Mapping[Lane, datetime | None]
    set_aside: Sequence[str] = ()
    orphans: Sequence[Claim] = ()


class Balance(Struct, frozen=True):
    """The lanes a process owns, and which of them it should let go of once no claim of theirs is left."""

    owned: frozenset[Lane]
    surplus: frozenset[Lane] = frozenset()


class Result(Struct, frozen=True):
    """What to record of one finished attempt: the attempt, the step it leads to, and its audit events.

    `cause`: of its failure. `risk`: of its item from now on.
    """

    claim: Claim
    attempt: Attempt
    step: Step
    events: tuple[AuditEvent, ...]
    finished_at: datetime
    cause: Cause | None = None
    risk: Risk = Risk.NONE
    superseded: AuditEvent | None = None  # of what this copy succeeded for; the store fills in which


class Import(Struct, frozen=True):
    """A delivery that failed elsewhere (`failed` or `dlq`), with what is known of its last attempt."""

    delivery: Delivery
    fingerprint: bytes
    status: Status
    attempt_count: int
    last: Evidence
    event: AuditEvent
    risk: Risk = Risk.AMBIGUOUS
    cause: Cause | None = None  # nothing is known of why it failed


class Replay(Struct, frozen=True):
    """A new cycle for a dead item, provided it still is in `status` and `cycle`."""

    id: ItemId
    integration: int
    status: Status
    cycle: int
    max_attempts: int
    request_id: str
    traceparent: str
    opened_by: str
    reason: str
    opened_at: datetime
    event: AuditEvent
    is_trial: bool = False  # then the integration may be contained
    edit_of: ItemId | None = None  # then also provided that nothing else stands in for that item


class Edit(Struct, frozen=True):
    """A corrected copy of a dead item, provided that still is in `status` and `cycle`."""

    id: ItemId
    status: Status
    cycle: int
    copy: Delivery
    of: ItemId  # what it is a copy of; when the item is one itself, of the same
    events: tuple[AuditEvent, ...]  # of the item first, then of the copy


class QueueFilter(Struct, frozen=True):
    """Which items of an integration; None everywhere: all. Instants bound when an item was accepted."""

    status: Status | None = None
    failure_code: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    done: bool | None = None  # whether it succeeded or was resolved
    resolved: bool | None = None
    group: int | None = None  # of failures
    risk: Risk | None = None

    def matches(self, item: Item) -> bool:
        """Whether *item* is wanted, whenever it was accepted: a store walks no further than the instants."""
        return (
            self.status in (None, item.status)
            and self.failure_code in (None, item.last.failure_code)
            and self.event_type in (None, item.delivery.event_type)
            and self.resolved in (None, item.resolution is not None)
            and self.done in (None, item.is_done)
            and self.group in (None, item.group)
            and self.risk in (None, item.risk)
        )


class EventFilter(Struct, frozen=True):
    """Which audit events; None everywhere: all. Of a *tenant*: of integrations that are its own.

    Of an *incident*: what a person did under its name, as `metadata` has it.
    """

    request_id: str | None = None
    event_type: EventType | None = None
    integration_id: str | None = None
    target_id: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None
    incident: str | None = None


class Page(Struct, Generic[Row], frozen=True):
    """Rows newest first. `next_below`: the id below which the next page goes on; None at the end.

    A page may be shorter than its limit and still have a next one: a list does bounded work.
    """

    rows: Sequence[Row]
    next_below: int | None


class Backlog(Struct, frozen=True):
    """Work that waits: how much is due, and since when the oldest is."""

    due: int = 0
    oldest_due_at: datetime | None = None


class Store(Protocol):
    """A durable store. A process enters it and gets an incarnation that fences what it writes."""

    @property
    def clock(self) -> Clock:
        """The clock its instants are of: whoever writes to it tells the time by it."""
        ...

    @property
    def ids(self) -> IdSequence:
        """Names what is written to it: a consequence stands after its cause, whichever process wrote that."""
        ...

    @property
    def replays(self) -> "Replays":
        """Its plans and jobs."""
        ...

    @property
    def groups(self) -> "Groups":
        """Its groups of failures."""
        ...

    @property
    def chains(self) -> "Chains":
        """Its audit records, each target's a chain."""
        ...

    @property
    def tokens(self) -> "Tokens":
        """Its callers' tokens."""
        ...

    async def enter(self) -> int:
        """Become a live process of this store; StoreOwned when it has an owner and takes only one."""
        ...

    async def renew(self, owner: int) -> float | None:
        """Renew the lease of *owner*: for how many seconds from the call it lasts; None once it is gone.

        Until then no other process may think *owner* dead, unless its death is proven.
        """
        ...

    async def balance(self, owner: int) -> Balance | None:
        """Bury whose lease ran out, take the lanes that should be *owner*'s and are free; what it has now.

        None: this store takes one process at a time, and that one owns every lane.
        """
        ...

    async def release(self, owner: int, lanes: Collection[Lane]) -> None:
        """Let go of lanes in which *owner* has no claim any more."""
        ...

    async def listen(self, hear: Callable[[Collection[int]], None]) -> None:
        """Have *hear* called with integrations of which others made something due; none: of any.

        A hint, no more: it may be lost, late or wrong. `next_due` is the truth.
        """
        ...

    def hint(self, number: int) -> None:
        """Tell whoever listens that something is due in an integration; soon, and without waiting."""
        ...

    async def step_down(self, owner: int) -> None:
        """Leave the division of the lanes: others get what *owner* lets go of. May be said again."""
        ...

    async def leave(self, owner: int) -> None:
        """Give up the lease; whatever is still claimed becomes adoptable."""
        ...

    async def last_id(self) -> int:
        """The greatest id that an item or an event has; 0 when there is none."""
        ...

    async def close(self) -> None:
        """Finish what was handed over and let go of every file and connection."""
        ...

    # what arrives

    async def accept(
        self, intakes: Sequence[Intake], tell: Callable[[Sequence[Verdict]], Once | None] | None = None
    ) -> Sequence[Verdict]:
        """Store deliveries; one verdict each, in order. One that is refused leaves no trace.

        *tell* is given the verdicts before the commit and says what to store with them under the call's
        idempotency key, if it has one. What it raises undoes all of them.
        """
        ...

    async def hand_over(self, item: Import, once: Once | None) -> Verdict:
        """Store a delivery that failed elsewhere, dead from the start, with its event."""
        ...

    # work

    async def claim(self, owner: int, wants: Mapping[Lane, int]) -> Claimed:
        """Claim up to *wants* due items of each lane, oldest due first, and count their attempts."""
        ...

    async def record(self, owner: int, results: Sequence[Result]) -> Sequence[bool]:
        """Write attempts, steps and events. False: that claim was lost and nothing of it was written."""
        ...

    async def give_back(self, owner: int, claims: Sequence[Claim]) -> None:
        """Undo claims that were surely not sent, with their count; they are due as before."""
        ...

    async def adopt(self, owner: int, limit: int) -> Claimed:
        """Take over claims whose owner is dead, at most *limit*; their attempts ended, nobody knows how."""
        ...

    async def next_due(self, owner: int) -> Mapping[Lane, datetime]:
        """When the earliest item that *owner* may claim is due, for each lane that has one."""
        ...

    # a person's verbs

    async def create_integration(
        self, integration: Integration, event: AuditEvent, once: Once | None
    ) -> int | None:
        """Add it and return its number; None when the integration_id is taken."""
        ...

    async def update_integration(
        self, integration: Integration, events: Sequence[AuditEvent], once: Once | None = None
    ) -> bool:
        """Replace it, provided its stored version is still the one before *integration.version*."""
        ...

    async def replay(self, replay: Replay, once: Once | None) -> bool:
        """Open the next cycle, due now; False when the item has moved on. Nothing is half-done."""
        ...

    async def resolve(self, item: Item, resolution: Resolution, event: AuditEvent, once: Once | None) -> bool:
        """Close a dead item for good; False when it has moved on."""
        ...

    async def edit(self, edit: Edit, once: Once | None) -> bool:
        """Store a corrected copy, due now; False when the item has moved on, or its place is taken."""
        ...

    async def erase(self, item: Item, erasure: Erasure, event: AuditEvent, once: Once | None) -> bool:
        """Erase payload, headers and answers of an item that is not open, and close a dead one for good.

        False when it has moved on, or was erased before.
        """
        ...

    async def recall(self, scope: bytes) -> Once | None:
        """The reply stored under an idempotency scope."""
        ...

    async def note(self, events: Sequence[AuditEvent]) -> None:
        """Write audit events that change nothing else (a denied access)."""
        ...

    # containment

    @property
    def catalogue_version(self) -> int:
        """That `changed_integrations` told of last; 0 where there is one process, which knows them all."""
        ...

    async def steer(
        self,
        integration: Integration,
        traffic: Traffic,
        events: Sequence[AuditEvent],
        once: Once | None = None,
    ) -> Traffic | None:
        """Replace an integration's traffic, provided its stored version is still the one before *traffic*'s.

        Once this returned nothing more can be claimed of what it contains. A containment is given the
        version of the catalogue it came with, unless it has one: what was stored, or None.
        """
        ...

    async def follow(self, owner: int, version: int) -> None:
        """*owner* starts nothing any more that was contained with the catalogue's *version*, or before."""
        ...

    async def is_followed(self, version: int) -> bool:
        """Whether every process that may still start something follows *version*."""
        ...

    async def standing(self, integration: int) -> Standing:
        """How many open items there are; a count of all of them."""
        ...

    async def has_backlog(self, integration: int, until: datetime) -> bool:
        """Whether an unclaimed item is left that was due by *until*."""
        ...

    async def amend(self, once: Once) -> None:
        """Tell from now on, under a key that was answered, what *once* says."""
        ...

    async def is_elected(self, duty: str, owner: int) -> bool:
        """Whether *owner* has a *duty* that one process does for all; it has it while it lives."""
        ...

    # health and probes

    async def take(self, owner: int, item: Item, replay: Replay | None, once: Once | None) -> Claim | None:
        """Claim one item, whether or not anything is held: an open one that waits, a dead one with *replay*.

        That opens the next cycle, as `replay` does, with its first attempt counted. None: it moved on, or
        *owner* is no more. Its integration must be active; it may be contained.
        """
        ...

    async def tallies(self, integration: int, since: datetime) -> Tallies:
        """What came of attempts, by the minute from *since* on; and the last minutes, however long ago."""
        ...

    async def arrivals(self, integration: int, since: datetime) -> Arrivals:
        """How many deliveries were accepted from *since* on; of a great many, the last of them."""
        ...

    async def forget_tallies(self, before: datetime) -> int:
        """Forget what came of attempts in minutes before *before*; how many rows went."""
        ...

    # questions

    async def count_dead(
        self, since: datetime, before: datetime | None = None, *, most: int
    ) -> Mapping[int, int]:
        """How many items of each integration died since then, or between then and *before*.

        Counted up to *most*, and only where some did; without those that are closed, or that wait in a group
        that is muted now.
        """
        ...

    async def integrations(self) -> Sequence[Integration]:
        """Every integration, by integration_id."""
        ...

    async def changed_integrations(self) -> Sequence[Integration]:
        """Those that another process changed, or added, since this was last asked (the first time: all)."""
        ...

    async def item(self, integration: int, item_id: ItemId) -> Item | None:
        """One item with its payload and last answer; None when this integration has no such item."""
        ...

    async def history(self, integration: int, item_id: ItemId) -> tuple[Item, Sequence[Attempt]] | None:
        """As `item`, with every finished attempt, oldest first, with answers; both of the same moment."""
        ...

    async def queue(
        self, integration: int, wanted: QueueFilter, *, limit: int, below: int | None
    ) -> Page[Item]:
        """A page of items, newest first, without payload and answer bodies."""
        ...

    async def events(self, wanted: EventFilter, *, limit: int, below: EventId | None) -> Page[AuditEvent]:
        """A page of audit events, newest first."""
        ...

    async def count_events(self, wanted: EventFilter, *, most: int) -> int:
        """How many events there are, counted up to *most*."""
        ...

    async def backlog(self) -> Backlog:
        """What waits, for metrics and readiness."""
        ...

    # duties

    async def prune(self, before: datetime) -> int:
        """Forget idempotency keys from before *before*; how many rows went."""
        ...

    async def forget_deliveries(self, before: datetime, *, resolved_before: datetime) -> int:
        """Forget items that are done with (they succeeded, or were resolved) and all that was known of them.

        Of those accepted before *before*, and of resolved ones before *resolved_before*, which is not later;
        perhaps not the latest yet; open work is never touched. How many.
        """
        ...

    async def forget_events(self, before: datetime) -> int:
        """Forget audit events from before *before*, but none since the oldest open item was accepted.

        Perhaps not the latest of them yet. How many.
        """
        ...

    # what this database keeps for its processes, by name

    async def kept(self, name: str) -> bytes | None:
        """What is kept under *name*; None when nothing is."""
        ...

    async def keep(self, name: str, value: bytes) -> bytes:
        """Keep *value*, unless something is kept under *name* already; what is kept there now."""
        ...

    async def exchange(self, name: str, old: bytes, new: bytes) -> bool:
        """Keep *new* in the place of *old*; False when something else is kept there."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Facts about the store for `doctor` and the log: kind, path, version, made_schema (it was empty)."""
        ...
