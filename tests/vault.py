"""A vault that is open, and what it sealed."""

from redrive.delivery.sealing import Key, KeyRing
from redrive.delivery.signing import public_key
from redrive.domain.integration import SigningSecret
from redrive.engine.vault import Vault

A_KEY = Key(b"k" * 32)


def a_vault(key: Key = A_KEY) -> Vault:
    """One that a store has yet to unlock."""
    return Vault([key], "a key file")


def an_open_vault(key: Key = A_KEY) -> Vault:
    """One that needs no store."""
    vault = a_vault(key)
    vault._inner = KeyRing([key], "the keys of a test")
    return vault


def sealed(vault: Vault, integration_id: str, secret: str) -> SigningSecret:
    return SigningSecret(vault.seal_secret(integration_id, secret), public_key(secret))
