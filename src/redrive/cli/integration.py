"""The catalogue of integrations, through a service."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_answer, print_lines
from redrive.cli.service import (
    HERE,
    UNCORRELATED,
    Correlation,
    IntegrationId,
    MadeKey,
    Service,
    calling,
    changing,
)
from redrive.cli.tables import Column, Fit, column, instant, print_facts, print_table, word
from redrive.cli.values import content, headers

if TYPE_CHECKING:
    from redrive.client import Answer

app = App(name="integration", help_epilogue="Each command has its own --help, with an example.")
app.command(
    "redrive.cli.probes:probe",
    help=(
        "Make one request to an integration's health URL, or send one item as a trial.\n\n"
        "Also while it is contained, or its breaker is open: that is what it is for. A dead item is sent in "
        "a new cycle of one attempt, an open one with its next attempt. Exit 6: it did not succeed."
    ),
    help_epilogue=(
        "Example: redrive integration probe billing\n"
        'Example: redrive integration probe billing --recovery-id rec_… --reason "is the vendor back?"'
    ),
)
app.command(
    "redrive.cli.probes:health",
    help=(
        "Show how an integration's receiver is: a verdict, and the facts behind it.\n\n"
        "It comes from what is recorded; nothing is sent."
    ),
    help_epilogue="Example: redrive integration health billing",
)
app.command(
    "redrive.cli.containment:contain",
    help=(
        "Stop all that goes to an integration; run again, it changes how, why and until when.\n\n"
        "When it ends the receiver is probed once: if it is well what waits is sent at a cautious rate, "
        "else the integration stays contained and its owner is told."
    ),
    help_epilogue=(
        'Example: redrive integration contain billing --for 2h --reason "vendor 5xx storm" --owner ann\n'
        'Example: redrive integration contain billing --mode reject --reason "wrong endpoint" --incident 4711'
    ),
)
app.command(
    "redrive.cli.containment:containment",
    help="Show whether an integration is contained, by whom and why; what waits and what is in flight.",
    help_epilogue="Example: redrive integration containment billing",
)
app.command(
    "redrive.cli.containment:release",
    help="Let an integration send again; run again, it changes the rate until what waited is sent.",
    help_epilogue=(
        "Example: redrive integration release billing --dry-run --reason preview --rate 20\n"
        'Example: redrive integration release billing --rate 20 --reason "the vendor confirmed recovery"'
    ),
)
REDACTED = "[REDACTED]"
Unsettable = Literal[
    "timeout_seconds",
    "max_attempts",
    "base_delay_seconds",
    "max_delay_seconds",
    "jitter",
    "retryable_network_codes",
    "concurrency",
    "rate_per_second",
    "breaker_failure_share",
    "health_url",
    "redact_pointers",
    "redact_headers",
]
_COLUMNS = [
    column("INTEGRATION", "integration_id"),
    column("LIFECYCLE", "lifecycle_status"),
    Column("CONTAINED", lambda row: (row.get("containment") or {}).get("mode"), worth=3),
    Column("BREAKER", lambda row: (row.get("breaker") or {}).get("state"), worth=3),
    column("METHOD", "method", worth=1),
    column("URL", "url", fit=Fit.CUT),
    column("AUTH", "auth_mode", worth=2),
    column("NAME", "name", fit=Fit.WRAP),
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Fields:
    """What can be said of an integration when it is added, and changed later."""

    name: Annotated[str | None, Parameter(help="What people call it.")] = None
    method: Annotated[Literal["POST", "PUT", "PATCH"] | None, Parameter(help="[default: POST]")] = None
    header: Annotated[
        list[str] | None, Parameter(help="A 'Name: value' line to send along; repeatable.", negative=())
    ] = None
    auth_mode: Annotated[
        Literal["none", "hmac", "header", "basic", "bearer", "oauth2", "mtls"] | None,
        Parameter(help="How deliveries show that they are yours; hmac signs them. [default: hmac]"),
    ] = None
    credentials: Annotated[
        str | None,
        Parameter(
            help=(
                "What the auth_mode needs, as JSON (better @file or @-). header: name value; basic: username"
                " password; bearer: token; oauth2: token_url client_id client_secret [scope client_auth];"
                " mtls: certificate private_key [ca]"
            )
        ),
    ] = None
    secret: Annotated[
        str | None,
        Parameter(
            help=(
                "Its signing secret (whsec_… or whsk_…, @file or @-). Else it stays; where there is none yet"
                " and one is needed, one is made and shown once. It takes the place of all others at once;"
                " `redrive integration rotate-secret` lets them overlap."
            )
        ),
    ] = None
    lifecycle_status: Annotated[
        Literal["draft", "active", "paused", "retired"] | None, Parameter(help="[default: active]")
    ] = None
    timeout_seconds: Annotated[float | None, Parameter(help="How long one attempt may take.")] = None
    max_attempts: Annotated[int | None, Parameter(help="Attempts in a cycle.")] = None
    base_delay_seconds: Annotated[float | None, Parameter(help="The wait after the first attempt.")] = None
    max_delay_seconds: Annotated[float | None, Parameter(help="The longest wait.")] = None
    jitter: Annotated[float | None, Parameter(help="The share of a wait that chance decides, 0 to 1.")] = None
    retryable_network_codes: Annotated[
        str | None, Parameter(help="Network failures worth a retry: ECONNRESET,EPIPE")
    ] = None
    concurrency: Annotated[int | None, Parameter(help="Attempts in flight at once.")] = None
    rate_per_second: Annotated[float | None, Parameter(help="Attempts a second, at most.")] = None
    breaker_failure_share: Annotated[
        float | None,
        Parameter(help="The share of recent attempts that must fail for its breaker to open; 0: none."),
    ] = None
    shards: Annotated[
        int | None, Parameter(help="Lanes that several processes may send from (PostgreSQL). [default: 1]")
    ] = None
    message_signature: Annotated[
        bool | None, Parameter(help="Sign as RFC 9421 has it, too. [default: no]")
    ] = None
    health_url: Annotated[str | None, Parameter(help="Where its health can be asked for.")] = None
    redact_pointer: Annotated[
        list[str] | None,
        Parameter(
            help=(
                "A JSON Pointer to what is hidden of payloads and answers; repeatable."
                " They replace those before."
            ),
            negative=(),
        ),
    ] = None
    redact_header: Annotated[
        list[str] | None,
        Parameter(
            help="A header of answers that is hidden; repeatable. They replace those before.", negative=()
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was given, as the service takes it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["headers"] = headers(found.pop("header"))
        found["redact_pointers"] = found.pop("redact_pointer")
        found["redact_headers"] = found.pop("redact_header")
        if self.secret is not None:
            found["secret"] = _text(self.secret)
        if self.credentials is not None:
            found["credentials"] = _credentials(self.credentials)
        if self.retryable_network_codes is not None:
            found["retryable_network_codes"] = self.retryable_network_codes.replace(",", " ").split()
        return {name: value for name, value in found.items() if value is not None}


NOTHING = Fields()
Scheme = Annotated[
    Literal["v1", "v1a"] | None,
    Parameter(help="What a secret that is made signs: v1 (HMAC-SHA256) or v1a (Ed25519)."),
]


@app.command(help_epilogue="Example: redrive integration add billing https://partner.example/hooks")
def add(
    integration_id: Annotated[str, Parameter(help="1-64 of a-z 0-9 . _ -")],
    target_url: Annotated[str, Parameter(help="Where its deliveries go.")],
    /,
    *,
    fields: Fields = NOTHING,
    signature_scheme: Scheme = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Add an integration; the signing secret that is made for it is shown now and never again."""
    try:
        with changing(service, idempotency_key) as (client, key):
            answer = client.create_integration(
                idempotency_key=key,
                **correlation.ids(),
                integration_id=integration_id,
                url=target_url,
                **fields.given(),
                **({} if signature_scheme is None else {"signature_scheme": signature_scheme}),
            )
    except Stop as stop:
        if getattr(stop.__cause__, "error_code", None) != "INT-409-CONFLICT":
            raise
        advice = f"`redrive integration update {integration_id}` changes the one there is"
        raise Stop(stop.code, stop.wrong, advice) from stop
    _print(answer, output)
    return ExitCode.OK


