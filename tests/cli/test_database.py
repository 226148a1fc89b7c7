"""Commands that work on the machine: what they hand to the server side, and what they print."""

import fcntl
import hashlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

import redrive
from redrive import doctor
from redrive.config import BadSettings, Settings
from redrive.doctor import Finding
from redrive.domain.access import Permission
from redrive.server import CannotServe
from redrive.store.migration import Migration, migrations
from redrive.store.port import StoreOwned, StoreUnavailable
from redrive.store.sqlite import schema
from redrive.store.tokens import Token
from tests.cli.terminal import Terminal
from tests.client.peer import Canned, Peer
from tests.postgres import Server


class FakeTokens:
    """Those of the store."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Token] = {}

    async def add(self, token: Token, digest: bytes) -> None:
        self.kept[digest] = token

    async def all(self) -> list[Token]:
        return list(self.kept.values())

    async def revoke(self, token_id: str, at: datetime) -> bool:
        return token_id in [token.token_id for token in self.kept.values()]


class FakeApp:
    """The server side, as far as the commands know it."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.tokens = FakeTokens()
        self.applied = ["0001_initial.sql"]
        self.is_down = False
        self.error: Exception | None = None

    def serve(self, settings: Settings) -> None:
        self.settings = settings
        if self.is_down:
            raise CannotServe("the port is taken")

    def owner(self, _settings: Settings) -> str | None:
        return None

    def migrate(self, settings: Settings) -> list[str]:
        self.settings = settings
        return self.applied

    @asynccontextmanager
    async def open_store(self, settings: Settings) -> AsyncIterator[Any]:
        self.settings = settings
        if self.error is not None:
            raise self.error
        yield self


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeApp:
    fake = FakeApp()
    monkeypatch.setitem(sys.modules, "redrive.app", fake)
    monkeypatch.setattr(redrive, "app", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "redrive-data").mkdir()
    (tmp_path / "redrive-data/redrive.db").touch()
    return fake


def a_token(**fields: Any) -> Token:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    values: dict[str, Any] = {
        "token_id": "tok_1",
        "subject": "billing",
        "permissions": frozenset({Permission.DELIVER, Permission.VIEW}),
        "created_at": now,
        "expires_at": None,
        "revoked_at": None,
    }
    return Token(**values | fields)


def test_serve_hands_over_what_was_said(server: FakeApp, terminal: Terminal) -> None:
    ended = terminal.run("serve", "--port", "0", "--role", "api", "--database", "sqlite:///x.db")

    assert ended.code == 0
    assert server.settings is not None
    assert (server.settings.port, server.settings.role) == (0, "api")
    assert server.settings.database == "sqlite:///x.db"


def test_every_bad_setting_is_told_at_once(server: FakeApp, terminal: Terminal) -> None:
    ended = terminal.run("serve", "--port", "eighty", "--role", "boss")

    assert ended.code == 2
    assert "--port" in ended.err
    assert "--role" in ended.err
    assert server.settings is None


def test_a_service_that_cannot_start_says_why(server: FakeApp, terminal: Terminal) -> None:
    server.is_down = True

    ended = terminal.run("serve")

    assert (ended.code, ended.out) == (8, "")
    assert "the port is taken" in ended.err


