"""Headers that a caller wants sent: their grammar, and the names that are ours to set."""

import re
from typing import Final

from redrive.domain.errors import Fault

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]{0,4094}[\x21-\x7e])?", re.ASCII)
_RESERVED = frozenset(
    """host content-length transfer-encoding connection keep-alive te trailer upgrade expect
    proxy-authorization proxy-connection traceparent tracestate x-request-id user-agent
    accept-encoding content-type""".split()
)
MAX_HEADERS: Final = 32


def check_headers(headers: dict[str, str], pointer: str = "/headers") -> list[Fault]:
    """The faults of headers that a caller wants sent: grammar, and names that are ours to set."""
    faults = []
    if len(headers) > MAX_HEADERS:
        faults.append(Fault(pointer, f"at most {MAX_HEADERS} headers"))
    if len({name.lower() for name in headers}) != len(headers):
        faults.append(Fault(pointer, "a header name stands twice (names ignore case)"))
    for name, value in headers.items():
        at = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if (why := wrong_header_name(name) or wrong_header_value(value)) is not None:
            faults.append(Fault(at, why))
    return faults


def wrong_header_name(name: str) -> str | None:
    """Why *name* cannot be that of a header that is sent along; None when it can."""
    if not HEADER_NAME.fullmatch(name):
        return "not a header name"
    if name.lower() in _RESERVED or name.lower().startswith("webhook-"):
        return "this header is set by redrive or by the connection"
    return None


def wrong_header_value(value: str) -> str | None:
    """Why *value* cannot be that of a header; None when it can."""
    return None if HEADER_VALUE.fullmatch(value) else "1–4096 visible ASCII characters, spaces only inside"
