"""What the engine asks of a store about groups of failures: verbs, each one transaction, guarded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Resolution
from redrive.domain.failure_group import Comment, DeadItem, FailureGroup, GroupState
from redrive.store.port import Once, Page

Position = tuple[int, int]  # of a group in a list: when it failed last, in milliseconds, and its number


class GroupPage(Struct, frozen=True):
    """Groups, of which those that failed last come first. `next_below`: the next page goes on below it."""

    rows: Sequence[FailureGroup]
    next_below: Position | None


class Closed(Struct, frozen=True):
    """An item of a group that is resolved, and the event that tells of it."""

    item: DeadItem
    event: AuditEvent


class Groups(Protocol):
    """Groups of failures, what people say of them, and the items that wait in them."""

    async def page(
        self, integration: int, state: GroupState | None, *, limit: int, below: Position | None
    ) -> GroupPage:
        """A page of groups that are in *state* now (None: in any), the last seen first."""
        ...

    async def group(self, integration: int, number: int) -> FailureGroup | None:
        """One group; None when this integration has no such group."""
        ...

    async def comments(self, integration: int, group: int, *, limit: int, below: int | None) -> Page[Comment]:
        """A page of what was written about a group, newest first."""
        ...

    async def judge(
        self, before: FailureGroup, after: FailureGroup, event: AuditEvent, once: Once | None
    ) -> bool:
        """Replace what people said of a group; False when somebody else said something since *before*."""
        ...

    async def comment(self, comment: Comment, event: AuditEvent, once: Once | None) -> bool:
        """Add a comment; False when there is no such group any more."""
        ...

    async def unresolved(
        self, integration: int, group: int, *, died_by: datetime, after: int, limit: int
    ) -> Sequence[DeadItem]:
        """Items of a group that had died by then and wait for a person, by id, from *after* an id on."""
        ...

    async def close_items(
        self, integration: int, items: Sequence[Closed], resolution: Resolution
    ) -> int | None:
        """Close these for good but those that moved on, which leave no event; how many were closed.

        None: nothing was done, as one of the events would not be the last of its item.
        """
        ...
