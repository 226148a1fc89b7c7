"""Content that is sealed at rest: it comes back as it was, in its own place, and tells nothing there."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redrive.delivery.sealing import Unsealable
from redrive.domain.delivery import Attempt, Evidence, Item
from redrive.domain.item import Status
from redrive.domain.outcome import Answer, Failed, Reach, Succeeded
from redrive.engine.content import OVERHEAD, Content
from tests.factories import NOW, a_delivery
from tests.vault import an_open_vault

VAULT = an_open_vault()
SEALED, PLAIN = Content(VAULT, seals=True), Content(VAULT, seals=False)
DELIVERY = a_delivery(payload=b'{"personal":1}', content_type="application/json")
ANSWER = Answer(503, (("Content-Type", "text/plain"),), b"personal", truncated=True)


def an_item(content: Content, **fields: Any) -> Item:
    """As a store gives it back."""
    stored = content.stored(DELIVERY)
    answer = content.stored_answer(DELIVERY.id, ANSWER)
    assert answer is not None
    values: dict[str, Any] = {
        "delivery": stored,
        "payload_size": len(stored.payload),
        "status": Status.DLQ,
        "cycle": 1,
        "attempt_count": 1,
        "max_attempts": 1,
        "request_ids": ("req-1",),
        "next_retry_at": None,
        "last": Evidence(answer=answer, answer_size=len(answer.body)),
        "resolution": None,
        "updated_by": "redrive",
        "updated_at": NOW,
    }
    return Item(**values | fields)


@given(payload=st.binary(max_size=100))
def test_what_is_stored_sealed_is_opened(payload: bytes) -> None:
    delivery = replace(DELIVERY, payload=payload)

    stored = SEALED.stored(delivery)

    assert stored.payload != payload
    assert len(stored.payload) == len(payload) + OVERHEAD
    assert PLAIN.opened(stored) == delivery, "also when nothing is sealed any more"


def test_without_the_setting_it_is_stored_as_it_came() -> None:
    assert PLAIN.stored(DELIVERY) is DELIVERY
    assert SEALED.opened(DELIVERY) is DELIVERY, "what was stored before is sent on"


@pytest.mark.parametrize("content", [SEALED, PLAIN], ids=["sealed", "plain"])
def test_an_item_is_shown_as_it_came(content: Content) -> None:
    shown = SEALED.shown(an_item(content))

    assert shown.delivery == DELIVERY
    assert shown.payload_size == len(DELIVERY.payload)
    assert (shown.last.answer, shown.last.answer_size) == (ANSWER, len(ANSWER.body))


def test_a_list_tells_sizes_without_opening() -> None:
    item = an_item(SEALED)
    answer = item.last.answer
    assert answer is not None
    listed = replace(
        item,
        delivery=replace(item.delivery, payload=b""),
        last=replace(item.last, answer=replace(answer, body=b"")),
    )

    shown = SEALED.shown(listed)

    assert (shown.payload_size, shown.last.answer_size) == (len(DELIVERY.payload), len(ANSWER.body))
    assert shown.delivery.content_type == "application/json"
    assert shown.last.answer is not None
    assert shown.last.answer.headers == ANSWER.headers


def test_what_was_erased_is_shown_as_nothing() -> None:
    item = an_item(SEALED)
    erased = replace(item, delivery=replace(item.delivery, payload=b""), payload_size=0)

    shown = SEALED.shown(erased)

    assert (shown.delivery.payload, shown.payload_size) == (b"", 0)


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(replace(ANSWER, status=200)),
        Failed("HTTP_503", "…", Reach.ANSWERED, ANSWER),
        Failed("ECONNRESET", "…", Reach.SENT),
    ],
)
def test_an_attempt_is_shown_as_it_was(outcome: Any) -> None:
    stored = SEALED.stored_outcome(DELIVERY.id, outcome)
    attempt = Attempt(1, 1, NOW, timedelta(0), stored, True, "0" * 16)

    assert SEALED.shown_attempt(DELIVERY.id, attempt) == replace(attempt, outcome=outcome)
    assert b"personal" not in repr(stored).encode()


def test_a_payload_that_was_moved_or_changed_stays_shut() -> None:
    stored = SEALED.stored(DELIVERY)

    for damaged in (
        replace(stored, id=a_delivery().id),
        replace(stored, payload=stored.payload[:-1] + bytes([stored.payload[-1] ^ 1])),
        replace(stored, payload=stored.payload[:7]),
    ):
        with pytest.raises(Unsealable):
            SEALED.opened(damaged)


def test_a_receiver_cannot_pass_its_answer_off_as_sealed() -> None:
    """No header of an answer can have a colon in its name; another that says so is one like any."""
    forged = replace(ANSWER, headers=(("sealed", "v1"), *ANSWER.headers))

    attempt = Attempt(
        1, 1, NOW, timedelta(0), Failed("HTTP_503", "…", Reach.ANSWERED, forged), True, "0" * 16
    )

    assert SEALED.shown_attempt(DELIVERY.id, attempt) == attempt
