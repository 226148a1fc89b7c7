"""The call that sends a corrected copy of a failed or dlq item."""

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.deliveries import MOST_BODY, check_size, headers_of, payload_of
from redrive.api.faults import of_name, of_reason, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.api.queue import path_recovery_id
from redrive.domain.errors import Fault
from redrive.engine.acting import Order
from redrive.engine.editing import Correction, Edited
from redrive.engine.once import Told

FIELDS = frozenset({"reason", "incident", "payload", "payload_base64", "content_type", "headers"})


async def edit(asked: Asked) -> Reply:
    """Send a corrected copy of a failed or dlq item: 201 once it is durable."""
    integration_id, recovery_id = path_id(asked), path_recovery_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BODY)
    reason, incident, given = _given(body.members(raw))
    order = Order(asked.call, integration_id, recovery_id, reason, asked.key(raw), incident)

    def render(done: Edited) -> Told:
        integration = asked.engine.catalogue.find(integration_id)
        shown = views.item(done.copy, integration, bodies=False)
        return asked.told(201, {"recovery": shown, "edited": True, "reason": reason, **done.diff})

    return asked.reply(await asked.engine.editing.edit(order, given, render))


def _given(found: body.Members) -> tuple[str, str | None, Correction]:
    """The reason, the incident and the correction, or InvalidPayload with everything that is wrong."""
    faults = body.check_names(found, FIELDS)
    reason = body.value(found, "reason", str, faults)
    faults += of_reason(reason)
    if "reason" not in found:
        faults.append(Fault("/reason", "is missing: why"))
    incident = body.value(found, "incident", str, faults)
    faults += of_name("/incident", incident)
    payload, content_type = None, ""
    if found.keys() & {"payload", "payload_base64", "content_type"}:
        payload, content_type = payload_of(found, faults)
    headers = headers_of(found, faults) if "headers" in found else None
    if payload is None and headers is None:
        faults.append(Fault("", "nothing to correct is given: payload (or payload_base64), headers or both"))
    refuse(faults)
    if payload is not None:
        check_size(payload)
    return reason or "", incident, Correction(payload, content_type, headers)
