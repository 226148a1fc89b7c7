"""JSON Web Tokens (RFC 7519, 8725): whom they prove, decided from the token, the keys and the time alone.

PyJWT verifies the signature. What is around it is judged here, to the letter: PyJWT takes a time that is
written as text and a member that comes twice, and asks the machine what time it is.
"""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from jwt import get_algorithm_by_name
from msgspec import Struct

from redrive.domain.access import TENANT, NotBelieved, Permission, Principal
from redrive.domain.integration import is_line
from redrive.engine.jwks import ALGORITHMS, Key, is_kid, json_object

MOST_CHARACTERS: Final = 8 * 1024
LEEWAY_SECONDS: Final = 60  # what two clocks may differ by
ALL_TENANTS: Final = "*"
_SHAPE = re.compile(r"([\w-]+)\.([\w-]+)\.([\w-]*)", re.ASCII)
_REFUSED_MEMBERS: Final = frozenset({"jku", "x5u", "x5c", "jwk", "crit"})  # a key of the sender's own choice
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})  # no logout or other statement for a token
_LATEST: Final = 10**11  # seconds since 1970: 3,000 years from now, and still a datetime
_SESSION = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_BY_NAME: Final = tuple((permission.value, permission) for permission in Permission)
Grants = tuple[tuple[str, Permission], ...]


class Trust(Struct, frozen=True):
    """What an operator decided: whose tokens, made for whom, and which of a claim's values grant what.

    A permission's own name always grants it. `tenant_claim` names the tenant that a caller is bound to, or is
    `*`; without such a setting nobody is bound.
    """

    issuer: str
    audience: str
    claim: str = "scope"
    grants: Grants = ()
    tenant_claim: str = ""


class Token(Struct, frozen=True):
    """A token taken apart, and not believed yet."""

    algorithm: str
    kid: str | None
    signed: bytes
    payload: bytes
    signature: bytes


def has_shape(text: str) -> bool:
    """Whether *text* is a JWT at a glance; none of redrive's own tokens is."""
    return _SHAPE.fullmatch(text) is not None


def take_apart(text: str) -> Token:
    """Read the header of *text*, and nothing else of what a stranger wrote; NotBelieved for a bad one."""
    if len(text) > MOST_CHARACTERS:
        raise NotBelieved("length")
    if (match := _SHAPE.fullmatch(text)) is None:
        raise NotBelieved("shape")
    try:
        header, payload, signature = map(_decoded, match.groups())
        members = json_object(header)
    except ValueError:
        raise NotBelieved("shape") from None
    algorithm, kid = members.get("alg"), members.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise NotBelieved("algorithm")
    if _REFUSED_MEMBERS & members.keys() or str(members.get("typ", "JWT")).lower() not in _TYPES:
        raise NotBelieved("header")
    if "kid" in members and not is_kid(kid):
        raise NotBelieved("kid")
    return Token(algorithm, kid, text.rpartition(".")[0].encode(), payload, signature)


def choose(keys: Sequence[Key], token: Token) -> Key | None:
    """The key that *token* names, or the only one there is; None when it is not among *keys*."""
    if token.kid is None and len(keys) > 1:
        raise NotBelieved("kid")
    named = [key for key in keys if token.kid in (None, key.kid)]
    if not named:
        return None
    for key in named:
        if token.algorithm in key.algorithms:
            return key
    raise NotBelieved("algorithm")


def verify(token: Token, key: Key, trust: Trust, now: datetime) -> tuple[Principal, datetime]:
    """Whom *token* proves, and until when; NotBelieved when it does not. *key* was chosen for it."""
    if not get_algorithm_by_name(token.algorithm).verify(token.signed, key.public, token.signature):
        raise NotBelieved("signature")
    try:
        claims = json_object(token.payload)
    except ValueError:
        raise NotBelieved("claims") from None
    if claims.get("iss") != trust.issuer:
        raise NotBelieved("issuer")
    if trust.audience not in _texts(claims.get("aud")):
        raise NotBelieved("audience")
    until = _ends(claims, now.timestamp())
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_line(subject, 128):
        raise NotBelieved("subject")
    permissions, tenant = _permissions(claims, trust), _tenant(claims, trust)
    return Principal(subject, "user", _session(claims), permissions, tenant), until


def _ends(claims: dict[str, Any], now: float) -> datetime:
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires + LEEWAY_SECONDS <= now:
        raise NotBelieved("expired")
    if issued - LEEWAY_SECONDS > now or _seconds(claims, "nbf", 0) - LEEWAY_SECONDS > now:
        raise NotBelieved("early")
    return datetime.fromtimestamp(expires + LEEWAY_SECONDS, UTC)


def _seconds(claims: dict[str, Any], name: str, missing: int | None = None) -> int:
    """An instant in whole seconds since 1970: no text, no fraction, no boolean."""
    found = claims.get(name, missing)
    if type(found) is not int or not 0 <= found <= _LATEST:
        raise NotBelieved("time")
    return found


def _permissions(claims: dict[str, Any], trust: Trust) -> frozenset[Permission]:
    found = _claim(claims, trust.claim)
    values = found.split(" ") if isinstance(found, str) else _texts(found)
    return frozenset(permission for value, permission in (*trust.grants, *_BY_NAME) if value in values)


def _tenant(claims: dict[str, Any], trust: Trust) -> str | None:
    """Whoever should be bound and does not say to what is nobody."""
    found = _claim(claims, trust.tenant_claim) if trust.tenant_claim else ALL_TENANTS
    if not isinstance(found, str) or not (found == ALL_TENANTS or TENANT.fullmatch(found)):
        raise NotBelieved("tenant")
    return None if found == ALL_TENANTS else found


def _claim(claims: dict[str, Any], name: str) -> object:
    """The claim of that name, which may be a URL and hold dots; else a dot leads into an object."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _session(claims: dict[str, Any]) -> str | None:
    for found in (claims.get("jti"), claims.get("sid")):
        if isinstance(found, str) and _SESSION.fullmatch(found):
            return found
    return None


def _texts(found: object) -> list[str]:
    """One text, or a list of nothing but texts; nothing for anything else."""
    if isinstance(found, str):
        return [found]
    if isinstance(found, list) and all(isinstance(one, str) for one in found):
        return found
    return []


def _decoded(part: str) -> bytes:
    """What *part* stands for: one text for the same bytes, or a changed token would pass for another."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise ValueError("it ends in bits that mean nothing")
    return decoded
