"""Calls on the catalogue."""

from datetime import timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.query import Query
from redrive.delivery.signing import Scheme
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.integration import INTEGRATION_ID, AuthMode, Integration, Method
from redrive.engine.once import Told
from redrive.engine.sealed import Rotation, Saved

_LIFECYCLES = Literal["draft", "active", "paused", "retired"]
MOST = 64 * 1024
OVERLAP_SECONDS = 24 * 60 * 60
MOST_OVERLAP = 30 * OVERLAP_SECONDS


class Policy(msgspec.Struct, omit_defaults=True):
    """What may be left out: null or absent follows the global default."""

    name: str | UnsetType = UNSET
    method: Method | UnsetType = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET
    auth_mode: AuthMode | UnsetType = UNSET
    lifecycle_status: _LIFECYCLES | UnsetType = UNSET
    timeout_seconds: float | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    base_delay_seconds: float | UnsetType | None = UNSET
    max_delay_seconds: float | UnsetType | None = UNSET
    jitter: float | UnsetType | None = UNSET
    retryable_network_codes: list[str] | UnsetType | None = UNSET
    concurrency: int | UnsetType | None = UNSET
    rate_per_second: float | UnsetType | None = UNSET
    breaker_failure_share: float | UnsetType | None = UNSET
    shards: int | UnsetType = UNSET
    message_signature: bool | UnsetType = UNSET
    health_url: str | UnsetType | None = UNSET
    redact_pointers: list[str] | UnsetType | None = UNSET
    redact_headers: list[str] | UnsetType | None = UNSET
    secret: str | UnsetType = UNSET
    credentials: dict[str, str] | UnsetType = UNSET


class NewIntegration(Policy, forbid_unknown_fields=True, kw_only=True):
    """The body that adds an integration. `signature_scheme`: of the signing secret that is made for it."""

    integration_id: str
    url: str
    signature_scheme: Scheme | UnsetType = UNSET


class Changes(Policy, forbid_unknown_fields=True, kw_only=True):
    """The body that changes one."""

    url: str | UnsetType = UNSET


class NewSecret(msgspec.Struct, forbid_unknown_fields=True):
    """The body that rotates signing secrets: what is not given is made, of the scheme of the one before."""

    secret: str | None = None
    signature_scheme: Scheme | None = None
    overlap_seconds: int = OVERLAP_SECONDS


async def list_integrations(asked: Asked) -> Reply:
    """Every integration, by integration_id."""
    Query(asked.query_string, ()).done()
    found = await asked.engine.catalogue.list(asked.call)
    shown = [_shown(asked, one) for one in found]
    return asked.json(200, {"integrations": shown})


async def create_integration(asked: Asked) -> Reply:
    """Add an integration; a signing secret that is not given is made, and shown in this answer alone."""
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST)
    fields = _fields(body.read(raw, NewIntegration))

    def render(saved: Saved) -> Told:
        return asked.told(201, _saved(asked, saved))

    told = await asked.engine.catalogue.create(asked.call, fields, render=render, key=asked.key(raw))
    return asked.reply(told)


async def show_integration(asked: Asked) -> Reply:
    """One integration, its policy as it is in force."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    found = await asked.engine.catalogue.show(asked.call, integration_id)
    return asked.json(200, _shown(asked, found))


async def update_integration(asked: Asked) -> Reply:
    """Change the fields given; null: back to the default. A secret made for hmac is in this answer alone."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    changes = _fields(body.read(await asked.body(MOST), Changes))

    def render(saved: Saved) -> Told:
        return asked.told(200, _saved(asked, saved))

    told = await asked.engine.catalogue.update(asked.call, integration_id, changes, render=render)
    return asked.reply(told)


async def rotate_secrets(asked: Asked) -> Reply:
    """Sign with a new secret at once, and with those before it as well until the overlap ends."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST)
    given = body.read(raw, NewSecret)
    if not 0 <= given.overlap_seconds <= MOST_OVERLAP:
        raise InvalidPayload(Fault("/overlap_seconds", f"must be between 0 and {MOST_OVERLAP} (30 days)"))
    asked_for = Rotation(given.secret, given.signature_scheme, timedelta(seconds=given.overlap_seconds))

    def render(saved: Saved) -> Told:
        return asked.told(200, _saved(asked, saved))

    told = await asked.engine.catalogue.rotate(
        asked.call, integration_id, asked_for, render=render, key=asked.key(raw)
    )
    return asked.reply(told)


def path_id(asked: Asked) -> str:
    """The integration_id of the path, or InvalidPayload when it breaks its grammar."""
    found = asked.path["integration_id"]
    if not INTEGRATION_ID.fullmatch(found):
        raise InvalidPayload(Fault("integration_id", "1–64 of a-z 0-9 . _ -, first and last alphanumeric"))
    return found


def _saved(asked: Asked, saved: Saved) -> dict[str, Any]:
    shown = _shown(asked, saved.integration)
    return shown if saved.made_secret is None else shown | {"secret": saved.made_secret}


def _shown(asked: Asked, found: Integration) -> dict[str, Any]:
    return views.integration(found, asked.engine.catalogue.defaults, now=asked.engine.clock.now())


def _fields(given: Policy) -> dict[str, Any]:
    pairs = ((name, getattr(given, name)) for name in given.__struct_fields__)
    return {name: value for name, value in pairs if value is not UNSET}
