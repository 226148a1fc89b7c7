"""Callers' tokens: made, listed and revoked on the database, also beside a running service."""

import base64
import hashlib
from datetime import datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from redrive.cli.database import DATABASE, Database, ask_store
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_json, print_lines
from redrive.cli.tables import Column, Fit, column, instant, print_table
from redrive.cli.values import duration
from redrive.clock import SystemClock, random_bytes
from redrive.domain.access import TENANT, Permission
from redrive.domain.delivery import rfc3339
from redrive.domain.integration import is_line
from redrive.store.port import Store
from redrive.store.tokens import Token

app = App(name="token", help_epilogue="Each command has its own --help, with an example.")
TOKEN_PREFIX = "rdr_"  # noqa: S105  # what every token begins with, so that scanners know one
_COLUMNS = [
    column("TOKEN ID", "token_id"),
    column("SUBJECT", "subject", fit=Fit.WRAP),
    Column("MAY", lambda row: [_short(each) for each in row["permissions"]], fit=Fit.WRAP),
    column("TENANT", "tenant"),
    column("STATE", "state"),
    Column("CREATED", lambda row: instant(row["created_at"]), worth=1),
    Column("EXPIRES", lambda row: instant(row["expires_at"])),
]


@app.command(
    help_epilogue="Example: redrive token create --subject billing --permission deliver --expires-in 90d\n"
    "Example: redrive token create --subject acme-ops --tenant acme --permission view --permission operate"
)
def create(
    *,
    subject: Annotated[str, Parameter(help="Who will call with it: the actor in the audit trail.")],
    permission: Annotated[
        list[str],
        Parameter(
            help="view, operate, deliver or edit (or its full name); repeat it for several.", negative=()
        ),
    ],
    expires_in: Annotated[
        str | None, Parameter(help="How long it is valid, like 90d; else until revoked.")
    ] = None,
    tenant: Annotated[
        str | None,
        Parameter(help="Bind it to the integrations whose id begins with this name and a dot; else to none."),
    ] = None,
    database: Database = DATABASE,
) -> int:
    """Make a token and print it, once, alone on standard output."""
    if tenant is not None and not TENANT.fullmatch(tenant):
        wrong = "--tenant: 1-32 of a-z 0-9 _ -, the first and the last a letter or a digit"
        raise Stop(ExitCode.USAGE, wrong, "integrations of the tenant acme are called acme.billing and so on")
    if not is_line(subject, 128):
        wrong = "--subject: 1-128 characters on one line, without space at either end"
        raise Stop(ExitCode.USAGE, wrong, "name the program or person that will call")
    permissions = frozenset(map(_permission, permission))
    now = SystemClock().now()
    expires_at = now + duration(expires_in, "--expires-in") if expires_in is not None else None
    token = Token(f"tok_{random_bytes(8).hex()}", subject, permissions, now, expires_at, None, tenant)
    secret = TOKEN_PREFIX + base64.urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode()

    async def add(store: Store) -> None:
        await store.tokens.add(token, hashlib.sha256(secret.encode()).digest())

    ask_store(database, add, may_make=True)
    print(secret)
    note(f"This is {token.token_id}. Keep it now: it is not stored and cannot be shown again.")
    return ExitCode.OK


@app.command(name="list", help_epilogue="Example: redrive token list --output jsonl")
def list_(*, database: Database = DATABASE, output: Output = "table") -> int:
    """List the tokens, newest first; their secrets are not stored."""
    now = SystemClock().now()

    async def all_of_them(store: Store) -> list[dict[str, Any]]:
        return [_facts(token, now) for token in await store.tokens.all()]

    rows = ask_store(database, all_of_them)
    match output:
        case "json":
            print_json({"tokens": rows})
        case "jsonl":
            print_lines(rows)
        case _ if rows:
            has_tenants = any(row["tenant"] for row in rows)
            print_table([each for each in _COLUMNS if has_tenants or each.title != "TENANT"], rows)
        case _:
            note("There is no token yet; `redrive token create` makes one.")
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive token revoke tok_0123456789abcdef")
def revoke(
    token_id: Annotated[str, Parameter(help="Which one; `redrive token list` shows them.")],
    /,
    *,
    database: Database = DATABASE,
) -> int:
    """Revoke a token: calls with it are refused from now on."""
    if token_id.startswith(TOKEN_PREFIX):
        wrong = "that is the token itself; its id starts with tok_"
        raise Stop(
            ExitCode.USAGE,
            wrong,
            "`redrive token list` shows the ids; a token is best kept off the command line",
        )

    async def end(store: Store) -> bool:
        return await store.tokens.revoke(token_id, SystemClock().now())

    if not ask_store(database, end):
        raise Stop(ExitCode.NOT_FOUND, f"there is no token {token_id}", "`redrive token list` shows them")
    note(f"{token_id} is revoked.")
    return ExitCode.OK


def _permission(word: str) -> Permission:
    for permission in Permission:
        if word in (permission.value, _short(permission)):
            return permission
    raise Stop(
        ExitCode.USAGE, f"--permission: there is no {word!r}", "choose from view, operate, deliver and edit"
    )


def _short(permission: str) -> str:
    return permission.rpartition(".")[2]


def _facts(token: Token, now: datetime) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "subject": token.subject,
        "permissions": sorted(token.permissions),
        "tenant": token.tenant,
        "state": _state(token, now),
        "created_at": rfc3339(token.created_at),
        "expires_at": token.expires_at and rfc3339(token.expires_at),
        "revoked_at": token.revoked_at and rfc3339(token.revoked_at),
    }


def _state(token: Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"
