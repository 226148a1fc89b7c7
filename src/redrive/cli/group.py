"""Groups of failures of an integration, through a service."""

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from redrive.cli.asking import must_agree
from redrive.cli.errors import ExitCode
from redrive.cli.inert import inert
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
    MayReason,
    Paging,
    Reason,
    Service,
    Yes,
    calling,
    changing,
)
from redrive.cli.tables import Column, Fit, Row, column, instant, print_facts
from redrive.cli.values import ahead, pinned

if TYPE_CHECKING:
    from redrive.client import Answer
    from redrive.client.recovery import GroupQuery

app = App(name="group", help_epilogue="Each command has its own --help, with an example.")
GroupId = Annotated[str, Parameter(help="Which group.")]
State = Literal["open", "acknowledged", "resolved"]


def _state(group: Row) -> str:
    return f"{group.get('state')}, regressed" if group.get("regressed") else str(group.get("state"))


def _items(group: Row) -> str:
    return str(group.get("items")) if group.get("items_is_exact") else f"more than {group.get('items')}"


_COLUMNS = [
    column("GROUP", "group_id"),
    Column("STATE", _state),
    Column("ITEMS", _items, is_number=True),
    column("FAILURES", "failures", is_number=True, worth=2),
    column("CODE", "failure_code"),
    column("CLASS", "failure_class", worth=1),
    Column("LAST SEEN", lambda row: instant(row.get("last_seen_at")), worth=3),
    column("DETAIL", "detail", fit=Fit.CUT),
]


@app.command(name="list", help_epilogue="Example: redrive group list billing --state open")
def list_(
    integration_id: IntegrationId,
    /,
    *,
    state: Annotated[State | None, Parameter(help="In this state; in any without it.")] = None,
    paging: Paging = FIRST_PAGE,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """List why deliveries failed: groups of failures of one cause, those that failed last first."""
    query: GroupQuery = {"state": state, **paging.page()}
    with calling(service) as client:
        if paging.all_:
            print_all(client.groups_all(integration_id, **query), "groups", _COLUMNS, output)
        else:
            print_page(client.groups(integration_id, **query), "groups", _COLUMNS, output)
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive group show billing grp_5xk2m4q9v1c0e")
def show(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    limit: Annotated[int | None, Parameter(help="How many comments, 1-200. [default: 50]")] = None,
    cursor: Annotated[str | None, Parameter(help="Where the comments before ended.")] = None,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Show one group: why these failures are one, what waits in it, and what people wrote about it."""
    with calling(service) as client:
        answer = client.group(integration_id, group_id, limit=limit, cursor=cursor)
    if output != "table":
        print_answer(answer, output)
        return ExitCode.OK
    _print_group(answer["group"])
    if answer["comments"]:
        print("\nCOMMENTS")
    for comment in answer["comments"]:
        print(f"{instant(comment['written_at'])}  {inert(comment['written_by'])}")
        for line in comment["text"].split("\n"):
            print("  " + inert(line.expandtabs(4)))
    if answer["next_cursor"] is not None:
        note(f"There are earlier ones: --cursor {answer['next_cursor']}")
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive group acknowledge billing grp_5xk2m4q9v1c0e")
def acknowledge(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    reason: MayReason = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Say that you look at an open group."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.acknowledge_group(
            integration_id, group_id, reason, idempotency_key=key, **correlation.ids()
        )
    return _print_judged(answer, output)


@app.command(
    help_epilogue='Example: redrive group resolve billing grp_5xk2m4q9v1c0e --reason "they sent it again"'
)
def resolve(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    reason: Reason,
    incident: Incident = None,
    yes: Yes = False,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Close a group and every item that waits in it for good.

    Items are closed some at a time. A command that was cut short can be run again, and goes on.
    """
    if not yes:
        _confirm(service, integration_id, group_id)
    with changing(service, idempotency_key) as (client, key):
        answer = client.resolve_group(
            integration_id, group_id, reason, incident=incident, idempotency_key=key, **correlation.ids()
        )
    if output == "table":
        note(f"Items closed with it: {answer['resolved_items']}")
    return _print_judged(answer, output)


@app.command(help_epilogue='Example: redrive group reopen billing grp_5xk2m4q9v1c0e --reason "too soon"')
def reopen(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    reason: Reason,
    incident: Incident = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Open a group again; items that were resolved with it stay so."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.reopen_group(
            integration_id, group_id, reason, incident=incident, idempotency_key=key, **correlation.ids()
        )
    return _print_judged(answer, output)


@app.command(help_epilogue="Example: redrive group mute billing grp_5xk2m4q9v1c0e --until 2h")
def mute(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    until: Annotated[
        str, Parameter(help="Until this instant (RFC 3339, or 2h: for two hours); `now` ends it.")
    ],
    reason: MayReason = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Hold alerts of a group back for a while."""
    ends = None if until == "now" else ahead(until, "--until")
    with changing(service, idempotency_key, pinned=pinned("--until", until, ends)) as (client, key):
        answer = client.mute_group(
            integration_id,
            group_id,
            ends,
            reason,
            idempotency_key=key,
            **correlation.ids(),
        )
    return _print_judged(answer, output)


@app.command(
    help_epilogue='Example: redrive group comment billing grp_5xk2m4q9v1c0e --text "vendor ticket 4711"'
)
def comment(
    integration_id: IntegrationId,
    group_id: GroupId,
    /,
    *,
    text: Annotated[str, Parameter(help="What to write; nobody can change it afterwards.")],
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Write something about a group."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.comment_on_group(
            integration_id, group_id, text, idempotency_key=key, **correlation.ids()
        )
    if output != "table":
        print_answer(answer, output)
    else:
        print_facts({"group_id": answer["group_id"], "written at": instant(answer["comment"]["written_at"])})
    return ExitCode.OK


def _confirm(service: Service, integration_id: str, group_id: str) -> None:
    with calling(service) as client:
        count = _items(client.group(integration_id, group_id, limit=1)["group"])
    must_agree(f"close {count} {'item' if count == '1' else 'items'} for good", declined="nothing was closed")


def _print_judged(answer: "Answer", output: Output) -> int:
    if output != "table":
        print_answer(answer, output)
    else:
        _print_group(answer["group"])
    return ExitCode.OK


def _print_group(group: Row) -> None:
    print_facts(
        {
            "group_id": group.get("group_id"),
            "integration": group.get("integration_id"),
            "state": _state(group),
            "why grouped": group.get("why_grouped"),
            "items": _items(group),
            "failures": group.get("failures"),
            "first seen": instant(group.get("first_seen_at")),
            "last seen": instant(group.get("last_seen_at")),
            "sample": group.get("sample"),
            **{name: _by(group.get(name)) for name in ("acknowledged", "resolved")},
            "muted until": instant(group.get("muted_until")),
        }
    )


def _by(judged: Row | None) -> str | None:
    return None if judged is None else f"by {judged['by']} at {instant(judged['at'])}"
