"""The audit events of plans and jobs, and of each item that a job replays."""

from datetime import datetime
from typing import Any

from redrive.audit.record import NOTHING, Actor, AuditEvent, EventType
from redrive.domain.access import SYSTEM, Call
from redrive.domain.delivery import item_state
from redrive.domain.ids import EventId, recovery_id
from redrive.domain.item import Status
from redrive.domain.replay import Job, Progress
from redrive.domain.replay_judging import Waiting
from redrive.engine.audited import actor
from redrive.engine.tools import NextId


def job_state(job: Job) -> dict[str, Any]:
    """A job as audit events show it."""
    return {
        "state": job.state.value,
        "plan_digest": None if job.plan is None else job.plan.digest,
        "eligible": None if job.plan is None else job.plan.eligible,
        "rate": None if job.options is None else job.options.rate,
    }


def of_change(
    next_id: NextId,
    now: datetime,
    kind: EventType,
    integration_id: str,
    *,
    before: Job | None,
    after: Job,
    call: Call | None = None,
    progress: Progress | None = None,
) -> AuditEvent:
    """A change of a job by *call*, or else by itself: then under the request that ran it."""
    run, options = after.run, after.options
    metadata: dict[str, Any] = {"because": after.because}
    if options is not None:
        metadata |= {"reason": options.reason, "incident": options.incident}
    if progress is not None:
        metadata["progress"] = {name: getattr(progress, name) for name in Progress.__struct_fields__}
    request_id = run.request_id if run is not None else after.request_id
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=kind,
        request_id=request_id if call is None else call.request_id,
        source_request_id=after.request_id,
        traceparent=(None if run is None else run.traceparent) if call is None else call.traceparent,
        actor=actor(SYSTEM if call is None else call.principal),
        integration_id=integration_id,
        target_type="replay_job",
        target_id=after.replay_id,
        result="success",
        before_state=NOTHING if before is None else job_state(before),
        after_state=job_state(after),
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def of_item(
    next_id: NextId, now: datetime, job: Job, integration_id: str, one: Waiting, *, status: Status
) -> AuditEvent:
    """A job replays an item: as if whoever ran the job had replayed it under the same request."""
    run, options = job.started, job.chosen
    metadata = {"reason": options.reason, "replay_id": job.replay_id, "incident": options.incident}
    before = item_state(status, cycle=one.cycle, attempt_count=one.attempt, failure_code=one.failure_code)
    after = item_state(Status.REPLAYED, cycle=one.cycle + 1, attempt_count=0, failure_code=one.failure_code)
    by = run.by
    return AuditEvent(
        id=EventId(next_id(now)),
        occurred_at=now,
        event_type=EventType.REPLAYED,
        request_id=run.request_id,
        source_request_id=one.request_id,
        traceparent=run.traceparent,
        actor=Actor(by.id, by.type, by.session_id, by.tenant),
        integration_id=integration_id,
        target_type="recovery_item",
        target_id=recovery_id(one.item),
        result="success",
        before_state=before,
        after_state=after,
        metadata={name: value for name, value in metadata.items() if value is not None},
        previous=one.head_digest,
    )
