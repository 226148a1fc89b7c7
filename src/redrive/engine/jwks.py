"""A set of public keys (RFC 7517): as much of what an identity provider publishes as we verify with."""

import json
import re
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec import Struct

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
KID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
RSA_BITS: Final = range(2048, 8192 + 1)  # weaker ones are guessed, and stronger ones take our time
_READERS: Final[dict[object, Any]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_CURVE: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_OF_ED25519: Final = ("EdDSA",)
ALGORITHMS: Final = frozenset((*_OF_RSA, *sum(_OF_CURVE.values(), ()), *_OF_ED25519))  # and no other, ever


class Key(Struct, frozen=True):
    """A public key, and the algorithms that a token may be signed with by its owner."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


def read_keys(document: bytes) -> tuple[Key, ...]:
    """The keys of a set that we can use; the others are no concern (§5). ValueError when it is no set."""
    keys = json_object(document).get("keys")
    if not isinstance(keys, list):
        raise ValueError("it has no list of keys")  # noqa: TRY004 - what was sent is wrong, not a type of ours
    return tuple(key for jwk in keys if isinstance(jwk, dict) and (key := _read(jwk)) is not None)


def is_kid(value: object) -> bool:
    """Whether *value* may name a key."""
    return isinstance(value, str) and KID.fullmatch(value) is not None


def json_object(document: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 each of whose members comes once: two readers find the same. Else ValueError."""
    try:
        found = json.loads(document.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as above
    return found


def _read(jwk: dict[str, Any]) -> Key | None:
    kid, reader = jwk.get("kid"), _READERS.get(str(jwk.get("kty")))
    if reader is None or not _is_to_verify(jwk) or not (kid is None or is_kid(kid)):
        return None
    try:
        public = reader.from_jwk(jwk)
    except (PyJWTError, UnsupportedAlgorithm, KeyError, TypeError, ValueError):  # malformed, in some way
        return None
    algorithms = frozenset(one for one in _algorithms(public) if jwk.get("alg", one) == one)
    return Key(kid, algorithms, public) if algorithms else None


def _is_to_verify(jwk: dict[str, Any]) -> bool:
    """A private key is in no set by intent: whoever reads the set could sign with it."""
    operations = jwk.get("key_ops", ["verify"])
    is_for_it = isinstance(operations, list) and "verify" in operations
    return is_for_it and jwk.get("use", "sig") == "sig" and "d" not in jwk


def _algorithms(public: object) -> tuple[str, ...]:
    """By the key's own type: that of a token's header is what an attacker would choose."""
    match public:
        case RSAPublicKey(key_size=bits) if bits in RSA_BITS:
            return _OF_RSA
        case EllipticCurvePublicKey(curve=curve):
            return _OF_CURVE.get(curve.name, ())
        case Ed25519PublicKey():
            return _OF_ED25519
        case _:
            return ()


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member comes twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
