"""Why nothing is there to be replayed, while a partner fails: what is open is still sent by itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redrive.cli.values import counted

if TYPE_CHECKING:
    from redrive.client import Client


def why_nothing_is_dead(client: "Client", integration_id: str) -> str | None:
    """What is open instead, what holds it, and what to look at; None when there is nothing to tell."""
    from redrive.client import ProblemError, ServiceUnreachable

    try:
        standing = client.containment(integration_id)
        breaker = client.integration_health(integration_id)["breaker"]
    except (ProblemError, ServiceUnreachable):
        return None  # it is a courtesy: the command itself has done what it was asked
    held = (standing["waiting"] or 0) + (standing["in_flight"] or 0)
    if not held and (standing["containment"] is not None or breaker["state"] == "closed"):
        return None
    if standing["containment"] is not None:
        found, look = "held, for it is contained", "containment"
    else:
        by = "itself" if held == 1 else "themselves"
        found, look = f"still to be sent by {by}{_breaker(breaker)}", "health"
    what = f"{counted(held, 'item')} {'is' if held == 1 else 'are'} {found}"
    return f"   note: nothing dead matches: {what}; redrive integration {look} {integration_id}"


def why_all_are_skipped(client: "Client", replay: Mapping[str, Any]) -> str | None:
    """What to do first, of a plan in which nothing is eligible."""
    integration_id, skipped = replay["integration_id"], set(replay["plan"]["skipped"])
    if skipped <= {"unfinished"}:
        return why_nothing_is_dead(client, integration_id)
    if skipped != {"contained"}:
        return None
    release = f'redrive integration release {integration_id} --reason "…"'
    return f"   note: its integration does not send now: release it first, then plan again; {release}"


def _breaker(found: Mapping[str, Any]) -> str:
    if found["state"] == "closed":
        return ""
    trial = f", next trial {found['until'][11:19]}Z" if found["until"] else ""
    return f" (breaker {found['state'].replace('_', ' ')}{trial})"
