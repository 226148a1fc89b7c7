"""Commands that talk to a service: where it is, as whom, and what its refusals mean here."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop, refused

if TYPE_CHECKING:
    from redrive.client import Client


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Service:
    """The service a command talks to."""

    url: Annotated[str, Parameter(env_var="REDRIVE_URL", help="Where the service answers.")] = (
        "http://127.0.0.1:8080"
    )
    token: Annotated[
        str | None,
        Parameter(
            env_var="REDRIVE_TOKEN", help="Who asks: a token of `redrive token create`.", show_default=False
        ),
    ] = None


class Ids(TypedDict):
    """The correlation ids of a call."""

    request_id: str | None
    traceparent: str | None


class Page(TypedDict):
    """A page of a list."""

    limit: int | None
    cursor: str | None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Correlation:
    """What a call that changes something is stored and audited under."""

    request_id: Annotated[
        str | None, Parameter(help="The id to find all of it under in the audit trail; else one is made.")
    ] = None
    traceparent: Annotated[str | None, Parameter(help="The W3C trace this belongs to.")] = None

    def ids(self) -> Ids:
        """As the client takes them."""
        return {"request_id": self.request_id, "traceparent": self.traceparent}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a list, or every one."""

    limit: Annotated[int | None, Parameter(help="How many a page, 1-200. [default: 50]")] = None
    cursor: Annotated[str | None, Parameter(help="Where the page before ended.")] = None
    all_: Annotated[bool, Parameter(name="--all", help="Every page.", negative=())] = False

    def page(self) -> Page:
        """As the client takes it."""
        return {"limit": self.limit, "cursor": self.cursor}


Reason = Annotated[str, Parameter(help="Say why; it is kept in the audit trail.")]
MayReason = Annotated[str | None, Parameter(help="Why; it is kept in the audit trail.")]
MadeKey = Annotated[
    str | None, Parameter(help="The same key does it once, however often it is run; else one is made.")
]
Yes = Annotated[bool, Parameter(help="Do not ask.", negative=())]
Incident = Annotated[str | None, Parameter(help="The incident it belongs to.")]
IntegrationId = Annotated[str, Parameter(help="Which integration.")]
HERE = Service()
FIRST_PAGE = Paging()
UNCORRELATED = Correlation()


@contextmanager
def calling(service: Service, *, conflict: str | None = None) -> Iterator["Client"]:
    """A client of *service*; what it raises ends the command.

    *conflict*: what this command's user does next when the present state does not allow it.
    """
    from redrive.client import BadArgument, Client, ProblemError, ServiceUnreachable

    if service.token is not None and not service.token.strip():
        raise Stop(
            ExitCode.USAGE,
            "REDRIVE_TOKEN (or --token) is empty",
            "set it to a token; `redrive token create` makes one, and says why when it cannot",
        )
    try:
        with Client(service.url, service.token) as client:
            yield client
    except ProblemError as problem:
        raise refused(problem, has_token=service.token is not None, conflict=conflict) from problem
    except BadArgument as error:
        raise Stop(ExitCode.USAGE, str(error), "correct it and run the command again") from error
    except ServiceUnreachable as error:
        advice = "check that `redrive serve` runs, and --url or REDRIVE_URL; then run it again"
        if error.maybe_sent:
            advice = "look before you repeat it: it may have taken effect"
        raise Stop(ExitCode.UNAVAILABLE, str(error), advice) from error


def made_key(given: str | None) -> str:
    """The key of one change: the one that was *given*, or else one of its own."""
    from redrive.clock import random_bytes

    return given or f"cli-{random_bytes(16).hex()}"


@contextmanager
def changing(
    service: Service,
    given: str | None,
    *,
    pinned: Sequence[str] = (),
    line: str | None = None,
    conflict: str | None = None,
) -> Iterator[tuple["Client", str]]:
    """A client of *service* for one change, and the key to make it under: *given*, or one that is made.

    When it cannot be told whether the change was made, the command ends by saying how it is run again, under
    that key. *pinned* are the options that then stand for others of that name, *line* is one to copy as well,
    *conflict* as for `calling`.
    """
    key = made_key(given)
    again = " ".join(["--idempotency-key", shlex.quote(key), *pinned])
    advice = f"run it again with {again}: however often, it is done once"
    try:
        with calling(service, conflict=conflict) as client:
            yield client, key
    except Stop as stop:
        if not _is_outcome_unknown(stop):
            raise
        raise Stop(stop.code, stop.wrong, advice, line=line) from stop
    except KeyboardInterrupt:
        raise Stop(ExitCode.INTERRUPTED, "it was interrupted, and may have been done", advice) from None


def _is_outcome_unknown(stop: Stop) -> bool:
    """Whether a call may have had its effect, although it was not answered with it."""
    from redrive.client import ProblemError, ServiceUnreachable

    match stop.__cause__:
        case ServiceUnreachable(maybe_sent=maybe_sent):
            return maybe_sent
        case ProblemError(status=status, error_code=code):
            return status >= 500 or code == "INT-409-IDEMPOTENCY-IN-PROGRESS"
        case _:
            return False
