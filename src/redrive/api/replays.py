"""Calls on replays of many: plan, run, list, show, pause, resume, cancel, pace."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from redrive.api import body, views
from redrive.api.call import MIB, Asked, Reply
from redrive.api.integrations import path_id
from redrive.api.query import Query, parse_instant
from redrive.domain.delivery import rfc3339
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.ids import (
    group_id,
    instant_of,
    parse_group_id,
    parse_recovery_id,
    parse_replay_id,
    recovery_id,
    replay_id,
)
from redrive.domain.integration import is_line
from redrive.domain.item import Status
from redrive.domain.outcome import Risk
from redrive.domain.replay import (
    Canary,
    HaltIf,
    ItemState,
    Job,
    Options,
    Order,
    Plan,
    Progress,
    Wanted,
    check_options,
)
from redrive.engine.once import Told
from redrive.engine.seeing import SeenJob
from redrive.store.replays import ItemRow

MOST_BODY = 4 * MIB  # a hundred thousand recovery ids
MOST_CYCLE = 1_000_000
ITEM_FILTERS = ("state", "limit", "cursor")
LIST_FILTERS = ("limit", "cursor")
RiskName = Literal["never_sent", "refused", "ambiguous"]
_PROGRESS = Progress.__struct_fields__


class ReplayFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which failed and dlq items: all that match everything given; or those named; or a job's failures."""

    status: Literal["failed", "dlq"] | None = None
    group: str | None = None
    failure_code: str | None = None
    duplicate_risk: RiskName | None = None
    event_type: str | None = None
    cycle: int | None = None
    since: str | None = None
    until: str | None = None
    recovery_ids: list[str] | None = None
    failures_of: str | None = None


class ReplayPlan(msgspec.Struct, forbid_unknown_fields=True):
    """The body that makes a plan."""

    filter: ReplayFilter


