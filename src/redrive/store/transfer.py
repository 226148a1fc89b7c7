"""A whole database on its way to another place: what a source offers, and how both sides are compared."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from msgspec import msgpack

from redrive.store.rows import Row

Tell = Callable[[str, float], None]  # what is being done, and how much of the whole is
_MOST: Final = 1 << 256


class Occupied(Exception):
    """Something is in the place where it should go, and is not to be lost."""


class Source(Protocol):
    """A database that nobody works on, to be read from end to end."""

    @property
    def last_incarnation(self) -> int:
        """The greatest number that a process has had; claims may be of any up to it."""
        ...

    def tables(self) -> Sequence[str]:
        """Those that hold something of lasting worth; a table comes after those it refers to."""
        ...

    def columns(self, table: str) -> Sequence[str]:
        """What it can tell of each row, also what it has to look up elsewhere."""
        ...

    def count(self, table: str) -> int:
        """How many rows there are."""
        ...

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """All of them, in any order."""
        ...


@dataclass(slots=True)
class Digest:
    """What rows come to, in whatever order they are read: their number, the size of their bytes, and a hash.

    The hash is the sum of every row's own, so a row that is missing, changed or there twice shows.
    """

    rows: int = 0
    bytes: int = 0
    hash: int = 0

    def take(self, row: Row) -> None:
        """Take a row in."""
        self.rows += 1
        self.bytes += sum(len(value) for value in row if isinstance(value, bytes))
        self.hash = (self.hash + int.from_bytes(sha256(msgpack.encode(row)).digest())) % _MOST


@dataclass(frozen=True, slots=True)
class Copied:
    """A table that is the same on both sides now."""

    table: str
    digest: Digest
