"""Replays of many, through a service: plan, run, watch, steer."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from redrive.cli.asking import must_agree
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.job import print_job, print_plan, state_of
from redrive.cli.nothing_dead import why_all_are_skipped
from redrive.cli.output import Output, note, print_answer
from redrive.cli.pages import print_all, print_page
from redrive.cli.replay_options import CAUTIOUSLY, EVERYTHING, Filters, How
from redrive.cli.service import (
    FIRST_PAGE,
    HERE,
    UNCORRELATED,
    Correlation,
    IntegrationId,
    MadeKey,
    Paging,
    Reason,
    Service,
    Yes,
    calling,
    changing,
)
from redrive.cli.tables import Column, Fit, column, instant
from redrive.cli.values import counted

if TYPE_CHECKING:
    from redrive.client import Answer

app = App(name="replay", help_epilogue="Each command has its own --help, with an example.")
ReplayId = Annotated[str, Parameter(help="Which plan or job.")]
ItemState = Literal["waiting", "in_flight", "succeeded", "failed", "skipped", "cancelled"]
MUST_BE_TYPED = 1_000  # items, above which a person at a terminal types their number
_COLUMNS = [
    column("REPLAY", "replay_id"),
    Column("STATE", state_of),
    Column("TOTAL", lambda row: row["progress"]["total"], is_number=True),
    Column("OK", lambda row: row["progress"]["succeeded"], is_number=True),
    Column("FAILED", lambda row: row["progress"]["failed"], is_number=True),
    Column("SKIPPED", lambda row: row["progress"]["skipped"], is_number=True, worth=2),
    Column("CANCELLED", lambda row: row["progress"]["cancelled"], is_number=True, worth=2),
    Column("LEFT", lambda row: row["progress"]["waiting"] + row["progress"]["in_flight"], is_number=True),
    Column("BY", lambda row: row["run_by"] or row["created_by"], worth=3),
    Column("CREATED", lambda row: instant(row["created_at"]), worth=1),
    Column("REASON", lambda row: (row["options"] or {}).get("reason"), fit=Fit.WRAP),
]
_ITEM_COLUMNS = [
    column("RECOVERY ID", "recovery_id"),
    column("STATE", "state"),
    column("REASON", "reason"),
    column("DUPLICATE RISK", "duplicate_risk", worth=2),
    Column("FIRST ATTEMPT", lambda row: instant(row.get("first_attempt_at")), worth=1),
]


@app.command(help_epilogue="Example: redrive replay plan billing --failure-code HTTP_503 --since 2h")
def plan(
    integration_id: IntegrationId,
    recovery_ids: Annotated[
        tuple[str, ...], Parameter(help="These items, and no filter; - reads them from standard input.")
    ] = (),
    /,
    *,
    filters: Filters = EVERYTHING,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Freeze what could be replayed now, and say what that would be; nothing is replayed yet."""
    given = filters.given()
    if recovery_ids:
        given["recovery_ids"] = _ids(recovery_ids)
    with changing(service, idempotency_key, pinned=filters.pinned(given)) as (client, key):
        answer = client.plan_replay(integration_id, idempotency_key=key, **correlation.ids(), **given)
    if output != "table":
        print_answer(answer, output)
        return ExitCode.OK
    replay = answer["replay"]
    print_plan(replay)
    if replay["plan"]["eligible"]:
        note(f'   next: redrive replay run {integration_id} {replay["replay_id"]} --reason "…" --watch')
        return ExitCode.OK
    with calling(service) as client:
        if (told := why_all_are_skipped(client, replay)) is not None:
            note(told)
    return ExitCode.OK


