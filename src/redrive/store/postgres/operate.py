"""A person's verbs, each repeating what made it right: one statement, or a transaction of its own."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace as changed

from redrive.audit.record import AuditEvent
from redrive.domain.delivery import Erasure, Item, Resolution
from redrive.domain.integration import Integration
from redrive.domain.traffic import Traffic
from redrive.store.port import AlreadyAnswered, Once, Replay
from redrive.store.postgres.connection import Connection
from redrive.store.postgres.work import SQL, follows, write_events, write_last_events
from redrive.store.results import OutOfOrder
from redrive.store.rows import event_row, from_ms, pack_integration, previous_of, to_ms, traffic_columns


async def create_integration(
    connection: Connection, integration: Integration, event: AuditEvent, once: Once | None
) -> int | None:
    """With its event and its reply: its number, or None when the integration_id is taken."""
    async with connection.transaction():
        version = await connection.fetchval(SQL["next_version"])
        number: int | None = await connection.fetchval(
            SQL["insert_integration"],
            integration.integration_id, integration.lifecycle_status.value, integration.version, version,
            integration.shards, pack_integration(integration),
        )  # fmt: skip
        if number is not None:
            await connection.execute(SQL["add_lanes"], number, integration.shards)
            await write_events(connection, [event])
            await remember(connection, once)
        return number


async def update_integration(
    connection: Connection, integration: Integration, events: Sequence[AuditEvent]
) -> bool:
    """Replace it if nobody else did since it was read, and write its events."""
    async with connection.transaction():
        version = await connection.fetchval(SQL["next_version"])
        rows = await connection.fetch(
            SQL["update_integration"],
            integration.lifecycle_status.value, integration.version, version, integration.shards,
            pack_integration(integration), integration.number, integration.version - 1,
        )  # fmt: skip
        if rows:
            await connection.execute(SQL["add_lanes"], integration.number, integration.shards)
            await write_last_events(connection, events)
        return bool(rows)


async def steer(
    connection: Connection,
    integration: Integration,
    traffic: Traffic,
    events: Sequence[AuditEvent],
    keep: Callable[[Traffic], None],
) -> bool:
    """Replace its traffic if nobody else did since it was read, and write its events.

    What it will be is kept before the commit: nobody may answer that.
    """
    async with connection.transaction():
        version = await connection.fetchval(SQL["next_version"])
        if traffic.containment is not None and not traffic.containment.version:
            traffic = changed(traffic, containment=changed(traffic.containment, version=version))
        values = (*traffic_columns(traffic), version, integration.number, traffic.version - 1)
        if not await connection.fetch(SQL["steer"], *values):
            return False
        await write_last_events(connection, events)
        keep(traffic)
        return True


async def is_steered(connection: Connection, integration: Integration, traffic: Traffic) -> bool:
    """Whether that very traffic is stored, of that very version."""
    _, stored = traffic_columns(traffic)
    return bool(await connection.fetch(SQL["is_steered"], integration.number, stored))


async def replay(connection: Connection, replay: Replay) -> bool:
    """From the dead to the living, next cycle, due now, and its event; only while its integration sends."""
    return await _written(
        connection, "replay",
        replay.id, replay.integration, replay.status.value, replay.cycle, replay.max_attempts,
        to_ms(replay.opened_at), replay.request_id, replay.traceparent, replay.opened_by, replay.reason,
        *event_row(replay.event), replay.edit_of, previous_of(replay.event), replay.is_trial,
    )  # fmt: skip


async def resolve(connection: Connection, item: Item, resolution: Resolution, event: AuditEvent) -> bool:
    """Close it if it is still as it was judged, and write its event."""
    return await _written(
        connection, "resolve",
        to_ms(resolution.resolved_at), resolution.resolved_by, resolution.reason,
        item.delivery.id, item.delivery.integration, item.status.value, item.cycle,
        *event_row(event), previous_of(event),
    )  # fmt: skip


async def erase(connection: Connection, item: Item, erasure: Erasure, event: AuditEvent) -> bool:
    """Erase it if it is still as it was judged, and write its event."""
    async with connection.transaction():
        of_item = (item.delivery.integration, item.delivery.id)
        await connection.execute(SQL["hold_item"], *of_item)
        if not await follows(connection, event):
            return False
        if not await connection.fetchval(SQL["is_erasable"], *of_item, item.status.value, item.cycle):
            return False
        values = (to_ms(erasure.erased_at), erasure.erased_by, erasure.reason)
        for note in ("close_dead", "note_erasure"):
            await connection.execute(SQL[note], *of_item, *values)
        await connection.execute(SQL["erase_groups"], *of_item)
        for part in ("erase_delivery", "erase_attempts", "erase_imported", "erase_answers"):
            await connection.execute(SQL[part], *of_item)
        await write_last_events(connection, [event])
        return True


async def remember(connection: Connection, once: Once | None) -> None:
    """Store the reply to a call that carried an Idempotency-Key, unless it was answered before."""
    if once is not None and not await connection.fetch(
        SQL["remember"],
        once.scope, once.fingerprint, once.status, once.body, to_ms(once.created_at), once.item,
    ):  # fmt: skip
        raise AlreadyAnswered


async def amend(connection: Connection, once: Once) -> None:
    """Tell something else from now on under a key that was answered."""
    await connection.execute(SQL["amend"], once.status, once.body, once.scope)


async def recall(connection: Connection, scope: bytes) -> Once | None:
    """The stored reply, if there is one."""
    row = await connection.fetchrow(SQL["recall"], scope)
    if row is None:
        return None
    found, fingerprint, status, body, created_ms, item = row
    return Once(found, fingerprint, status, body, from_ms(created_ms), item)


async def _written(connection: Connection, verb: str, *values: Any) -> bool:
    """Whether a verb's guard held; OutOfOrder when its event would not be the last of its item, so far."""
    is_done, later = await connection.fetchrow(SQL[verb], *values)
    if later is not None:
        raise OutOfOrder(later)
    return bool(is_done)


async def keep(connection: Connection, name: str, value: bytes) -> bytes:
    """Keep *value* under *name* if nothing is; what is."""
    await connection.execute(SQL["keep"], name, value)
    return bytes(await connection.fetchval(SQL["kept"], name))


async def kept(connection: Connection, name: str) -> bytes | None:
    """What is kept under *name*."""
    value = await connection.fetchval(SQL["kept"], name)
    return None if value is None else bytes(value)


async def exchange(connection: Connection, name: str, old: bytes, new: bytes) -> bool:
    """Keep *new* in the place of *old*, or find it there: it may have been done before."""
    return bool(await connection.fetchval(SQL["exchange"], name, old, new))
