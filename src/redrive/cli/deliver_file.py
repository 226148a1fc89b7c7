"""A file of deliveries, sent in batches: every line is accounted for, whatever the service says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from redrive.cli.bar import Bar
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.lines import Line, Rejection, opened, read_lines
from redrive.cli.output import Output
from redrive.cli.patience import patiently
from redrive.cli.service import Ids, Service, calling
from redrive.cli.tally import Tally
from redrive.client import Client, ProblemError

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
_POINTER: Final = "/deliveries/"


def deliver_file(
    integration_id: str,
    name: str,
    *,
    batch: int,
    key_prefix: str | None,
    ids: Ids,
    service: Service,
    output: Output,
) -> ExitCode:
    """Send the lines of the file *name*, at most *batch* in a call; the exit code."""
    tally = Tally(output)
    done = 0
    try:
        with opened(name) as file, calling(service) as client, Bar(output, _size(name)) as bar:
            for lines in _batches(read_lines(file, key_prefix), batch):
                sendable = [line for line in lines if not isinstance(line, Rejection)]
                for line in lines:
                    if isinstance(line, Rejection):
                        tally.reject(line)
                _send(client, integration_id, sendable, ids, tally)
                done += sum(line.size for line in sendable)
                bar.show(tally.so_far(), done)
    except Stop as stop:
        raise tally.cut_short(stop, key_prefix) from stop
    except KeyboardInterrupt:
        raise tally.interrupted(key_prefix) from None
    return tally.tell()


def _size(name: str) -> int | None:
    return None if name == "-" else Path(name).stat().st_size or None


def _batches(lines: Iterator[Line | Rejection], most: int) -> Iterator[list[Line | Rejection]]:
    gathered: list[Line | Rejection] = []
    size = 0
    for line in lines:
        weight = line.size if isinstance(line, Line) else 0
        if gathered and (len(gathered) == most or size + weight > MAX_BATCH_BYTES):
            yield gathered
            gathered, size = [], 0
        gathered.append(line)
        size += weight
    if gathered:
        yield gathered


def _send(client: Client, integration_id: str, lines: Sequence[Line], ids: Ids, tally: Tally) -> None:
    """Send *lines*; those that make the service refuse the whole call are rejected and the others sent."""
    if not lines:
        return
    try:
        deliveries = [line.for_batch() for line in lines]
        answer = patiently(lambda: client.deliver_batch(integration_id, deliveries, **ids))
    except ProblemError as problem:
        faults = _faults(problem.errors)
        if problem.status not in (400, 413) or (problem.errors and not faults):
            raise
        if not faults and len(lines) > 1:
            half = len(lines) // 2
            _send(client, integration_id, lines[:half], ids, tally)
            _send(client, integration_id, lines[half:], ids, tally)
            return
        faults = faults or {0: problem.detail}
        for at, line in enumerate(lines):
            if at in faults:
                tally.reject(Rejection(line.number, problem.error_code, faults[at]))
        remaining = [line for at, line in enumerate(lines) if at not in faults]
        if len(remaining) == len(lines):
            raise  # the faults are of lines we did not send
        _send(client, integration_id, remaining, ids, tally)
        return
    for line, result in zip(lines, answer["deliveries"], strict=True):
        _count(tally, line.number, result)


def _count(tally: Tally, number: int, result: dict[str, Any]) -> None:
    if "recovery_id" in result:
        is_duplicate = result.get("duplicate") is True
        tally.accept(number, result["recovery_id"], result["status"], is_duplicate=is_duplicate)
    else:
        told = _faults(result.get("errors") or ()).values()
        detail = "; ".join(told) or str(result.get("detail"))
        tally.reject(Rejection(number, result.get("error_code"), detail))


def _faults(faults: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """What is wrong with each delivery of a batch, by its place in it."""
    found: dict[int, str] = {}
    for fault in faults:
        place, _, member = str(fault.get("pointer")).removeprefix(_POINTER).partition("/")
        if str(fault.get("pointer")).startswith(_POINTER) and place.isascii() and place.isdigit():
            told = f"/{member}: {fault.get('detail')}" if member else str(fault.get("detail"))
            found[int(place)] = f"{found[int(place)]}; {told}" if int(place) in found else told
    return found
