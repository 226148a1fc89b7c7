"""`redrive deliver`: one delivery, or a file of them in batches."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, print_answer
from redrive.cli.patience import patiently
from redrive.cli.service import HERE, UNCORRELATED, Correlation, Ids, IntegrationId, Service, calling
from redrive.cli.tables import print_facts
from redrive.cli.values import content, headers

if TYPE_CHECKING:
    from redrive.cli.lines import Line, Rejection
    from redrive.cli.tally import Tally
    from redrive.client import Client

MAX_BATCH = 1000
MAX_BATCH_BYTES = 4 * 1024 * 1024
_POINTER = "/deliveries/"


def deliver(
    integration_id: IntegrationId,
    /,
    *,
    file: Annotated[
        str | None,
        Parameter(
            help='JSON lines, a {"event_type": …, "payload": …} each; - is standard input.',
            allow_leading_hyphen=True,
        ),
    ] = None,
    batch: Annotated[int, Parameter(help="With --file: how many go in one call, 1-1000.")] = 100,
    key_prefix: Annotated[
        str | None,
        Parameter(
            help="With --file: line n gets the idempotency key PREFIX-n, so that a second run is harmless."
        ),
    ] = None,
    event_type: Annotated[str | None, Parameter(help="One delivery: what it is about.")] = None,
    payload: Annotated[
        str | None, Parameter(help="One delivery: its JSON, @file or @-, sent byte for byte.")
    ] = None,
    content_type: Annotated[str | None, Parameter(help="One delivery: when the payload is not JSON.")] = None,
    header: Annotated[
        list[str] | None,
        Parameter(help="One delivery: a 'Name: value' line to send along; repeatable.", negative=()),
    ] = None,
    idempotency_key: Annotated[
        str | None, Parameter(help="One delivery: the same key delivers once.")
    ] = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    if file is not None:
        if any(one is not None for one in (event_type, payload, content_type, header, idempotency_key)):
            raise Stop(ExitCode.USAGE, "--file brings its own event types, payloads, headers and keys", _HOW)
        if not 1 <= batch <= MAX_BATCH:
            raise Stop(
                ExitCode.USAGE, f"--batch must be from 1 to {MAX_BATCH}", "leave it out: 100 does well"
            )
        return _deliver_file(
            integration_id,
            file,
            batch=batch,
            key_prefix=key_prefix,
            ids=correlation.ids(),
            service=service,
            output=output,
        )
    if event_type is None or payload is None:
        raise Stop(ExitCode.USAGE, "nothing to deliver was given", _HOW)
    body = content(payload)
    form = (
        {"payload_json": body}
        if content_type is None
        else {"payload_base64": body, "content_type": content_type}
    )
    if content_type is None:
        _check_json(body)
    with calling(service) as client:
        answer = client.deliver(
            integration_id,
            event_type=event_type,
            headers=headers(header),
            idempotency_key=idempotency_key,
            **form,
            **correlation.ids(),
        )
    if output == "table":
        print_facts({name: answer.get(name) for name in ("recovery_id", "status", "request_id")})
    else:
        print_answer(answer, output)
    return ExitCode.OK


_HOW = "give --file FILE, or --event-type TYPE with --payload JSON"


def _check_json(body: bytes) -> None:
    try:  # it is going to stand inside the request's own JSON, so it must end where it seems to
        json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        advice = "correct it, or give --content-type when it is not meant to be JSON"
        raise Stop(ExitCode.USAGE, f"--payload is not JSON: {error}", advice) from error


def _deliver_file(
    integration_id: str,
    name: str,
    *,
    batch: int,
    key_prefix: str | None,
    ids: Ids,
    service: Service,
    output: Output,
) -> ExitCode:
    from redrive.cli.lines import Rejection, opened, read_lines
    from redrive.cli.tally import Bar, Tally

    tally = Tally(output)
    with opened(name) as file, Bar(None if name == "-" else Path(name).stat().st_size or None) as bar:
        done = 0
        try:
            with calling(service) as client:
                for lines in _batches(read_lines(file, key_prefix), batch):
                    sendable = [line for line in lines if not isinstance(line, Rejection)]
                    for line in lines:
                        if isinstance(line, Rejection):
                            tally.reject(line)
                    _send(client, integration_id, sendable, ids, tally)
                    done += sum(line.size for line in sendable)
                    bar.show(tally, done)
        except Stop as stop:
            raise _halfway(stop, tally, key_prefix) from stop
    return tally.tell()


def _batches(lines: "Iterator[Line | Rejection]", most: int) -> "Iterator[list[Line | Rejection]]":
    from redrive.cli.lines import Line

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


def _send(client: "Client", integration_id: str, lines: "Sequence[Line]", ids: Ids, tally: "Tally") -> None:
    """Send *lines*; those that make the service refuse the whole call are rejected and the others sent."""
    from redrive.cli.lines import Rejection
    from redrive.client import ProblemError

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


def _count(tally: "Tally", number: int, result: dict[str, Any]) -> None:
    from redrive.cli.lines import Rejection

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


def _halfway(stop: Stop, tally: "Tally", key_prefix: str | None) -> Stop:
    """The same end, after saying what was done before it."""
    taken = tally.accepted + tally.duplicates
    if not taken and not tally.rejected:
        return stop
    tally.tell()
    again = "run the same command again: lines that were taken count as duplicates"
    if key_prefix is None:
        again = (
            f"{taken} lines were taken: deliver only the others (with --key-prefix all could be run again)"
        )
    return Stop(stop.code, stop.wrong, again)
