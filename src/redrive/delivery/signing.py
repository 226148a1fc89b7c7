"""Standard Webhooks signatures over `id.timestamp.body`, one for every active secret.

`v1` is HMAC-SHA256 under a `whsec_` secret that both sides have; `v1a` is Ed25519 under our `whsk_` key, of
which the receiver has only the public half, `whpk_`.
"""

import binascii
import hmac
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from redrive.domain.errors import Fault, InvalidPayload

Scheme = Literal["v1", "v1a"]
SHARED: Final = "whsec_"
PRIVATE: Final = "whsk_"
PUBLIC: Final = "whpk_"
_SEED_BYTES: Final = 32


def sign(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """The value of `webhook-signature`. Every secret has passed `check_secret`."""
    head = f"{webhook_id}.{timestamp}.".encode()
    return " ".join([f"{scheme_of(secret)},{signature(secret, head, body)}" for secret in secrets])


def signature(secret: str, *parts: bytes) -> str:
    """What *secret* makes of *parts*, one after the other: HMAC-SHA256 or Ed25519, in base64."""
    if secret.startswith(PRIVATE):
        return _base64(_private(secret).sign(b"".join(parts)))
    mac = _keyed(secret).copy()
    for part in parts:
        mac.update(part)
    return _base64(mac.digest())


def scheme_of(secret: str) -> Scheme:
    """Which signatures a secret is for."""
    return "v1a" if secret.startswith(PRIVATE) else "v1"


def new_secret(random_bytes: Callable[[int], bytes], scheme: Scheme = "v1") -> str:
    """A secret of 32 bytes nobody can guess."""
    return (PRIVATE if scheme == "v1a" else SHARED) + _base64(random_bytes(_SEED_BYTES))


def check_secret(text: str) -> None:
    """Raise InvalidPayload unless *text* is a secret: its prefix, and strict base64.

    `whsec_` and 24 to 64 bytes; `whsk_` and the seed of an Ed25519 key (RFC 8032), 32 bytes, or the seed and
    its public key.
    """
    prefix = PRIVATE if text.startswith(PRIVATE) else SHARED
    key = _bytes_of(text, prefix)
    if prefix == SHARED and (key is None or not 24 <= len(key) <= 64):
        raise InvalidPayload(Fault("/secret", "must be whsec_ and the base64 of 24 to 64 bytes"))
    if prefix == PRIVATE and (key is None or not _is_private(key)):
        raise InvalidPayload(
            Fault(
                "/secret",
                "must be whsk_ and the base64 of an Ed25519 seed (32 bytes), alone or with its public key",
            )
        )


def public_key(secret: str) -> str | None:
    """What a receiver verifies `v1a` with, as `whpk_`; None for a secret that is shared."""
    if not secret.startswith(PRIVATE):
        return None
    return PUBLIC + _base64(_private(secret).public_key().public_bytes_raw())


@lru_cache(maxsize=4096)
def _keyed(secret: str) -> hmac.HMAC:
    return hmac.new(binascii.a2b_base64(secret.removeprefix(SHARED)), digestmod="sha256")


@lru_cache(maxsize=4096)
def _private(secret: str) -> Ed25519PrivateKey:
    seed = binascii.a2b_base64(secret.removeprefix(PRIVATE))[:_SEED_BYTES]
    return Ed25519PrivateKey.from_private_bytes(seed)


def _is_private(key: bytes) -> bool:
    """A seed; or a seed and its public key, as libsodium and Go have it."""
    if len(key) == _SEED_BYTES:
        return True
    seed, public = key[:_SEED_BYTES], key[_SEED_BYTES:]
    return (
        len(key) == 2 * _SEED_BYTES
        and public == Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    )


def _bytes_of(text: str, prefix: str) -> bytes | None:
    encoded = text.removeprefix(prefix)
    if encoded == text:
        return None
    try:
        key = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return None
    return key if _base64(key) == encoded else None  # unused bits that are not 0 decode as well


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
