"""What can be said of a replay of many: which items, and how they are replayed."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from redrive.cli.service import Incident
from redrive.cli.values import moment, pinned, share


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Filters:
    """Which items a plan takes in: all that match everything given."""

    status: Annotated[Literal["failed", "dlq"] | None, Parameter(help="Only one of the two.")] = None
    group: Annotated[str | None, Parameter(help="Those that failed for one cause.")] = None
    failure_code: Annotated[str | None, Parameter(help="Such as HTTP_503.")] = None
    duplicate_risk: Annotated[
        Literal["never_sent", "refused", "ambiguous"] | None,
        Parameter(help="By how far the worst attempt got."),
    ] = None
    event_type: Annotated[str | None, Parameter(help="Of one event type.")] = None
    cycle: Annotated[int | None, Parameter(help="In this cycle.")] = None
    since: Annotated[str | None, Parameter(help="Accepted from then on: an instant, or 2h ago.")] = None
    until: Annotated[str | None, Parameter(help="Accepted before then: an instant, or 2h ago.")] = None
    failures_of: Annotated[str | None, Parameter(help="What failed again in an earlier job.")] = None

    def given(self) -> dict[str, Any]:
        """What was given, as the service takes it: instants are counted from now."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found |= {"since": moment(self.since, "--since"), "until": moment(self.until, "--until")}
        return {name: value for name, value in found.items() if value is not None}

    def pinned(self, given: dict[str, Any]) -> list[str]:
        """The options that ask for what was *given* once more, whenever that is."""
        return [
            *pinned("--since", self.since, given.get("since")),
            *pinned("--until", self.until, given.get("until")),
        ]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class How:
    """How a plan is run."""

    incident: Incident = None
    rate: Annotated[
        float | None, Parameter(help="Items a second; else as fast as the integration's own limits.")
    ] = None
    concurrency: Annotated[int | None, Parameter(help="Of its items in flight at once.")] = None
    canary: Annotated[int, Parameter(help="So many go first, alone; 0: none.")] = 5
    canary_share: Annotated[str, Parameter(help="The share of them that must succeed.")] = "100%"
    halt_if: Annotated[str, Parameter(help="Halt when more than this share failed.")] = "50%"
    halt_last: Annotated[int, Parameter(help="Of so many outcomes, the latest.")] = 20
    order: Annotated[Literal["oldest", "newest"], Parameter(help="Which go first.")] = "oldest"
    require_healthy: Annotated[
        bool, Parameter(help="Run only if the verdict on the receiver is healthy.", negative=())
    ] = False

    def options(self) -> dict[str, Any]:
        """As the service takes them."""
        found = {
            "incident": self.incident,
            "rate": self.rate,
            "concurrency": self.concurrency,
            "canary": {"size": self.canary, "share": share(self.canary_share, "--canary-share")},
            "halt_if": {"share": share(self.halt_if, "--halt-if"), "last": self.halt_last},
            "order": self.order,
            "require_healthy": self.require_healthy,
        }
        return {name: value for name, value in found.items() if value is not None}


EVERYTHING = Filters()
CAUTIOUSLY = How()
