"""The pages of docs/reference, each made from the code it describes."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Final, get_args

import msgspec

from redrive.api import openapi, problems
from redrive.api.routes import routes
from redrive.audit.record import WHEN
from redrive.config import SETTINGS, Setting
from redrive.docs.command_line import command_line
from redrive.docs.markdown import block, code, page, table
from redrive.docs.metric_families import metric_families
from redrive.domain.errors import RedriveError
from redrive.domain.item import DEAD, TRANSITIONS, Status
from redrive.domain.outcome import ALWAYS_RETRYABLE, NEVER_RETRYABLE, RETRYABLE_NETWORK_CODES
from redrive.telemetry import events
from redrive.telemetry.metrics import Metrics


def settings() -> str:
    """One row of config.py each."""
    intro = (
        "Each is a `REDRIVE_<NAME>` variable or a line of `redrive.toml` (in the working directory, or where "
        "`REDRIVE_CONFIG` says); some are options of `redrive serve` too, which win over the variable, which "
        "wins over the file. They are read once, at start; a start with a bad one says all that is wrong."
    )
    rows = [
        (code(one.name), one.sentence, one.kind.word, _default(one), code(one.variable)) for one in SETTINGS
    ]
    return page("Settings", intro, table(("name", "what it is", "written as", "default", "variable"), rows))


def errors() -> str:
    """Every error a caller can meet, and every failure an attempt can end with."""
    intro = (
        "A refusal is an `application/problem+json` document (RFC 9457): `type title status detail instance` "
        "with `error_code request_id retryable`. Go by `error_code`: it is stable, and has one meaning. "
        "`retryable` says that the same call may succeed later as it is; then there is a `Retry-After`."
    )
    rows = [
        (code(kind.code), str(status), inspect.getdoc(kind) or "", _is_retryable(kind))
        for kind, status in problems.STATUS.items()
    ]
    attempts = (
        "An attempt that fails has a `failure_code`. For an answer it is `HTTP_<status>`: retryable for 408, "
        "429 and every 5xx, not for any other. Without an answer it is one of these:"
    )
    return page(
        "Errors",
        intro,
        table(("error_code", "status", "when", "retryable"), rows),
        "## Failure codes of attempts",
        attempts,
        table(("failure_code", "retryable"), _failure_codes()),
    )


def audit_events() -> str:
    """Every event_type with when it is written."""
    intro = (
        "An event is written in the transaction that made it true. `GET /platform/audit/events` shows them, "
        "newest first; with `?request_id=` all that one call caused. States never hold a secret: a header's "
        "value and a signing secret are `[REDACTED]` there. What was changed of an integration is named in "
        "`metadata.changed`, the redacted included. The records of an item form a "
        "[chain](../guides/evidence.md#chains): `previous` is the SHA-256 of the one before."
    )
    rows = [(code(kind.value), when) for kind, when in WHEN.items()]
    return page("Audit events", intro, table(("event_type", "when"), rows))


def telemetry() -> str:
    """What the process announces of itself, and what a scraper reads."""
    intro = (
        "The process announces typed events; listeners make log lines, metrics and spans of them. None holds "
        "a secret, a payload or a whole URL. Who did what is in the [audit events](audit-events.md)."
    )
    announced = [
        (
            code(kind.__name__),
            inspect.getdoc(kind) or "",
            " ".join(code(name) for name in kind.__annotations__),
        )
        for kind in get_args(events.Event)
    ]
    scraped = "`GET /metrics` has these, and the usual `process_*` of Prometheus clients."
    return page(
        "Telemetry",
        intro,
        "## Events",
        table(("event", "what happened", "fields"), announced),
        "## Metrics",
        scraped,
        table(("metric", "type", "what it counts", "labels"), metric_families()),
    )


def state_machine() -> str:
    """The transitions of an item."""
    intro = (
        "An item is always in one of six statuses, and only these steps exist. A lease is never a status; "
        "`held`, `resolved` and `superseded_by` are facts beside it."
    )
    rows = [
        (
            code(before),
            ", ".join(code(after) for after in Status if after in afters) or "nothing: it is final",
            "" if not afters else "an operator, with a reason" if before in DEAD else "an attempt",
        )
        for before, afters in TRANSITIONS.items()
    ]
    outro = (
        "It begins as `pending`; a delivery that failed elsewhere and was handed over begins as `failed` or "
        "`dlq`."
    )
    return page(
        "State machine",
        intro,
        table(("status", "may become", "by"), rows),
        outro,
        block("\n".join(_picture()), "mermaid"),
    )


def api() -> str:
    """The description the service gives at /openapi.json."""
    shown = msgspec.json.decode(msgspec.json.encode(openapi.document(routes(Metrics()))))
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "audit-events.md": audit_events,
    "cli.md": command_line,
    "errors.md": errors,
    "openapi.json": api,
    "settings.md": settings,
    "state-machine.md": state_machine,
    "telemetry.md": telemetry,
}


def _picture() -> list[str]:
    ways_in = [("[*]", status) for status in (Status.PENDING, *sorted(DEAD))]
    steps = [(before, after) for before, afters in TRANSITIONS.items() for after in Status if after in afters]
    way_out = (Status.SUCCEEDED, "[*]")
    return ["stateDiagram-v2", *(f"    {a} --> {b}" for a, b in (*ways_in, *steps, way_out))]


def _default(setting: Setting) -> str:
    match setting.default:
        case () | "" | None:
            return "none"
        case tuple() as several:
            return " ".join(code(one) for one in several)
        case bool() as flag:
            return code(str(flag).lower())
        case float() as number:
            return code(f"{number:g}")
        case other:
            return code(other)


def _failure_codes() -> list[tuple[str, str]]:
    return [
        *((code(one), "yes") for one in sorted(ALWAYS_RETRYABLE)),
        *(
            (code(one), "where the integration's `retryable_network_codes` name it; by default it does")
            for one in RETRYABLE_NETWORK_CODES
        ),
        *((code(one), "no") for one in sorted(NEVER_RETRYABLE)),
    ]


def _is_retryable(kind: type[RedriveError]) -> str:
    return "yes" if issubclass(kind, problems.RETRYABLE) else "no"
