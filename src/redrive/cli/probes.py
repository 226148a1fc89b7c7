"""How a receiver is: asked on purpose, and as it was recorded."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from redrive.cli.errors import ExitCode
from redrive.cli.output import Output, print_answer
from redrive.cli.service import (
    HERE,
    UNCORRELATED,
    Correlation,
    IntegrationId,
    MadeKey,
    Service,
    calling,
    changing,
)
from redrive.cli.tables import Column, column, instant, print_facts, print_table, word

if TYPE_CHECKING:
    from redrive.client import Answer

_OUTCOMES = [
    column("LAST MINUTES", "minutes", is_number=True),
    column("SUCCEEDED", "succeeded", is_number=True),
    column("FAILED", "failed", is_number=True),
    Column("FAILED %", lambda row: _percent(row["failure_share"]), is_number=True),
    column("AVERAGE (MS)", "average_ms", is_number=True),
]
_OF_PROBE = (
    "kind",
    "recovery_id",
    "http_status",
    "failure_code",
    "failure_detail",
    "duration_ms",
    "by",
    "reason",
)


def probe(
    integration_id: IntegrationId,
    /,
    *,
    recovery_id: Annotated[
        str | None, Parameter(help="Send this item as a trial; without one the health URL is asked.")
    ] = None,
    reason: Annotated[
        str | None, Parameter(help="Why; it is kept in the audit trail. With an item it is needed.")
    ] = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Make one request to an integration's health URL, or send one item as a trial."""
    no_url = f"redrive integration update {integration_id} --health-url URL" if recovery_id is None else None
    with changing(service, idempotency_key, conflict=no_url) as (client, key):
        answer = client.probe(
            integration_id,
            recovery_id=recovery_id,
            reason=reason,
            idempotency_key=key,
            **correlation.ids(),
        )
    if output == "table":
        found = answer["probe"]
        print_facts({"integration_id": integration_id, "outcome": found["outcome"], **_of_probe(found)})
    else:
        print_answer(answer, output)
    return ExitCode.OK if answer["probe"]["outcome"] == "succeeded" else ExitCode.FAILURES


def health(integration_id: IntegrationId, /, *, service: Service = HERE, output: Output = "table") -> int:
    """Show how an integration's receiver is: a verdict, and the facts behind it."""
    with calling(service) as client:
        answer = client.integration_health(integration_id)
    if output == "table":
        _print_health(answer)
    else:
        print_answer(answer, output)
    return ExitCode.OK


def _print_health(answer: "Answer") -> None:
    found = answer["probe"]
    facts = {name: answer[name] for name in ("integration_id", "verdict")}
    facts["because"] = "; ".join(answer["reasons"])
    facts |= {
        name: instant(answer[name])
        for name in ("last_success_at", "last_failure_at", "throttled_until", "gone_at")
    }
    facts["breaker"] = _breaker(answer["breaker"])
    facts["contained"] = None if answer["containment"] is None else answer["containment"]["mode"]
    if found is not None:
        facts["last_probe"] = f"{found['outcome']} at {instant(found['at'])}, by {word(found['by'])}"
    print_facts(facts)
    print_table(_OUTCOMES, answer["outcomes"])


def _breaker(found: dict[str, Any]) -> str:
    until = instant(found["until"])
    state = str(found["state"]).replace("_", " ")
    return f"{state}, no trial before {until}" if until else state


def _of_probe(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _OF_PROBE}


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"
