"""`redrive copy`: what it says and how it ends. What it copies is tested with the stores."""

import asyncio
import fcntl
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, on_a_terminal
from tests.postgres import Server, a_database


@pytest.fixture
def file(terminal: Terminal, tmp_path: Path) -> str:
    """A SQLite database with a token in it."""
    url = f"sqlite:///{tmp_path}/redrive.db"
    terminal.run("token", "create", "--subject", "shop", "--permission", "view", "--database", url)
    return url


@pytest.fixture
def empty(postgres: Server) -> str:
    return asyncio.run(a_database(postgres))


def test_what_was_copied_is_told_and_there(terminal: Terminal, file: str, empty: str) -> None:
    ended = terminal.run("copy", "--from", file, "--to", empty, "--output", "json")

    told = {row["table"]: row for row in ended.json()["tables"]}
    assert ended.code == 0
    assert (told["token"]["rows"], told["token"]["bytes"], len(told["token"]["digest"])) == (1, 32, 64)
    assert told["delivery"] == {"table": "delivery", "rows": 0, "bytes": 0, "digest": "0" * 64}
    listed = [
        terminal.run("token", "list", "--database", url, "--output", "json").json() for url in (file, empty)
    ]
    assert listed[0] == listed[1]


def test_the_short_name_of_postgresql_is_as_good(terminal: Terminal, file: str, empty: str) -> None:
    short = empty.replace("postgresql://", "postgres://")

    copied = terminal.run("copy", "--from", file, "--to", short)
    listed = terminal.run("token", "list", "--database", short)

    assert (copied.code, listed.code) == (0, 0)
    assert "shop" in listed.out


def test_people_see_a_table_and_what_to_do_next(file: str, empty: str) -> None:
    shown = on_a_terminal("copy", "--from", file, "--to", empty)

    assert "TABLE" in shown
    assert "both would send what is open" in " ".join(shown.split())


def test_a_database_with_something_in_it_is_a_conflict(terminal: Terminal, file: str, empty: str) -> None:
    terminal.run("copy", "--from", file, "--to", empty)

    ended = terminal.run("copy", "--from", file, "--to", empty)

    assert (ended.code, ended.out) == (5, "")
    assert "the database is not empty: there is something in token" in ended.err


def test_a_file_that_is_not_there_is_not_made(terminal: Terminal, empty: str, tmp_path: Path) -> None:
    ended = terminal.run("copy", "--from", f"sqlite:///{tmp_path}/none.db", "--to", empty)

    assert (ended.code, ended.out) == (3, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a letter to my aunt " * 99, "letter.txt is no SQLite database\n   next: check the path"),
     (b"", "letter.txt: this is no database of redrive\n")],
    ids=["no database", "nothing"],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_told_and_left_alone(
    terminal: Terminal, empty: str, tmp_path: Path, content: bytes, told: str
) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(content)

    ended = terminal.run("copy", "--from", f"sqlite:///{letter}", "--to", empty)

    assert (ended.code, ended.out) == (8, "")
    assert told in ended.err
    assert list(tmp_path.iterdir()) == [letter]  # no lock beside it
    assert letter.read_bytes() == content


def test_a_file_in_use_is_told_with_its_owner(terminal: Terminal, file: str, empty: str) -> None:
    with Path(f"{file.removeprefix('sqlite:///')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("redrive serve, pid 7", file=lock, flush=True)

        ended = terminal.run("copy", "--from", file, "--to", empty)

    assert (ended.code, ended.out) == (8, "")
    assert "is in use by redrive serve, pid 7" in ended.err


@pytest.mark.parametrize("turned", ["--from", "--to"])
def test_only_from_a_file_to_a_server(terminal: Terminal, file: str, empty: str, turned: str) -> None:
    url = empty if turned == "--from" else file

    ended = terminal.run("copy", "--from", url, "--to", url)

    assert (ended.code, ended.out) == (2, "")
    assert f"{turned} must be a " in ended.err


def test_options_that_are_swapped_are_told_so(terminal: Terminal, file: str, empty: str) -> None:
    ended = terminal.run("copy", "--from", empty, "--to", file)

    assert (ended.code, ended.out) == (2, "")
    assert "--from and --to are swapped" in ended.err


def test_a_server_that_does_not_answer_is_told(terminal: Terminal, file: str) -> None:
    ended = terminal.run("copy", "--from", file, "--to", "postgresql://127.0.0.1:1/nothing")

    assert (ended.code, ended.out) == (8, "")
    assert "the database cannot be reached" in ended.err


def test_what_is_wrong_with_an_address_names_the_option_it_came_with(terminal: Terminal, file: str) -> None:
    ended = terminal.run("copy", "--from", file, "--to", "mysql://somewhere/else")

    assert ended.code == 2
    assert ended.err.startswith("redrive: --to must be ")
