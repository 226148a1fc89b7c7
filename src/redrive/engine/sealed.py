"""Which secrets an integration has after a change: checked, made where one is needed, sealed."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs
from msgspec.structs import replace

from redrive.clock import random_bytes
from redrive.delivery.credentials import KINDS, check_credentials
from redrive.delivery.signing import Scheme, check_secret, new_secret, public_key, scheme_of
from redrive.domain.errors import Conflict, Fault, InvalidPayload
from redrive.domain.integration import MOST_SECRETS, SHOWS_CREDENTIALS, Integration, SigningSecret
from redrive.domain.target import origin_of
from redrive.engine.vault import Vault

OF_SECRETS = frozenset({"secret", "signature_scheme", "credentials"})  # what is not a field of its own


@dataclass(frozen=True, slots=True)
class Saved:
    """An integration as it is written; a signing secret that was made for it is shown now or never."""

    integration: Integration
    made_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new signing secret, given or made, and for how long those before it still sign."""

    secret: str | None = field(repr=False)
    scheme: Scheme | None
    overlap: timedelta


def with_secrets(
    old: Integration | None, new: Integration, given: dict[str, Any], vault: Vault, *, allow_http: bool
) -> Saved:
    """*new*, which was *old*, with the secrets that were *given* and those it keeps; InvalidPayload.

    One that must sign and cannot yet gets a secret that is made.
    """
    new = replace(new, credentials=_credentials(old, new, given, vault, allow_http=allow_http))
    secret, scheme = given.get("secret"), given.get("signature_scheme")
    if new.auth_mode == "none" and (secret is not None or scheme is not None):
        field = "secret" if secret is not None else "signature_scheme"
        raise InvalidPayload(Fault(f"/{field}", "auth_mode none does not sign; leave it out"))
    if new.auth_mode == "none" and new.message_signature:
        raise InvalidPayload(Fault("/message_signature", "auth_mode none does not sign; set it to false"))
    if secret is not None:
        check_secret(secret)
        if scheme is not None and scheme != scheme_of(secret):
            raise InvalidPayload(
                Fault("/signature_scheme", f"the secret that is given signs {scheme_of(secret)}")
            )
        if old is not None and vault.signs_with(old, secret, new.updated_at):
            return Saved(new)  # the same again: nothing changed
        return Saved(replace(new, secrets=(_sealed(new, secret, vault),)))
    if scheme is not None or (new.must_sign and not new.secrets):
        return _made(new, scheme or "v1", vault, beside=())
    return Saved(new)


def rotated(old: Integration, asked: Rotation, vault: Vault, *, now: datetime) -> Saved:
    """*old* with a new signing secret, beside which those before it sign until the overlap ends."""
    if old.auth_mode == "none":
        raise Conflict("auth_mode none does not sign: there is no secret to rotate")
    end = now + asked.overlap
    beside = tuple(
        replace(secret, ends_at=end if secret.ends_at is None else min(secret.ends_at, end))
        for secret in old.secrets
        if secret.is_active(now) and asked.overlap
    )
    if len(beside) >= MOST_SECRETS:
        raise Conflict(
            f"{len(beside)} secrets sign already; wait for one to end, or rotate without an overlap"
        )
    if asked.secret is None:
        latest = old.secrets[0].scheme if old.secrets else "v1"
        return _made(old, asked.scheme or ("v1a" if latest == "v1a" else "v1"), vault, beside=beside)
    check_secret(asked.secret)
    if asked.scheme is not None and asked.scheme != scheme_of(asked.secret):
        raise InvalidPayload(Fault("/signature_scheme", f"the secret signs {scheme_of(asked.secret)}"))
    return Saved(replace(old, secrets=(_sealed(old, asked.secret, vault), *beside)))


def _credentials(
    old: Integration | None, new: Integration, given: dict[str, Any], vault: Vault, *, allow_http: bool
) -> str | None:
    """For the origin they were given for alone: whoever may change a url cannot have them sent elsewhere."""
    mode, credentials = new.auth_mode, given.get("credentials")
    if mode not in SHOWS_CREDENTIALS:
        if credentials is not None:
            raise InvalidPayload(Fault("/credentials", f"auth_mode {mode} shows none; leave them out"))
        return None
    if mode == "mtls" and not new.url.startswith("https:"):
        raise InvalidPayload(Fault("/url", "auth_mode mtls needs an https URL: nothing is shown without TLS"))
    if credentials is not None:
        checked = check_credentials(mode, credentials, allow_http=allow_http)
        return vault.seal_credentials(new.integration_id, new.url, checked)
    if old is None or old.auth_mode != mode or old.credentials is None:
        wanted = " ".join(field.name for field in structs.fields(KINDS[mode]) if field.required)
        raise InvalidPayload(Fault("/credentials", f"auth_mode {mode} needs them: {wanted}"))
    if origin_of(old.url) != origin_of(new.url):
        was = origin_of(old.url)
        raise InvalidPayload(
            Fault("/credentials", f"they are for {was}; give them anew with a url elsewhere")
        )
    return old.credentials


def _made(new: Integration, scheme: Scheme, vault: Vault, *, beside: tuple[SigningSecret, ...]) -> Saved:
    """With a secret that is made. Of one that signs v1a nothing has to be shown but its public key."""
    made = new_secret(random_bytes, scheme)
    saved = replace(new, secrets=(_sealed(new, made, vault), *beside))
    return Saved(saved, made if scheme == "v1" else None)


def _sealed(new: Integration, secret: str, vault: Vault) -> SigningSecret:
    return SigningSecret(vault.seal_secret(new.integration_id, secret), public_key(secret))
