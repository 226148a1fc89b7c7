"""Calls that hand deliveries over."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from redrive.client.answer import Answer
from redrive.client.bodies import Delivery, write_batch, write_delivery
from redrive.client.calls import NOT_GIVEN, Calls, Correlation, correlate, given, under


class Deliveries(Calls):
    """Deliveries: new ones, and those that failed elsewhere."""

    def deliver(
        self,
        integration_id: str,
        *,
        event_type: str,
        payload: Any = NOT_GIVEN,
        payload_json: bytes | None = None,
        payload_base64: str | bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over one delivery; it is durable when this returns.

        The payload is a JSON value (`payload`), JSON text that must arrive byte for byte (`payload_json`), or
        anything else (`payload_base64`, encoded here when it is bytes, with `content_type`).
        """
        body = write_delivery(
            given(
                event_type=event_type,
                payload=payload,
                payload_json=NOT_GIVEN if payload_json is None else payload_json,
                payload_base64=NOT_GIVEN if payload_base64 is None else payload_base64,
                content_type=NOT_GIVEN if content_type is None else content_type,
                headers=NOT_GIVEN if headers is None else dict(headers),
            )
        )
        return self._post(under(integration_id, "deliveries"), body, idempotency_key, correlation)

    def deliver_batch(
        self,
        integration_id: str,
        deliveries: Sequence[Delivery],
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over up to 1,000 deliveries; the answer is per delivery, in order.

        Each is a mapping with the arguments of `deliver`, or bytes: a delivery already written as JSON, which
        is sent as it is.
        """
        keyed = all(isinstance(one, Mapping) and one.get("idempotency_key") for one in deliveries)
        path = under(integration_id, "deliveries", "batch")
        return self._call("POST", path, write_batch(deliveries), correlate(correlation), repeatable=keyed)

    def import_delivery(
        self,
        integration_id: str,
        delivery: Delivery,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over a delivery that failed elsewhere, with what is known of it (`status`, …)."""
        path = under(integration_id, "recovery", "queue")
        return self._post(path, write_delivery(delivery), idempotency_key, correlation)
