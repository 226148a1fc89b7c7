"""Backing a file up while it changes, and putting a backup in its place."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from stat import S_IMODE
from typing import Any

import apsw
import pytest

from redrive.domain.item import Status
from redrive.store.port import StoreOwned, StoreUnavailable
from redrive.store.sqlite import backup as backup_module
from redrive.store.sqlite.backup import back_up, restore
from redrive.store.sqlite.connection import ask, connect
from redrive.store.sqlite.file import take_lock
from redrive.store.sqlite.schema import prepare
from redrive.store.transfer import Occupied
from tests.factories import NOW, a_delivery, an_event, an_intake
from tests.store.under_test import OffsetClock, add_integration, sqlite_under_test, statuses


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with many pages, in a directory of its own."""
    path = tmp_path / "data" / "redrive.db"
    prepare(path, OffsetClock())
    fill(path, 200)
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Where one may go."""
    return tmp_path / "backup.db"


def silent(what: str, share: float) -> None:
    pass


def fill(path: Path, count: int, *, die: bool = False) -> None:
    """Answers that nobody asked for: rows of a page each."""
    with closing(connect(path)) as connection:
        sql = (
            "INSERT INTO answer (scope, fingerprint, status, body, created_at)"
            " SELECT randomblob(32), x'', 200, randomblob(4000), 0"
        )
        for _ in range(count):
            connection.execute(sql)
        if die:
            os._exit(0)


def answers(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as connection:
        return int(ask(connection, "SELECT count(*) FROM answer")[0][0])


def damage(path: Path) -> None:
    """Write over the pages in the middle, with the log in the file."""
    with closing(connect(path)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 40_000)


def names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


# backing up


def test_a_backup_is_one_file_for_its_owner_only(path: Path, backup: Path) -> None:
    back_up(path, backup, silent, replaces=False)

    assert answers(backup) == 200
    assert S_IMODE(backup.stat().st_mode) == 0o600
    assert names(backup.parent) == {"data", "backup.db"}
    with closing(apsw.Connection(str(backup))) as connection:
        assert connection.pragma("journal_mode") == "delete", "it can be read where nothing can be written"


def test_a_backup_is_of_one_moment_however_much_is_written_meanwhile(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "STEP_PAGES", 8)
    steps = []

    def write(what: str, share: float) -> None:
        steps.append(share)
        assert len(steps) < 1000, "it begins anew each time"
        fill(path, 1)

    back_up(path, backup, write, replaces=False)

    assert steps == sorted(steps)
    assert answers(backup) == 200
    assert answers(path) == 200 + len(steps), "nobody who writes has to wait"


def test_a_backup_goes_beside_the_service(path: Path, backup: Path) -> None:
    lock = take_lock(path, "redrive serve")

    back_up(path, backup, silent, replaces=False)

    os.close(lock)
    assert answers(backup) == 200


def test_a_file_that_is_there_is_replaced_only_when_that_is_said(path: Path, backup: Path) -> None:
    backup.write_text("the backup of yesterday")

    with pytest.raises(Occupied, match="exists"):
        back_up(path, backup, silent, replaces=False)
    assert backup.read_text() == "the backup of yesterday"
    back_up(path, backup, silent, replaces=True)

    assert answers(backup) == 200


def test_a_file_that_comes_up_meanwhile_is_not_replaced(path: Path, backup: Path) -> None:
    with pytest.raises(Occupied, match="exists"):
        back_up(path, backup, lambda what, share: backup.touch(), replaces=False)

    assert names(backup.parent) == {"data", "backup.db"}


@pytest.mark.parametrize("replaces", [False, True])
def test_the_database_itself_is_never_a_backup(path: Path, replaces: bool) -> None:  # noqa: FBT001
    with pytest.raises(Occupied, match="is the database itself"):
        back_up(path, path.parent / ".." / "data" / "redrive.db", silent, replaces=replaces)

    assert answers(path) == 200


def test_a_database_in_use_is_not_replaced_by_a_backup(path: Path, backup: Path) -> None:
    prepare(backup, OffsetClock())
    with closing(connect(backup)) as connection:
        connection.execute("BEGIN IMMEDIATE; COMMIT")

        with pytest.raises(Occupied, match="is in use as a database"):
            back_up(path, backup, silent, replaces=True)

    assert answers(backup) == 0


def test_a_damaged_database_replaces_no_backup(path: Path, backup: Path) -> None:
    backup.write_text("the last good one")
    damage(path)

    with pytest.raises(StoreUnavailable, match="damaged"):
        back_up(path, backup, silent, replaces=True)

    assert backup.read_text() == "the last good one"
    assert names(backup.parent) == {"data", "backup.db"}


def test_a_backup_that_is_interrupted_leaves_nothing(path: Path, backup: Path) -> None:
    def interrupt(what: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(path, backup, interrupt, replaces=False)

    assert names(backup.parent) == {"data"}


# restoring


@pytest.fixture
def made(path: Path, backup: Path) -> Path:
    """A backup of the database, which went on since."""
    back_up(path, backup, silent, replaces=False)
    fill(path, 50)
    return backup


def test_a_backup_takes_the_place_of_the_database_which_is_kept(path: Path, made: Path) -> None:
    with closing(connect(path)):  # its last rows are still in the log
        pass

    aside = restore(path, made, NOW, silent)

    assert aside == path.with_name("redrive.db.replaced-20260102T030405.000Z")
    assert (answers(path), answers(aside), answers(made)) == (200, 250, 200)
    assert S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_of_the_old_log_gets_into_what_was_restored(path: Path, made: Path) -> None:
    crash(path)

    aside = restore(path, made, NOW, silent)

    assert aside is not None
    assert (answers(path), answers(aside)) == (200, 251)


def test_a_log_whose_database_is_gone_is_kept_out_too(path: Path, made: Path) -> None:
    crash(path)
    path.unlink()

    assert restore(path, made, NOW, silent) is None

    assert answers(path) == 200
    assert "redrive.db.replaced-20260102T030405.000Z-wal" in names(path.parent)


def crash(path: Path) -> None:
    """Leave a commit in the log, as a process that is killed does."""
    code = (
        "import os, sys; from tests.store.test_sqlite_backup import *; fill(Path(sys.argv[1]), 1, die=True)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


def test_a_damaged_database_is_replaced_and_kept_as_it_is(path: Path, made: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)

    aside = restore(path, made, NOW, silent)

    assert aside is not None
    assert aside.read_bytes().startswith(b"no database at all")
    assert answers(path) == 200


def test_a_backup_is_restored_where_there_was_nothing(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "redrive.db"

    assert restore(path, made, NOW, silent) is None

    assert answers(path) == 200
    assert names(path.parent) == {"redrive.db", "redrive.db.lock"}


def test_what_is_no_backup_leaves_nothing_where_it_should_go(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(b"a letter to my aunt " * 99)

    with pytest.raises(StoreUnavailable, match=r"letter\.txt is no SQLite database"):
        restore(tmp_path / "new" / "redrive.db", letter, NOW, silent)

    assert names(tmp_path) == {"letter.txt"}


def test_nothing_is_restored_under_a_service(path: Path, made: Path) -> None:
    lock = take_lock(path, "redrive serve")

    with pytest.raises(StoreOwned, match="in use by redrive serve, pid"):
        restore(path, made, NOW, silent)

    os.close(lock)
    assert answers(path) == 250


def test_the_database_is_not_restored_from_itself(path: Path) -> None:
    with pytest.raises(Occupied, match="is the database itself"):
        restore(path, path, NOW, silent)


UNSOUND: dict[str, tuple[Any, str]] = {
    "damaged": (damage, "backup.db: the database file is damaged"),
    "no database": (
        lambda path: path.write_bytes(b"a letter to my aunt " * 999),
        "backup.db is no SQLite database",
    ),
    "another program's": (
        lambda path: execute(path, "DROP TABLE migration"),
        "this is no database of redrive",
    ),
    "of a later version": (
        lambda path: execute(path, "INSERT INTO migration VALUES (9999, 'later', 'x', 0)"),
        "schema step 9999, which this version does not know",
    ),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_what_is_not_sound_is_not_restored(path: Path, made: Path, what: str) -> None:
    spoil, told = UNSOUND[what]
    spoil(made)

    with pytest.raises(StoreUnavailable, match=told):
        restore(path, made, NOW, silent)

    assert answers(path) == 250
    assert not [name for name in names(path.parent) if "replaced" in name or "part" in name]


def execute(path: Path, sql: str) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(sql)


async def test_what_was_claimed_when_the_backup_was_made_is_adopted_after_a_restore(tmp_path: Path) -> None:
    path, backup = tmp_path / "redrive.db", tmp_path / "backup.db"
    async with sqlite_under_test(tmp_path) as store:
        owner = await store.enter()
        number = await add_integration(store)
        claimed, later = a_delivery(number), a_delivery(number)
        await store.accept([an_intake(claimed, owner=owner)])
        back_up(path, backup, silent, replaces=False)
        await store.accept([an_intake(later)])
        await store.note([an_event()])

    restore(path, backup, NOW, silent)

    async with sqlite_under_test(tmp_path) as store:
        [orphan] = (await store.adopt(await store.enter(), 10)).claims
        assert (orphan.delivery, orphan.attempt) == (claimed, 1)
        assert await statuses(store, number, [claimed.id, later.id]) == [Status.PENDING, None]
