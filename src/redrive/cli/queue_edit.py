"""`redrive queue edit`: correct and replay."""

from typing import Annotated

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.inert import inert
from redrive.cli.output import Output, print_answer
from redrive.cli.queue import RecoveryId, is_outcome_unknown
from redrive.cli.service import (
    HERE,
    UNCORRELATED,
    Correlation,
    IntegrationId,
    MadeKey,
    Reason,
    Service,
    calling,
)
from redrive.cli.tables import print_facts
from redrive.cli.values import content, headers


def edit(
    integration_id: IntegrationId,
    recovery_id: RecoveryId,
    /,
    *,
    reason: Reason,
    payload: Annotated[
        str | None, Parameter(help="Its JSON, @file or @-, sent byte for byte; else what was sent before.")
    ] = None,
    content_type: Annotated[str | None, Parameter(help="When that payload is not JSON.")] = None,
    header: Annotated[
        list[str] | None,
        Parameter(help="A 'Name: value' line in the place of all that are there; repeatable.", negative=()),
    ] = None,
    no_headers: Annotated[
        bool, Parameter(help="Send none of the headers that are there.", negative=())
    ] = False,
    incident: Annotated[str | None, Parameter(help="What it belongs to, such as INC-442.")] = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Send a corrected copy of a failed or dlq item, as an item of its own with its own webhook-id.

    What is not given stays. The item itself is superseded when the copy succeeds, and can be corrected again
    when it fails. What was changed stands in the audit trail.
    """
    from redrive.clock import random_bytes

    if no_headers and header:
        raise Stop(ExitCode.USAGE, "--no-headers and --header exclude each other", "give one of them")
    key = idempotency_key or f"cli-{random_bytes(16).hex()}"
    body = None if payload is None else content(payload)
    try:
        with calling(service) as client:
            answer = client.edit(
                integration_id,
                recovery_id,
                reason,
                incident=incident,
                payload_json=body if content_type is None else None,
                payload_base64=body if content_type is not None else None,
                content_type=content_type,
                headers={} if no_headers else headers(header),
                idempotency_key=key,
                **correlation.ids(),
            )
    except Stop as stop:
        if not is_outcome_unknown(stop):
            raise
        advice = f"run it again with --idempotency-key {key}: however often, it sends one copy"
        raise Stop(stop.code, stop.wrong, advice) from stop
    if output != "table":
        print_answer(answer, output)
        return ExitCode.OK
    copy = answer["recovery"]
    print_facts(
        {
            "recovery_id": copy["recovery_id"],
            "edit of": copy["edit_of"],
            "status": copy["status"],
            "reason": answer["reason"],
            "request_id": answer["request_id"],
        }
    )
    for change in answer["changes"]:
        print(f"  {change['op']:7} {inert(change['path'])}")
    if omitted := answer.get("changes_omitted"):
        print(f"  … and {omitted} more")
    return ExitCode.OK
