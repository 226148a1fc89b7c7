"""`redrive deliver`: one delivery, or a file of them in batches."""

import sys
from typing import Annotated

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_answer
from redrive.cli.service import HERE, UNCORRELATED, Correlation, IntegrationId, Service, calling
from redrive.cli.tables import print_facts
from redrive.cli.values import check_json, content, headers

MAX_BATCH = 1000


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
        from redrive.cli.deliver_file import deliver_file  # needs msgspec, which one delivery does not

        return deliver_file(
            integration_id,
            file,
            batch=batch,
            key_prefix=key_prefix,
            ids=correlation.ids(),
            service=service,
            output=output,
        )
    if event_type is None or payload is None:
        raise Stop(ExitCode.USAGE, _missing(event_type, payload), _HOW)
    body = content(payload)
    is_json = content_type is None
    if is_json:
        check_json(body)
    with calling(service) as client:
        answer = client.deliver(
            integration_id,
            event_type=event_type,
            headers=headers(header),
            idempotency_key=idempotency_key,
            payload_json=body if is_json else None,
            payload_base64=None if is_json else body,
            content_type=content_type,
            **correlation.ids(),
        )
    if output == "table":
        facts = {name: answer.get(name) for name in ("recovery_id", "status", "request_id")}
        print_facts({**facts, "duplicate": True if answer.is_repeated else None})
        if sys.stderr.isatty():
            note(f"   next: redrive queue show {integration_id} {answer.get('recovery_id')}")
    else:
        print_answer(answer, output)
    return ExitCode.OK


_HOW = "give --file FILE, or --event-type TYPE with --payload JSON"


def _missing(event_type: str | None, payload: str | None) -> str:
    if event_type is None and payload is None:
        return "nothing to deliver was given"
    return f"--{'event-type' if event_type is None else 'payload'} is missing"
