"""`redrive queue edit`: correct and replay."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.inert import inert
from redrive.cli.output import Output, print_answer
from redrive.cli.queue import RecoveryId
from redrive.cli.service import (
    HERE,
    UNCORRELATED,
    Correlation,
    IntegrationId,
    MadeKey,
    Reason,
    Service,
    changing,
)
from redrive.cli.tables import print_facts
from redrive.cli.values import check_json, content, headers

if TYPE_CHECKING:
    from redrive.client import Answer


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
    corrected = _corrected(payload, content_type, header, no_headers=no_headers)
    with changing(service, idempotency_key) as (client, key):
        answer = client.edit(
            integration_id,
            recovery_id,
            reason,
            incident=incident,
            idempotency_key=key,
            **corrected,
            **correlation.ids(),
        )
    if output != "table":
        print_answer(answer, output)
    else:
        _print_edit(answer)
    return ExitCode.OK


def _corrected(
    payload: str | None, content_type: str | None, header: list[str] | None, *, no_headers: bool
) -> dict[str, Any]:
    """What is to be other than before, as the client takes it."""
    if no_headers and header:
        raise Stop(ExitCode.USAGE, "--no-headers and --header exclude each other", "give one of them")
    body = None if payload is None else content(payload)
    if body is not None and content_type is None:
        check_json(body)
    return {
        "payload_json": body if content_type is None else None,
        "payload_base64": body if content_type is not None else None,
        "content_type": content_type,
        "headers": {} if no_headers else headers(header),
    }


def _print_edit(answer: "Answer") -> None:
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
