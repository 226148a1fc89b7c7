"""Migrations: numbered .sql files, forward only, each applied once and never edited afterwards."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from redrive.store.port import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(package: str) -> list[Migration]:
    """Every migration that this version has for the store of *package*, in order."""
    found = [
        Migration(int(file.name[:4]), file.name, file.read_text("utf-8"))
        for file in files(package).joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


def missing(applied: Mapping[int, str], steps: Sequence[Migration]) -> list[Migration]:
    """The steps that were not *applied* yet (checksums by number).

    Raises StoreUnavailable when the database was written by a newer version, or a step was edited.
    """
    ours = {step.number: step for step in steps}
    for number, checksum in applied.items():
        if number not in ours:
            raise StoreUnavailable(
                f"the database has schema step {number}, which this version does not know;"
                " work on it with the version that wrote it, or a newer one",
                fatal=True,
            )
        if ours[number].checksum != checksum:
            raise StoreUnavailable(
                f"schema step {ours[number].name} is not the one this database was made with", fatal=True
            )
    return [step for step in steps if step.number not in applied]
