"""What a person does next about an error of the service: a command to copy, with the ids of the call."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redrive.client import ProblemError

_PLACE: Final = re.compile(
    r"/platform/integrations/(?P<integration>[^/]+)(?:/recovery/(?:queue|groups|replays)/(?P<name>[^/]+))?"
)
_REPLAY: Final = re.compile(r"\brpl_[0-9a-z]+")
_PERMISSION: Final = re.compile(r"\bplatform\.\w+\.(\w+)")


def advice_on(problem: "ProblemError") -> str | None:
    """What to do next, or None where the error does not tell."""
    if problem.error_code == "INT-409-CONFLICT":
        found = _on_conflict(problem)
    elif problem.error_code == "AUTH-403-FORBIDDEN":
        found = _on_forbidden(problem.detail)
    elif problem.error_code in _ADVICE:
        found = _ADVICE[problem.error_code]
    elif problem.status >= 500:
        found = "try again; `redrive doctor` and the service's log say more"
    else:
        found = "check the arguments (--help) and that --url is the address of a redrive service"
    return None if found is None else _filled_in(found, problem)


def _on_conflict(problem: "ProblemError") -> str | None:
    """By what is in it, never by its sentence: what differs from a plan, or the job that it names."""
    if "difference" in problem.problem:
        return "redrive replay plan INTEGRATION …"
    if (replay := _REPLAY.search(problem.detail)) is None:
        return None
    if _path(problem).endswith("/recovery/replays"):  # it cannot be run, or not again
        return (
            f"`redrive replay show INTEGRATION {replay[0]}` tells how it stands;"
            " `redrive replay plan INTEGRATION …` makes a new plan"
        )
    if "/recovery/replays/" in _path(problem):
        return f"redrive replay show INTEGRATION {replay[0]}"
    return f"redrive replay watch INTEGRATION {replay[0]}"


def _on_forbidden(detail: str) -> str:
    named = _PERMISSION.search(detail)
    which = (
        f"`redrive token create --subject … --permission {named[1]}`" if named else "`redrive token create`"
    )
    return f"use a token that has this permission; {which} makes one"


def _filled_in(advice: str, problem: "ProblemError") -> str:
    place = _PLACE.match(_path(problem))
    if place is None:
        return advice
    filled = advice.replace("INTEGRATION", place["integration"])
    return filled.replace("RECOVERY_ID", place["name"]) if place["name"] else filled


def _path(problem: "ProblemError") -> str:
    return str(problem.problem.get("instance"))


_ADVICE: Final = {
    "AUTH-401-UNAUTHENTICATED": "set REDRIVE_TOKEN (or --token); `redrive token create` makes a token",
    "INT-400-INVALID-PAYLOAD": "correct it and run the command again; nothing was changed",
    "INT-404-NOT-FOUND": "`redrive integration list` shows the integrations there are",
    "INT-404-RECOVERY-NOT-FOUND": "`redrive queue list INTEGRATION` shows its items",
    "INT-404-GROUP-NOT-FOUND": "`redrive group list INTEGRATION` shows its groups of failures",
    "INT-404-REPLAY-NOT-FOUND": "`redrive replay list INTEGRATION` shows its plans and jobs",
    "INT-409-RECOVERY-REPLAY-CONFLICT": "`redrive queue show INTEGRATION RECOVERY_ID` shows where it stands",
    "INT-409-CONTAINED": (
        "`redrive integration containment INTEGRATION` tells who contained it and why;"
        " when its receiver is well again, `redrive integration release INTEGRATION`"
    ),
    "INT-409-IDEMPOTENCY-IN-PROGRESS": "wait a moment and run it again with the same key",
    "INT-413-TOO-LARGE": "a payload has at most 1 MiB; send less",
    "INT-422-IDEMPOTENCY-KEY-REUSED": "take a new key for a new request, or repeat the first one unchanged",
    "INT-429-RATE-LIMITED": "wait a moment and run it again",
    "INT-503-DEPENDENCY-UNAVAILABLE": "try again once `redrive doctor` finds nothing wrong",
}
