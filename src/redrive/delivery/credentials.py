"""What shows a receiver that it is us: a kind of credentials for each `auth_mode` that has some."""

import re
from base64 import b64encode
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import quote_plus

import msgspec

from redrive import __version__
from redrive.delivery.hidden import Hidden
from redrive.delivery.message_signature import NAMES
from redrive.delivery.tls import check_identity
from redrive.domain.delivery import Headers
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.headers import wrong_header_name, wrong_header_value
from redrive.domain.target import Target, parse_target

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,4090}=*", re.ASCII)  # b64token of RFC 6750
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,1024}")
_SCOPE: Final = re.compile(
    r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII
)  # RFC 6749 §3.3
_MOST_SCOPE: Final = 1024


class Header(Hidden, frozen=True):
    """`header`: a header of its own, such as X-Api-Key."""

    name: str
    value: str


class Basic(Hidden, frozen=True):
    """`basic`: user and password (RFC 7617), in UTF-8."""

    username: str
    password: str


class Bearer(Hidden, frozen=True):
    """`bearer`: a token that does not change (RFC 6750)."""

    token: str


class OAuth2(Hidden, frozen=True):
    """`oauth2`: the client credentials grant (RFC 6749 §4.4).

    `client_auth`: where the client names itself, in Authorization (basic) or in the body.
    """

    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    client_auth: Literal["basic", "body"] = "basic"


class MutualTls(Hidden, frozen=True):
    """`mtls`: our certificate with its chain, and its key. `ca`: who vouches for the receiver. All in PEM."""

    certificate: str
    private_key: str
    ca: str = ""


Credentials = Header | Basic | Bearer | OAuth2 | MutualTls
KINDS: Final[dict[str, type[Any]]] = {
    "header": Header,
    "basic": Basic,
    "bearer": Bearer,
    "oauth2": OAuth2,
    "mtls": MutualTls,
}


def check_credentials(auth_mode: str, given: dict[str, str], *, allow_http: bool) -> Credentials:
    """*given* as what *auth_mode* needs, or InvalidPayload with every fault; no fault repeats a value."""
    kind = KINDS[auth_mode]
    fields = msgspec.structs.fields(kind)
    faults = [
        Fault(f"/credentials/{field.name}", "is missing")
        for field in fields
        if field.required and not given.get(field.name)
    ]
    known = {field.name for field in fields}
    wanted = " ".join(field.name for field in fields)
    if given.keys() - known:
        faults.append(Fault("/credentials", f"auth_mode {auth_mode} takes {wanted}, and nothing else"))
    if faults:
        raise InvalidPayload(*faults)
    try:
        credentials: Credentials = msgspec.convert(given, kind)
    except msgspec.ValidationError:
        raise InvalidPayload(Fault("/credentials/client_auth", "must be basic or body")) from None
    faults = _faults(credentials, allow_http=allow_http)
    if faults:
        raise InvalidPayload(*faults)
    return credentials


def pack(credentials: Credentials) -> bytes:
    """As they are sealed."""
    return msgspec.json.encode(credentials)


def unpack(auth_mode: str, packed: bytes) -> Credentials:
    """What `pack` made."""
    credentials: Credentials = msgspec.json.decode(packed, type=KINDS[auth_mode])
    return credentials


def as_header(credentials: Credentials) -> Headers:
    """The header that shows them; none for those that are shown in another way."""
    match credentials:
        case Header(name=name, value=value):
            return ((name, value),)
        case Basic():
            return (("Authorization", _basic(credentials.username, credentials.password)),)
        case Bearer(token=token):
            return (("Authorization", f"Bearer {token}"),)
        case _:
            return ()


def token_request(asking: OAuth2) -> tuple[Headers, bytes]:
    """Header and body of the request for a token."""
    form = {"grant_type": "client_credentials"}
    if asking.scope:
        form["scope"] = asking.scope
    headers: Headers = (
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Accept", "application/json"),
        ("User-Agent", f"redrive/{__version__}"),
    )
    if asking.client_auth == "basic":  # RFC 6749 §2.3.1: each form-encoded first
        named = _basic(quote_plus(asking.client_id), quote_plus(asking.client_secret))
        headers = (*headers, ("Authorization", named))
    else:
        form |= {"client_id": asking.client_id, "client_secret": asking.client_secret}
    return headers, "&".join(f"{name}={quote_plus(value)}" for name, value in form.items()).encode()


def token_target(asking: OAuth2, *, allow_http: bool) -> Target:
    """Where a token is asked for; InvalidPayload when that is not allowed (any more)."""
    return parse_target(asking.token_url, allow_http=allow_http, pointer="/credentials/token_url")


def is_token(text: Any) -> bool:
    """Whether it can be sent as a bearer token."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _basic(name: str, secret: str) -> str:
    return "Basic " + b64encode(f"{name}:{secret}".encode()).decode()


def _wrong_name(name: str) -> str | None:
    return "this header carries message signatures" if name.lower() in NAMES else wrong_header_name(name)


def _faults(credentials: Credentials, *, allow_http: bool) -> list[Fault]:
    match credentials:
        case Header(name=name, value=value):
            wrong = {"name": _wrong_name(name), "value": wrong_header_value(value)}
            return [Fault(f"/credentials/{field}", why) for field, why in wrong.items() if why is not None]
        case Basic(username=username, password=password):
            return [
                *_unless(":" not in username, "username", "holds no colon (RFC 7617)"),
                *_unless(_LINE.fullmatch(username), "username", "1–1024 characters on one line"),
                *_unless(_LINE.fullmatch(password), "password", "1–1024 characters on one line"),
            ]
        case Bearer(token=token):
            return _unless(
                is_token(token),
                "token",
                "letters, digits and -._~+/ with = at the end (RFC 6750), at most 4096",
            )
        case OAuth2():
            return [
                *_unless(
                    _LINE.fullmatch(credentials.client_id), "client_id", "1–1024 characters on one line"
                ),
                *_unless(
                    _LINE.fullmatch(credentials.client_secret),
                    "client_secret",
                    "1–1024 characters on one line",
                ),
                *_unless(
                    _is_scope(credentials.scope), "scope", "names with a space between them (RFC 6749 §3.3)"
                ),
                *_target_faults(credentials, allow_http=allow_http),
            ]
        case MutualTls():
            return check_identity(credentials.certificate, credentials.private_key, credentials.ca)


def _unless(holds: object, field: str, detail: str) -> list[Fault]:
    return [] if holds else [Fault(f"/credentials/{field}", detail)]


def _is_scope(text: str) -> bool:
    return not text or (len(text) <= _MOST_SCOPE and _SCOPE.fullmatch(text) is not None)


def _target_faults(asking: OAuth2, *, allow_http: bool) -> list[Fault]:
    try:
        token_target(asking, allow_http=allow_http)
    except InvalidPayload as error:
        return list(error.faults)
    return []