@app.command(
    help_epilogue=(
        'Example: redrive replay run billing rpl_0e7xk2m4q9v1c --reason "ERP maintenance over" '
        "--incident INC-442 --rate 20 --watch"
    )
)
def run(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    reason: Reason,
    how: How = CAUTIOUSLY,
    watch: Annotated[bool, Parameter(help="Stay and show how far it is.", negative=())] = False,
    yes: Yes = False,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Replay what was planned: a few first, then the rest at a pace; it halts by itself when too much fails.

    The service does it: Ctrl-C only stops watching. Exit 6: some failed again; 7: halted, or cancelled.
    """
    options = how.options()
    digest = _confirmed(service, integration_id, replay_id, None if yes else options)
    unwell = f"redrive integration probe {integration_id}" if how.require_healthy else None
    with changing(service, idempotency_key, conflict=unwell) as (client, key):
        answer = client.run_replay(
            integration_id, digest, reason, idempotency_key=key, **correlation.ids(), **options
        )
    if watch:
        return _watched(service, integration_id, replay_id, output)
    if output != "table":
        print_answer(answer, output)
    else:
        print_job(answer["replay"])
        note(f"   next: redrive replay watch {integration_id} {replay_id}")
    return ExitCode.OK


@app.command(name="list", help_epilogue="Example: redrive replay list billing")
def list_(
    integration_id: IntegrationId,
    /,
    *,
    paging: Paging = FIRST_PAGE,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """List plans and jobs, newest first."""
    with calling(service) as client:
        if paging.all_:
            print_all(client.replays_all(integration_id, **paging.page()), "replays", _COLUMNS, output)
        else:
            page = client.replays(integration_id, **paging.page())
            print_page(page, "replays", _COLUMNS, output)
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive replay show billing rpl_0e7xk2m4q9v1c")
def show(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Show one plan or job: what was planned, by whom it was run and why, and how far it is."""
    with calling(service) as client:
        answer = client.replay_job(integration_id, replay_id)
    if output != "table":
        print_answer(answer, output)
    elif answer["replay"]["run_at"] is None:
        print_plan(answer["replay"])
    else:
        print_job(answer["replay"])
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive replay items billing rpl_0e7xk2m4q9v1c --state failed")
def items(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    state: Annotated[ItemState | None, Parameter(help="Only those.")] = None,
    paging: Paging = FIRST_PAGE,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """List what became of each item, and why."""
    with calling(service) as client:
        if paging.all_:
            each = client.replay_items_all(integration_id, replay_id, state=state, **paging.page())
            print_all(each, "items", _ITEM_COLUMNS, output)
        else:
            page = client.replay_items(integration_id, replay_id, state=state, **paging.page())
            print_page(page, "items", _ITEM_COLUMNS, output)
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive replay watch billing rpl_0e7xk2m4q9v1c")
def watch(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Show how far a job is until it ends. Exit 6: some failed again; 7: halted, or cancelled."""
    return _watched(service, integration_id, replay_id, output)


@app.command(help_epilogue="Example: redrive replay pause billing rpl_0e7xk2m4q9v1c")
def pause(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Replay nothing more of a job for now; what was replayed goes on."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.pause_replay(integration_id, replay_id, idempotency_key=key, **correlation.ids())
    return _print_steered(answer, output)


@app.command(help_epilogue="Example: redrive replay resume billing rpl_0e7xk2m4q9v1c")
def resume(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Let a paused job go on."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.resume_replay(integration_id, replay_id, idempotency_key=key, **correlation.ids())
    return _print_steered(answer, output)


@app.command(help_epilogue="Example: redrive replay cancel billing rpl_0e7xk2m4q9v1c")
def cancel(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    /,
    *,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Replay nothing more of a job, for good; what was replayed stays so."""
    with changing(service, idempotency_key) as (client, key):
        answer = client.cancel_replay(integration_id, replay_id, idempotency_key=key, **correlation.ids())
    return _print_steered(answer, output)


@app.command(help_epilogue="Example: redrive replay rate billing rpl_0e7xk2m4q9v1c 50")
def rate(
    integration_id: IntegrationId,
    replay_id: ReplayId,
    rate: Annotated[str, Parameter(help="Items a second; `none`: the integration's own limits alone.")],
    /,
    *,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Change how fast a job replays."""
    try:
        number = None if rate == "none" else float(rate)
    except ValueError as error:
        advice = "write it like 50, or none"
        raise Stop(ExitCode.USAGE, f"{rate!r} is not a number of items a second", advice) from error
    with changing(service, idempotency_key) as (client, key):
        answer = client.pace_replay(
            integration_id, replay_id, number, idempotency_key=key, **correlation.ids()
        )
    return _print_steered(answer, output)


def _print_steered(answer: "Answer", output: Output) -> int:
    if output != "table":
        print_answer(answer, output)
    else:
        print_job(answer["replay"])
    return ExitCode.OK


def _watched(service: Service, integration_id: str, replay_id: str, output: Output) -> int:
    from redrive.cli.watching import watched

    with calling(service) as client:
        return watched(client, integration_id, replay_id, output)


def _confirmed(
    service: Service, integration_id: str, replay_id: str, options: Mapping[str, Any] | None
) -> str:
    """The digest of a plan; whether it is to be run with *options* is asked, where there are any."""
    with calling(service) as client:
        planned = client.replay_job(integration_id, replay_id)["replay"]
    if planned["plan"] is None:
        advice = "`redrive replay plan` makes a new one"
        raise Stop(ExitCode.CONFLICT, f"{replay_id} was never finished", advice)
    if options is not None:
        _confirm(planned, options)
    return str(planned["plan"]["digest"])


def _confirm(planned: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Ask a person; without one at a terminal the command ends."""
    count = planned["plan"]["eligible"]
    if sys.stderr.isatty():
        print_plan(planned, options)
    wanted = str(count) if count > MUST_BE_TYPED else "yes"
    must_agree(f"replay {counted(count, 'item')}", wanted=wanted, declined="nothing was replayed")


def _ids(given: tuple[str, ...]) -> list[str]:
    return sys.stdin.read().split() if given == ("-",) else list(given)
