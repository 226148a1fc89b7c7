import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redrive.audit.bundle import NoBundle, Reader, Writer
from redrive.audit.chain import Finding, Wrong
from redrive.audit.record import EventType, chained
from redrive.domain.ids import recovery_id
from tests.audit.chains import stored
from tests.factories import an_event, an_id


def an_item_of(attempts: int, writer: Writer) -> list[bytes]:
    """The lines of an item that failed so often."""
    name = recovery_id(an_id())
    events = [
        an_event(
            EventType.REPROCESS_FAILED,
            target_type="recovery_item",
            target_id=name,
            after_state=_state(n),
            metadata={"cycle": 1, "attempt": n, "failure_detail": 'it said "no"'},
        )
        for n in range(1, attempts + 1)
    ]
    lines = [writer.line("item", recovery_id=name, item=_state(attempts) | {"resolved": None})]
    for n, event in enumerate(chained(*events, after=None), 1):
        attempt = {"cycle": 1, "attempt": n, "outcome": "failed", "body": msgspec.Raw(b'{\n"a": 1}')}
        lines.append(writer.line("attempt", recovery_id=name, attempt=attempt))
        lines.append(writer.record(stored(event)))
    return lines


def a_bundle(*items: int) -> list[bytes]:
    """Of items with so many attempts each."""
    writer = Writer()
    lines = [writer.head(made_at="2026-01-02T03:04:05.000Z")]
    for attempts in items:
        lines += an_item_of(attempts, writer)
    lines.append(writer.record(stored(an_event())))
    return [*lines, writer.manifest()]


def verified(lines: list[bytes]) -> list[Finding]:
    reader = Reader()
    found = [finding for line in lines for finding in reader.take(line)]
    return found + list(reader.end())


@given(st.lists(st.integers(1, 4), max_size=4))
def test_a_file_that_nobody_touched_is_whole(items: list[int]) -> None:
    lines = a_bundle(*items)

    assert verified(lines) == []
    assert all(line.count(b"\n") == 1 and json.loads(line) for line in lines)


def test_the_same_is_written_in_the_same_bytes() -> None:
    event = an_event()

    def written() -> bytes:
        writer = Writer()
        return writer.head(a=1) + writer.record(stored(event)) + writer.manifest()

    assert written() == written()


some_lines = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda items: a_bundle(*items))


@given(some_lines, st.data())
def test_a_line_that_was_altered_is_named(lines: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(lines) - 1))

    lines[at] = lines[at].replace(b'"kind":', b'"kind": ', 1)

    expected = f"line {at + 1}"
    assert (Wrong.ALTERED, expected) in [(found.kind, found.target_id) for found in verified(lines)]


@given(some_lines, st.data())
def test_a_line_that_is_missing_is_named(lines: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(lines) - 1))
    is_last = at == len(lines) - 1

    del lines[at]

    found = [(found.kind, found.target_id) for found in verified(lines)]
    assert (Wrong.MISSING, f"line {at + 1}") in found
    assert is_last or (Wrong.ALTERED, f"line {len(lines) + 1}") in found  # by the manifest


@given(some_lines, st.data())
def test_lines_that_changed_places_are_named(lines: list[bytes], data: st.DataObject) -> None:
    one, other = sorted(data.draw(st.permutations(range(1, len(lines) - 1)))[:2])

    lines[one], lines[other] = lines[other], lines[one]

    found = [(found.kind, found.target_id) for found in verified(lines)]
    assert (Wrong.REORDERED, f"line {one + 1}") in found


@given(some_lines, st.data())
def test_a_line_that_was_added_is_named(lines: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(lines) - 2))

    lines.insert(at, lines[at])

    assert (Wrong.FORKED, f"line {at + 1}") in [(found.kind, found.target_id) for found in verified(lines)]


def test_what_stands_behind_the_manifest_was_added() -> None:
    lines = a_bundle(1)

    found = verified([*lines, lines[1]])

    assert Wrong.FORKED in [each.kind for each in found]


@pytest.mark.parametrize("what", ["attempt", "event"])
def test_a_file_that_was_made_anew_around_what_was_taken_out_of_it_shows_it(what: str) -> None:
    lines = [msgspec.json.decode(line) for line in a_bundle(3)]
    place = [at for at, line in enumerate(lines) if line["kind"] == what][2]

    found = verified(made_anew([line for at, line in enumerate(lines) if at != place]))

    assert {each.kind for each in found} == {Wrong.MISSING}
    assert any("attempt 3" in each.detail for each in found)


def test_a_file_that_was_made_anew_around_another_record_shows_it() -> None:
    lines = [msgspec.json.decode(line) for line in a_bundle(3)]
    events = [line for line in lines if line["kind"] == "event"]
    altered = json.loads(events[1]["record"]) | {"actor": {"id": "nobody", "type": "token"}}
    events[1]["record"] = json.dumps(altered)
    events[1]["digest"] = hashlib.sha256(events[1]["record"].encode()).hexdigest()

    [found] = verified(made_anew(lines))

    assert events[1]["event_id"] in found.detail


def made_anew(lines: list[dict[str, Any]]) -> list[bytes]:
    """With numbers and digests that fit."""
    writer = Writer()
    made = []
    for line in lines[:-1]:
        fields = {name: value for name, value in line.items() if name not in ("line", "kind", "sha256")}
        made.append(writer.line(line["kind"], **fields))
    return [*made, writer.manifest()]


@pytest.mark.parametrize("first", [b"", b"PK\x03\x04", b"{}\n", b'{"line":1,"kind":"item"}\n'])
def test_another_file_is_none(first: bytes) -> None:
    with pytest.raises(NoBundle, match="no evidence file"):
        list(Reader().take(first))


def test_a_file_of_another_version_says_so() -> None:
    line = Writer().line("evidence", format="redrive-evidence/2")

    with pytest.raises(NoBundle, match="redrive-evidence/2"):
        list(Reader().take(line))


def test_what_cannot_be_read_in_a_record_is_a_finding() -> None:
    record = replace(stored(an_event()), record=b'{"a":\xff}')
    writer = Writer()

    found = verified([writer.head(), writer.record(record), writer.manifest()])

    assert {each.kind for each in found} == {Wrong.ALTERED}


def test_every_digest_can_be_computed_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "evidence.jsonl"
    file.write_bytes(b"".join(lines := a_bundle(2)))
    manifest = msgspec.json.decode(lines[-1])

    whole = shell(tmp_path, "sed '$d' evidence.jsonl | sha256sum")
    part = shell(tmp_path, """grep -E '^\\{"line":[0-9]+,"kind":"event",' evidence.jsonl | sha256sum""")
    line = shell(
        tmp_path,
        """sed -n 4p evidence.jsonl | sed -E 's/,"sha256":"[0-9a-f]{64}"\\}$/}/' | tr -d '\\n' | sha256sum""",
    )

    assert whole == manifest["digest"]
    assert part == manifest["parts"]["event"]["digest"]
    assert line == msgspec.json.decode(lines[3])["sha256"]


def shell(directory: Path, command: str) -> str:
    done = subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, check=True, timeout=30)
    digest = re.match("[0-9a-f]{64}", done.stdout.decode())
    assert digest is not None
    return digest[0]


def _state(attempt: int) -> dict[str, Any]:
    return {"status": "failed", "cycle": 1, "attempt_count": attempt}
