"""What operators are told, and when: signs of trouble become messages, each once, and not again for a while.

The state that is handed on is all there is to remember: whoever reads it goes on from there. What a message
is called follows from the state it came with, so that saying it twice can be noticed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from redrive.domain.delivery import rfc3339
from redrive.domain.integration import Integration
from redrive.domain.traffic import NO_HEALTH_URL


class Kind(StrEnum):
    """What there is to be told."""

    DLQ_GROWTH = "dlq_growth"
    BREAKER_OPENED = "breaker_opened"
    CONTAINMENT_EXPIRING = "containment_expiring"
    CONTAINMENT_EXPIRED = "containment_expired"
    JOB_HALTED = "job_halted"
    CHAIN_BROKEN = "chain_broken"


SEVERITY: Final = {
    Kind.DLQ_GROWTH: "warning",
    Kind.BREAKER_OPENED: "warning",
    Kind.CONTAINMENT_EXPIRING: "warning",
    Kind.CONTAINMENT_EXPIRED: "critical",
    Kind.JOB_HALTED: "warning",
    Kind.CHAIN_BROKEN: "critical",
}
_SUMMARY: Final = {
    Kind.DLQ_GROWTH: "many deliveries to {} failed for good",
    Kind.BREAKER_OPENED: "the circuit breaker of {} opened: its items wait",
    Kind.CONTAINMENT_EXPIRING: "the containment of {} is about to run out",
    Kind.CONTAINMENT_EXPIRED: "the containment of {} ran out and goes on, for its receiver is not well",
    Kind.JOB_HALTED: "a replay job of {} halted",
    Kind.CHAIN_BROKEN: "audit records of {} were altered, are missing or out of order",
}
_OVER: Final = {
    Kind.DLQ_GROWTH: "deliveries to {} do not fail for good in numbers any more",
    Kind.BREAKER_OPENED: "the circuit breaker of {} closed: what waited is sent",
    Kind.CONTAINMENT_EXPIRING: "the containment of {} was released or prolonged, or ran out",
    Kind.CONTAINMENT_EXPIRED: "the containment of {} was released or prolonged",
    Kind.JOB_HALTED: "a later replay job of {} was completed",
    Kind.CHAIN_BROKEN: "the audit records of {} are whole",
}
_COMMAND: Final = {
    Kind.DLQ_GROWTH: "redrive group list {}",
    Kind.BREAKER_OPENED: "redrive integration probe {}",
    Kind.CONTAINMENT_EXPIRING: "redrive integration containment {}",
    Kind.CONTAINMENT_EXPIRED: "redrive integration probe {}",
    Kind.JOB_HALTED: "redrive replay list {}",
    Kind.CHAIN_BROKEN: "redrive audit verify --live",
}
_PATH: Final = {
    Kind.DLQ_GROWTH: "/platform/integrations/{}/recovery/groups",
    Kind.BREAKER_OPENED: "/platform/integrations/{}/health",
    Kind.CONTAINMENT_EXPIRING: "/platform/integrations/{}/containment",
    Kind.CONTAINMENT_EXPIRED: "/platform/integrations/{}/containment",
    Kind.JOB_HALTED: "/platform/integrations/{}/recovery/replays",
    Kind.CHAIN_BROKEN: "/platform/audit/events?integration_id={}",
}
MOST_WINDOWS: Final = 48  # what grew before those is no news any more: it stands in the groups of failures
# What audit events begin, and what they end. What a containment is about stands in the integration itself.
BEGINS: Final = {
    "platform.integration.breaker_opened": Kind.BREAKER_OPENED,
    "platform.integration.replay_job.halted": Kind.JOB_HALTED,
    "platform.integration.chain_broken": Kind.CHAIN_BROKEN,
}
ENDS: Final = {
    "platform.integration.breaker_closed": Kind.BREAKER_OPENED,
    "platform.integration.replay_job.completed": Kind.JOB_HALTED,  # a later one: what halted is over for good
}


class Thresholds(Struct, frozen=True):
    """What is too much: more than `dead_letters` of an integration within `window`.

    After a message its kind is `quiet` about that integration.
    """

    dead_letters: int = 100
    window: timedelta = timedelta(minutes=10)
    quiet: timedelta = timedelta(minutes=60)


class Sign(Struct, frozen=True):
    """Something is amiss with an integration, or is so no more."""

    kind: Kind
    integration_id: str
    at: datetime
    is_on: bool
    facts: dict[str, Any] = {}


class Alert(Struct, frozen=True):
    """What is amiss, or was until a short while ago."""

    kind: Kind
    integration_id: str
    since: datetime
    is_on: bool
    facts: dict[str, Any]
    is_news: bool = True  # there is something that was not told
    is_told: bool = False  # that it is amiss was told
    told_at: datetime | None = None  # when something of this kind was told last


class State(Struct, frozen=True):
    """What is remembered. `version` grows with every one that is kept.

    `seen`: the latest events that were looked at. `outbox`: what is to be told, or just was.
    """

    looked_at: datetime
    version: int = 0
    seen: tuple[int, ...] = ()
    alerts: tuple[Alert, ...] = ()
    outbox: tuple["Message", ...] = ()

    def is_on(self, kind: Kind, integration_id: str) -> bool:
        """Whether it is amiss, as far as is known."""
        return any(
            alert.is_on
            for alert in self.alerts
            if (alert.kind, alert.integration_id) == (kind, integration_id)
        )


class Message(Struct, frozen=True):
    """One thing to tell. `key`: under which it is told once, however often it is tried."""

    key: str
    alert: Alert
    is_over: bool

    @property
    def event_type(self) -> str:
        """As what it is delivered."""
        return f"redrive.alert.{self.alert.kind}"

    def payload(self) -> dict[str, Any]:
        """What is told."""
        kind, about = self.alert.kind, self.alert.integration_id
        summary = (_OVER if self.is_over else _SUMMARY)[kind].format(about)
        return {
            "kind": kind.value,
            "state": "resolved" if self.is_over else "raised",
            "severity": "info" if self.is_over else SEVERITY[kind],
            "integration": about,
            "summary": summary,
            "since": rfc3339(self.alert.since),
            "facts": self.alert.facts,
            "act": {"command": _COMMAND[kind].format(about), "path": _PATH[kind].format(about)},
        }


def decide(state: State, signs: Iterable[Sign], *, now: datetime, quiet: timedelta) -> State:
    """What is to be remembered after these *signs*, in their order, and told.

    The same kind is not told again of the same integration within *quiet*; if it is still so then, or again,
    it is told late. That it is over is told at once, if that it had begun was.
    """
    alerts = {(alert.kind, alert.integration_id): alert for alert in state.alerts}
    messages: list[Message] = []
    for sign in signs:
        place = (sign.kind, sign.integration_id)
        known = alerts.get(place)
        if sign.is_on:
            alerts[place] = _begun(known, sign)
        elif known is not None and known.is_on:
            if known.is_told:
                messages.append(_message(state, known, is_over=True))
            alerts[place] = replace(known, is_on=False, is_news=False, is_told=False)
    for place, alert in alerts.items():
        if alert.is_on and alert.is_news and not _is_quiet(alert, now, quiet):
            messages.append(_message(state, alert, is_over=False))
            alerts[place] = replace(alert, is_news=False, is_told=True, told_at=now)
    kept = tuple(alert for alert in alerts.values() if alert.is_on or _is_quiet(alert, now, quiet))
    return replace(state, alerts=kept, outbox=tuple(messages))


def windows_to_count(looked_at: datetime, now: datetime, window: timedelta) -> list[datetime]:
    """The ends of those that are to be counted, as if somebody had looked all the time since *looked_at*.

    Nobody may have looked for hours, say for alerts could not be handed over. One count of all that time
    would take a few now and then for growth, and only the latest window would miss what grew meanwhile. They
    overlap by half, so that growth is not cut in two by their ends.
    """
    ends = [now]
    while len(ends) < MOST_WINDOWS and ends[0] - window / 2 > looked_at:
        ends.insert(0, ends[0] - window / 2)
    return ends


def signs_of_growth(
    state: State, counted: Sequence[tuple[datetime, Mapping[str, int]]], most: int, *, thresholds: Thresholds
) -> list[Sign]:
    """What the dead letters of integrations say, *counted* up to *most* in windows by their ends.

    It is over when at most half as many die as it takes to begin.
    """
    on = {alert.integration_id for alert in state.alerts if alert.kind is Kind.DLQ_GROWTH and alert.is_on}
    return [
        sign
        for about in sorted(on.union(*(died for _, died in counted)))
        for sign in _growth(
            about, [(end, died.get(about, 0)) for end, died in counted], most, thresholds, is_on=about in on
        )
    ]


def signs_of_containment(state: State, integrations: Collection[Integration], *, now: datetime) -> list[Sign]:
    """What stands in the integrations themselves, where it differs from what is known."""
    signs = []
    for one in integrations:
        containment = one.traffic.containment
        is_expired = containment is not None and containment.probes > 0
        is_expiring = containment is not None and containment.is_warned and not is_expired
        for kind, is_on in ((Kind.CONTAINMENT_EXPIRING, is_expiring), (Kind.CONTAINMENT_EXPIRED, is_expired)):
            if is_on != state.is_on(kind, one.integration_id):
                facts = {} if containment is None else containment.state()
                if is_on and one.health_url is None:  # it is tried with one item, and then with nothing
                    facts["advice"] = f"it has no health_url: {NO_HEALTH_URL}"
                signs.append(Sign(kind, one.integration_id, now, is_on, facts))
    return signs


def _begun(known: Alert | None, sign: Sign) -> Alert:
    if known is None:
        return Alert(sign.kind, sign.integration_id, sign.at, True, sign.facts)
    since = known.since if known.is_on else sign.at
    return replace(known, since=since, is_on=True, is_news=True, facts=sign.facts)


def _is_quiet(alert: Alert, now: datetime, quiet: timedelta) -> bool:
    return alert.told_at is not None and now - alert.told_at < quiet


def _message(state: State, alert: Alert, *, is_over: bool) -> Message:
    word = "over" if is_over else "on"
    return Message(f"alert.{alert.kind}.{alert.integration_id}.{word}.{state.version}", alert, is_over)


def _growth(
    about: str, counts: Sequence[tuple[datetime, int]], most: int, thresholds: Thresholds, *, is_on: bool
) -> Iterator[Sign]:
    """What has just begun is told first; that it is over, if it is, when it is looked at again."""
    limit, minutes = thresholds.dead_letters, int(thresholds.window.total_seconds() // 60)
    has_begun = False
    for end, count in counts:
        if count > limit:
            has_begun, is_on = has_begun or not is_on, True
            facts = {"dead_letters": min(count, most), "is_exact": count <= most, "within_minutes": minutes}
            yield Sign(Kind.DLQ_GROWTH, about, end, is_on=True, facts=facts)
        elif is_on and not has_begun and count * 2 <= limit:
            is_on = False
            yield Sign(Kind.DLQ_GROWTH, about, end, is_on=False)
