"""The whole of a file that no service runs on, as another database can take it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from redrive.store.rows import Row
from redrive.store.sqlite.connection import ask, connect_to_read, translated
from redrive.store.sqlite.file import take_lock
from redrive.store.sqlite.schema import check, must_be_ours

# The processes that had the file are no more, and its schema is another's.
LEFT_BEHIND: Final = ("incarnation", "migration")
_INTEGRATION_OF_ITEM: Final = "(SELECT integration FROM delivery WHERE delivery.id = item)"
_LAST_SEEN: Final = (
    "(SELECT coalesce(renewed_at, started_at) FROM incarnation WHERE incarnation.id = claimed_by)"
)
# What a database for many processes keeps beside our columns, as it follows from them.
DERIVED: Final = {
    "attempt": {"integration": _INTEGRATION_OF_ITEM},
    "audit": {
        "integration": (
            "coalesce((SELECT number FROM integration i WHERE i.integration_id = audit.integration_id), 0)"
        )
    },
    "cycle": {"integration": _INTEGRATION_OF_ITEM},
    "imported": {"integration": _INTEGRATION_OF_ITEM},
    "integration": {"shards": "coalesce(config ->> '$.shards', 1)", "changed": "1"},
    # A claim is not older than what made it due, nor much than the last sign of life of who made it.
    "live": {"claimed_at": f"iif(claimed_by IS NULL, NULL, max(due_at, coalesce({_LAST_SEEN}, 0)))"},
}


@contextmanager
def exported(path: Path) -> Iterator["Export"]:
    """The file as it stands, and locked; StoreOwned when a service runs on it. It is not changed."""
    path = path.resolve(strict=True)
    must_be_ours(path)  # before the lock makes a file beside it
    lock = take_lock(path, "redrive copy")
    try:
        check(path)
        with translated(), closing(connect_to_read(path)) as connection:
            connection.execute("BEGIN")  # `redrive token` may write beside us
            yield Export(connection)
    finally:
        os.close(lock)


class Export:
    """One snapshot of the file; a `Source`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    @property
    def last_incarnation(self) -> int:
        """The file counts them, and never again from the start."""
        rows = ask(self._connection, "SELECT seq FROM sqlite_sequence WHERE name = 'incarnation'")
        return int(rows[0][0]) if rows else 0

    def tables(self) -> Sequence[str]:
        """In the order they were made, in which each refers to earlier ones only."""
        made = ask(self._connection, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
        return [name for (name,) in made if not name.startswith("sqlite_") and name not in LEFT_BEHIND]

    def columns(self, table: str) -> Sequence[str]:
        """Its own, and the derived ones."""
        own = [name for (name,) in ask(self._connection, "SELECT name FROM pragma_table_info(?)", (table,))]
        return [*own, *(name for name in DERIVED.get(table, ()) if name not in own)]

    def count(self, table: str) -> int:
        """How many rows there are."""
        [(count,)] = ask(self._connection, f'SELECT count(*) FROM "{table}"')  # noqa: S608 - a name of ours
        return int(count)

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """All of them, as the file has them."""
        derived = DERIVED.get(table, {})
        terms = ", ".join(derived.get(name, f'"{name}"') for name in columns)
        yield from self._connection.execute(f'SELECT {terms} FROM "{table}"')  # noqa: S608 - names of ours
