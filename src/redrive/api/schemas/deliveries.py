"""Of what is handed over."""

from typing import Final

from redrive.api.deliveries import MOST_BATCH
from redrive.api.schemas.parts import (
    BOOLEAN,
    BYTES,
    NAME,
    RECOVERY,
    SENT_HEADERS,
    STRING,
    Schema,
    array,
    closed,
    obj,
    ref,
    reply,
)
from redrive.domain import errors
from redrive.domain.item import Status

PAYLOAD: Final[Schema] = {"description": "Any JSON; exactly these bytes are sent."}
FORMS: Final[dict[str, tuple[dict[str, Schema], dict[str, Schema]]]] = {  # what each must and may hold
    "JsonDelivery": ({"event_type": NAME, "payload": PAYLOAD}, {"headers": SENT_HEADERS}),
    "BinaryDelivery": (
        {"event_type": NAME, "payload_base64": BYTES, "content_type": STRING},
        {"headers": SENT_HEADERS},
    ),
}
_KEYED: Final[dict[str, Schema]] = {"idempotency_key": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"}}
_ACCEPTED: Final[dict[str, Schema]] = {"recovery_id": RECOVERY, "status": {"const": Status.PENDING.value}}
_OF_ONE_DELIVERY = [
    kind.__name__
    for kind in (
        errors.InvalidPayload,
        errors.TooLarge,
        errors.IdempotencyKeyReused,
        errors.Conflict,
        errors.Contained,
    )
]


SCHEMAS: Final[dict[str, Schema]] = {
    **{name: closed(obj(must, may)) for name, (must, may) in FORMS.items()},
    "Delivery": {"oneOf": [ref(name) for name in FORMS]},
    "Batch": closed(
        obj(
            {
                "deliveries": array(
                    {"oneOf": [closed(obj(must, may | _KEYED)) for must, may in FORMS.values()]},
                    minItems=1,
                    maxItems=MOST_BATCH,
                )
            }
        )
    ),
    "Accepted": reply(_ACCEPTED),
    "AcceptedBatch": reply(
        {
            "deliveries": array(
                {"anyOf": [obj(_ACCEPTED | {"duplicate": BOOLEAN}), *map(ref, _OF_ONE_DELIVERY)]},
                description="A receipt or a problem for each delivery, in order.",
            )
        }
    ),
}
