"""Replays of many, through a service: plan, run, watch, steer."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_answer
from redrive.cli.pages import print_all, print_page
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
    calling,
)
from redrive.cli.tables import Column, Fit, column, instant, print_facts
from redrive.cli.values import moment, share

if TYPE_CHECKING:
    from redrive.client import Answer, Client

app = App(name="replay", help_epilogue="Each command has its own --help, with an example.")
ReplayId = Annotated[str, Parameter(help="Which plan or job.")]
ItemState = Literal["waiting", "in_flight", "succeeded", "failed", "skipped", "cancelled"]
MUST_BE_TYPED = 1_000  # items, above which a person at a terminal types their number
_COLUMNS = [
    column("REPLAY", "replay_id"),
    column("STATE", "state"),
    Column("TOTAL", lambda row: row["progress"]["total"], is_number=True),
    Column("OK", lambda row: row["progress"]["succeeded"], is_number=True),
    Column("FAILED", lambda row: row["progress"]["failed"], is_number=True),
    Column("SKIPPED", lambda row: row["progress"]["skipped"], is_number=True, worth=2),
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
    status: Annotated[Literal["failed", "dlq"] | None, Parameter(help="Only one of the two.")] = None,
    group: Annotated[str | None, Parameter(help="Those that failed for one cause.")] = None,
    failure_code: Annotated[str | None, Parameter(help="Such as HTTP_503.")] = None,
    duplicate_risk: Annotated[
        Literal["never_sent", "refused", "ambiguous"] | None,
        Parameter(help="By how far the worst attempt got."),
    ] = None,
    event_type: Annotated[str | None, Parameter(help="Of one event type.")] = None,
    cycle: Annotated[int | None, Parameter(help="In this cycle.")] = None,
    since: Annotated[str | None, Parameter(help="Accepted from then on: an instant, or 2h ago.")] = None,
    until: Annotated[str | None, Parameter(help="Accepted before then: an instant, or 2h ago.")] = None,
    failures_of: Annotated[str | None, Parameter(help="What failed again in an earlier job.")] = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Freeze what could be replayed now, and say what that would be; nothing is replayed yet."""
    wanted = {
        "status": status,
        "group": group,
        "failure_code": failure_code,
        "duplicate_risk": duplicate_risk,
        "event_type": event_type,
        "cycle": cycle,
        "since": moment(since, "--since"),
        "until": moment(until, "--until"),
        "failures_of": failures_of,
        "recovery_ids": _ids(recovery_ids) if recovery_ids else None,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    with calling(service) as client:
        answer = client.plan_replay(
            integration_id, idempotency_key=idempotency_key, **correlation.ids(), **given
        )
    if output != "table":
        print_answer(answer, output)
        return ExitCode.OK
    replay = answer["replay"]
    print_plan(replay)
    if replay["plan"]["eligible"]:
        note(f'   next: redrive replay run {integration_id} {replay["replay_id"]} --reason "…" --watch')
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
    incident: Annotated[str | None, Parameter(help="The incident it belongs to.")] = None,
    rate: Annotated[
        float | None, Parameter(help="Items a second; else as fast as the integration's own limits.")
    ] = None,
    concurrency: Annotated[int | None, Parameter(help="Of its items in flight at once.")] = None,
    canary: Annotated[int, Parameter(help="So many go first, alone; 0: none.")] = 5,
    canary_share: Annotated[str, Parameter(help="The share of them that must succeed.")] = "100%",
    halt_if: Annotated[str, Parameter(help="Halt when more than this share failed.")] = "50%",
    halt_last: Annotated[int, Parameter(help="Of so many outcomes, the latest.")] = 20,
    order: Annotated[Literal["oldest", "newest"], Parameter(help="Which go first.")] = "oldest",
    require_healthy: Annotated[
        bool, Parameter(help="Run only if the verdict on the receiver is healthy.", negative=())
    ] = False,
    watch: Annotated[bool, Parameter(help="Stay and show how far it is.", negative=())] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative=())] = False,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Replay what was planned: a few first, then the rest at a pace; it halts by itself when too much fails.

    The service does it: Ctrl-C only stops watching. Exit 6: some failed again; 7: halted, or cancelled.
    """
    from redrive.cli.watching import watched
    from redrive.clock import random_bytes

    options = {
        "incident": incident,
        "rate": rate,
        "concurrency": concurrency,
        "canary": {"size": canary, "share": share(canary_share, "--canary-share")},
        "halt_if": {"share": share(halt_if, "--halt-if"), "last": halt_last},
        "order": order,
        "require_healthy": require_healthy,
    }
    key = idempotency_key or f"cli-{random_bytes(16).hex()}"
    with calling(service) as client:
        planned = client.replay_job(integration_id, replay_id)["replay"]
        if planned["plan"] is None:
            raise Stop(
                ExitCode.CONFLICT, f"{replay_id} was never finished", "`redrive replay plan` makes a new one"
            )
        if not yes:
            _confirm(planned)
        answer = client.run_replay(
            integration_id,
            planned["plan"]["digest"],
            reason,
            idempotency_key=key,
            **correlation.ids(),
            **{name: value for name, value in options.items() if value is not None},
        )
        if watch:
            return watched(client, integration_id, replay_id, output)
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
    from redrive.cli.watching import watched

    with calling(service) as client:
        return watched(client, integration_id, replay_id, output)


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
    return _steer(
        service,
        output,
        lambda client: client.pause_replay(
            integration_id, replay_id, idempotency_key=idempotency_key, **correlation.ids()
        ),
    )


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
    return _steer(
        service,
        output,
        lambda client: client.resume_replay(
            integration_id, replay_id, idempotency_key=idempotency_key, **correlation.ids()
        ),
    )


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
    return _steer(
        service,
        output,
        lambda client: client.cancel_replay(
            integration_id, replay_id, idempotency_key=idempotency_key, **correlation.ids()
        ),
    )


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
    return _steer(
        service,
        output,
        lambda client: client.pace_replay(
            integration_id, replay_id, number, idempotency_key=idempotency_key, **correlation.ids()
        ),
    )


def print_plan(replay: Mapping[str, Any]) -> None:
    """Print what a plan would do."""
    made = replay["plan"]
    facts: dict[str, object] = {
        "plan": replay["replay_id"],
        "state": replay["state"],
        "as of": instant(replay["as_of"]),
        "expires": instant(replay["expires_at"]),
    }
    if made is not None:
        skipped = sum(made["skipped"].values())
        facts |= {
            "eligible": f"{made['eligible']:,}",
            "skipped": f"{skipped:,}" + (f" ({_counts(made['skipped'])})" if skipped else ""),
            "duplicate risk": _counts(made["duplicate_risk"]) or None,
            "oldest": instant(made["oldest_at"]),
            "about": _about(made["estimated_seconds"]),
            "digest": made["digest"],
        }
    print_facts(facts)


def print_job(replay: Mapping[str, Any]) -> None:
    """Print how far a job is."""
    options, progress = replay["options"], replay["progress"]
    print_facts(
        {
            "replay": replay["replay_id"],
            "state": replay["state"],
            "because": replay["because"],
            "waits for": replay["waits_for"],
            "total": f"{progress['total']:,}",
            "succeeded": f"{progress['succeeded']:,}",
            "failed again": f"{progress['failed']:,}",
            "skipped": f"{progress['skipped']:,}",
            "cancelled": f"{progress['cancelled']:,}",
            "in flight": f"{progress['in_flight']:,}",
            "waiting": f"{progress['waiting']:,}",
            "outcomes a second": progress["outcomes_per_second"] or None,
            "eta": _about(progress["eta_seconds"]),
            "rate": options["rate"],
            "reason": options["reason"],
            "incident": options["incident"],
            "run by": replay["run_by"],
            "run": instant(replay["run_at"]),
            "request id": replay["run_request_id"],
        }
    )


def _steer(service: Service, output: Output, call: Callable[["Client"], "Answer"]) -> int:
    with calling(service) as client:
        answer = call(client)
    if output != "table":
        print_answer(answer, output)
    else:
        print_job(answer["replay"])
    return ExitCode.OK


def _confirm(planned: Mapping[str, Any]) -> None:
    """Ask a person; without one at a terminal the command ends."""
    count = planned["plan"]["eligible"]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Stop(
            ExitCode.USAGE,
            f"{planned['replay_id']} would replay {count:,} items, and nobody is there to be asked",
            "give --yes",
        )
    print_plan(planned)
    wanted = str(count) if count > MUST_BE_TYPED else "yes"
    print(f"replay {count:,} items? type {wanted} to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().replace(",", "") != wanted:
        raise Stop(ExitCode.USAGE, "nothing was replayed", "run it again when you are sure")


def _ids(given: tuple[str, ...]) -> list[str]:
    return sys.stdin.read().split() if given == ("-",) else list(given)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _about(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
