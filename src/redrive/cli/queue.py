"""The recovery queue of an integration, through a service."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import App, Parameter, Token

from redrive.cli.errors import ExitCode
from redrive.cli.item import print_item, status_of
from redrive.cli.nothing_dead import why_nothing_is_dead
from redrive.cli.output import Output, note, print_answer
from redrive.cli.pages import print_all, print_page
from redrive.cli.service import (
    FIRST_PAGE,
    HERE,
    UNCORRELATED,
    Correlation,
    Incident,
    IntegrationId,
    MadeKey,
    Paging,
    Reason,
    Service,
    calling,
    changing,
    made_key,
)
from redrive.cli.tables import Column, Fit, column, instant, print_facts
from redrive.cli.values import moment

if TYPE_CHECKING:
    from redrive.client.recovery import QueueQuery

app = App(name="queue", help_epilogue="Each command has its own --help, with an example.")
app.command(
    "redrive.cli.queue_import:import_",
    name="import",
    help="Hand over deliveries that failed elsewhere, with their evidence. Exit 6: some lines failed.",
    help_epilogue="Example: redrive queue import billing --file dead.jsonl --key-prefix move-1",
)
app.command(
    "redrive.cli.queue_edit:edit",
    name="edit",
    help="Send a corrected copy of a failed or dlq item.",
    help_epilogue="Example: redrive queue edit billing rec_0e7xk2m4q9v1c --payload @fixed.json --reason typo",
)
RecoveryId = Annotated[str, Parameter(help="Which item.")]
Status = Literal["pending", "retrying", "succeeded", "failed", "dlq", "replayed"]
Risk = Literal["never_sent", "refused", "ambiguous"]
YesNo = Literal["yes", "no"]


def _any_case(_: object, tokens: Sequence[Token]) -> str:
    status = tokens[0].value.lower()
    if status not in get_args(Status):
        raise ValueError(f"there is no status {tokens[0].value!r}; choose from {', '.join(get_args(Status))}")
    return status


_COLUMNS = [
    column("RECOVERY ID", "recovery_id"),
    Column("STATUS", status_of),
    column("EVENT", "event_type", fit=Fit.CUT),
    Column(
        "ATTEMPTS",
        lambda row: f"{row.get('attempt_count')}/{row.get('max_attempts')}",
        is_number=True,
        worth=3,
    ),
    column("CYCLE", "cycle", is_number=True, worth=2),
    column("FAILURE", "failure_code"),
    column("RISK", "duplicate_risk", worth=2),
    Column("UPDATED", lambda row: instant(row.get("updated_at"))),
    Column("NEXT RETRY", lambda row: instant(row.get("next_retry_at")), worth=1),
]


@app.command(name="list", help_epilogue="Example: redrive queue list billing --status dlq --since 2h")
def list_(
    integration_id: IntegrationId,
    /,
    *,
    status: Annotated[
        Status | None,
        Parameter(help="In this status; in any without it.", converter=_any_case),
    ] = None,
    failure_code: Annotated[
        str | None, Parameter(help="Whose last failure was this, such as HTTP_503.")
    ] = None,
    event_type: Annotated[str | None, Parameter(help="Of this event type.")] = None,
    group: Annotated[str | None, Parameter(help="Failed and dlq items of this group of failures.")] = None,
    duplicate_risk: Annotated[
        Risk | None, Parameter(help="Of which sending again would risk this; docs/guides/failure-groups.md.")
    ] = None,
    held: Annotated[YesNo | None, Parameter(help="Whether they wait for their integration.")] = None,
    resolved: Annotated[YesNo | None, Parameter(help="Whether a person closed them for good.")] = None,
    since: Annotated[
        str | None, Parameter(help="Accepted from this instant on (RFC 3339, or 2h: two hours ago).")
    ] = None,
    until: Annotated[str | None, Parameter(help="Accepted before this instant.")] = None,
    paging: Paging = FIRST_PAGE,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """List an integration's items, newest first: all items; --status dlq for those that wait for a person."""
    query: QueueQuery = {
        "status": status,
        "failure_code": failure_code,
        "event_type": event_type,
        "group": group,
        "duplicate_risk": duplicate_risk,
        "held": _flag(held),
        "resolved": _flag(resolved),
        "since": moment(since, "--since"),
        "until": moment(until, "--until"),
        **paging.page(),
    }
    with calling(service) as client:

        def why() -> str | None:
            return why_nothing_is_dead(client, integration_id) if status in ("failed", "dlq") else None

        if paging.all_:
            print_all(client.queue_all(integration_id, **query), "queue", _COLUMNS, output, why=why)
        else:
            print_page(client.queue(integration_id, **query), "queue", _COLUMNS, output, why=why)
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive queue show billing rec_0e7xk2m4q9v1c")
def show(
    integration_id: IntegrationId,
    recovery_id: RecoveryId,
    /,
    *,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Show one item: where it stands, its attempts, what was sent and what was answered."""
    with calling(service) as client:
        answer = client.item(integration_id, recovery_id)
    if output != "table":
        print_answer(answer, output)
    else:
        print_item(answer)
    return ExitCode.OK


@app.command(
    help_epilogue='Example: redrive queue replay billing rec_0e7xk2m4q9v1c --reason "endpoint fixed"'
)
def replay(
    integration_id: IntegrationId,
    recovery_id: RecoveryId,
    /,
    *,
    reason: Reason,
    incident: Incident = None,
    idempotency_key: MadeKey = None,
    verbose: Annotated[
        bool, Parameter(help="Also print the same call for curl, with its key.", negative=())
    ] = False,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Replay a failed or dlq item: the same payload, under the same webhook-id, in a new cycle."""
    from redrive.cli.curl import curl_line

    key = made_key(idempotency_key)
    path = f"/platform/integrations/{integration_id}/recovery/queue/{recovery_id}/replay"
    why = {"reason": reason} if incident is None else {"reason": reason, "incident": incident}
    curl = curl_line(service.url, path, why, key, correlation)
    if verbose:
        note(curl)
    with changing(service, key, line=None if verbose else curl) as (client, _):
        answer = client.replay(
            integration_id, recovery_id, reason, incident=incident, idempotency_key=key, **correlation.ids()
        )
    if output != "table":
        print_answer(answer, output)
    else:
        facts = {"recovery_id": recovery_id, "was": answer["previous_status"], "is": answer["current_status"]}
        print_facts({**facts, "reason": answer["reason"], "request_id": answer["request_id"]})
    return ExitCode.OK


@app.command(
    help_epilogue='Example: redrive queue erase billing rec_0e7xk2m4q9v1c --reason "GDPR request 4711"'
)
def erase(
    integration_id: IntegrationId,
    recovery_id: RecoveryId,
    /,
    *,
    reason: Reason,
    incident: Incident = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Erase an item's payload, headers and answers for good; a failed or dlq item is closed by it.

    What is still to be sent cannot be erased. Attempts, their times and codes, and audit events stay; backups
    from before still hold it.
    """
    with changing(service, idempotency_key) as (client, key):
        answer = client.erase(
            integration_id, recovery_id, reason, incident=incident, idempotency_key=key, **correlation.ids()
        )
    if output != "table":
        print_answer(answer, output)
    else:
        facts = {"recovery_id": recovery_id, "erased": True, "reason": answer["reason"]}
        print_facts({**facts, "request_id": answer["request_id"]})
    return ExitCode.OK


@app.command(
    help_epilogue='Example: redrive queue resolve billing rec_0e7xk2m4q9v1c --reason "order cancelled"'
)
def resolve(
    integration_id: IntegrationId,
    recovery_id: RecoveryId,
    /,
    *,
    reason: Reason,
    incident: Incident = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Close a failed or dlq item for good: it is not sent again, and no longer waits for anyone."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.resolve(
            integration_id, recovery_id, reason, incident=incident, idempotency_key=key, **correlation.ids()
        )
    if output != "table":
        print_answer(answer, output)
    else:
        facts = {"recovery_id": recovery_id, "resolved": True, "reason": answer["reason"]}
        print_facts({**facts, "request_id": answer["request_id"]})
    return ExitCode.OK


def _flag(word: YesNo | None) -> bool | None:
    return None if word is None else word == "yes"
