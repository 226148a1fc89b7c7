"""How a command ends when it cannot do what it was asked: an exit code and two lines."""

import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from redrive.cli.advice import advice_on
from redrive.cli.inert import inert
from redrive.cli.pointers import option_of

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
    """The command ends here: with which code, what is wrong, what to do next if that is known, and a line to
    copy.
    """

    def __init__(self, code: ExitCode, wrong: str, advice: str | None, *, line: str | None = None) -> None:
        super().__init__(wrong)
        self.code = code
        self.wrong = wrong
        self.advice = advice
        self.line = line


def report(stop: Stop) -> ExitCode:
    """Say on stderr what *stop* has to say, and answer its code."""
    print(f"redrive: {inert(stop.wrong)}", file=sys.stderr)
    if stop.advice is not None:
        print(f"   next: {inert(stop.advice)}", file=sys.stderr)
    if stop.line is not None:
        print(inert(stop.line), file=sys.stderr)
    return stop.code


def refused(problem: "ProblemError", *, has_token: bool, conflict: str | None = None) -> Stop:
    """What an error of the service means for the person at the terminal, who sent a token or none.

    *conflict*: what to do next about a state that does not allow it, where the error does not tell.
    """
    advice = advice_on(problem)
    if problem.error_code == "AUTH-401-UNAUTHENTICATED" and has_token:
        advice = (
            "this service does not know the token (revoked, expired, or made for another database):"
            " `redrive token create` where the service runs makes one"
        )
    if problem.error_code == "INT-409-CONFLICT" and advice is None:
        advice = conflict
    return Stop(_code(problem.status), describe(problem), advice)


def describe(problem: "ProblemError") -> str:
    """One line: what is wrong and where, as it was typed, under which code and request id."""
    names = [problem.error_code or f"HTTP {problem.status}"]
    if problem.request_id:
        names.append(f"request id {problem.request_id}")
    instance = str(problem.problem.get("instance"))
    faults = [
        f"{option_of(str(fault.get('pointer') or ''), instance) or '(the whole)'}: {fault.get('detail')}"
        for fault in problem.errors
    ]
    return f"{'; '.join(faults) or problem.detail} ({', '.join(names)})"


def describe_faults(problem: "ProblemError") -> str:
    """What is wrong and where in what was sent, and no more."""
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
