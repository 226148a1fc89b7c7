"""Bringing a file's schema up to this version."""

import apsw

from redrive.store.migration import migrations, missing
from redrive.store.sqlite.connection import ask

_BOOK = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
) STRICT
"""


def migrate(connection: apsw.Connection, now_ms: int) -> list[str]:
    """Bring the schema up to this version; the names of what was applied.

    Raises StoreUnavailable when the file was written by a newer version, or a step was edited.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_BOOK)
        applied = dict(ask(connection, "SELECT number, checksum FROM migration"))
        steps = missing(applied, migrations("redrive.store.sqlite"))
        for step in steps:
            connection.execute(step.sql)
            connection.execute(
                "INSERT INTO migration VALUES (?, ?, ?, ?)", (step.number, step.name, step.checksum, now_ms)
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [step.name for step in steps]
