"""What a caller says of a replay of many: which items, how they are replayed, at which rate."""

from typing import Any, Final, Literal

import msgspec

from redrive.api.faults import of_line, of_name, of_reason, read_instant, refuse
from redrive.domain.errors import Fault
from redrive.domain.ids import JobId, parse_group_id, parse_recovery_id, parse_replay_id
from redrive.domain.item import Status
from redrive.domain.outcome import Risk
from redrive.domain.replay import Canary, HaltIf, Options, Order, Wanted, check_options

MOST_CYCLE: Final = 1_000_000
RiskName = Literal["never_sent", "refused", "ambiguous"]


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


def read_options(given: ReplayRun) -> Options:
    """How the plan is to be run, or InvalidPayload with all that is wrong."""
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
    faults = [Fault(*each) for each in check_options(options)]
    faults += of_reason(given.reason) + of_name("/incident", given.incident)
    refuse(faults)
    return options


def read_wanted(given: ReplayFilter) -> Wanted:
    """Which items are asked for, or InvalidPayload with all that is wrong."""
    faults = _check_alone(given)
    faults += of_line("/filter/failure_code", given.failure_code, 64)
    faults += of_name("/filter/event_type", given.event_type)
    if given.cycle is not None and not 1 <= given.cycle <= MOST_CYCLE:
        faults.append(Fault("/filter/cycle", f"must be between 1 and {MOST_CYCLE}"))
    wanted = Wanted(
        status=None if given.status is None else Status(given.status),
        group=_group(given.group, faults),
        failure_code=given.failure_code,
        duplicate_risk=None if given.duplicate_risk is None else Risk[given.duplicate_risk.upper()],
        event_type=given.event_type,
        cycle=given.cycle,
        since=read_instant("/filter/since", given.since, faults),
        until=read_instant("/filter/until", given.until, faults),
        recovery_ids=_named(given.recovery_ids, faults),
        failures_of=_job(given.failures_of, faults),
    )
    refuse(faults)
    return wanted


def check_rate(rate: float | None) -> None:
    """InvalidPayload when no job goes at such a rate."""
    refuse([Fault(*each) for each in check_options(Options(reason="", rate=rate))])


def _check_alone(given: ReplayFilter) -> list[Fault]:
    own = [name for name in given.__struct_fields__ if getattr(given, name) is not None]
    return [
        Fault(f"/filter/{alone}", "names the items itself: it goes with no other filter")
        for alone in ("recovery_ids", "failures_of")
        if alone in own and len(own) > 1
    ]


def _named(given: list[str] | None, faults: list[Fault]) -> tuple[Any, ...] | None:
    if given is None:
        return None
    if not given:
        faults.append(Fault("/filter/recovery_ids", "is empty; leave it out for every item"))
    ids = [parse_recovery_id(one) for one in given]
    if None in ids:
        faults.append(Fault(f"/filter/recovery_ids/{ids.index(None)}", "not a recovery_id of this service"))
    return tuple(ids)


def _group(text: str | None, faults: list[Fault]) -> int | None:
    number = None if text is None else parse_group_id(text)
    if text is not None and number is None:
        faults.append(Fault("/filter/group", "the id of a group: grp_ and what follows"))
    return number


def _job(text: str | None, faults: list[Fault]) -> JobId | None:
    job = None if text is None else parse_replay_id(text)
    if text is not None and job is None:
        faults.append(Fault("/filter/failures_of", "the replay_id of an earlier job: rpl_ and 13 characters"))
    return job
