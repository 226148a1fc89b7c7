"""A person's verbs, inside a write transaction. Each repeats the condition that made it right."""

import apsw

from redrive.domain.delivery import Erasure, Item, Resolution
from redrive.domain.integration import Integration
from redrive.domain.traffic import Traffic
from redrive.store.port import AlreadyAnswered, Once, Replay
from redrive.store.rows import from_ms, pack_integration, to_ms, traffic_columns
from redrive.store.sqlite.connection import ask
from redrive.store.sqlite.copies import is_place_free
from redrive.store.sqlite.work import SQL, door


def create_integration(connection: apsw.Connection, integration: Integration) -> int | None:
    """Its number, or None when the integration_id is taken."""
    rows = ask(
        connection,
        SQL["insert_integration"],
        (
            integration.integration_id,
            integration.lifecycle_status.value,
            integration.version,
            pack_integration(integration),
        ),
    )
    if not rows:
        return None
    number: int = rows[0][0]
    return number


def update_integration(connection: apsw.Connection, integration: Integration) -> bool:
    """Replace it if nobody else did since it was read."""
    rows = ask(
        connection,
        SQL["update_integration"],
        (
            integration.lifecycle_status.value,
            integration.version,
            pack_integration(integration),
            integration.number,
            integration.version - 1,
        ),
    )
    return bool(rows)


def steer(connection: apsw.Connection, integration: Integration, traffic: Traffic) -> bool:
    """Replace its traffic if nobody else did since it was read."""
    values = (*traffic_columns(traffic), integration.number, traffic.version - 1)
    return bool(ask(connection, SQL["steer"], values))


def replay(connection: apsw.Connection, replay: Replay) -> bool:
    """From the dead to the living, next cycle, due now; only while its integration sends."""
    to = door(connection, replay.integration)
    if not (to.is_active if replay.is_trial else to.sends):
        return False
    of = replay.edit_of
    if of is not None and not is_place_free(connection, replay.integration, of):
        return False
    guard = (replay.id, replay.integration, replay.status.value, replay.cycle, of)
    if not (exhumed := ask(connection, SQL["exhume"], guard)):
        return False
    [(risk,)] = exhumed
    if of is not None:
        connection.execute(SQL["take_place"], (replay.id, of))
    opened_ms = to_ms(replay.opened_at)
    connection.execute(
        SQL["reopen"],
        (replay.id, replay.integration, replay.cycle + 1, replay.max_attempts, opened_ms, risk),
    )
    connection.execute(
        SQL["open_cycle"],
        (
            replay.id, replay.cycle + 1, replay.request_id, replay.traceparent, replay.max_attempts,
            opened_ms, replay.opened_by, replay.reason,
        ),
    )  # fmt: skip
    return True


def resolve(connection: apsw.Connection, item: Item, resolution: Resolution) -> bool:
    """Close it if it is still as it was judged."""
    return bool(
        ask(connection, SQL["resolve"],
            (
                to_ms(resolution.resolved_at), resolution.resolved_by, resolution.reason,
                item.delivery.id, item.delivery.integration, item.status.value, item.cycle,
            ),
        )
    )  # fmt: skip


def erase(connection: apsw.Connection, item: Item, erasure: Erasure) -> bool:
    """Erase it if it is still as it was judged; the connection overwrites whatever is freed."""
    number, integration = item.delivery.id, item.delivery.integration
    status = item.status.value
    if not ask(connection, SQL["is_erasable"], (status, item.cycle, status, number, integration)):
        return False
    values = (to_ms(erasure.erased_at), erasure.erased_by, erasure.reason)
    connection.execute(SQL["close_dead"], (*values, number))
    connection.execute(SQL["note_erasure"], (number, integration, *values))
    connection.execute(SQL["erase_groups"], {"integration": integration, "item": number})
    for part in ("erase_delivery", "erase_attempts", "erase_imported", "erase_answers"):
        connection.execute(SQL[part], (number,))
    return True


def remember(connection: apsw.Connection, once: Once | None) -> None:
    """Store the reply to a call that carried an Idempotency-Key, unless it was answered before."""
    if once is not None:
        if recall(connection, once.scope) is not None:
            raise AlreadyAnswered
        connection.execute(
            SQL["remember"],
            (once.scope, once.fingerprint, once.status, once.body, to_ms(once.created_at), once.item),
        )


def amend(connection: apsw.Connection, once: Once) -> None:
    """Tell something else from now on under a key that was answered."""
    connection.execute(SQL["amend"], (once.status, once.body, once.scope))


def recall(connection: apsw.Connection, scope: bytes) -> Once | None:
    """The stored reply, if there is one."""
    rows = ask(connection, SQL["recall"], (scope,))
    if not rows:
        return None
    found, fingerprint, status, body, created_ms, item = rows[0]
    return Once(found, fingerprint, status, body, from_ms(created_ms), item)


def keep(connection: apsw.Connection, name: str, value: bytes) -> bytes:
    """Keep *value* under *name* if nothing is; what is."""
    connection.execute(SQL["keep"], (name, value))
    [(kept_now,)] = ask(connection, SQL["kept"], (name,))
    return bytes(kept_now)


def kept(connection: apsw.Connection, name: str) -> bytes | None:
    """What is kept under *name*."""
    rows = ask(connection, SQL["kept"], (name,))
    return bytes(rows[0][0]) if rows else None


def exchange(connection: apsw.Connection, name: str, old: bytes, new: bytes) -> bool:
    """Keep *new* in the place of *old*."""
    return bool(ask(connection, SQL["exchange"], (new, name, old)))
