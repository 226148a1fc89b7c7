"""An identity provider's side: keys, and tokens that are signed with them, as it should be or to deceive."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import get_algorithm_by_name

PRIVATE: dict[str, Callable[[], Any]] = {
    "RS": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "PS": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class Signer:
    """One who can sign: a provider with one of its keys, or somebody who would like to be it."""

    algorithm: str
    kid: str | None
    private: Any

    @classmethod
    def new(cls, algorithm: str, kid: str | None = None) -> "Signer":
        make = PRIVATE.get(algorithm) or PRIVATE[algorithm[:2]]
        return cls(algorithm, kid, make())

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key as it is published; what is changed to None is left out."""
        document = get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        return _changed(document | {"kid": self.kid, "use": "sig"}, changes)

    def sign(self, claims: dict[str, Any] | bytes, header: dict[str, Any] | bytes | None = None) -> str:
        """A token; bytes are taken as they are, and of a header what differs from a usual one."""
        if not isinstance(header, bytes):
            usual = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid}
            header = json.dumps(_changed(usual, header or {})).encode()
        claims = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signed = f"{encoded(header)}.{encoded(claims)}"
        return f"{signed}.{encoded(self.signature(signed))}"

    def signature(self, signed: str) -> bytes:
        made = get_algorithm_by_name(self.algorithm).sign(signed.encode(), self.private)
        assert isinstance(made, bytes)
        return made


def key_set(*keys: Signer | dict[str, Any]) -> bytes:
    """What a provider publishes."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, Signer) else key for key in keys]}).encode()


def encoded(octets: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (document | changes).items() if value is not None}
