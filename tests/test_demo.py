"""The demo tells the truth, starts on its own, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redrive.client import Client, ServiceUnreachable

PATIENCE = 60.0  # a deadline for a story of some ten seconds; reached only by a broken test
STORY = (
    r"storefront +succeeded .* rec_\w+ +arrived at the first attempt",
    r"attempt 1 .*HTTP_503\n.*attempt 2 .*HTTP_200\n.*warehouse +succeeded",
    r"crm +failed .*404",
    r"attempt 3 .*HTTP_503\n.*payments +dlq",
    r"payments +replayed .*“payments answers again, confirmed by its on-call”",
    r"payments +succeeded .*in its second cycle",
    r"recovery\.replayed +dlq > replayed +by demo",
    r"recovery\.reprocess_succeeded +replayed > succeeded +by redrive",
)


def test_the_demo_shows_every_part_of_the_story(tmp_path: Path) -> None:
    with demo(tmp_path, "--once") as process:
        printed, said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, said
    seen = 0
    for part in STORY:
        found = re.compile(part).search(printed, seen)
        assert found is not None, f"{part!r} is missing after:\n{printed[:seen]}\nin:\n{printed[seen:]}"
        seen = found.end()
    assert said == ""


def test_what_the_demo_tells_is_what_its_service_says(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        printed = _until(process, "attempts so far")
        url, token = _printed(printed, r"REDRIVE_URL=(\S+)"), _printed(printed, r"REDRIVE_TOKEN=(\S+)")
        request_id = _printed(printed, r"its request id (\S+):")
        recovery_id = _printed(printed, r"payments +replayed +\S+ +(rec_\w+)")
        waiting = _printed(printed, r"queue replay payments (rec_\w+)")

        with Client(url, token) as client:
            item = client.item("payments", recovery_id)["recovery"]
            events = client.audit_events(request_id=request_id)["events"]
            dead = client.queue("payments", status="dlq")["queue"]

        assert (item["status"], item["cycle"], item["request_id"]) == ("succeeded", 2, request_id)
        assert [event["event_type"].rpartition(".")[2] for event in events] == [
            "reprocess_succeeded",
            "replayed",
        ]
        assert waiting in {each["recovery_id"] for each in dead}
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as process:
        url = _printed(_until(process, "service "), r"(http://[0-9.:]+)")

        process.send_signal(number)
        printed, said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, said
    assert "stopped" in printed
    with Client(url) as client, pytest.raises(ServiceUnreachable):
        client.health()
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_kept_where_the_person_wants_them(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    told = []

    for _ in range(2):  # the second time the integrations are there already, and items
        with demo(tmp_path, "--once", "--data-dir", str(kept)) as process:
            printed, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert f"what there was is kept in {kept}" in printed
        told.append(set(re.findall(r"rec_\w+", printed)))

    assert (kept / "redrive.db").exists()
    first, second = told
    assert first
    assert second
    assert not first & second, "each tells of its own"
    logs = [log.read_text("utf-8") for log in kept.glob("serve-*.log")]
    assert [log.count('"event":"started"') for log in logs] == [1, 1]


def test_a_second_demo_in_the_same_place_does_not_play_on_the_first_ones_service(tmp_path: Path) -> None:
    with demo(tmp_path, "--data-dir", "kept") as first:
        _until(first, "REDRIVE_TOKEN")
        with demo(tmp_path, "--once", "--data-dir", "kept") as second:
            printed, said = second.communicate(timeout=PATIENCE)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=PATIENCE)

    assert (second.returncode, printed) == (8, "")
    assert f"{tmp_path}/kept/redrive.db is in use by redrive serve, pid " in said
    assert "\n   next: choose another --data-dir, or leave it out\n" in said


def test_a_database_that_somebody_works_with_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "redrive.db"
    run = [sys.executable, "-m", "redrive", "migrate", "--database", f"sqlite:///{database}"]
    subprocess.run(run, check=True, capture_output=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    with demo(tmp_path, "--once", "--data-dir", str(tmp_path)) as process:
        _, said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 8
    told = f"redrive demo: {tmp_path} holds a database that no demo made\n   next: choose another"
    assert said.startswith(told)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()

    with demo(tmp_path, "--once", "--data-dir", str(blocked)) as process:
        _, said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 8
    assert said.startswith(f"redrive demo: cannot use {blocked}")
    assert "\n   next: check --data-dir" in said


@contextmanager
def demo(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REDRIVE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "redrive", "demo", *words],
        cwd=directory,
        env=environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def _until(process: subprocess.Popen[str], text: str) -> str:
    """What it prints, up to the line with *text*."""
    assert process.stdout is not None
    impatient = threading.Timer(PATIENCE, process.terminate)
    impatient.start()
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if text in line:
                return printed
    finally:
        impatient.cancel()
    raise AssertionError(f"{text!r} is missing in:\n{printed}")


def _printed(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern!r} is missing in:\n{text}"
    return found[1]
