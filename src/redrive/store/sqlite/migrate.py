"""Migrations: numbered .sql files, forward only, each applied once and never edited afterwards."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import apsw

from redrive.store.port import StoreUnavailable
from redrive.store.sqlite.connection import ask

_BOOK = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration this version knows, in order."""
    found = [
        Migration(int(file.name[:4]), file.name, file.read_text("utf-8"))
        for file in files("redrive.store.sqlite").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


def migrate(connection: apsw.Connection, now_ms: int) -> list[str]:
    """Bring the schema up to this version; the names of what was applied.

    Raises StoreUnavailable when the file was written by a newer version, or a step was edited.
    """
    applied: list[str] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_BOOK)
        known = dict(ask(connection, "SELECT number, checksum FROM migration"))
        steps = migrations()
        _check(known, steps)
        for step in steps:
            if step.number not in known:
                connection.execute(step.sql)
                connection.execute(
                    "INSERT INTO migration VALUES (?, ?, ?, ?)",
                    (step.number, step.name, step.checksum, now_ms),
                )
                applied.append(step.name)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return applied


def _check(known: dict[int, str], steps: list[Migration]) -> None:
    ours = {step.number: step for step in steps}
    for number, checksum in known.items():
        if number not in ours:
            raise StoreUnavailable(
                f"the database has schema step {number}, which this version does not know;"
                " start it with the version that wrote it, or a newer one",
                fatal=True,
            )
        if ours[number].checksum != checksum:
            raise StoreUnavailable(
                f"schema step {ours[number].name} is not the one this database was made with",
                fatal=True,
            )
