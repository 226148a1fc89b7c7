"""The guarded write: a change, what is told of it, and the reply to its call, or nothing of it."""

from collections.abc import Callable, Sequence

import apsw

from redrive.audit.record import AuditEvent
from redrive.store.port import Once
from redrive.store.sqlite.operate import remember
from redrive.store.sqlite.work import follows, write_events


def guarded(
    change: Callable[[apsw.Connection], bool], events: Sequence[AuditEvent], once: Once | None
) -> Callable[[apsw.Connection], bool]:
    """A change with its events and its stored reply: all of it or, when the guard fails, nothing.

    It fails as well when the record that the first event follows is not the last of its item any more.
    """

    def write(connection: apsw.Connection) -> bool:
        changed = all(follows(connection, first) for first in events[:1]) and change(connection)
        if changed:
            write_events(connection, events)
            remember(connection, once)
        return changed

    return write
