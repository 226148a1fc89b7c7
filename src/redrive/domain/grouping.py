"""Why an attempt failed, told so that failures of one cause are told alike: what groups are made of."""

import hashlib
import re
from typing import Final

from msgspec import Struct

from redrive.domain.integration import Integration
from redrive.domain.outcome import Failed

VERSION: Final = "v1"
MOST_DETAIL: Final = 200
_NUMBERS: Final = re.compile(r"[0-9]+", re.ASCII)


class Cause(Struct, frozen=True):
    """The cause of a failure. `number`, the first 64 bits of the fingerprint, names it in its integration."""

    number: int
    fingerprint: str
    failure_class: str
    failure_code: str
    detail: str


def cause_of(integration: Integration, failed: Failed) -> Cause:
    """What *failed* has in common with others of its kind."""
    failure_class = failed.code.lower()
    detail = _NUMBERS.sub("#", failed.detail[:MOST_DETAIL])
    told = (integration.integration_id, failure_class, failed.code, detail)
    digest = hashlib.sha256("\0".join(told).encode()).digest()
    number = int.from_bytes(digest[:8], signed=True)
    return Cause(number, f"{VERSION}:{digest.hex()}", failure_class, failed.code, detail)
