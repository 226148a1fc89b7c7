"""Containment of an integration, through a service: stop it, look at it, let it go again."""

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from redrive.cli.errors import ExitCode
from redrive.cli.output import Output, note, print_answer
from redrive.cli.service import (
    HERE,
    UNCORRELATED,
    Correlation,
    Incident,
    IntegrationId,
    MadeKey,
    Reason,
    Service,
    calling,
    changing,
)
from redrive.cli.tables import Column, column, instant, print_facts, print_table
from redrive.cli.values import ahead, duration, pinned

if TYPE_CHECKING:
    from redrive.client import Answer

_SIMULATED = [
    column("AT RATE", "rate_per_second", is_number=True),
    Column("DRAINED IN (S)", lambda row: _drained_in(row["drain_seconds"]), is_number=True),
    Column("NEW TRAFFIC WAITS (S)", lambda row: round(row["new_traffic_delay_seconds"]), is_number=True),
]


def contain(
    integration_id: IntegrationId,
    /,
    *,
    reason: Reason,
    mode: Annotated[
        Literal["hold", "reject"] | None,
        Parameter(
            help="hold accepts deliveries and does not send them, reject refuses them. [default: hold]"
        ),
    ] = None,
    for_: Annotated[
        str | None, Parameter(name="--for", help="How long, like 2h, 30m or 3d. [default: 4h]")
    ] = None,
    until: Annotated[str | None, Parameter(help="Or until when (RFC 3339, or 2h: in two hours).")] = None,
    owner: Annotated[str | None, Parameter(help="Who answers for it; else who runs this.")] = None,
    incident: Incident = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Stop all that goes to an integration."""
    ends = None if until is None else ahead(until, "--until")
    with changing(service, idempotency_key, pinned=pinned("--until", until, ends)) as (client, key):
        answer = client.contain(
            integration_id,
            reason,
            mode=mode,
            owner=owner,
            until=ends,
            for_seconds=None if for_ is None else duration(for_, "--for").total_seconds(),
            incident=incident,
            idempotency_key=key,
            **correlation.ids(),
        )
    if answer["state"] == "containing":
        note("Not every process has confirmed yet; `redrive integration containment` tells when.")
    _print_containment(answer, output)
    return ExitCode.OK


def containment(
    integration_id: IntegrationId, /, *, service: Service = HERE, output: Output = "table"
) -> int:
    """Show whether an integration is contained."""
    with calling(service) as client:
        answer = client.containment(integration_id)
    _print_containment(answer, output)
    return ExitCode.OK


def release(
    integration_id: IntegrationId,
    /,
    *,
    reason: Reason,
    rate: Annotated[
        float | None,
        Parameter(help="What waits is sent at so many a second; else as fast as the integration allows."),
    ] = None,
    dry_run: Annotated[bool, Parameter(help="Only tell what it would mean.", negative=())] = False,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Let an integration send again."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.release(
            integration_id,
            reason,
            rate_per_second=rate,
            dry_run=dry_run,
            idempotency_key=key,
            **correlation.ids(),
        )
    if output != "table":
        print_answer(answer, output)
        return ExitCode.OK
    if dry_run:
        note("Nothing was released; without --dry-run it is.")
    facts = {"integration_id": integration_id, "released": answer["released"]}
    print_facts(facts | {"rate_per_second": rate, "backlog": answer["simulation"]["backlog"]})
    print_table(_SIMULATED, answer["simulation"]["rates"])
    return ExitCode.OK


def _print_containment(answer: "Answer", output: Output) -> None:
    if output != "table":
        print_answer(answer, output)
        return
    facts = {name: answer[name] for name in ("integration_id", "state")} | (answer["containment"] or {})
    facts |= {name: instant(facts.get(name)) for name in ("since", "until", "next_probe_at")}
    facts["failed_probes"] = facts.get("failed_probes") or None  # it has not run out
    if answer["release"] is not None:
        facts["released_at_rate"] = answer["release"]["rate_per_second"]
    print_facts(facts | {name: answer[name] for name in ("waiting", "in_flight")})


def _drained_in(seconds: float | None) -> object:
    return "never" if seconds is None else round(seconds)
