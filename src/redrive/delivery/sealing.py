"""Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a ring of keys, each text bound to where it belongs.

A sealed text is `sealed:v1:<key id>:<base64url of the nonce, the ciphertext and the tag>`.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from redrive.clock import random_bytes

PREFIX: Final = "sealed:v1:"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SEALED = re.compile(r"sealed:v1:(?P<key>[0-9a-f]{16}):(?P<box>[A-Za-z0-9_=-]{38,})", re.ASCII)
_LINE = re.compile(r"(?P<id>[0-9a-f]{16}) (?P<value>[A-Za-z0-9_=-]{44})", re.ASCII)


class Unsealable(Exception):
    """What is kept sealed cannot be opened; the message says why, and nothing of what is in it."""


class BadKeys(Exception):
    """What should hold keys does not; the message says what is wrong, and no key."""


@dataclass(frozen=True)
class Key:
    """A key and its id, which follows from it: a key that was damaged is not taken for another."""

    value: bytes = field(repr=False)

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return sha256(b"redrive key " + self.value).hexdigest()[:16]


def new_key() -> Key:
    """A key nobody can guess."""
    return Key(random_bytes(KEY_BYTES))


def is_sealed(text: str) -> bool:
    """Whether *text* claims to be sealed."""
    return text.startswith(PREFIX)


def key_of(sealed: str) -> str:
    """The id of the key that *sealed* says it is under."""
    return _read(sealed)[0]


class KeyRing:
    """The first key seals, all of them open. *whose*: how a message calls them."""

    def __init__(self, keys: Sequence[Key], whose: str) -> None:
        self.keys = tuple(keys)
        self._whose = whose
        self._derived: dict[tuple[str, str], bytes] = {}
        self._by_id = {key.id: key for key in keys}
        self._ciphers = {key.id: AESGCM(key.value) for key in keys}

    def seal(self, plain: bytes, bound_to: str) -> str:
        """*plain*, sealed: it opens as what it is *bound_to* and as nothing else."""
        first = self.keys[0].id
        nonce = random_bytes(_NONCE_BYTES)
        box = nonce + self._ciphers[first].encrypt(nonce, plain, _bound(bound_to, first))
        return f"{PREFIX}{first}:{urlsafe_b64encode(box).decode()}"

    def unseal(self, sealed: str, bound_to: str) -> bytes:
        """What was sealed, or Unsealable."""
        key_id, box = _read(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Unsealable(f"it is sealed under the key {key_id}, which is not among {self._whose}")
        try:
            return cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _bound(bound_to, key_id))
        except InvalidTag as error:
            raise Unsealable("it was changed, or belongs elsewhere") from error

    def derive(self, name: str, key_id: str) -> bytes:
        """32 bytes of the key *key_id* for the purpose *name*; Unsealable when there is none such."""
        derived = self._derived.get((name, key_id))
        if derived is None:
            if key_id not in self._by_id:
                raise Unsealable(f"it is sealed under the key {key_id}, which is not among {self._whose}")
            derived = digest(self._by_id[key_id].value, f"redrive {name}".encode(), "sha256")
            self._derived[name, key_id] = derived
        return derived


def format_keys(keys: Sequence[Key]) -> str:
    """Keys as the lines of a file, with the first in front."""
    return "".join(f"{key.id} {urlsafe_b64encode(key.value).decode()}\n" for key in keys)


def parse_keys(text: str) -> list[Key]:
    """The keys of a file, or BadKeys; blank lines and lines that begin with # are for people."""
    found: list[Key] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise BadKeys(
                f"line {number} is not a key: an id and 32 bytes in base64, as `redrive key new` prints"
            )
        key = Key(urlsafe_b64decode(match["value"]))
        if len(key.value) != KEY_BYTES or not compare_digest(key.id, match["id"]):
            raise BadKeys(f"line {number}: the key {match['id']} is damaged; take it from a copy of the file")
        if key in found:
            raise BadKeys(f"line {number}: the key {key.id} stands twice")
        found.append(key)
    if not found:
        raise BadKeys("there is no key in it")
    return found


def _read(sealed: str) -> tuple[str, bytes]:
    match = _SEALED.fullmatch(sealed)
    if match is None:
        raise Unsealable("it is not sealed")
    try:
        return match["key"], urlsafe_b64decode(match["box"])
    except binascii.Error as error:
        raise Unsealable("it is damaged") from error


def _bound(bound_to: str, key_id: str) -> bytes:
    return f"redrive:v1:{key_id}:{bound_to}".encode()
