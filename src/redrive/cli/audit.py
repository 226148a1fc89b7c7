"""The audit trail, through a service."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from redrive.audit.record import EventType
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output
from redrive.cli.pages import print_all, print_page
from redrive.cli.service import FIRST_PAGE, HERE, Paging, Service, calling
from redrive.cli.tables import Column, Fit, Row, column, instant, word
from redrive.cli.values import moment

if TYPE_CHECKING:
    from redrive.client.audit import EventQuery

app = App(name="audit", help_epilogue="Each command has its own --help, with an example.")
app.command(
    "redrive.cli.evidence:export",
    help=(
        "Make an evidence file: items with their attempts, audit records, and what concerned them.\n\n"
        "Of what an incident, an integration or a call touched, or of one item. It is verified while it is "
        "written, and can be verified again anywhere. docs/guides/evidence.md describes the file.\n\n"
        "Exit 6: something is wrong with the records in it; it is told which."
    ),
    help_epilogue=(
        "Example: redrive audit export --incident INC-42 --out inc-42.jsonl\n"
        "Example: redrive audit export --integration billing --recovery-id rec_… --out rec.jsonl"
    ),
)
app.command(
    "redrive.cli.evidence:verify",
    help=(
        "Find audit records that were altered, are missing or out of order.\n\n"
        "In an evidence file, which needs no database; or, with --live, in the database itself, also while "
        "the service runs. Exit 6: something was found."
    ),
    help_epilogue=(
        "Example: redrive audit verify inc-42.jsonl\n"
        "Example: redrive audit verify --live --database sqlite:////var/lib/redrive/redrive.db"
    ),
)
_COMMON = "platform.integration."


def _change(row: Row) -> str | None:
    before, after = ((row.get(name) or {}).get("status") for name in ("before_state", "after_state"))
    if after is None:
        return None
    return str(after) if before in (None, after) else f"{before} > {after}"


def _detail(row: Row) -> str | None:
    """What tells one event from its neighbours: which attempt and how it ended, or why a person did it."""
    facts, kind = row.get("metadata") or {}, str(row.get("event_type")).removeprefix(_COMMON)
    if "attempt" in facts:
        answer = facts.get("http_status")
        code = facts.get("failure_code") or (f"HTTP_{answer}" if answer else None)
        return f"attempt {facts['attempt']}" + (f" {code}" if code else "")
    if (of_kind := _DETAILS.get(kind)) is not None:
        return of_kind(row, facts)
    told = facts.get("reason", facts.get("permission"))  # a person's verb has the one, a denial the other
    return None if told is None else str(told)


def _muted(row: Row, facts: Row) -> str:
    until = instant((row.get("after_state") or {}).get("muted_until"))
    reason = f": {facts['reason']}" if facts.get("reason") else ""
    return (f"until {until}" if until else "no longer") + reason


def _opened(_: Row, facts: Row) -> str | None:
    if "trial" in facts:
        return f"a trial told: {facts['trial']}"
    return f"{facts['failures']} of {facts['outcomes']} failed" if "failures" in facts else None


def _paced(row: Row, _: Row) -> str:
    before, after = ((row.get(name) or {}).get("rate") for name in ("before_state", "after_state"))
    return f"rate {word(before)} > {word(after)}"


_DETAILS: Mapping[str, Callable[[Row, Row], str | None]] = {
    "group_commented": lambda _, facts: facts.get("text"),
    "group_muted": _muted,
    "breaker_opened": _opened,
    "containment_expired": lambda _, facts: facts.get("probe"),
    "replay_job.rate_changed": _paced,
}
_COLUMNS = [
    Column("WHEN", lambda row: instant(row.get("occurred_at"))),
    Column("EVENT", lambda row: str(row.get("event_type")).removeprefix(_COMMON), fit=Fit.CUT),
    column("INTEGRATION", "integration_id", worth=3),
    column("TARGET", "target_id"),
    Column("STATUS", _change, worth=4),
    Column("DETAIL", _detail, fit=Fit.CUT, worth=5),
    column("RESULT", "result", worth=2),
    Column("ACTOR", lambda row: (row.get("actor") or {}).get("id"), worth=6),
    column("REQUEST ID", "request_id", worth=1),
]
_FILTERED = {"INTEGRATION": "integration_id", "TARGET": "target_id", "ACTOR": "actor"}


def _columns(query: "EventQuery") -> list[Column]:
    """What is the same in every row, because it was asked for, goes first where there is no room."""
    same = {title for title, name in _FILTERED.items() if query.get(name) is not None}
    return [replace(each, worth=1) if each.title in same else each for each in _COLUMNS]


@app.command(name="list", help_epilogue="Example: redrive audit list --request-id req-42 --all")
def list_(
    *,
    request_id: Annotated[str | None, Parameter(help="All that this one call caused.")] = None,
    event_type: Annotated[
        str | None,
        Parameter(help="Such as recovery.replayed, or just replayed."),
    ] = None,
    integration_id: Annotated[
        str | None, Parameter(name=("--integration-id", "--integration"), help="Of one integration.")
    ] = None,
    target_id: Annotated[str | None, Parameter(help="What it was done to, of whatever kind.")] = None,
    recovery_id: Annotated[str | None, Parameter(help="All that happened to one item.")] = None,
    actor: Annotated[str | None, Parameter(help="Who did it: a token's or a user's subject.")] = None,
    since: Annotated[
        str | None, Parameter(help="From this instant on (RFC 3339, or 2h: two hours ago).")
    ] = None,
    until: Annotated[str | None, Parameter(help="Before this instant.")] = None,
    paging: Paging = FIRST_PAGE,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """List audit events, newest first."""
    query: EventQuery = {
        "request_id": request_id,
        "event_type": None if event_type is None else _event_type(event_type),
        "integration_id": integration_id,
        "target_id": _target(target_id, recovery_id),
        "actor": actor,
        "since": moment(since, "--since"),
        "until": moment(until, "--until"),
        **paging.page(),
    }
    with calling(service) as client:
        if paging.all_:
            print_all(client.audit_events_all(**query), "events", _columns(query), output)
        else:
            print_page(client.audit_events(**query), "events", _columns(query), output)
    return ExitCode.OK


def _target(target_id: str | None, recovery_id: str | None) -> str | None:
    if recovery_id is None:
        return target_id
    if target_id is not None:
        advice = "an item's recovery_id is what its events name as their target: give one of the two"
        raise Stop(ExitCode.USAGE, "--target-id and --recovery-id both name the target", advice)
    if not recovery_id:
        raise Stop(ExitCode.USAGE, "--recovery-id is empty", "`redrive queue list INTEGRATION` shows some")
    return recovery_id


def _event_type(text: str) -> str:
    """The whole name of an event that is named in full, as the table does, or by its last word."""
    names = {name: each.value for each in EventType for name in _names(each)}
    if text in names:
        return names[text]
    near = get_close_matches(text, names, n=1)
    advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(map(_short, EventType))}"
    raise Stop(ExitCode.USAGE, f"--event-type: there is no {text!r}", advice)


def _names(event_type: str) -> tuple[str, str, str]:
    return event_type, _short(event_type), event_type.rpartition(".")[2]


def _short(event_type: str) -> str:
    return event_type.removeprefix(_COMMON)