class CanaryOption(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The few that go first, and the share of them that must succeed; a size of 0: none."""

    size: int = 5
    share: float = 1.0


class HaltOption(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Halt when more than this share of the last outcomes are failures."""

    share: float = 0.5
    last: int = 20


class ReplayRun(msgspec.Struct, forbid_unknown_fields=True):
    """The body that runs a plan. Without a rate: as fast as the integration's own limits.

    `require_healthy`: only if the verdict on its receiver is `healthy`.
    """

    plan_digest: str
    reason: str
    incident: str | None = None
    rate: float | None = None
    concurrency: int | None = None
    canary: CanaryOption = CanaryOption()
    halt_if: HaltOption = HaltOption()
    order: Order = "oldest"
    require_healthy: bool = False


class NewRate(msgspec.Struct, forbid_unknown_fields=True):
    """The body that paces a job: items a second; null: as fast as the integration's own limits."""

    rate: float | None


async def start_replay(asked: Asked) -> Reply:
    """Make a plan of what a filter matches (201), or run a plan by its digest (202)."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BODY)
    key = asked.key(raw)
    if "plan_digest" in body.members(raw):
        given = body.read(raw, ReplayRun)
        options = _options(given)
        told = await asked.engine.replays.run(
            asked.call, integration_id, given.plan_digest, options, render=_render(asked, 202), key=key
        )
    else:
        wanted = _wanted(body.read(raw, ReplayPlan).filter)
        told = await asked.engine.planning.plan(
            asked.call, integration_id, wanted, render=_render(asked, 201), key=key
        )
    return asked.reply(told)


async def list_replays(asked: Asked) -> Reply:
    """A page of an integration's plans and jobs, newest first."""
    integration_id = path_id(asked)
    query = Query(asked.query_string, LIST_FILTERS)
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    page, next_cursor = await asked.engine.replays.list(
        asked.call, integration_id, limit=limit, cursor=cursor
    )
    shown = [view(one) for one in page]
    return asked.json(
        200,
        {"integration_id": integration_id, "limit": limit, "replays": shown, "next_cursor": next_cursor},
    )


async def show_replay(asked: Asked) -> Reply:
    """One plan or job, and how far it is: counts by outcome, all of one moment."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    seen = await asked.engine.replays.show(asked.call, integration_id, name)
    return asked.json(200, {"replay": view(seen)})


async def list_replay_items(asked: Asked) -> Reply:
    """What became of each item, and why, in the order in which the items were accepted."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    query = Query(asked.query_string, ITEM_FILTERS)
    state = query.choice("state", [state.value for state in ItemState])
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    job, rows, next_cursor = await asked.engine.replays.items(
        asked.call,
        integration_id,
        name,
        None if state is None else ItemState(state),
        limit=limit,
        cursor=cursor,
    )
    return asked.json(
        200,
        {
            "replay_id": job.replay_id,
            "state": state,
            "limit": limit,
            "items": [_item(row) for row in rows],
            "next_cursor": next_cursor,
        },
    )


async def pause_replay(asked: Asked) -> Reply:
    """Replay nothing more of it for now; what was replayed goes on."""
    return await _changed(asked, asked.engine.replays.pause)


async def resume_replay(asked: Asked) -> Reply:
    """Let a paused job go on; what failed before is no reason to halt."""
    return await _changed(asked, asked.engine.replays.resume)


async def cancel_replay(asked: Asked) -> Reply:
    """Replay nothing more of it, for good; what was replayed stays so, and goes on."""
    return await _changed(asked, asked.engine.replays.cancel)


async def pace_replay(asked: Asked) -> Reply:
    """Change how many items a second it replays; null: as fast as the integration's own limits."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    rate = body.read(raw, NewRate).rate
    _raise(check_options(Options(reason="", rate=rate)))
    told = await asked.engine.replays.set_rate(
        asked.call, integration_id, name, rate, render=_render(asked, 200), key=asked.key(raw)
    )
    return asked.reply(told)


def path_replay_id(asked: Asked) -> str:
    """The replay_id of the path, or InvalidPayload when it breaks its grammar."""
    found = asked.path["replay_id"]
    if parse_replay_id(found) is None:
        raise InvalidPayload(Fault("replay_id", "rpl_ and 13 characters"))
    return found


def view(seen: SeenJob) -> dict[str, Any]:
    """A plan, or the job it became."""
    job, run, options = seen.job, seen.job.run, seen.job.options
    eta = seen.eta_seconds
    return {
        "replay_id": job.replay_id,
        "integration_id": seen.integration.integration_id,
        "state": job.shown_state(seen.now).value,
        "verdict": seen.verdict.value,
        "because": job.because,
        "waits_for": seen.waits_for,
        "filter": _shown_filter(job),
        "as_of": rfc3339(job.as_of),
        "expires_at": rfc3339(job.expires_at),
        "plan": None if job.plan is None else _shown_plan(job.plan),
        "options": None if options is None else _shown_options(options),
        "progress": {name: getattr(seen.progress, name) for name in _PROGRESS}
        | {
            "total": seen.progress.total,
            "outcomes_per_second": round(seen.outcomes_per_second, 3),
            "eta_seconds": None if eta is None else round(eta, 1),
        },
        "created_by": job.planned_by,
        "created_at": rfc3339(job.as_of),
        "run_by": None if run is None else run.by.id,
        "run_at": None if run is None else rfc3339(run.at),
        "run_request_id": None if run is None else run.request_id,
        "updated_by": job.changed_by,
        "updated_at": rfc3339(job.changed_at),
    }


async def _changed(asked: Asked, verb: Callable[..., Awaitable[Told]]) -> Reply:
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    _raise([(f"/{name}", "unknown field") for name in body.members(raw)])
    told = await verb(asked.call, integration_id, name, render=_render(asked, 200), key=asked.key(raw))
    return asked.reply(told)


def _render(asked: Asked, status: int) -> Callable[[SeenJob], Told]:
    return lambda seen: asked.told(status, {"replay": view(seen)})


def _options(given: ReplayRun) -> Options:
    options = Options(
        reason=given.reason,
        incident=given.incident,
        rate=given.rate,
        concurrency=given.concurrency,
        canary=Canary(given.canary.size, given.canary.share),
        halt_if=HaltIf(given.halt_if.share, given.halt_if.last),
        order=given.order,
        require_healthy=given.require_healthy,
    )
    faults = check_options(options)
    if not is_line(given.reason, 256):
        faults.append(("/reason", "1–256 characters on one line, no space at either end"))
    if given.incident is not None and not is_line(given.incident, 128):
        faults.append(("/incident", "1–128 characters on one line, no space at either end"))
    _raise(faults)
    return options


def _wanted(given: ReplayFilter) -> Wanted:
    own = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) is not None}
    faults = [
        (f"/filter/{alone}", "names the items itself: it goes with no other filter")
        for alone in ("recovery_ids", "failures_of")
        if alone in own and len(own) > 1
    ]
    faults += [
        (f"/filter/{name}", f"1–{most} characters on one line")
        for name, most in (("failure_code", 64), ("event_type", 128))
        if name in own and not is_line(own[name], most)
    ]
    if given.cycle is not None and not 1 <= given.cycle <= MOST_CYCLE:
        faults.append(("/filter/cycle", f"must be between 1 and {MOST_CYCLE}"))
    job = None if given.failures_of is None else parse_replay_id(given.failures_of)
    if given.failures_of is not None and job is None:
        faults.append(("/filter/failures_of", "the replay_id of an earlier job: rpl_ and 13 characters"))
    wanted = Wanted(
        status=None if given.status is None else Status(given.status),
        group=_group(given.group, faults),
        failure_code=given.failure_code,
        duplicate_risk=None if given.duplicate_risk is None else Risk[given.duplicate_risk.upper()],
        event_type=given.event_type,
        cycle=given.cycle,
        since=_instant(given.since, "since", faults),
        until=_instant(given.until, "until", faults),
        recovery_ids=_named(given.recovery_ids, faults),
        failures_of=job,
    )
    _raise(faults)
    return wanted


def _named(given: list[str] | None, faults: list[tuple[str, str]]) -> tuple[Any, ...] | None:
    if given is None:
        return None
    if not given:
        faults.append(("/filter/recovery_ids", "is empty; leave it out for every item"))
    ids = [parse_recovery_id(one) for one in given]
    if None in ids:
        faults.append((f"/filter/recovery_ids/{ids.index(None)}", "not a recovery_id of this service"))
    return tuple(ids)


def _group(text: str | None, faults: list[tuple[str, str]]) -> int | None:
    number = None if text is None else parse_group_id(text)
    if text is not None and number is None:
        faults.append(("/filter/group", "the id of a group: grp_ and what follows"))
    return number


def _instant(text: str | None, name: str, faults: list[tuple[str, str]]) -> datetime | None:
    instant = None if text is None else parse_instant(text)
    if text is not None and instant is None:
        faults.append((f"/filter/{name}", "must be an RFC 3339 instant such as 2026-03-01T14:02:11Z"))
    return instant


def _raise(faults: list[tuple[str, str]]) -> None:
    if faults:
        raise InvalidPayload(*(Fault(pointer, detail) for pointer, detail in faults))


def _shown_filter(job: Job) -> dict[str, Any]:
    """What was asked for; of items that were named, how many."""
    wanted = job.wanted
    return {
        "status": None if wanted.status is None else wanted.status.value,
        "group": None if wanted.group is None else group_id(wanted.group),
        "failure_code": wanted.failure_code,
        "duplicate_risk": None if wanted.duplicate_risk is None else _risk(wanted.duplicate_risk),
        "event_type": wanted.event_type,
        "cycle": wanted.cycle,
        "since": views.instant(wanted.since),
        "until": views.instant(wanted.until),
        "named_items": job.named,
        "failures_of": None if wanted.failures_of is None else replay_id(wanted.failures_of),
    }


def _shown_plan(plan: Plan) -> dict[str, Any]:
    return {
        "digest": plan.digest,
        "total": plan.total,
        "eligible": plan.eligible,
        "skipped": plan.skipped,
        "duplicate_risk": {_risk(risk): plan.risks.get(risk, 0) for risk in Risk if risk is not Risk.NONE},
        "oldest_at": None if plan.oldest is None else rfc3339(instant_of(plan.oldest)),
        "estimated_seconds": None if plan.estimated_seconds is None else round(plan.estimated_seconds, 1),
    }


def _shown_options(options: Options) -> dict[str, Any]:
    return {
        "reason": options.reason,
        "incident": options.incident,
        "rate": options.rate,
        "concurrency": options.concurrency,
        "canary": {"size": options.canary.size, "share": options.canary.share},
        "halt_if": {"share": options.halt_if.share, "last": options.halt_if.last},
        "order": options.order,
        "require_healthy": options.require_healthy,
    }


def _item(row: ItemRow) -> dict[str, Any]:
    return {
        "recovery_id": recovery_id(row.item),
        "planned_cycle": row.cycle,
        "duplicate_risk": _risk(row.risk) if row.risk else None,
        "state": row.state.value,
        "reason": row.reason,
        "first_attempt_failed": row.stumbled,
        "first_attempt_at": views.instant(row.told_at),
    }


def _risk(number: int) -> str:
    return Risk(number).name.lower()
