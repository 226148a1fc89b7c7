"""A plan of a replay of many, the job it became and its items, as a caller sees them."""

from typing import Any, Final

from redrive.api import views
from redrive.domain.delivery import rfc3339
from redrive.domain.ids import group_id, instant_of, recovery_id, replay_id
from redrive.domain.outcome import Risk
from redrive.domain.replay import Job, Options, Plan, Progress
from redrive.engine.seeing import SeenJob
from redrive.store.replays import ItemRow

_PROGRESS: Final = Progress.__struct_fields__


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


def view_item(row: ItemRow) -> dict[str, Any]:
    """What became of one item."""
    return {
        "recovery_id": recovery_id(row.item),
        "planned_cycle": row.cycle,
        "duplicate_risk": _risk(row.risk) if row.risk else None,
        "state": row.state.value,
        "reason": row.reason,
        "first_attempt_failed": row.stumbled,
        "first_attempt_at": views.instant(row.told_at),
    }


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


def _risk(number: int) -> str:
    return Risk(number).name.lower()
