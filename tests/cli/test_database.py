"""Commands that work on the machine: what they hand to the server side, and what they print."""

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import redrive
from redrive.config import BadSettings, Settings
from redrive.domain.access import Permission
from redrive.store.port import StoreOwned, StoreUnavailable, Token
from tests.cli.terminal import Terminal


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    detail: str


class FakeApp:
    """The server side, as far as the commands know it."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.kept: dict[bytes, Token] = {}
        self.findings = [Finding("database", True, "sqlite, \x1b[2J")]
        self.applied = ["applied 0001_initial"]
        self.is_down = False
        self.error: Exception | None = None

    class CannotStart(Exception):
        pass

    def serve(self, settings: Settings) -> int:
        self.settings = settings
        if self.is_down:
            raise self.CannotStart("the port is taken")
        return 7

    def migrate(self, settings: Settings) -> list[str]:
        self.settings = settings
        return self.applied

    def doctor(self, settings: Settings) -> list[Finding]:
        self.settings = settings
        return self.findings

    @asynccontextmanager
    async def open_store(self, settings: Settings) -> AsyncIterator[Any]:
        self.settings = settings
        if self.error is not None:
            raise self.error
        yield self

    async def add_token(self, token: Token, digest: bytes) -> None:
        self.kept[digest] = token

    async def tokens(self) -> list[Token]:
        return list(self.kept.values())

    async def revoke_token(self, token_id: str, at: datetime) -> bool:
        return token_id in [token.token_id for token in self.kept.values()]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeApp:
    fake = FakeApp()
    monkeypatch.setitem(sys.modules, "redrive.app", fake)
    monkeypatch.setattr(redrive, "app", fake, raising=False)
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


def test_serve_hands_over_what_was_said_and_ends_as_the_service_does(
    server: FakeApp, terminal: Terminal
) -> None:
    ended = terminal.run("serve", "--port", "0", "--role", "api", "--database", "sqlite:///x.db")

    assert ended.code == 7
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


def test_demo_ends_as_the_demonstration_does(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    play = SimpleNamespace(run=lambda **_: 6)
    monkeypatch.setitem(sys.modules, "redrive.demo", play)
    monkeypatch.setattr(redrive, "demo", play, raising=False)

    assert terminal.run("demo").code == 6


@pytest.mark.parametrize(
    ("applied", "said"),
    [
        (["applied 0001_initial"], "applied 0001_initial\n"),
        ([], "nothing to do: the database is at this version\n"),
    ],
)
def test_migrate_says_what_it_did(server: FakeApp, terminal: Terminal, applied: list[str], said: str) -> None:
    server.applied = applied

    assert terminal.run("migrate").out == said


def test_doctor_exits_6_when_something_is_wrong(server: FakeApp, terminal: Terminal) -> None:
    well = terminal.run("doctor")
    server.findings.append(Finding("clock", False, "is late"))
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

    [(digest, token)] = server.kept.items()
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
    server.kept = {
        b"1": a_token(),
        b"2": a_token(token_id="tok_2", expires_at=past),
        b"3": a_token(token_id="tok_3", revoked_at=past),
    }

    table = terminal.run("token", "list")
    told = terminal.run("token", "list", "--output", "jsonl")

    assert table.out.splitlines()[1] == ("tok_1     billing  deliver, view  active   2026-01-02 03:04:05Z  -")
    assert [line["state"] for line in told.lines()] == ["active", "expired", "revoked"]
    assert told.lines()[1]["expires_at"] == "2026-01-02T03:04:06.000Z"


def test_revoking_what_is_not_there_exits_3(server: FakeApp, terminal: Terminal) -> None:
    server.kept = {b"1": a_token()}

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
