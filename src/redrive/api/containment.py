"""Calls that contain an integration and release it."""

from typing import Any, Literal

import msgspec

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.faults import of_name, of_reason, read_instant, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.domain.errors import Fault
from redrive.domain.integration import RANGES
from redrive.domain.traffic import Mode
from redrive.engine.containing import Contained, Released, Terms
from redrive.engine.once import Told


class NewContainment(msgspec.Struct, forbid_unknown_fields=True):
    """The body that contains. It ends `until` an instant or `for_seconds` from now, else after 4 hours."""

    reason: str
    mode: Literal["hold", "reject"] = "hold"
    owner: str | None = None
    until: str | None = None
    for_seconds: float | None = None
    incident: str | None = None


class NewRelease(msgspec.Struct, forbid_unknown_fields=True):
    """The body that releases. Without a rate what waits goes as fast as the integration allows."""

    reason: str
    rate_per_second: float | None = None
    dry_run: bool = False


async def show_containment(asked: Asked) -> Reply:
    """Whether it is contained, by whom and why; what waits and what is in flight."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    found = await asked.engine.containing.show(asked.call, integration_id)
    return asked.json(200, _shown(found))


async def contain(asked: Asked) -> Reply:
    """Stop all that goes to the integration, or change how and until when.

    200 when no attempt can start any more, 202 (`containing`) when some process has not confirmed that yet:
    then a GET tells when.
    """
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    terms = _terms(body.read(raw, NewContainment))

    def render(found: Contained) -> Told:
        return asked.told(202 if found.state == "containing" else 200, _shown(found))

    told = await asked.engine.containing.contain(
        asked.call, integration_id, terms, render=render, key=asked.key(raw)
    )
    return asked.reply(told)


async def release(asked: Asked) -> Reply:
    """Let it send again: what waits at the rate given, whose effects are simulated first."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    given = body.read(raw, NewRelease)
    _check_release(given)

    def render(done: Released) -> Told:
        return asked.told(
            200,
            {
                "integration_id": integration_id,
                "released": not done.dry_run,
                "dry_run": done.dry_run,
                "simulation": done.simulation,
                "containment": views.containment(done.integration),
                "release": views.release(done.integration),
                "reason": given.reason,
            },
        )

    told = await asked.engine.containing.release(
        asked.call,
        integration_id,
        given.reason,
        rate_per_second=given.rate_per_second,
        dry_run=given.dry_run,
        render=render,
        key=asked.key(raw),
    )
    return asked.reply(told)


def _shown(found: Contained) -> dict[str, Any]:
    return {
        "integration_id": found.integration.integration_id,
        "state": found.state,
        "containment": views.containment(found.integration),
        "release": views.release(found.integration),
        "waiting": None if found.standing is None else found.standing.waiting,
        "in_flight": None if found.standing is None else found.standing.in_flight,
    }


def _terms(given: NewContainment) -> Terms:
    """What is asked for, or InvalidPayload with all that is wrong with it."""
    faults = of_reason(given.reason) + of_name("/owner", given.owner) + of_name("/incident", given.incident)
    until = read_instant("/until", given.until, faults)
    refuse(faults)
    return Terms(given.reason, Mode(given.mode), given.owner, until, given.for_seconds, given.incident)


def _check_release(given: NewRelease) -> None:
    faults = of_reason(given.reason)
    low, high = RANGES["rate_per_second"]
    if given.rate_per_second is not None and not low <= given.rate_per_second <= high:
        faults.append(Fault("/rate_per_second", f"must be between {low:g} and {high:g}"))
    refuse(faults)
