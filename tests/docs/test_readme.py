"""The README works as printed: every command of it is run, in order, in one shell."""

import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from redrive.domain.item import TRANSITIONS, Status
from tests.docs.service import bare_environ, free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SECONDS = 60
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ARROW = re.compile(r"(\w+) --> (\w+)")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the README's shell printed, to its end."""
    directory = tmp_path_factory.mktemp("readme")
    port, receiver = str(free_port()), str(free_port())
    script = "\n".join(_blocks("sh")).replace("8080", port).replace("9000", receiver)
    with (directory / "printed").open("w+") as output:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", f"{script}\nwait $SERVICE"],
            cwd=directory,
            env=bare_environ() | {"REDRIVE_PORT": port},  # 8080 may be taken where tests run
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = shell.wait(SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # finds something only when something went wrong
        output.seek(0)
        found = output.read()
    assert code == 0, found
    return found


def test_the_delivery_ends_in_the_recovery_queue(printed: str) -> None:
    assert re.search(r"^status +dlq$", printed, re.MULTILINE)
    assert "ECONNREFUSED" in printed


def test_the_replay_reaches_the_receiver_with_the_payload_as_it_was(printed: str) -> None:
    recovery_id = _recovery_id(printed)

    assert re.search(r"^is +replayed$", printed, re.MULTILINE)
    assert f"""received {recovery_id} b'{{"id": 7}}'""" in printed


def test_the_audit_trail_shows_what_the_replay_caused(printed: str) -> None:
    [table] = re.findall(r"WHEN +EVENT.*", printed, re.DOTALL)

    assert re.findall(r"recovery\.(\w+)", table) == ["reprocess_succeeded", "replayed"]
    assert table.count(_recovery_id(printed)) == table.count("first-replay") == 2


def test_waiting_ends_when_the_service_could_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            ["sh", "-c", _blocks("sh")[0].replace("8080", port)],
            cwd=tmp_path, env=bare_environ() | {"REDRIVE_PORT": port},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    assert f"cannot listen on 127.0.0.1:{port}" in ended.stdout


def test_every_other_block_is_one_that_cannot_lie_unseen() -> None:
    kinds = {language for language, _ in _BLOCK.findall(README)}

    assert kinds == {"console", "mermaid", "sh"}


def test_the_two_commands_are_commands_of_dev() -> None:
    known = subprocess.run([ROOT / "dev", "--help"], capture_output=True, text=True, check=True).stdout

    named = re.findall(r"^\$ \./dev (\w+)", "".join(_blocks("console")), re.MULTILINE)

    assert named == ["demo", "test"]
    for name in named:
        assert re.search(rf"^  {name} ", known, re.MULTILINE)


def test_the_picture_shows_steps_that_exist() -> None:
    [picture] = _blocks("mermaid")
    steps = [(Status(before), Status(after)) for before, after in _ARROW.findall(picture)]

    assert {status for step in steps for status in step} == set(Status)
    for before, after in steps:
        assert after in TRANSITIONS[before]


def _blocks(language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(README) if found == language]


def _recovery_id(printed: str) -> str:
    found = re.search(r'"recovery_id":"(rec_\w+)"', printed)
    assert found is not None, printed
    return found[1]