def test_a_service_whose_database_has_one_already_is_told_so_first(
    terminal: Terminal, database: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, _owned_by(database, "redrive serve, pid 7"):
        ended = terminal.run("serve", "--port", str(other.getsockname()[1]))

    assert ended.code == 8
    assert "next: redrive serve, pid 7, runs on this database already" in ended.err


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_demo_fills_no_directory_by_accident(terminal: Terminal, place: str) -> None:
    ended = terminal.run("demo", "--data-dir", place)

    assert ended.code == 2
    assert "names no directory of its own" in ended.err


def test_demo_ends_as_the_demonstration_does(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    play = SimpleNamespace(run=lambda **_: 6)
    monkeypatch.setitem(sys.modules, "redrive.demo", play)
    monkeypatch.setattr(redrive, "demo", play, raising=False)

    assert terminal.run("demo").code == 6


@pytest.mark.parametrize(
    ("applied", "said"),
    [
        (["0001_initial.sql"], "applied 0001_initial.sql to {database}\n"),
        ([], "nothing to do: {database} is at this version\n"),
    ],
)
def test_migrate_says_what_it_did(server: FakeApp, terminal: Terminal, applied: list[str], said: str) -> None:
    server.applied = applied

    assert terminal.run("migrate").out == said.format(database=Path("redrive-data/redrive.db").absolute())


def test_doctor_exits_6_when_something_is_wrong(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("database", True, "sqlite, \x1b[2J")]
    monkeypatch.setattr(doctor, "examine", lambda _: findings)
    well = terminal.run("doctor")
    findings.append(Finding("clock", False, "is late"))
    ill = terminal.run("doctor")
    told = terminal.run("doctor", "--output", "json")

    assert (well.code, ill.code, told.code) == (0, 6, 6)
    assert "ok     database  sqlite, \\x1b[2J\nfailed  clock" in ill.out.replace("ok      ", "ok     ")
    assert told.json()["findings"][1] == {"name": "clock", "ok": False, "detail": "is late"}


def test_a_token_is_printed_once_alone_and_only_its_digest_is_kept(
    server: FakeApp, terminal: Terminal
) -> None:
    ended = terminal.run(
        "token", "create", "--subject", "billing", "--permission", "deliver",
        "--permission", "platform.member_admin.view", "--expires-in", "90d",
    )  # fmt: skip

    [(digest, token)] = server.tokens.kept.items()
    text = ended.out.removesuffix("\n")
    assert text.startswith("rdr_")
    assert len(text) == len("rdr_") + 43
    assert digest == hashlib.sha256(text.encode()).digest()
    assert (token.subject, token.permissions) == ("billing", frozenset({Permission.DELIVER, Permission.VIEW}))
    assert token.expires_at == token.created_at + timedelta(days=90)
    assert token.token_id in ended.err
    assert text not in ended.err


def test_tokens_are_listed_with_their_state(server: FakeApp, terminal: Terminal) -> None:
    past = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    server.tokens.kept = {
        b"1": a_token(),
        b"2": a_token(token_id="tok_2", expires_at=past),
        b"3": a_token(token_id="tok_3", revoked_at=past),
    }

    table = terminal.run("token", "list")
    told = terminal.run("token", "list", "--output", "jsonl")

    assert table.out.splitlines()[1] == ("tok_1     billing  deliver, view  active   2026-01-02 03:04:05Z  -")
    assert [line["state"] for line in told.lines()] == ["active", "expired", "revoked"]
    assert told.lines()[1]["expires_at"] == "2026-01-02T03:04:06.000Z"


def test_tenants_are_shown_where_there_are_some(server: FakeApp, terminal: Terminal) -> None:
    server.tokens.kept = {b"1": a_token(), b"2": a_token(token_id="tok_2", tenant="acme")}

    title, one, two = terminal.run("token", "list").out.splitlines()

    assert "TENANT" in title
    assert (one.split()[4], two.split()[4]) == ("-", "acme")


def test_a_token_is_bound_to_a_tenant(server: FakeApp, terminal: Terminal) -> None:
    words = ("token", "create", "--subject", "ops", "--permission", "view", "--tenant")

    bad, good = terminal.run(*words, "acme.b"), terminal.run(*words, "acme")

    assert (bad.code, good.code) == (2, 0)
    assert [token.tenant for token in server.tokens.kept.values()] == ["acme"]


def test_revoking_what_is_not_there_exits_3(server: FakeApp, terminal: Terminal) -> None:
    server.tokens.kept = {b"1": a_token()}

    assert terminal.run("token", "revoke", "tok_1").code == 0
    assert terminal.run("token", "revoke", "tok_2").code == 3


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (StoreUnavailable("the disk is full"), 8, "the disk is full"),
        (StoreOwned("process 7 runs on it"), 8, "process 7 runs on it"),
        (PermissionError(13, "Permission denied", "/x.db"), 8, "cannot use /x.db: Permission denied"),
        (BadSettings("database: not in this version"), 2, "not in this version"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(
    server: FakeApp, terminal: Terminal, error: Exception, code: int, told: str
) -> None:
    server.error = error

    ended = terminal.run("token", "list")

    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err


@pytest.mark.parametrize("words", [("list",), ("revoke", "tok_1")], ids=" ".join)
def test_looking_makes_no_database(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)

    ended = terminal.run("token", *words)

    assert ended.code == 3
    assert f"there is no database at {tmp_path}/redrive-data/redrive.db" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_making_a_token_says_when_it_made_the_database_too(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("token", "create", "--subject", "s", "--permission", "view")

    first, second = terminal.run(*words), terminal.run(*words)

    assert (first.code, second.code) == (0, 0)
    assert f"new database: {tmp_path}/redrive-data/redrive.db" in first.err
    assert "new database" not in second.err


@pytest.fixture
def database(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of this version, where commands look for one; no port is taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDRIVE_PORT", "0")
    terminal.run("migrate")
    return tmp_path / "redrive-data/redrive.db"


@pytest.fixture
def old_database(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made by an older version: this one has a schema step more."""
    monkeypatch.chdir(tmp_path)
    terminal.run("migrate")
    newer = [*migrations("redrive.store.sqlite"), Migration(9999, "9999_more.sql", "CREATE TABLE more (x);")]
    monkeypatch.setattr(schema, "migrations", lambda package: newer)
    return tmp_path / "redrive-data/redrive.db"


@pytest.mark.usefixtures("old_database")
@pytest.mark.parametrize(
    "words",
    [("list",), ("revoke", "tok_1"), ("create", "--subject", "s", "--permission", "view")],
    ids=" ".join,
)
def test_an_older_database_must_be_migrated_first(terminal: Terminal, words: tuple[str, ...]) -> None:
    before, migrated = terminal.run("token", *words), terminal.run("migrate")
    after = terminal.run("token", *words)

    assert (before.code, before.out) == (8, "")
    assert "run `redrive migrate`" in before.err
    assert migrated.out.startswith("applied 9999_more.sql to ")
    assert after.code == (3 if "revoke" in words else 0), after.err


@pytest.mark.usefixtures("old_database")
def test_doctor_does_not_take_the_service_of_a_database_it_cannot_use_for_anothers(
    peer: Peer, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = peer.url.removeprefix("http://")
    monkeypatch.setenv("REDRIVE_PORT", where.rpartition(":")[2])
    peer.answers.append(Canned(200, b'{"status":"ok","request_id":"req-1"}'))

    assert _findings(terminal, 6)["port"] == f"{where} is answered by a redrive service"


@pytest.mark.usefixtures("old_database")
def test_doctor_finds_an_older_database_and_leaves_it_as_it_is(terminal: Terminal) -> None:
    for _ in range(2):
        assert "run `redrive migrate`" in _findings(terminal, 6)["database"]


def test_a_database_is_not_migrated_under_a_service_that_counts_on_it(
    terminal: Terminal, old_database: Path
) -> None:
    with _owned_by(old_database, "redrive serve, pid 7"):
        refused = terminal.run("migrate")

    assert (refused.code, refused.out) == (8, "")
    assert "in use by redrive serve, pid 7" in refused.err
    assert terminal.run("token", "list").code == 8, "it is as old as it was"


def test_a_service_of_this_version_may_run_while_there_is_nothing_to_migrate(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    terminal.run("migrate")

    with _owned_by(tmp_path / "redrive-data/redrive.db", "redrive serve, pid 7"):
        ended = terminal.run("migrate")

    assert (ended.code, ended.out.partition(":")[0]) == (0, "nothing to do")


def test_a_token_given_for_its_id_is_not_repeated(server: FakeApp, terminal: Terminal) -> None:
    ended = terminal.run("token", "revoke", "rdr_very-secret")

    assert ended.code == 2
    assert "its id starts with tok_" in ended.err
    assert "very-secret" not in ended.err


def test_doctor_finds_no_database_and_makes_none(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    findings = _findings(terminal, 6)

    assert findings["database"].startswith(f"there is no database at {tmp_path}/redrive-data/redrive.db")
    assert "service" not in findings
    assert list(tmp_path.iterdir()) == []


def test_doctor_leaves_an_empty_file_as_it_is(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.db").touch()
    monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{tmp_path}/empty.db")

    findings = _findings(terminal, 6)

    assert findings["database"].startswith(f"{tmp_path}/empty.db is an empty file; `redrive serve` makes")
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("empty.db", 0)]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("doctor",), 6),
        (("migrate",), 8),
        (("serve",), 8),
        (("backup", "b.db"), 8),
        (("restore", __file__), 8),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_a_directory_is_not_taken_for_a_database(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.setenv("REDRIVE_PORT", "0")
    monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{tmp_path}")

    ended = terminal.run(*words)

    assert f"{tmp_path} is a directory" in " ".join((ended.out + ended.err).split())
    assert ended.code == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("doctor",), ("migrate",), ("serve",), ("backup", "b.db"), ("restore", __file__)], ids=" ".join
)
def test_a_file_in_the_place_of_a_directory_and_a_link_to_nothing_are_told(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("REDRIVE_PORT", "0")
    (tmp_path / "file").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "unmounted/redrive.db")
    before = sorted(tmp_path.iterdir())

    for place, why in {
        "file/deep/redrive.db": f"cannot be: {tmp_path}/file is no directory",
        "link.db": f"is a link to {tmp_path}/unmounted/redrive.db, which is not there",
        "link.db/redrive.db": f"cannot be: {tmp_path}/link.db is no directory",
    }.items():
        monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{tmp_path}/{place}")
        ended = terminal.run(*words)
        assert f"{tmp_path}/{place} {why}" in " ".join((ended.out + ended.err).split())
        assert ended.code == (6 if words == ("doctor",) else 8)

    assert sorted(tmp_path.iterdir()) == before


def test_doctor_says_what_to_do_about_a_file_that_is_no_database(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(b"a letter to my aunt " * 99)
    monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{letter}")

    findings = _findings(terminal, 6)

    assert findings["database"].startswith(
        f"{letter} is no SQLite database; check the path; if it is right, "
    )
    assert list(tmp_path.iterdir()) == [letter]


@pytest.mark.parametrize("words", [("doctor",), ("migrate",), ("token", "list")], ids=" ".join)
def test_the_database_of_another_program_is_refused_and_left_as_it_is(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    other = tmp_path / "other.db"
    with closing(apsw.Connection(str(other))) as connection:
        connection.execute("CREATE TABLE customer (name)")
    before = other.read_bytes()
    monkeypatch.setenv("REDRIVE_DATABASE", f"sqlite:///{other}")

    ended = terminal.run(*words)

    assert f"{other}: this is no database of redrive" in " ".join((ended.out + ended.err).split())
    assert ended.code == (6 if words == ("doctor",) else 8)
    assert other.read_bytes() == before


def test_doctor_says_whether_the_forward_proxy_takes_connections_and_not_who_we_are_there(
    terminal: Terminal, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        where = f"127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("REDRIVE_EGRESS_PROXY", f"http://me:hunter2@{where}")
        there = _findings(terminal, 0)
    gone = _findings(terminal, 6)

    assert there["egress proxy"] == f"{where} takes connections"
    assert gone["egress proxy"].startswith(f"{where} cannot be reached: ")
    assert "hunter2" not in str(there) + str(gone)


def test_doctor_says_who_owns_the_database_and_the_port(
    terminal: Terminal, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, _owned_by(database, "redrive serve, pid 7"):
        other.settimeout(0)  # it never answers
        monkeypatch.setenv("REDRIVE_PORT", str(other.getsockname()[1]))

        findings = _findings(terminal, 6)

    assert findings["database"] == str(database)
    assert findings["service"] == "runs on this database (redrive serve, pid 7)"
    assert "Address already in use" in findings["port"]
    assert findings["SQLite"][0].isdigit()


@pytest.mark.parametrize("kind", ["a directory", "a link to nothing"])
def test_doctor_finds_a_lock_that_nobody_can_take(
    terminal: Terminal, database: Path, tmp_path: Path, kind: str
) -> None:
    lock = Path(f"{database}.lock")
    lock.unlink(missing_ok=True)
    if kind == "a directory":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "unmounted/lock")

    assert _findings(terminal, 6)["service"].startswith(f"cannot read {lock}: ")


def test_doctor_says_of_a_database_that_another_command_holds_that_no_service_runs(
    terminal: Terminal, database: Path
) -> None:
    with _owned_by(database, "redrive copy, pid 7"):
        findings = _findings(terminal, 0)

    assert findings["service"] == "none runs on this database; redrive copy, pid 7, works on it"
    assert findings["port"] == "127.0.0.1:0 is free"


def test_doctor_knows_a_service_when_it_answers(
    peer: Peer, terminal: Terminal, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = peer.url.rpartition(":")[2]
    monkeypatch.setenv("REDRIVE_PORT", port)
    peer.answers.append(Canned(200, b'{"status":"ok","request_id":"req-1"}'))

    with _owned_by(database, "redrive serve, pid 7"):
        findings = _findings(terminal, 0)

    assert (
        findings["port"] == f"127.0.0.1:{port} is answered by a redrive service, perhaps on another database"
    )


def test_doctor_tells_a_service_on_another_database_from_ours(
    peer: Peer, terminal: Terminal, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = peer.url.removeprefix("http://")
    monkeypatch.setenv("REDRIVE_PORT", where.rpartition(":")[2])
    peer.answers.append(Canned(200, b'{"status":"ok","request_id":"req-1"}'))

    findings = _findings(terminal, 6)

    assert findings["service"] == "none runs on this database"
    assert findings["port"].startswith(f"{where} is taken by a redrive service on another database; ")


def test_doctor_says_when_the_service_of_this_database_listens_elsewhere(
    terminal: Terminal, database: Path
) -> None:
    with _owned_by(database, "redrive serve, stopping, pid 7"):
        findings = _findings(terminal, 0)

    assert findings["service"] == "runs on this database (redrive serve, stopping, pid 7)"
    assert findings["port"] == "127.0.0.1:0 is free; the service that runs listens on another, or is stopping"


def test_doctor_looks_at_a_postgresql_server(
    terminal: Terminal, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDRIVE_PORT", "0")
    monkeypatch.setenv("REDRIVE_WORKERS", "19")
    monkeypatch.setenv("REDRIVE_DATABASE", postgres.url().replace("postgres@", "postgres:secret@"))

    findings = _findings(terminal, 6)

    assert findings["database"] == postgres.url().replace("postgres@", "")
    assert findings["fsync"].startswith("off: a crash of the machine")
    assert findings["connections"].startswith("up to 209 for 19 processes ")
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_when_a_server_does_not_answer(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDRIVE_DATABASE", "postgresql://127.0.0.1:1/nothing")

    assert _findings(terminal, 6)["database"].startswith("the database cannot be reached: ")


def _findings(terminal: Terminal, code: int) -> dict[str, str]:
    ended = terminal.run("doctor", "--output", "json")
    assert ended.code == code
    return {finding["name"]: finding["detail"] for finding in ended.json()["findings"]}


@contextmanager
def _owned_by(database: Path, owner: str) -> Iterator[None]:
    with Path(f"{database}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(owner, file=lock, flush=True)
        yield
