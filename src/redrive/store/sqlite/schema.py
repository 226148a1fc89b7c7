"""The schema of a file: made when the file is new, brought up to this version by whoever owns it."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from redrive.clock import Clock
from redrive.store.migration import Migration, migrations, missing
from redrive.store.port import StoreUnavailable
from redrive.store.rows import to_ms
from redrive.store.sqlite.connection import about, ask, connect, connect_to_read, translated
from redrive.store.sqlite.file import alone, create, located, take_lock

_BOOK = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
) STRICT
"""


def prepare(path: Path, clock: Clock) -> list[str]:
    """Make what is missing of a new database, also the schema; the steps taken. An old one stays as it is.

    Raises StoreUnavailable when it is another program's, which is left as it is, too.
    """
    create(path)
    with alone(path.parent):
        _must_be_ours_or_empty(path)
        with _connected(path) as connection:
            return [] if _has_schema(connection) else _apply(connection, clock)


def upgrade(path: Path, clock: Clock) -> list[str]:
    """Bring the schema up to this version; the steps taken. It takes the owner of the file to do this.

    Raises StoreUnavailable when the file was written by a newer version, or a step was edited.
    """
    with _connected(path) as connection:
        return _apply(connection, clock)


def migrate(path: Path, clock: Clock) -> list[str]:
    """As `upgrade`, for whoever owns nothing yet: StoreOwned while a process counts on the old schema."""
    path = located(path)
    if steps := prepare(path, clock):
        return steps
    with _connected(path) as connection:
        if not _missing(connection):
            return []
    lock = take_lock(path, "redrive migrate")
    try:
        return upgrade(path, clock)
    finally:
        os.close(lock)


def check(path: Path) -> None:
    """Raise StoreUnavailable unless the schema is this version's."""
    with _connected(path) as connection:
        steps = _missing(connection)
    if steps:
        raise StoreUnavailable(
            f"the database is older than this version of redrive (it lacks schema step {steps[0].name});"
            " run `redrive migrate`, or start `redrive serve`, which does it too",
            fatal=True,
        )


def must_be_ours(path: Path) -> None:
    """Raise StoreUnavailable, with the name of the file, unless `recognise` knows it. It is only read."""
    with about(path), translated(), closing(connect_to_read(path)) as connection:
        recognise(connection)


def recognise(connection: apsw.Connection) -> None:
    """Raise StoreUnavailable unless it is a database of redrive, of this version or an older one."""
    if not _has_schema(connection):
        raise _not_ours()
    _missing(connection)


def _must_be_ours_or_empty(path: Path) -> None:
    with about(path), translated(), closing(connect_to_read(path)) as connection:
        if ask(connection, "SELECT 1 FROM sqlite_schema LIMIT 1") and not _has_schema(connection):
            raise _not_ours()


def _not_ours() -> StoreUnavailable:
    advice = "name the file of a redrive database, as `redrive serve` and `redrive backup` make them"
    return StoreUnavailable("this is no database of redrive", fatal=True, advice=advice)


@contextmanager
def _connected(path: Path) -> Iterator[apsw.Connection]:
    connection = connect(path)
    try:
        with translated():
            yield connection
    finally:
        connection.close()


def _has_schema(connection: apsw.Connection) -> bool:
    """Ours: others call a table that too."""
    return bool(ask(connection, "SELECT 1 FROM pragma_table_info('migration') WHERE name = 'checksum'"))


def _missing(connection: apsw.Connection) -> list[Migration]:
    applied = ask(connection, "SELECT number, checksum FROM migration") if _has_schema(connection) else []
    return missing(dict(applied), migrations("redrive.store.sqlite"))


def _apply(connection: apsw.Connection, clock: Clock) -> list[str]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_BOOK)
        steps = _missing(connection)
        for step in steps:
            connection.execute(step.sql)
            connection.execute(
                "INSERT INTO migration VALUES (?, ?, ?, ?)",
                (step.number, step.name, step.checksum, to_ms(clock.now())),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [step.name for step in steps]
