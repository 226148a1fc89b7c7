"""Groups of failures: what is asked of them, and what people say of them, each with its event."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from msgspec import Struct

from redrive.audit.record import AuditEvent, EventType
from redrive.domain import failure_group
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Resolution
from redrive.domain.errors import DependencyUnavailable, GroupNotFound
from redrive.domain.failure_group import Comment, FailureGroup, GroupState
from redrive.domain.ids import parse_group_id
from redrive.domain.integration import Integration
from redrive.engine.acting import tell_operated, why
from redrive.engine.audited import of_person
from redrive.engine.catalogue import Catalogue
from redrive.engine.closing import Closing, Settlement
from redrive.engine.once import Key, Render, Told, idempotent, kept, until_written
from redrive.engine.paging import Paging
from redrive.engine.tools import Tools
from redrive.store.groups import Position
from redrive.store.port import Page, StoreUnavailable

GOES_ON = "what was closed of the group stays closed: run it again, it goes on with the rest"
_SHIFT = 1 << 63  # so that a number with a sign is written without


class GroupsListed(Struct, frozen=True):
    """A page of groups, and the cursor of the next."""

    groups: list[FailureGroup]
    next_cursor: str | None


class GroupSeen(Struct, frozen=True):
    """A group with a page of its comments, newest first."""

    group: FailureGroup
    comments: Page[Comment]
    next_cursor: str | None


class Settled(Struct, frozen=True):
    """A group that was resolved, and how many items this call closed with it."""

    group: FailureGroup
    closed: int


class Groups:
    """The verbs. Each reads, decides, and writes guarded by what it read; if that moved on, once more."""

    def __init__(self, tools: Tools, catalogue: Catalogue) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.paging = Paging(tools.vault)
        self.closing = Closing(tools)
        self.catalogue = catalogue

    async def page(
        self, call: Call, integration_id: str, state: GroupState | None, *, limit: int, cursor: str | None
    ) -> GroupsListed:
        """A page of groups, the last seen first. One that fails while others look moves to the front."""
        call.require(Permission.VIEW)
        scope = f"groups {integration_id} {state}"
        below = None if cursor is None else _place(self.paging.position(cursor, scope, 16))
        integration = await self.catalogue.current(call, integration_id)
        page = await self.store.groups.page(integration.number, state, limit=limit, below=below)
        after = None if page.next_below is None else self.paging.cursor(_bytes(page.next_below), scope)
        return GroupsListed(list(page.rows), after)

    async def show(
        self, call: Call, integration_id: str, group_id: str, *, limit: int, cursor: str | None
    ) -> GroupSeen:
        """One group with a page of its comments."""
        call.require(Permission.VIEW)
        scope = f"comments {integration_id} {group_id}"
        below = None if cursor is None else int.from_bytes(self.paging.position(cursor, scope, 8), "big")
        integration, group = await self._group(call, integration_id, group_id)
        page = await self.store.groups.comments(
            integration.number, group.cause.number, limit=limit, below=below
        )
        after = page.next_below
        next_cursor = None if after is None else self.paging.cursor(after.to_bytes(8, "big"), scope)
        return GroupSeen(group, page, next_cursor)

    async def acknowledge(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        reason: str | None,
        *,
        render: Render[FailureGroup],
        key: Key | None = None,
    ) -> Told:
        """Say that the caller looks at it."""

        def decide(group: FailureGroup, at: datetime) -> FailureGroup:
            return failure_group.acknowledged(group, at=at, by=call.principal.id)

        return await self._judge(
            call,
            integration_id,
            group_id,
            EventType.GROUP_ACKNOWLEDGED,
            decide,
            because=why(reason),
            render=render,
            key=key,
        )

    async def reopen(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        reason: str,
        incident: str | None = None,
        *,
        render: Render[FailureGroup],
        key: Key | None = None,
    ) -> Told:
        """Say that somebody has to look at it after all."""

        def decide(group: FailureGroup, at: datetime) -> FailureGroup:
            return failure_group.reopened(group, at=at, by=call.principal.id)

        return await self._judge(
            call, integration_id, group_id, EventType.GROUP_REOPENED, decide,
            because=why(reason, incident), render=render, key=key,
        )  # fmt: skip

    async def mute(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        until: datetime | None,
        reason: str | None,
        *,
        render: Render[FailureGroup],
        key: Key | None = None,
    ) -> Told:
        """Have nobody alerted of it until then; None ends that."""

        def decide(group: FailureGroup, at: datetime) -> FailureGroup:
            return failure_group.muted(group, until, at=at)

        return await self._judge(
            call, integration_id, group_id, EventType.GROUP_MUTED, decide,
            because=why(reason), render=render, key=key,
        )  # fmt: skip

    async def comment(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        text: str,
        *,
        render: Render[Comment],
        key: Key | None = None,
    ) -> Told:
        """Write something about it, for good."""

        async def act() -> Told | None:
            integration, group = await self._group(call, integration_id, group_id)
            now = self.clock.now()
            comment = Comment(
                self.next_id(now), integration.number, group.cause.number, call.principal.id, text
            )
            event = self._event(
                call, integration, EventType.GROUP_COMMENTED, group, group, metadata={"text": text}, now=now
            )
            told = render(comment)
            if not await self.store.groups.comment(comment, event, kept(key, told, now)):
                return None
            self._announce(event, call, integration)
            return told

        return await self._once(call, key, act)

    async def resolve(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        reason: str,
        incident: str | None = None,
        *,
        render: Render[Settled],
        key: Key | None = None,
    ) -> Told:
        """Close it, and every item that waits in it, for good.

        The items first, some at a time; what a kill left of them is closed when it is asked for again. What
        fails from now on is no part of it: the group has failed again then.
        """
        call.require(Permission.OPERATE)
        at = self.clock.now()
        resolution, because = Resolution(at, call.principal.id, reason), why(reason, incident)

        async def begin() -> Told:
            integration, group = await self._group(call, integration_id, group_id)
            failure_group.resolved(group, at=at, by=call.principal.id)  # or nothing is done
            try:
                closed = await self.closing.close(Settlement(call, integration, group, resolution, because))
                return await until_written(lambda: settle(closed))
            except (StoreUnavailable, DependencyUnavailable) as error:
                raise DependencyUnavailable("storage", f"{error}; {GOES_ON}") from error

        async def settle(closed: int) -> Told | None:
            integration, group = await self._group(call, integration_id, group_id)
            after = failure_group.resolved(group, at=at, by=call.principal.id, is_begun=True)
            event = self._event(
                call,
                integration,
                EventType.GROUP_RESOLVED,
                group,
                after,
                metadata=because | {"resolved_items": closed},
                now=self.clock.now(),
            )
            told = render(Settled(after, closed))
            if not await self.store.groups.judge(group, after, event, kept(key, told, at)):
                return None
            self._announce(event, call, integration)
            return told

        return await idempotent(self.store, key, begin)

    async def _group(
        self, call: Call, integration_id: str, group_id: str
    ) -> tuple[Integration, FailureGroup]:
        integration = await self.catalogue.current(call, integration_id)
        number = parse_group_id(group_id)
        found = None if number is None else await self.store.groups.group(integration.number, number)
        if found is None:
            raise GroupNotFound(f"{integration_id} has no group {group_id!r}")
        return integration, found

    async def _judge(
        self,
        call: Call,
        integration_id: str,
        group_id: str,
        kind: EventType,
        decide: Callable[[FailureGroup, datetime], FailureGroup],
        *,
        because: dict[str, Any],
        render: Render[FailureGroup],
        key: Key | None,
    ) -> Told:
        async def act() -> Told | None:
            integration, before = await self._group(call, integration_id, group_id)
            now = self.clock.now()
            after = decide(before, now)
            event = self._event(call, integration, kind, before, after, metadata=because, now=now)
            told = render(after)
            if not await self.store.groups.judge(before, after, event, kept(key, told, now)):
                return None
            self._announce(event, call, integration)
            return told

        return await self._once(call, key, act)

    async def _once(self, call: Call, key: Key | None, act: Callable[[], Awaitable[Told | None]]) -> Told:
        call.require(Permission.OPERATE)
        return await idempotent(self.store, key, lambda: until_written(act))

    def _event(
        self,
        call: Call,
        integration: Integration,
        kind: EventType,
        before: FailureGroup,
        after: FailureGroup,
        *,
        metadata: dict[str, Any],
        now: datetime,
    ) -> AuditEvent:
        return of_person(
            self.next_id,
            now,
            kind,
            call,
            integration_id=integration.integration_id,
            group_id=before.group_id,
            before=before.facts(),
            after=after.facts(),
            metadata=metadata,
        )

    def _announce(self, event: AuditEvent, call: Call, integration: Integration) -> None:
        tell_operated(self.announce, event.event_type, call, integration.integration_id, event.target_id)


def _bytes(place: Position) -> bytes:
    last_seen_ms, number = place
    return last_seen_ms.to_bytes(8, "big") + (number + _SHIFT).to_bytes(8, "big")


def _place(position: bytes) -> Position:
    return int.from_bytes(position[:8], "big"), int.from_bytes(position[8:], "big") - _SHIFT
