"""Where a page of a list ended, as a text that only we can make: it goes on there, for the same question."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from redrive.domain.errors import Fault, InvalidPayload
from redrive.engine.vault import Vault

_TAG = 8


class Paging:
    """Makes cursors and reads them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def cursor(self, position: bytes, scope: str) -> str:
        """The cursor of a *position* in the list that *scope* names."""
        key = self._vault.derive("cursor")
        tag = hashlib.blake2b(position + scope.encode(), key=key, digest_size=_TAG)
        return urlsafe_b64encode(position + tag.digest()).decode().rstrip("=")

    def position(self, cursor: str, scope: str, size: int) -> bytes:
        """The position in a cursor, of so many bytes; a forged one, or another list's, is an error."""
        try:
            position = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))[:size]
        except ValueError:
            position = b""
        # As text, to the letter: base64 is read past letters that are none of it.
        if not hmac.compare_digest(cursor.encode(), self.cursor(position, scope).encode()):
            raise InvalidPayload(
                Fault("cursor", "not a cursor of this list: pass next_cursor on with the same filters")
            )
        return position
