"""How a command ends when it cannot do what it was asked: an exit code and two lines."""

import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from redrive.cli.inert import inert

if TYPE_CHECKING:
    from redrive.client import ProblemError


class ExitCode(IntEnum):
    """What programs go by."""

    OK = 0
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    FAILURES = 6
    HALTED = 7
    UNAVAILABLE = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Stop(Exception):
    """The command ends here: with which code, what is wrong, what to do next, and a line to copy."""

    def __init__(self, code: ExitCode, wrong: str, advice: str, *, line: str | None = None) -> None:
        super().__init__(wrong)
        self.code = code
        self.wrong = wrong
        self.advice = advice
        self.line = line


def report(stop: Stop) -> ExitCode:
    """Say on stderr what *stop* has to say, and answer its code."""
    print(f"redrive: {inert(stop.wrong)}\n   next: {inert(stop.advice)}", file=sys.stderr)
    if stop.line is not None:
        print(inert(stop.line), file=sys.stderr)
    return stop.code


def refused(problem: "ProblemError", *, has_token: bool) -> Stop:
    """What an error of the service means for the person at the terminal, who sent a token or none."""
    advice = _advice(problem)
    if problem.error_code == "AUTH-401-UNAUTHENTICATED" and has_token:
        advice = (
            "this service does not know the token (revoked, expired, or made for another database):"
            " `redrive token create` where the service runs makes one"
        )
    return Stop(_code(problem.status), describe(problem), advice)


def describe(problem: "ProblemError") -> str:
    """One line: what is wrong and where, under which code and request id."""
    names = [problem.error_code or f"HTTP {problem.status}"]
    if problem.request_id:
        names.append(f"request id {problem.request_id}")
    return f"{describe_faults(problem)} ({', '.join(names)})"


def describe_faults(problem: "ProblemError") -> str:
    """What is wrong and where, and no more."""
    faults = [f"{fault.get('pointer') or '(the whole)'}: {fault.get('detail')}" for fault in problem.errors]
    return "; ".join(faults) or problem.detail


def _code(status: int) -> ExitCode:
    match status:
        case 401 | 403:
            return ExitCode.NOT_ALLOWED
        case 404:
            return ExitCode.NOT_FOUND
        case 409 | 422:
            return ExitCode.CONFLICT
        case 429:
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.USAGE if 400 <= status <= 499 else ExitCode.UNAVAILABLE


def _advice(problem: "ProblemError") -> str:
    by_code = _ADVICE.get(problem.error_code or "")
    if by_code is not None:
        return by_code
    if problem.status >= 500:
        return "try again; `redrive doctor` and the service's log say more"
    return "check the arguments (--help) and that --url is the address of a redrive service"


_ADVICE = {
    "AUTH-401-UNAUTHENTICATED": "set REDRIVE_TOKEN (or --token); `redrive token create` makes a token",
    "AUTH-403-FORBIDDEN": "use a token that has this permission; `redrive token create` makes one",
    "INT-400-INVALID-PAYLOAD": "correct it and run the command again; nothing was changed",
    "INT-404-NOT-FOUND": "`redrive integration list` shows the integrations there are",
    "INT-404-RECOVERY-NOT-FOUND": "`redrive queue list INTEGRATION` shows its items",
    "INT-404-REPLAY-NOT-FOUND": "`redrive replay list INTEGRATION` shows its plans and jobs",
    "INT-409-RECOVERY-REPLAY-CONFLICT": "`redrive queue show INTEGRATION RECOVERY_ID` shows where it stands",
    "INT-409-CONTAINED": "release the integration when its receiver is well again",
    "INT-409-CONFLICT": "`redrive integration show` and `redrive queue show` tell the present state",
    "INT-409-IDEMPOTENCY-IN-PROGRESS": "wait a moment and run it again with the same key",
    "INT-413-TOO-LARGE": "a payload has at most 1 MiB; send less",
    "INT-422-IDEMPOTENCY-KEY-REUSED": "take a new key for a new request, or repeat the first one unchanged",
    "INT-429-RATE-LIMITED": "wait a moment and run it again",
    "INT-503-DEPENDENCY-UNAVAILABLE": "try again once `redrive doctor` finds nothing wrong",
}
