"""What every command has in common: help, exit codes, and quiet ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from cyclopts import App

from redrive.cli import app
from redrive.demo.story import told_attempts
from tests.cli.terminal import Terminal
from tests.client.peer import Canned, Peer, closed_port


def commands(under: App = app, *words: str) -> list[tuple[str, ...]]:
    """Every command there is, as the words that run it."""
    names = [name for name in under if not name.startswith("-")]
    return list(
        chain.from_iterable(commands(under[name], *words, name) or [(*words, name)] for name in names)
    )


def test_these_are_the_commands() -> None:
    assert {" ".join(words) for words in commands()} == {
        "serve", "demo", "migrate", "doctor", "backup", "restore", "copy", "deliver", "audit list",
        "token create", "token list", "token revoke",
        "integration add", "integration list", "integration show", "integration update",
        "integration contain", "integration containment", "integration release",
        "integration probe", "integration health",
        "integration rotate-secret", "key new", "key list", "key rotate",
        "group list", "group show", "group acknowledge", "group resolve", "group reopen", "group mute",
        "group comment", "queue list", "queue show", "queue replay", "queue import", "queue erase",
        "queue edit", "queue resolve", "replay plan", "replay run", "replay list", "replay show",
        "replay items", "replay watch", "replay pause", "replay resume", "replay cancel", "replay rate",
        "audit export", "audit verify",
    }  # fmt: skip


@pytest.mark.parametrize("columns", ["1", "0", "-1", "many", "²"])
def test_help_ends_whatever_the_terminal_says_of_its_width(columns: str) -> None:
    narrow = {**os.environ, "COLUMNS": columns}

    done = subprocess.run(
        [sys.executable, "-m", "redrive", "deliver", "--help"],
        env=narrow, capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.split()[:2]) == (0, [b"Usage:", b"redrive"])


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_help_of_a_command_says_what_it_does_and_gives_an_example(
    terminal: Terminal, words: tuple[str, ...]
) -> None:
    ended = terminal.run(*words, "--help")

    usage, _, sentence, *_ = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert usage.startswith(f"Usage: redrive {' '.join(words)}")
    assert sentence.strip()
    assert f"Example: redrive {' '.join(words)}" in ended.out


@pytest.mark.parametrize("words", [(), ("--help",), ("queue",), ("queue", "--help"), ("--version",)])
def test_asking_what_there_is_is_no_mistake(terminal: Terminal, words: tuple[str, ...]) -> None:
    ended = terminal.run(*words)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out


@pytest.mark.parametrize(
    "words",
    [
        ["nope"],
        ["queue", "nope"],
        ["queue", "list"],
        ["queue", "list", "b", "--nope"],
        ["queue", "list", "b", "--status", "sent"],
        ["queue", "list", "b", "--limit", "many"],
        ["queue", "replay", "b", "rec_1"],
        ["integration", "update", "b"],
        ["integration", "add", "b", "https://x.example", "--header", "no colon"],
        ["deliver", "b"],
        ["deliver", "b", "--event-type", "t"],
        ["deliver", "b", "--event-type", "t", "--payload", "{"],
        ["deliver", "b", "--file", "x", "--payload", "{}"],
        ["deliver", "b", "--file", "x", "--batch", "0"],
        ["deliver", "b", "--file", "/no/such/file"],
        ["queue", "import", "b", "--file", "/no/such/file"],
        ["token", "create", "--subject", "s", "--permission", "root"],
        ["token", "create", "--subject", " s", "--permission", "view"],
        ["token", "create", "--subject", "s", "--permission", "view", "--expires-in", "soon"],
        ["token", "create", "--subject", "s"],
        ["queue", "list", "b", "--url", "nonsense"],
        ["queue", "list", ""],
        ["serve", "--port", "eighty"],
        ["serve", "--role", "boss"],
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_words_exits_2_and_says_what_to_do(terminal: Terminal, words: list[str]) -> None:
    ended = terminal.run(*words)

    assert (ended.code, ended.out) == (2, "")
    wrong, advice = ended.err.splitlines()
    assert wrong.startswith("redrive: ")
    assert advice.startswith("   next: ")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 2),
        (401, 4),
        (403, 4),
        (404, 3),
        (405, 2),
        (409, 5),
        (413, 2),
        (422, 5),
        (429, 8),
        (500, 8),
        (503, 8),
    ],
)
def test_each_refusal_of_the_service_has_its_exit_code(
    peer: Peer, terminal: Terminal, status: int, code: int
) -> None:
    peer.problem(status, "CODE", "it cannot be")

    ended = terminal.run("queue", "list", "b")

    assert (ended.code, ended.out) == (code, "")
    wrong, advice = ended.err.splitlines()
    assert wrong == "redrive: it cannot be (CODE, request id req-of-the-peer)"
    assert advice.startswith("   next: ")


def test_a_refusal_names_every_place_that_is_wrong(peer: Peer, terminal: Terminal) -> None:
    errors = [{"pointer": "/url", "detail": "no URL"}, {"pointer": "/jitter", "detail": "too much"}]
    peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=errors)

    ended = terminal.run("integration", "add", "b", "nonsense")

    assert "TARGET_URL: no URL; --jitter: too much (INT-400-INVALID-PAYLOAD" in ended.err


@pytest.mark.parametrize(
    ("words", "pointer", "told"),
    [
        ("integration release b --reason r --rate 0", "/rate_per_second", "--rate"),
        ("integration update b --rate-per-second 0", "/rate_per_second", "--rate-per-second"),
        ("integration contain b --reason r --for 1s", "/for_seconds", "--for"),
        ("replay plan b --since yesterday", "/filter/since", "--since"),
        ("replay plan b rec_1", "/filter/recovery_ids/0", "/filter/recovery_ids/0"),
        ("queue list b --limit 999", "limit", "--limit"),
        ("queue list B", "integration_id", "INTEGRATION_ID"),
        ("deliver b --event-type t --payload x --content-type t", "/payload_base64", "--payload"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_typed(
    peer: Peer, terminal: Terminal, words: str, pointer: str, told: str
) -> None:
    path = "/platform/integrations/b/containment/release" if "release" in words else "/platform/x"
    peer.problem(400, "INT-400-INVALID-PAYLOAD", errors=[{"pointer": pointer, "detail": "no"}], instance=path)

    ended = terminal.run(*words.split())

    assert ended.code == 2
    assert ended.err.startswith(f"redrive: {told}: no (")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["queue", "replay", "b", "rec_1"], "--reason is missing: say why; it is kept in the audit trail"),
        (["queue", "list"], "INTEGRATION_ID is missing: which integration"),
        (["group", "comment", "b", "grp_1"], "--text is missing: what to write; nobody can change it afterw"),
    ],
)
def test_what_was_left_out_is_said_in_its_own_words(terminal: Terminal, words: list[str], told: str) -> None:
    ended = terminal.run(*words)

    assert ended.code == 2
    assert ended.err.startswith(f"redrive: {told}")


def test_a_name_that_was_mistyped_is_no_option_left_out(terminal: Terminal) -> None:
    ended = terminal.run("queue", "replay", "b", "rec_1", "--reasn", "x")

    assert "--reason instead of --reasn" in ended.err or "Did you mean --reason" in ended.err


def test_no_service_exits_8(terminal: Terminal) -> None:
    ended = terminal.run("queue", "list", "b", "--url", f"http://127.0.0.1:{closed_port()}")

    assert (ended.code, ended.out) == (8, "")
    assert "Connection refused" in ended.err
    assert "redrive serve" in ended.err


def test_an_error_cannot_reach_into_the_terminal(peer: Peer, terminal: Terminal) -> None:
    peer.problem(404, "X\x1b[2J", "gone\n\x1b]0;title\x07[bold red]\u202e\x9b1m")

    ended = terminal.run("queue", "list", "b")

    assert len(ended.err.splitlines()) == 2
    assert ended.err.replace("\n", "").isprintable()
    assert "[bold red]" in ended.err


def test_the_token_is_never_shown(peer: Peer, terminal: Terminal) -> None:
    peer.problem(401, "AUTH-401-UNAUTHENTICATED")

    ended = terminal.run("queue", "replay", "b", "rec_1", "--reason", "why", "--verbose")
    shown = terminal.run("queue", "list", "--help")

    assert "rdr_secret" not in ended.out + ended.err + shown.out


def test_an_interrupt_exits_130_quietly(peer: Peer) -> None:
    command = [sys.executable, "-m", "redrive", "deliver", "b", "--file", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        process.stdin.write(b'{"event_type":"t","payload":1}\n')
        process.stdin.flush()
        _wait_until_reading(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("words", [("deliver", "b", "--file", "-"), ("queue", "import", "b", "--file", "-")])
def test_an_interrupt_halfway_tells_what_was_done(peer: Peer, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "redrive", *words, "--key-prefix", "p"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        process.stdin.write(b"not json\n" * 101)  # a batch of 100 is sent when a further line comes
        process.stdin.flush()
        _wait_until_reading(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert re.search(rb"rejected    10[01]\n", out)
    assert re.search(rb"\n1-10[01]  not a JSON object", out)
    assert b"run the same command again" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written_is_told_in_two_lines() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "redrive", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert (ended.returncode, len(ended.stderr.splitlines())) == (8, 2)
    assert b"cannot write the output: No space left on device" in ended.stderr


def test_a_demo_whose_port_is_taken_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "redrive", "demo", "--once", "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 8
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in ended.stderr
    assert "\n   next: choose another --port, or leave it out: then a free one is taken\n" in ended.stderr


def test_the_status_line_of_the_demo_fits_a_terminal() -> None:
    counts = dict.fromkeys(("retrying", "dlq", "failed"), 9_999) | {"succeeded": 99_999}

    assert len(told_attempts(counts)) < 78


def test_a_reader_that_has_seen_enough_ends_it_quietly(peer: Peer) -> None:
    rows = [{"recovery_id": f"rec_{n}", "event_type": "x" * 200} for n in range(200)]
    for _ in range(5):
        peer.answer({"queue": rows, "next_cursor": "more"})
    peer.answer({"queue": rows, "next_cursor": None})

    command = [sys.executable, "-m", "redrive", "queue", "list", "b", "--all", "--output", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert (process.returncode, err) == (141, b"")


def test_json_stays_json_where_output_is_ascii(peer: Peer) -> None:
    peer.answers.append(Canned(200, '{"queue":[{"recovery_id":"é"}],"next_cursor":null}'.encode()))
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}

    command = [sys.executable, "-m", "redrive", "queue", "list", "b", "--output", "jsonl"]
    ended = subprocess.run(command, capture_output=True, env=environment, check=True)

    assert ended.stdout == b'{"recovery_id":"\\u00e9"}\n'


def test_running_a_command_imports_neither_rich_nor_the_server() -> None:
    code = (
        "import sys\nfrom redrive.cli import run\n"
        f"assert run(['queue', 'list', 'b', '--url', 'http://127.0.0.1:{closed_port()}']) == 8\n"
        "heavy = {'rich', 'aiohttp', 'asyncio', 'msgspec', 'starlette', 'uvicorn', 'apsw', 'structlog'}\n"
        "print(heavy & set(sys.modules))"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "set()\n"


def _wait_until_reading(pid: int) -> None:
    """Until the process sleeps in a read of its input (or five seconds: not every kernel tells)."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/wchan") as file:  # noqa: PTH123
            if "pipe_read" in file.read():
                return
        time.sleep(0.01)
