"""A forward proxy, as the operator writes it: http://user:password@host:port."""

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

_PART: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_PROXY: Final = re.compile(
    rf"http://(?:({_PART}+):({_PART}*)@)?(\[[0-9a-fA-F:.]{{2,45}}\]|[A-Za-z0-9._-]{{1,253}}):([0-9]{{1,5}})/?",
    re.ASCII,
)


class Proxy(Struct, frozen=True):
    """Where it is, and who we are there. What prints it, by mistake or not, prints no more than where."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({self})"


def parse_proxy(url: str) -> Proxy:
    """Read *url* or raise ValueError, which repeats nothing of it."""
    match = _PROXY.fullmatch(url)
    if match is None or not 1 <= int(match[4]) <= 65535:
        raise ValueError
    user, password = unquote(match[1] or ""), unquote(match[2] or "")
    if ":" in user:
        raise ValueError("a user holds no colon (RFC 7617)")
    return Proxy(match[3].strip("[]").lower(), int(match[4]), user, password)
