"""`redrive backup` and `redrive restore`: what they say and how they end."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal

PLACE = "redrive-data/redrive.db"


@pytest.fixture
def home(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a database with one token is."""
    monkeypatch.chdir(tmp_path)
    add_token(terminal, "before")
    return tmp_path


def add_token(terminal: Terminal, subject: str) -> None:
    assert terminal.run("token", "create", "--subject", subject, "--permission", "view").code == 0


def subjects(terminal: Terminal) -> set[str]:
    return {row["subject"] for row in terminal.run("token", "list", "--output", "jsonl").lines()}


def test_a_backup_is_made_and_put_back(terminal: Terminal, home: Path) -> None:
    made = terminal.run("backup", "a.db")
    add_token(terminal, "after")
    restored = terminal.run("restore", "a.db")

    assert (made.code, restored.code) == (0, 0), made.err + restored.err
    size = (home / "a.db").stat().st_size
    assert made.out == f"backed up {home}/{PLACE} to {home}/a.db ({size} bytes, checked)\n"
    first, second = restored.out.splitlines()
    assert first == f"restored {home}/{PLACE} from {home}/a.db"
    assert Path(second.removeprefix("kept what was there as ")).exists()
    assert subjects(terminal) == {"before"}


def test_what_was_replaced_can_be_put_back_too(terminal: Terminal, home: Path) -> None:
    terminal.run("backup", "a.db")
    add_token(terminal, "after")
    aside = terminal.run("restore", "a.db").out.splitlines()[1].removeprefix("kept what was there as ")

    terminal.run("restore", aside)

    assert subjects(terminal) == {"before", "after"}


def test_a_backup_replaces_another_by_force_only(terminal: Terminal, home: Path) -> None:
    terminal.run("backup", "a.db")
    add_token(terminal, "after")

    refused, forced = terminal.run("backup", "a.db"), terminal.run("backup", "a.db", "--force")
    terminal.run("restore", "a.db")

    assert (refused.code, refused.out, forced.code) == (5, "", 0)
    assert f"{home}/a.db exists" in refused.err
    assert subjects(terminal) == {"before", "after"}


@pytest.mark.usefixtures("home")
def test_a_directory_that_is_not_there_is_told(terminal: Terminal) -> None:
    ended = terminal.run("backup", "nowhere/a.db")

    assert (ended.code, ended.out) == (8, "")
    assert "/nowhere: No such file or directory" in ended.err


def test_what_is_not_there_is_neither_backed_up_nor_restored(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    backup, restore = terminal.run("backup", "a.db"), terminal.run("restore", "a.db")

    assert (backup.code, restore.code) == (3, 3)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_restored_under_a_service(terminal: Terminal, home: Path) -> None:
    terminal.run("backup", "a.db")
    with (home / f"{PLACE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("redrive serve, pid 7", file=lock, flush=True)

        ended = terminal.run("restore", "a.db")

    assert (ended.code, ended.out) == (8, "")
    assert "is in use by redrive serve, pid 7" in ended.err


@pytest.mark.usefixtures("home")
def test_the_database_is_no_backup_of_itself(terminal: Terminal) -> None:
    made, restored = terminal.run("backup", PLACE, "--force"), terminal.run("restore", PLACE)

    assert (made.code, restored.code) == (5, 5)
    assert "is the database itself" in made.err
    assert subjects(terminal) == {"before"}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("suffix", [".lock", "-wal", "-shm", "-journal"])
def test_no_part_of_the_database_is_replaced_by_a_backup(terminal: Terminal, suffix: str) -> None:
    part = Path(f"{PLACE}{suffix}")
    part.write_bytes(b"in use")

    ended = terminal.run("backup", f"{PLACE}{suffix}", "--force")

    assert (ended.code, ended.out) == (5, "")
    assert f"{part.resolve()} is a part of the database" in ended.err
    assert part.read_bytes() == b"in use"


def test_nothing_but_a_file_is_taken_for_one_or_replaced(
    terminal: Terminal, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.run("backup", "a.db")
    os.mkfifo(home / "pipe.db")
    monkeypatch.setenv("REDRIVE_PORT", "0")
    (home / "loop.db").symlink_to(home / "loop.db")
    for name, why in {
        "pipe.db": f"{home}/pipe.db is no regular file",
        "loop.db": f"{home}/loop.db is a link to {home}/loop.db, which is not there",
    }.items():
        made = terminal.run("backup", name, "--force")
        monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{home}/{name}")
        others = [terminal.run(*words) for words in (["restore", "a.db"], ["serve"], ["migrate"])]
        doctor = terminal.run("doctor")
        monkeypatch.delenv("REDRIVE_DATABASE")

        for ended in (made, *others):
            assert (ended.code, why in ended.err) == (8, True), ended
        assert (doctor.code, why in " ".join(doctor.out.split())) == (6, True)

    assert (home / "pipe.db").is_fifo()
    assert (home / "loop.db").is_symlink()


@pytest.mark.usefixtures("home")
def test_what_is_no_backup_is_told_and_changes_nothing(terminal: Terminal) -> None:
    Path("a.db").write_bytes(b"a letter to my aunt " * 999)

    ended = terminal.run("restore", "a.db")

    assert (ended.code, ended.out) == (8, "")
    assert "a.db is no SQLite database" in ended.err
    assert subjects(terminal) == {"before"}


@pytest.mark.parametrize("word", ["backup", "restore"])
def test_postgresql_has_its_own_tools(terminal: Terminal, tmp_path: Path, word: str) -> None:
    file = tmp_path / "a.db"
    file.touch()

    ended = terminal.run(word, str(file), "--database", "postgresql://127.0.0.1:1/redrive")

    assert (ended.code, ended.out) == (2, "")
    assert "docs/guides/scale-out.md" in ended.err
