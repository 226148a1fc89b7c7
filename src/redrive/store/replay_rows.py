"""Jobs between values and rows: what is a column stands there, everything else in `config` as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from redrive.domain.ids import EventId, ItemId, JobId, recovery_id
from redrive.domain.item import Status
from redrive.domain.replay import ItemState, Job, Progress, ReplayState
from redrive.domain.replay_judging import Candidate, Kin, Skip, Waiting
from redrive.domain.replay_pace import Figures, Tried
from redrive.store.port import StoreInconsistent
from redrive.store.replays import ItemRow
from redrive.store.rows import Row, from_ms, to_choice

_encoder: Final = msgspec.json.Encoder()
_jobs: Final = msgspec.json.Decoder(Job)


def job_columns(job: Job) -> Row:
    """state, version, digest, settled, config."""
    digest = None if job.plan is None else job.plan.digest
    return job.state.value, job.version, digest, job.settled, _encoder.encode(job).decode()


def to_job(row: Row) -> Job:
    """From integration, id, state, version, settled, config."""
    integration, number, state, version, settled, config = row
    try:
        job = _jobs.decode(config)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreInconsistent(f"job {number} cannot be read: {error}") from error
    if (job.integration, job.id) != (integration, number) or job.state != state:
        raise StoreInconsistent(f"{job.replay_id} is stored as {state} and as something else")
    return replace(job, state=to_choice(ReplayState, state), version=version, settled=bool(settled))


def to_candidate(row: Row) -> Candidate:
    """From the columns of `replay_candidates`."""
    (
        number,
        cycle,
        risk,
        died_at,
        resolved,
        busy,
        event_type,
        size,
        erased,
        is_open,
        *kin,
    ) = row
    return Candidate(
        id=ItemId(number),
        cycle=cycle,
        risk=risk,
        died_at=from_ms(died_at) if cycle else None,
        is_resolved=bool(resolved),
        is_busy=bool(busy),
        event_type=event_type,
        size=size,
        is_erased=bool(erased),
        is_open=bool(is_open),
        kin=_kin(kin),
    )


def to_progress(rows: Iterable[Row]) -> Progress:
    """From state and count."""
    return Progress(**{to_choice(ItemState, state).value: count for state, count in rows})


def to_progresses(rows: Iterable[Row]) -> dict[JobId, Progress]:
    """From job, state and count."""
    of_each: dict[JobId, list[Row]] = {}
    for job, *counted in rows:
        of_each.setdefault(JobId(job), []).append(tuple(counted))
    return {job: to_progress(counted) for job, counted in of_each.items()}


def to_item_row(row: Row) -> ItemRow:
    """From the columns of `replay_items`."""
    item, cycle, risk, state, reason, told_at, stumbled = row
    return ItemRow(
        ItemId(item), cycle, risk, to_choice(ItemState, state), reason,
        None if told_at is None else from_ms(told_at), bool(stumbled),
    )  # fmt: skip


def to_moved_on(counts: Row) -> dict[str, int]:
    """From the columns of `moved_on`; none of those that are 0."""
    reasons = (Skip.REPLAYED_SINCE, Skip.RESOLVED, Skip.CORRECTED, Skip.IN_ANOTHER_JOB)
    return {reason.value: count for reason, count in zip(reasons, counts, strict=True) if count}


def canary_of(job: Job) -> Sequence[ItemId]:
    """Those of which `figures` tells, each by itself."""
    return () if job.canary_passed or job.plan is None else job.plan.canary


def to_figures(row: Row, tried: Iterable[Row]) -> Figures:
    """From the columns of `figures` and the rows of `canary_items`."""
    sends, in_flight, untold, waits, last, told = row
    return Figures(
        has_waiting=bool(waits),
        in_flight=in_flight,
        untold=untold,
        told_in_last_second=told,
        last=tuple(map(bool, last)),
        canary=tuple(map(_to_tried, tried)),
        sends=bool(sends),
    )


def _to_tried(row: Row) -> Tried:
    item, state, is_told, stumbled = row
    return Tried(ItemId(item), to_choice(ItemState, state), bool(is_told), bool(stumbled))


def to_waiting(row: Row, heads: Mapping[str, tuple[Any, ...]]) -> Waiting:
    """From the columns of `next_waiting`; *heads*: the last event of each name, and its digest."""
    (item, planned, status, cycle, attempt, code, resolved, is_open, erased, request_id, same, *kin) = row
    head, digest = heads.get(recovery_id(item), (None, None))
    return Waiting(
        item=ItemId(item),
        planned_cycle=planned,
        status=None if status is None else to_choice(Status, status),
        cycle=cycle,
        attempt=attempt,
        failure_code=code,
        is_resolved=bool(resolved),
        is_open=bool(is_open),
        is_erased=bool(erased),
        request_id=request_id,
        same_request=bool(same),
        kin=_kin(kin),
        head=None if head is None else EventId(head),
        head_digest=None if digest is None else bytes(digest).hex(),
    )


def _kin(columns: Sequence[Any]) -> Kin | None:
    """From whether it is superseded, corrected, and a copy itself."""
    kinds = (Kin.SUPERSEDED, Kin.CORRECTED, Kin.COPY)
    return next((kind for kind, holds in zip(kinds, columns, strict=True) if holds), None)
