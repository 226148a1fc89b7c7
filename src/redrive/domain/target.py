"""The URL grammar of a target: strict ASCII, judged before any library sees it."""

import re
from ipaddress import IPv6Address

from msgspec import Struct

from redrive.domain.alabel import as_a_labels, wrong_label
from redrive.domain.errors import Fault, InvalidPayload

MAX_URL = 2048
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!$%&'()*+,./0-9:;=@A-Z_a-z~-]*)?"
    r"(?P<query>\?[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)?",
    re.ASCII,
)
_QUAD = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_WRITTEN_HOST = re.compile(r"https?://([^/?#:@\\\s]{1,253})")
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Target(Struct, frozen=True):
    """Where a delivery goes. `host` is without brackets; `path` holds the query too."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them: no port that goes without saying."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, *, allow_http: bool, pointer: str = "/url") -> Target:
    """Read *url* or raise InvalidPayload saying what is wrong with it.

    No userinfo, fragment, backslash, space or control character; a host that looks numeric must be a
    canonical dotted quad, so that no resolver can read an address into it that we did not. A name in
    another script is written in A-labels of IDNA 2008.
    """
    target = _read(url, allow_http=allow_http, pointer=pointer)
    if (why := wrong_label(target.host)) is not None:
        raise InvalidPayload(Fault(pointer, why))
    return target


def origin_of(url: str) -> str:
    """Scheme, host and port of a *url* that was taken once: who gets what is sent there (RFC 6454)."""
    target = _read(url, allow_http=True, pointer="/url")
    return f"{target.scheme}://{target.host}:{target.port}"


def _read(url: str, *, allow_http: bool, pointer: str) -> Target:
    if len(url) > MAX_URL:
        raise InvalidPayload(Fault(pointer, f"a URL has at most {MAX_URL} characters"))
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidPayload(Fault(pointer, _what_is_wrong(url)))
    scheme, host = match["scheme"], match["host"].strip("[]").lower()
    if scheme == "http" and not allow_http:
        raise InvalidPayload(
            Fault(pointer, "only https is allowed here (REDRIVE_ALLOW_HTTP=true allows http)")
        )
    if not (_is_ipv6(host) if match["host"][0] == "[" else _is_host(host)):
        raise InvalidPayload(Fault(pointer, f"{host!r} is neither a host name nor an IPv4 or [IPv6] address"))
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise InvalidPayload(Fault(pointer, "a port is between 1 and 65535"))
    return Target(scheme, host, port, (match["path"] or "/") + (match["query"] or ""))


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        return _QUAD.fullmatch(host) is not None
    return all(_LABEL.fullmatch(label) for label in labels)


def _what_is_wrong(url: str) -> str:
    if not url.isascii():
        return f"a URL holds ASCII only; {_how_to_write(url)}"
    if "#" in url:
        return "a target has no fragment (#…)"
    if "@" in url.split("://", 1)[-1].split("/", 1)[0]:
        return "credentials do not belong in a URL; use auth_mode"
    if "://" not in url:
        return "write the whole URL, such as https://partner.example/hooks"
    return "not a valid http(s) URL"


def _how_to_write(url: str) -> str:
    host = _WRITTEN_HOST.match(url)
    if host is not None and host[1].isascii():
        return "percent-encode the rest of its path or query"
    written = None if host is None else as_a_labels(host[1])
    if written is None:
        return "write an international host name as its A-label (xn--…)"
    return f"write the host as {written}"
