"""Standard Webhooks signatures: HMAC-SHA256 over `id.timestamp.body`, one for every active secret."""

import binascii
import hmac
from collections.abc import Callable, Sequence
from functools import lru_cache

from redrive.domain.errors import Fault, InvalidPayload

PREFIX = "whsec_"


def sign(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """The value of `webhook-signature`. Every secret has passed `check_secret`."""
    head = f"{webhook_id}.{timestamp}.".encode()
    return " ".join([_signature(secret, head, body) for secret in secrets])


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """A secret of 32 bytes nobody can guess."""
    return PREFIX + _base64(random_bytes(32))


def check_secret(text: str) -> None:
    """Raise InvalidPayload unless *text* is `whsec_` and the strict base64 of 24 to 64 bytes."""
    key = _key(text)
    if key is None or not 24 <= len(key) <= 64:
        raise InvalidPayload(Fault("/secret", "must be whsec_ and the base64 of 24 to 64 bytes"))


def _signature(secret: str, head: bytes, body: bytes) -> str:
    mac = _keyed(secret).copy()
    mac.update(head)
    mac.update(body)
    return "v1," + _base64(mac.digest())


@lru_cache(maxsize=4096)
def _keyed(secret: str) -> hmac.HMAC:
    return hmac.new(binascii.a2b_base64(secret.removeprefix(PREFIX)), digestmod="sha256")


def _key(text: str) -> bytes | None:
    encoded = text.removeprefix(PREFIX)
    if encoded == text:
        return None
    try:
        key = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return None
    return key if _base64(key) == encoded else None  # unused bits that are not 0 decode as well


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
