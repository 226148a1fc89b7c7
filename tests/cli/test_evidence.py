"""`redrive audit export` and `redrive audit verify`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from redrive.audit.bundle import Writer
from tests.audit.chains import a_chain, rewritten
from tests.cli.terminal import Terminal
from tests.client.peer import Canned, Peer
from tests.factories import EXHAUSTED, later
from tests.store.told import a_told_item
from tests.store.under_test import SqliteUnderTest, add_integration, sqlite_under_test


def a_file(*, broken: bool = False) -> bytes:
    """With one item that nobody knows any more, but for its records."""
    chain = a_chain(3)
    if broken:
        chain[1] = rewritten(chain[1], result="failure")
    writer = Writer()
    lines = [writer.head(of={"incident": "INC-7"})]
    lines.append(writer.line("item", recovery_id=chain[0].target_id, item=None))
    lines += [writer.record(record) for record in chain]
    return b"".join([*lines, writer.manifest()])


def answer(peer: Peer, body: bytes) -> None:
    peer.answers.append(Canned(200, body, {"Content-Type": "application/jsonl"}))


# export


def test_a_file_is_what_the_service_gave(peer: Peer, terminal: Terminal, tmp_path: Path) -> None:
    answer(peer, body := a_file())
    out = tmp_path / "evidence.jsonl"

    ended = terminal.run(
        "audit", "export", "--incident", "INC 7/é", "--out", str(out), "--since", "2026-01-01T00:00:00Z"
    )

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"wrote {out}\nintact: {out}: 1 item, 3 records\n"
    assert out.read_bytes() == body
    assert peer.last.path == ("/platform/audit/export?incident=INC+7%2F%C3%A9&since=2026-01-01T00%3A00%3A00Z")
    assert peer.last.headers["authorization"] == "Bearer rdr_secret"
    assert list(tmp_path.iterdir()) == [out]


def test_one_item_is_asked_for_by_its_id(peer: Peer, terminal: Terminal, tmp_path: Path) -> None:
    answer(peer, a_file())
    words = ("--integration", "billing", "--recovery-id", "rec_1", "--out", str(tmp_path / "e"))

    ended = terminal.run("audit", "export", *words, "--output", "json")

    assert ended.code == 0
    assert peer.last.path == "/platform/integrations/billing/recovery/queue/rec_1/evidence"
    assert ended.json()["records"] == 3
    assert ended.json()["findings"] == []


def test_what_is_wrong_with_what_came_is_said(peer: Peer, terminal: Terminal, tmp_path: Path) -> None:
    answer(peer, a_file(broken=True))

    ended = terminal.run("audit", "export", "--request-id", "r", "--out", str(tmp_path / "e"))

    assert ended.code == 6
    assert "altered" in ended.out
    assert (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("words", "told"), [(("--incident", "NOPE"), "incident NOPE"), (("--request-id", "r"), "request id r")]
)
def test_what_nothing_names_is_not_found_and_no_file_is_kept(
    peer: Peer, terminal: Terminal, tmp_path: Path, words: tuple[str, str], told: str
) -> None:
    writer = Writer()
    answer(peer, writer.head(of={}) + writer.manifest())

    ended = terminal.run("audit", "export", *words, "--out", str(tmp_path / "e"))

    assert ended.code == 3
    assert f"no record names the {told}\n" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [2, 200, 1_000])
def test_what_ends_in_the_middle_is_not_kept(
    peer: Peer, terminal: Terminal, tmp_path: Path, cut: int
) -> None:
    answer(peer, a_file()[:-cut])

    ended = terminal.run("audit", "export", "--request-id", "r", "--out", str(tmp_path / "e"))

    assert ended.code == 8
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told_and_leaves_nothing(peer: Peer, terminal: Terminal, tmp_path: Path) -> None:
    peer.problem(404, "INT-404-NOT-FOUND")

    ended = terminal.run("audit", "export", "--integration", "x", "--out", str(tmp_path / "e"))

    assert ended.code == 3
    assert "INT-404-NOT-FOUND" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_replaced_when_that_is_meant(
    peer: Peer, terminal: Terminal, tmp_path: Path
) -> None:
    (out := tmp_path / "e").write_bytes(b"precious")
    words = ("audit", "export", "--request-id", "r", "--out", str(out))

    refused = terminal.run(*words)
    assert (refused.code, out.read_bytes()) == (5, b"precious")
    answer(peer, body := a_file())
    assert terminal.run(*words, "--force").code == 0
    assert out.read_bytes() == body


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--incident", "a", "--request-id", "b"],
        ["--recovery-id", "rec_1"],
        ["--request-id", "a", "--recovery-id", "rec_1"],
        ["--integration", "a", "--recovery-id", "rec_1", "--since", "1h"],
    ],
)
def test_what_is_exported_is_named_once(
    peer: Peer, terminal: Terminal, tmp_path: Path, words: list[str]
) -> None:
    assert terminal.run("audit", "export", *words, "--out", str(tmp_path / "e")).code == 2
    assert peer.received == []


# verify


def test_a_file_is_verified_without_a_service_or_a_database(terminal: Terminal, tmp_path: Path) -> None:
    (file := tmp_path / "evidence.jsonl").write_bytes(a_file())

    ended = terminal.run("audit", "verify", str(file))

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"intact: {file}: 1 item, 3 records\n"


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_what_was_altered_is_named(terminal: Terminal, tmp_path: Path, output: str) -> None:
    (file := tmp_path / "evidence.jsonl").write_bytes(a_file(broken=True))

    ended = terminal.run("audit", "verify", str(file), "--output", output)

    assert ended.code == 6
    assert ended.err == f"NOT intact: {file}: 1 finding in 1 item, 3 records\n"
    match output:
        case "json":
            [finding] = ended.json()["findings"]
            assert finding["finding"] == "altered"
        case "jsonl":
            assert [line["finding"] for line in ended.lines()] == ["altered"]
        case _:
            assert [line.split()[0] for line in ended.out.splitlines()] == ["FOUND", "altered"]


def test_a_line_that_is_missing_is_named(terminal: Terminal, tmp_path: Path) -> None:
    lines = a_file().splitlines(keepends=True)
    (file := tmp_path / "evidence.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))

    ended = terminal.run("audit", "verify", str(file), "--output", "json")

    assert ended.code == 6
    assert "line 4" in [one["target_id"] for one in ended.json()["findings"]]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04\n", b"{}\n"])
def test_another_file_is_no_evidence(terminal: Terminal, tmp_path: Path, content: bytes) -> None:
    (file := tmp_path / "e").write_bytes(content)

    assert terminal.run("audit", "verify", str(file)).code == 2


def test_a_file_that_is_not_there_says_so(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.run("audit", "verify", str(tmp_path / "e")).code in (2, 3)


def test_either_a_file_or_a_database_is_verified(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.run("audit", "verify").code == 2
    assert terminal.run("audit", "verify", "e", "--live").code == 2
    assert terminal.run("audit", "verify", "e", "--database", "sqlite:///x").code == 2


@pytest.fixture
def database(tmp_path: Path) -> Path:
    async def fill(store: SqliteUnderTest) -> None:
        owner = await store.enter()
        number = await add_integration(store)
        for _ in range(2):
            await a_told_item(store, owner, number, later(0), EXHAUSTED)

    on_store(tmp_path, fill)
    return tmp_path / "redrive.db"


def on_store(directory: Path, work: Any) -> Any:
    async def run() -> Any:
        async with sqlite_under_test(directory) as store:
            return await work(store)

    return asyncio.run(run())


def test_a_database_is_verified_where_it_is(terminal: Terminal, database: Path) -> None:
    ended = terminal.run("audit", "verify", "--live", "--database", f"sqlite:///{database}")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"intact: {database}: 2 items, 9 records\n"


def test_what_was_done_to_a_database_by_hand_is_named(terminal: Terminal, database: Path) -> None:
    async def meddle(store: SqliteUnderTest) -> str:
        [item, _] = await store.chains.whereabouts(1, above=-1, limit=9)
        record = (await store.chains.of([item.where.target_id]))[1]
        await store.meddle("DELETE FROM audit WHERE id = ?", record.id)
        return item.where.target_id

    name = on_store(database.parent, meddle)

    ended = terminal.run(
        "audit", "verify", "--live", "--database", f"sqlite:///{database}", "--output", "json"
    )

    assert ended.code == 6
    [finding] = ended.json()["findings"]
    assert (finding["finding"], finding["target_id"]) == ("missing", name)


def test_no_database_is_not_made(terminal: Terminal, tmp_path: Path) -> None:
    ended = terminal.run("audit", "verify", "--live", "--database", f"sqlite:///{tmp_path}/nothing.db")

    assert ended.code == 3
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object(terminal: Terminal, tmp_path: Path) -> None:
    (file := tmp_path / "evidence.jsonl").write_bytes(a_file())

    ended = terminal.run("audit", "verify", str(file), "--output", "json")

    assert json.loads(ended.out)["verified"] == str(file)
