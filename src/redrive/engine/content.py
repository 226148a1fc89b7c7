"""Payloads and the bodies of answers at rest: as they came, or sealed, each bound to its item.

A sealed one says so where no caller and no receiver can: in a content type with a colon, in the name of a
header that has one. So both kinds stand side by side, and lists tell sizes without opening anything.
"""

import hmac
from collections.abc import Callable
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from redrive.clock import random_bytes
from redrive.delivery.sealing import Unsealable
from redrive.domain.delivery import Attempt, Delivery, Item
from redrive.domain.errors import DependencyUnavailable
from redrive.domain.ids import ItemId
from redrive.domain.outcome import Answer, Failed, Outcome
from redrive.engine.vault import Vault

Kept = TypeVar("Kept")
SEALED_TYPE: Final = "sealed:"
SEALED_HEADER: Final = (":sealed", "v1")
_ID: Final = 8
_NONCE: Final = 12
OVERHEAD: Final = _ID + _NONCE + 16  # bytes: the key's id and the nonce in front, the tag behind
_PAYLOAD: Final = b"payload"
_ANSWER: Final = b"answer"


class Content:
    """Turns content into what is stored, and back. *seals*: whether it is stored sealed from now on."""

    def __init__(self, vault: Vault, *, seals: bool) -> None:
        self._vault = vault
        self.seals = seals

    def stored(self, delivery: Delivery) -> Delivery:
        """As it is stored, and goes through the engine until it is sent."""
        if not self.seals:
            return delivery
        payload = self._seal(delivery.id, _PAYLOAD, delivery.payload)
        return replace(delivery, payload=payload, content_type=SEALED_TYPE + delivery.content_type)

    def opened(self, delivery: Delivery) -> Delivery:
        """As it came; Unsealable. A list's has no payload, nor has one that was erased."""
        if not delivery.content_type.startswith(SEALED_TYPE):
            return delivery
        payload = self._open(delivery.id, _PAYLOAD, delivery.payload)
        content_type = delivery.content_type.removeprefix(SEALED_TYPE)
        return replace(delivery, payload=payload, content_type=content_type)

    def stored_outcome(self, item_id: ItemId, outcome: Outcome) -> Outcome:
        """As the outcome of an attempt is stored."""
        return _with_answer(outcome, self.stored_answer(item_id, outcome.answer))

    def stored_answer(self, item_id: ItemId, answer: Answer | None) -> Answer | None:
        """As an answer is stored."""
        if not self.seals or answer is None:
            return answer
        return replace(
            answer,
            headers=(SEALED_HEADER, *answer.headers),
            body=self._seal(item_id, _ANSWER, answer.body),
        )

    def shown(self, item: Item) -> Item:
        """An item as it came; Unsealable."""
        listed, answer = self.listed(item), self._opened_answer(item.delivery.id, item.last.answer)
        return replace(listed, delivery=self.opened(item.delivery), last=replace(listed.last, answer=answer))

    def listed(self, item: Item) -> Item:
        """An item without its content, whose sizes are told: nothing has to be opened for that."""
        delivery, last = item.delivery, item.last
        is_sealed = delivery.content_type.startswith(SEALED_TYPE)
        answer, is_answer_sealed = last.answer, _is_sealed(last.answer)
        if answer is not None:
            answer = replace(answer, headers=answer.headers[is_answer_sealed:], body=b"")
        return replace(
            item,
            delivery=replace(
                delivery, payload=b"", content_type=delivery.content_type.removeprefix(SEALED_TYPE)
            ),
            payload_size=_size(item.payload_size, is_sealed=is_sealed),
            last=replace(
                last, answer=answer, answer_size=_size(last.answer_size, is_sealed=is_answer_sealed)
            ),
        )

    def shown_attempt(self, item_id: ItemId, attempt: Attempt) -> Attempt:
        """One of its attempts; Unsealable."""
        outcome = attempt.outcome
        return replace(attempt, outcome=_with_answer(outcome, self._opened_answer(item_id, outcome.answer)))

    def _opened_answer(self, item_id: ItemId, answer: Answer | None) -> Answer | None:
        if answer is None or not _is_sealed(answer):
            return answer
        return replace(answer, headers=answer.headers[1:], body=self._open(item_id, _ANSWER, answer.body))

    def _seal(self, item_id: ItemId, what: bytes, content: bytes) -> bytes:
        key_id, nonce = self._vault.key_id, random_bytes(_NONCE)
        cipher = self._cipher(key_id, item_id)
        return bytes.fromhex(key_id) + nonce + cipher.encrypt(nonce, content, what)

    def _open(self, item_id: ItemId, what: bytes, sealed: bytes) -> bytes:
        if not sealed:
            return b""
        key_id, nonce, box = sealed[:_ID].hex(), sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :]
        try:
            return self._cipher(key_id, item_id).decrypt(nonce, box, what)
        except (InvalidTag, ValueError) as error:
            raise Unsealable(f"the {what.decode()} was changed, or belongs elsewhere") from error

    def _cipher(self, key_id: str, item_id: ItemId) -> AESGCM:
        """A key for each item: so no number of them is too many for nonces that are drawn by chance."""
        key = self._vault.derive("content", key_id)
        return AESGCM(hmac.digest(key, item_id.to_bytes(8, "big"), "sha256"))


def _is_sealed(answer: Answer | None) -> bool:
    return answer is not None and SEALED_HEADER in answer.headers[:1]


def _size(stored: int, *, is_sealed: bool) -> int:
    return max(0, stored - OVERHEAD) if is_sealed else stored


def legible(open_it: Callable[[Kept], Kept], kept: Kept) -> Kept:
    """What is shown of *kept*; DependencyUnavailable when it cannot be opened."""
    try:
        return open_it(kept)
    except Unsealable as error:
        raise DependencyUnavailable("key material", f"what is stored cannot be opened: {error}") from error


def _with_answer(outcome: Outcome, answer: Answer | None) -> Outcome:
    if answer is outcome.answer or (answer is None and not isinstance(outcome, Failed)):
        return outcome
    return replace(outcome, answer=answer)
