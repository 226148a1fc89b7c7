"""HTTP message signatures (RFC 9421) over a digest of the body (RFC 9530), one for every active secret.

Nothing that is written here needs escaping in a structured field: ids of keys are base64 or hexadecimal, and
what is covered stands in headers, or in a URL, that were checked on their way in.
"""

import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from redrive.delivery.signing import SHARED, public_key, signature
from redrive.domain.delivery import Headers
from redrive.domain.target import Target

NAMES: Final = frozenset({"content-digest", "signature-input", "signature"})
_KEY_ID: Final = b"redrive:keyid:"


def message_signature(
    method: str,
    target: Target,
    *,
    content_type: str,
    webhook_id: str,
    timestamp: int,
    body: bytes,
    secrets: Sequence[str],
) -> Headers:
    """The headers that sign a request. Every secret has passed `check_secret`."""
    digest = f"sha-256=:{_base64(sha256(body).digest())}:"
    covered = {
        "@method": method,
        "@target-uri": f"{target.scheme}://{target.authority}{target.path}",
        "content-digest": digest,
        "content-type": content_type.strip(),  # a receiver does not see the space at its ends
        "webhook-id": webhook_id,
    }
    inputs, signatures = [], []
    for number, secret in enumerate(secrets, 1):
        parameters = f'created={timestamp};keyid="{key_id(secret)}";alg="{_algorithm(secret)}"'
        params, base = _base(covered, parameters)
        inputs.append(f"sig{number}={params}")
        signatures.append(f"sig{number}=:{signature(secret, base)}:")
    return (
        ("Content-Digest", digest),
        ("Signature-Input", ", ".join(inputs)),
        ("Signature", ", ".join(signatures)),
    )


@lru_cache(maxsize=4096)
def key_id(secret: str) -> str:
    """What a receiver finds the key by: our public key, or of a shared secret a hash.

    The hash reveals a secret only to who can guess it, and nobody guesses 24 random bytes.
    """
    shown = public_key(secret)
    if shown is not None:
        return shown
    return sha256(_KEY_ID + binascii.a2b_base64(secret.removeprefix(SHARED))).hexdigest()[:16]


def _base(covered: Mapping[str, str], parameters: str) -> tuple[str, bytes]:
    """`@signature-params`, and the signature base that ends with them (RFC 9421 §2.5)."""
    names = " ".join([f'"{name}"' for name in covered])
    params = f"({names});{parameters}"
    lines = [f'"{name}": {value}' for name, value in covered.items()]
    return params, "\n".join([*lines, f'"@signature-params": {params}']).encode("ascii")


def _algorithm(secret: str) -> str:
    return "hmac-sha256" if public_key(secret) is None else "ed25519"


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
