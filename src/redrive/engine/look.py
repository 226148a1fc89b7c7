"""What may be seen: the queue, an item with its attempts, the audit events."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from redrive.audit.record import AuditEvent
from redrive.domain.access import Call, Permission
from redrive.domain.delivery import Attempt, Item
from redrive.domain.errors import RecoveryNotFound
from redrive.domain.ids import EventId, parse_recovery_id
from redrive.domain.integration import Integration
from redrive.engine.catalogue import Catalogue
from redrive.engine.content import legible
from redrive.engine.paging import Paging
from redrive.engine.tools import Tools
from redrive.store.port import EventFilter, Page, QueueFilter

COUNTED_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """An item with everything that happened to it."""

    integration: Integration
    item: Item
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of an integration's items, and the cursor of the next."""

    integration: Integration
    page: Page[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Events:
    """A page of audit events; `total` is exact unless it was cut at 10,000."""

    total: int
    total_is_exact: bool
    page: Page[AuditEvent]
    next_cursor: str | None


class Look:
    """The questions, each for whoever may view."""

    def __init__(self, tools: Tools, catalogue: Catalogue) -> None:
        self.store = tools.store
        self.paging = Paging(tools.vault)
        self.content = tools.content
        self.catalogue = catalogue

    async def item(self, call: Call, integration_id: str, recovery_id: str) -> Seen:
        """One item with its attempts."""
        call.require(Permission.VIEW)
        return await self.seen(await self.catalogue.current(call, integration_id), recovery_id)

    async def seen(self, integration: Integration, recovery_id: str) -> Seen:
        """The same, of an integration that the caller sees."""
        number = parse_recovery_id(recovery_id)
        found = None if number is None else await self.store.history(integration.number, number)
        if found is None:
            raise RecoveryNotFound(f"{integration.integration_id} has no item {recovery_id!r}")
        item, attempts = found

        def shown(attempt: Attempt) -> Attempt:
            return self.content.shown_attempt(item.delivery.id, attempt)

        return Seen(
            integration, legible(self.content.shown, item), [legible(shown, each) for each in attempts]
        )

    async def queue(
        self,
        call: Call,
        integration_id: str,
        wanted: QueueFilter,
        *,
        held: bool | None,
        limit: int,
        cursor: str | None,
    ) -> Listed:
        """A page of items, newest first."""
        call.require(Permission.VIEW)
        scope = f"queue {integration_id} {wanted} {held}"
        below = self._read(cursor, scope)
        integration = await self.catalogue.current(call, integration_id)
        if held and integration.sends:
            return Listed(integration, Page((), None), None)
        if held is not None and not integration.sends:
            wanted = replace(wanted, done=not held)
        page = await self.store.queue(integration.number, wanted, limit=limit, below=below)
        listed = [self.content.listed(item) for item in page.rows]
        return Listed(integration, Page(listed, page.next_below), self._cursor(page.next_below, scope))

    async def events(self, call: Call, wanted: EventFilter, limit: int, cursor: str | None) -> Events:
        """A page of audit events, newest first."""
        call.require(Permission.VIEW)
        wanted = replace(wanted, tenant=call.principal.tenant)
        scope = f"events {wanted}"
        below = self._read(cursor, scope)
        page = await self.store.events(wanted, limit=limit, below=None if below is None else EventId(below))
        total = await self.store.count_events(wanted, most=COUNTED_AT_MOST + 1)
        exact = total <= COUNTED_AT_MOST
        return Events(min(total, COUNTED_AT_MOST), exact, page, self._cursor(page.next_below, scope))

    def _cursor(self, below: int | None, scope: str) -> str | None:
        return None if below is None else self.paging.cursor(below.to_bytes(8, "big"), scope)

    def _read(self, cursor: str | None, scope: str) -> int | None:
        return None if cursor is None else int.from_bytes(self.paging.position(cursor, scope, 8), "big")
