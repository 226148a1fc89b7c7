"""Opening the file: what every connection is set to, and what its errors mean."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import apsw

from redrive.store.port import StoreInconsistent, StoreUnavailable

Done = TypeVar("Done")
BUSY_MILLISECONDS = 5_000  # `redrive token create` writes beside a running service
CACHE_KIB = 32_768  # holds what leads to the rows of ten million items; it grows only as far as it is used
MOST_ROWS = 64
# A failed sync may have lost what it reports as written, and a second one may lie: only a restart is honest.
_FATAL_EXTENDED = {
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
    apsw.SQLITE_READONLY_DBMOVED,
}


class Do(Protocol):
    """Runs a verb on a connection, in a transaction."""

    async def __call__(self, verb: Callable[[apsw.Connection], Done], /) -> Done:
        """What the verb returned."""
        ...


class NoDatabase(StoreUnavailable):
    """A file does not begin as a database of SQLite does."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is no SQLite database",
            fatal=True,
            advice="check the path; if it is right, it is damaged: `redrive restore` puts back a backup",
        )


def connect(path: Path) -> apsw.Connection:
    """A connection for writing: WAL and synchronous=FULL, verified, or StoreUnavailable."""
    with translated(), _a_database(path):
        connection = apsw.Connection(os.fspath(path))
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        mode = connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", True)
        connection.pragma("secure_delete", True)  # what was erased lies in no page that was split or freed
        connection.pragma("cache_size", -CACHE_KIB)
        connection.wal_autocheckpoint(0)  # another thread does it: in the writer it costs p99
        if mode != "wal" or connection.pragma("synchronous") != 2:
            raise StoreUnavailable(
                f"{path} cannot be opened with a write-ahead log and full synchronisation"
                f" (journal_mode={mode}); put it on a local file system",
                fatal=True,
            )
    return connection


def connect_to_read(path: Path) -> apsw.Connection:
    """A connection that only ever reads."""
    with translated(), _a_database(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.pragma("query_only", True)
        connection.pragma("schema_version")  # the first that looks into the file
    return connection


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Names *path* in what is wrong with the file."""
    try:
        yield
    except NoDatabase:
        raise
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{path}: {error.reason}", fatal=error.fatal, advice=error.advice) from error


def ask(
    connection: apsw.Connection, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()
) -> list[tuple[Any, ...]]:
    """Every row a statement gives."""
    return connection.execute(sql, values).fetchall()


def insert(connection: apsw.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert *rows* with as few statements as there are powers of two in their number.

    Every statement lets go of the GIL and has to win it back from a busy event loop; sizes that are
    powers of two keep the texts few, so that each stays prepared.
    """
    at = 0
    while at < len(rows):
        size = min(MOST_ROWS, 1 << (len(rows) - at).bit_length() - 1)
        chunk = rows[at : at + size]
        connection.execute(_of_many(sql, size), [value for row in chunk for value in row])
        at += size


@lru_cache(maxsize=256)
def _of_many(sql: str, size: int) -> str:
    head, values, row = sql.rpartition("VALUES ")
    return head + values + ", ".join([row] * size)


@contextmanager
def _a_database(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.NotADBError as error:
        raise NoDatabase(str(path)) from error


class _Translated:
    """A class, not a generator: it is entered for every unit of work."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case apsw.NotADBError():
                raise NoDatabase("the database file") from error
            case apsw.CorruptError():
                raise StoreUnavailable(
                    f"the database file is damaged: {error}",
                    fatal=True,
                    advice="`redrive restore` puts back a backup",
                ) from error
            case apsw.ConstraintError():
                raise StoreInconsistent(f"a write would break a rule of the store: {error}") from error
            case apsw.Error():
                fatal = getattr(error, "extendedresult", 0) in _FATAL_EXTENDED
                raise StoreUnavailable(f"the database file cannot be used: {error}", fatal=fatal) from error


_TRANSLATED = _Translated()


def translated() -> _Translated:
    """A context that turns the driver's exceptions into the port's."""
    return _TRANSLATED
