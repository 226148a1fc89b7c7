"""TLS towards receivers: whom we trust, and who we are where a receiver asks for that."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from tempfile import NamedTemporaryFile
from typing import Final

from redrive.delivery.hidden import Hidden
from redrive.domain.errors import Fault

MOST_PEM: Final = 16 * 1024
_IDENTITIES_KEPT: Final = 1024


class Identity(Hidden, frozen=True):
    """Our certificate with its chain, its key, and who vouches for the receiver (empty: the system does)."""

    certificate: str
    private_key: str
    ca: str = ""


@cache
def system_trust() -> ssl.SSLContext:
    """Read once, at start: read while no file handle is left it would be empty, without an error."""
    return ssl.create_default_context()


@lru_cache(maxsize=_IDENTITIES_KEPT)
def context_of(identity: Identity) -> ssl.SSLContext:
    """How to speak TLS as *identity*; ssl.SSLError or ValueError when its parts do not fit together."""
    context = ssl.create_default_context(cadata=identity.ca or None)
    with _file_of(f"{identity.certificate}\n{identity.private_key}\n") as path:
        context.load_cert_chain(path, password=_no_password)
    return context


def check_identity(certificate: str, private_key: str, ca: str) -> list[Fault]:
    """What is wrong with the parts of an identity; no fault repeats any of them."""
    parts = {"certificate": certificate, "private_key": private_key, "ca": ca}
    faults = [
        Fault(f"/credentials/{name}", f"must be PEM, at most {MOST_PEM // 1024} KiB of ASCII")
        for name, text in parts.items()
        if text and not (len(text) <= MOST_PEM and text.isascii() and "-----BEGIN " in text)
    ]
    if faults:
        return faults
    if ca:
        try:
            ssl.create_default_context(cadata=ca)
        except (ssl.SSLError, ValueError):
            return [Fault("/credentials/ca", "holds no certificate that can be read")]
    try:
        context_of(Identity(certificate, private_key, ca))
    except (ssl.SSLError, ValueError):
        return [
            Fault(
                "/credentials/private_key",
                "certificate and private_key must be PEM, belong together, and the key be without a password",
            )
        ]
    return []


@contextmanager
def _file_of(text: str) -> Iterator[str]:
    """A path that holds *text*, since ssl reads certificates from files only: in memory where that can be."""
    if not hasattr(os, "memfd_create"):
        with NamedTemporaryFile("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            yield file.name
        return
    handle = os.memfd_create("redrive", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(handle), "w", encoding="ascii") as file:
            file.write(text)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _no_password() -> str:
    raise ValueError("the key has a password")
