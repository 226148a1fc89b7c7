"""A partner that verifies RFC 9421 signatures with a library of others, from the bytes that came."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    MappingKeyResolver,
    VerifyResult,
    algorithms,
)

from redrive.delivery.message_signature import key_id
from redrive.delivery.signing import public_key

COVERED = ("@method", "@target-uri", "content-digest", "content-type", "webhook-id")


@dataclass(frozen=True)
class Message:
    """A request as the library wants it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


def received(raw: bytes, scheme: str = "http") -> Message:
    """What a receiver makes of the bytes that came."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len({name.lower() for name in headers}) == len(lines), "a header stands twice"
    return Message(method, f"{scheme}://{headers['Host']}{path}", headers, body)


def only(message: Message, number: int) -> Message:
    """With one of its signatures alone: the library verifies one key at a time."""
    chosen = {name: message.headers[name].split(", ")[number] for name in ("Signature-Input", "Signature")}
    return replace(message, headers={**message.headers, **chosen})


def verified(message: Message, secret: str) -> VerifyResult:
    """What *secret* vouches for; of one that signs with Ed25519 only its public half is used."""
    shown = public_key(secret)
    algorithm: type[HTTPSignatureAlgorithm]
    known: bytes | Ed25519PublicKey
    if shown is None:
        algorithm, known = algorithms.HMAC_SHA256, base64.b64decode(secret.removeprefix("whsec_"))
    else:
        algorithm = algorithms.ED25519
        known = Ed25519PublicKey.from_public_bytes(base64.b64decode(shown.removeprefix("whpk_")))
    keys = MappingKeyResolver(public_keys={key_id(secret): known}, private_keys={})
    verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=keys)
    [result] = verifier.verify(message, max_age=None, require_components=COVERED, body=message.body)
    return result