@app.command(name="list", help_epilogue="Example: redrive integration list --output json")
def list_(*, service: Service = HERE, output: Output = "table") -> int:
    """List every integration."""
    with calling(service) as client:
        answer = client.integrations()
    rows: list[Mapping[str, Any]] = answer["integrations"]
    match output:
        case "json":
            print_answer(answer, output)
        case "jsonl":
            print_lines(rows)
        case _ if rows:
            print_table(_COLUMNS, rows)
        case _:
            note("There is no integration yet; `redrive integration add` makes one.")
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive integration show billing")
def show(integration_id: IntegrationId, /, *, service: Service = HERE, output: Output = "table") -> int:
    """Show one integration."""
    with calling(service) as client:
        answer = client.integration(integration_id)
    _print(answer, output)
    return ExitCode.OK


@app.command(
    help_epilogue="Example: redrive integration update billing --max-attempts 8 --unset rate_per_second"
)
def update(
    integration_id: IntegrationId,
    /,
    *,
    target_url: Annotated[str | None, Parameter(help="Where its deliveries go.")] = None,
    fields: Fields = NOTHING,
    unset: Annotated[
        list[Unsettable] | None,
        Parameter(help="A field that goes back to its default; repeatable.", negative=()),
    ] = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Change what is given of an integration, and leave the rest."""
    changes = fields.given() | dict.fromkeys(unset or ())
    if target_url is not None:
        changes["url"] = target_url
    if not changes:
        raise Stop(
            ExitCode.USAGE,
            "nothing to change was given",
            "`redrive integration update --help` lists what can be; --url is the service's address,"
            " the destination is --target-url",
        )
    with calling(service) as client:
        answer = client.update_integration(integration_id, **correlation.ids(), **changes)
    _print(answer, output)
    return ExitCode.OK


@app.command(
    name="rotate-secret",
    help_epilogue=(
        "Example: redrive integration rotate-secret billing --overlap-seconds 3600\n"
        "Example: redrive integration rotate-secret billing --signature-scheme v1a"
    ),
)
def rotate_secret(
    integration_id: IntegrationId,
    /,
    *,
    secret: Annotated[
        str | None, Parameter(help="The new secret (whsec_… or whsk_…, @file or @-). Else one is made.")
    ] = None,
    signature_scheme: Scheme = None,
    overlap_seconds: Annotated[
        int | None, Parameter(help="How long those before it sign as well. [default: 86400, a day]")
    ] = None,
    idempotency_key: MadeKey = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    """Sign with a new secret at once, and with those before it as well until the overlap ends.

    A secret that is made is shown now and never again. Of a v1a key receivers need the public half, which is
    shown whenever the integration is.
    """
    with changing(service, idempotency_key) as (client, key):
        answer = client.rotate_secret(
            integration_id,
            secret=None if secret is None else _text(secret),
            signature_scheme=signature_scheme,
            overlap_seconds=overlap_seconds,
            idempotency_key=key,
            **correlation.ids(),
        )
    _print(answer, output)
    return ExitCode.OK


def _text(given: str) -> str:
    return content(given).decode("utf-8", "replace").strip()


def _credentials(given: str) -> Any:
    try:
        return json.loads(content(given))
    except ValueError as error:
        advice = """write them like '{"token": "…"}', better into a file: --credentials @file"""
        raise Stop(ExitCode.USAGE, "--credentials is not JSON", advice) from error


def _signs(found: Mapping[str, Any]) -> str:
    until = f" until {instant(found['ends_at'])}" if found["ends_at"] else ""
    return f"{found['signature_scheme']} {found['public_key'] or REDACTED}{until}"


def _print(answer: "Answer", output: Output) -> None:
    if "secret" in answer:
        note("The secret is shown once: hand it to the receiver now.")
    if output != "table":
        print_answer(answer, output)
        return
    facts = answer | {name: instant(answer.get(name)) for name in ("created_at", "updated_at")}
    facts["signing_secrets"] = [_signs(each) for each in answer.get("signing_secrets") or ()]
    facts["headers"] = dict.fromkeys(answer.get("headers") or (), REDACTED)  # values may be credentials
    facts |= {name: word(answer.get(name)) for name in ("rate_per_second", "health_url")}
    if breaker := answer.get("breaker"):  # `redrive integration health` says more of it
        facts["breaker"] = word(breaker["state"])
    print_facts({name: value for name, value in facts.items() if name != "request_id"})
