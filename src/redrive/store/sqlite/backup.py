"""The file copied away as a backup, and a backup copied back; each whole, checked, and in place at once."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import apsw

from redrive.store.port import StoreUnavailable
from redrive.store.sqlite.connection import about, ask, connect, connect_to_read, translated
from redrive.store.sqlite.file import LOCK, located, take_lock
from redrive.store.sqlite.schema import must_be_ours, recognise
from redrive.store.transfer import Occupied, Tell

STEP_PAGES: Final = 256
MOST_FAULTS: Final = 3
# What SQLite keeps beside a file and takes for that file's own, whatever stands under the name by then.
BESIDE: Final = ("-wal", "-shm", "-journal")


def back_up(path: Path, to: Path, tell: Tell, *, replaces: bool) -> None:
    """Copy the database, as it is at this moment, to the file *to*; a service may go on with it meanwhile.

    Raises Occupied when there is something that must stay, StoreUnavailable when the copy is not sound.
    """
    path, to = located(path).resolve(strict=True), located(to)
    _must_be_free(to, path, replaces=replaces)
    to.parent.stat()  # one that is missing is told by its own name
    with _draft_of(to) as draft:
        _copy(path, draft, tell)
        _must_be_free(to, path, replaces=replaces)
        _put(draft, to)


def restore(path: Path, backup: Path, now: datetime, tell: Tell) -> Path | None:
    """Put a copy of *backup* in the place of the database; where what was there is kept from now on.

    Raises StoreOwned while a service runs on it, StoreUnavailable when the backup is not sound.
    """
    path, backup = located(path), located(backup).resolve(strict=True)
    must_be_ours(backup)  # before anything is made where it should go
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = take_lock(path, "redrive restore")
    try:
        if path.exists() and path.samefile(backup):
            raise Occupied(f"{backup} is the database itself")
        with _draft_of(path) as draft:
            _copy(backup, draft, tell)
            aside = _set_aside(path, now)
            _put(draft, path)
    finally:
        os.close(lock)
    return aside


def _must_be_free(to: Path, path: Path, *, replaces: bool) -> None:
    if to.exists() and to.samefile(path):
        raise Occupied(f"{to} is the database itself")
    if to in [Path(f"{path}{suffix}") for suffix in (LOCK, *BESIDE)]:
        raise Occupied(f"{to} is a part of the database")
    if to.exists() and not replaces:
        raise Occupied(f"{to} exists")
    if used := [f"{to}{suffix}" for suffix in BESIDE if Path(f"{to}{suffix}").exists()]:
        raise Occupied(f"{used[0]} shows that {to} is in use as a database")


@contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    """A file in the same directory, for its owner's eyes only; gone in the end unless it was put in place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        for suffix in ("", *BESIDE):
            Path(name + suffix).unlink(missing_ok=True)


def _copy(path: Path, draft: Path, tell: Tell) -> None:
    """Copy, look through the copy, and sync it."""
    with (
        about(path),
        translated(),
        closing(connect_to_read(path)) as source,
        closing(apsw.Connection(os.fspath(draft))) as copy,
    ):
        _copy_pages(source, copy, tell)
        tell("checking", 1.0)
        _check(copy)
    _sync(draft)


def _copy_pages(source: apsw.Connection, copy: apsw.Connection, tell: Tell) -> None:
    """As they are at one moment: without a transaction the copy would begin anew with each commit."""
    source.execute("BEGIN")
    recognise(source)
    with copy.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(STEP_PAGES)
            tell("copying", 1 - backup.remaining / max(backup.page_count, 1))
    copy.pragma("journal_mode", "delete")  # a backup is one file, with no log beside it


def _check(copy: apsw.Connection) -> None:
    faults = [fault for (fault,) in ask(copy, f"PRAGMA integrity_check({MOST_FAULTS})")]
    if faults != ["ok"]:
        raise StoreUnavailable(f"the database file is damaged: {'; '.join(faults)}", fatal=True)


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Keep what is there under another name; the file itself stands in its place until the new one does."""
    if path.exists():
        with suppress(StoreUnavailable):  # too damaged for that: then its log goes with it
            _empty_log(path)
    aside = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z")
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    if not path.exists():
        return None
    aside.hardlink_to(path)
    return aside


def _empty_log(path: Path) -> None:
    with translated(), closing(connect(path)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _put(draft: Path, path: Path) -> None:
    draft.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
