"""Closing all that waits in a group of failures, some items at a time, each with its event."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Call
from redrive.domain.delivery import Resolution, item_state
from redrive.domain.failure_group import DeadItem, FailureGroup
from redrive.domain.ids import recovery_id
from redrive.domain.integration import Integration
from redrive.engine.audited import of_person
from redrive.engine.once import TURNS, until_written
from redrive.engine.tools import Tools
from redrive.store.groups import Closed
from redrive.telemetry.events import AuditWritten

AT_ONCE: Final = 500  # items of a transaction


class Settlement(Struct, frozen=True):
    """By which call a group is closed, and how; `because`: why, as events tell it."""

    call: Call
    integration: Integration
    group: FailureGroup
    resolution: Resolution
    because: dict[str, Any]


class Closing:
    """Goes through a group. What a kill leaves of it is closed when it is asked for again."""

    def __init__(self, tools: Tools) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce

    async def close(self, settlement: Settlement) -> int:
        """Close what waits in it; how many that were. What moved on meanwhile is looked at once more."""
        closed = 0
        for _ in range(TURNS):
            seen, done = await self._walk(settlement)
            closed += done
            if done == seen:
                break
        return closed

    async def _walk(self, settlement: Settlement) -> tuple[int, int]:
        """How many items waited in it, and how many of them were closed."""
        after = seen = closed = 0
        while True:
            items = await self.store.groups.unresolved(
                settlement.integration.number,
                settlement.group.cause.number,
                died_by=settlement.resolution.resolved_at,
                after=after,
                limit=AT_ONCE,
            )
            seen += len(items)
            closed += await self._some(settlement, items)
            if len(items) < AT_ONCE:
                return seen, closed
            after = items[-1].id

    async def _some(self, settlement: Settlement, items: Sequence[DeadItem]) -> int:
        async def act() -> int | None:
            given = [Closed(item, self._event(settlement, item)) for item in items]
            number = settlement.integration.number
            return await self.store.groups.close_items(number, given, settlement.resolution)

        count = await until_written(act)
        for _ in range(count):
            self.announce(AuditWritten(EventType.RESOLVED.value))
        return count

    def _event(self, settlement: Settlement, item: DeadItem) -> AuditEvent:
        before, after = (
            item_state(
                item.status,
                cycle=item.cycle,
                attempt_count=item.attempt_count,
                failure_code=item.failure_code,
                resolved=resolved,
            )
            for resolved in (False, True)
        )
        return of_person(
            self.next_id,
            self.clock.now(),
            EventType.RESOLVED,
            settlement.call,
            integration_id=settlement.integration.integration_id,
            target_id=recovery_id(item.id),
            head=item.head,
            source_request_id=item.request_id,
            before=before,
            after=after,
            metadata=settlement.because | {"group_id": settlement.group.group_id},
        )
