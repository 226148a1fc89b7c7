"""Request bodies. A payload given as bytes goes into them as it is: never parsed, never written again."""

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from redrive.client.errors import BadArgument

Delivery = Mapping[str, Any] | bytes  # bytes: the JSON object, already written


def write(value: Any) -> bytes:
    """*value* as compact JSON in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArgument(f"cannot be written as JSON: {error}") from None


def write_delivery(delivery: Delivery) -> bytes:
    """One delivery: `payload` (any JSON value), `payload_json` (bytes) or `payload_base64`, and the rest."""
    if isinstance(delivery, bytes):
        return delivery
    if len({"payload", "payload_json", "payload_base64"} & delivery.keys()) != 1:
        raise BadArgument("a delivery has one of payload, payload_json and payload_base64")
    return write_object(delivery)


def write_object(fields: Mapping[str, Any]) -> bytes:
    """An object that may have a `payload_json` (bytes), and a `payload_base64` given as bytes."""
    members = []
    for name, value in fields.items():
        if name == "payload_json":
            if not isinstance(value, bytes):
                raise BadArgument("payload_json is bytes; a value goes into payload")
            members.append(b'"payload":' + value)
        else:
            members.append(write(name) + b":" + write(_plain(name, value)))
    return b"{" + b",".join(members) + b"}"


def write_batch(deliveries: Iterable[Delivery]) -> bytes:
    """The body of a batch."""
    return b'{"deliveries":[' + b",".join(map(write_delivery, deliveries)) + b"]}"


def instant(value: datetime | str) -> str:
    """An instant for a query: RFC 3339 in UTC."""
    if isinstance(value, str):
        return value
    if value.tzinfo is None:
        raise BadArgument("an instant needs its timezone")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(name: str, value: Any) -> Any:
    if name == "payload_base64" and isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return instant(value) if isinstance(value, datetime) else value
