"""Calls that ask how a receiver is: a probe, and its health as it was recorded."""

from typing import Any

import msgspec

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.faults import of_reason, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.domain.errors import Fault
from redrive.domain.ids import RECOVERY_ID
from redrive.engine.once import Told
from redrive.engine.probing import Probed


class NewProbe(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a probe: of the health URL, or with an item, which needs a reason."""

    recovery_id: str | None = None
    reason: str | None = None


async def probe(asked: Asked) -> Reply:
    """Make one request to the health URL, or send one item as a trial, although everything else is held.

    It answers when that has ended. A dead item is sent in a new cycle of one attempt, an open one with its
    next attempt. A probe that failed is answered 200 as well: it did what was asked.
    """
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    given = body.read(raw, NewProbe)
    _check(given)

    def render(done: Probed) -> Told:
        return asked.told(200, {"integration_id": integration_id, "probe": done.probe.state()})

    probing, key = asked.engine.probing, asked.key(raw)
    if given.recovery_id is None:
        told = await probing.ask(asked.call, integration_id, given.reason, render=render, key=key)
    else:
        told = await probing.send(
            asked.call, integration_id, given.recovery_id, given.reason or "", render=render, key=key
        )
    return asked.reply(told)


async def show_health(asked: Asked) -> Reply:
    """A verdict on the receiver, with the facts behind it, from what is recorded: nothing is sent."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    integration, found = await asked.engine.judging.show(asked.call, integration_id)
    shown: dict[str, Any] = {"integration_id": integration_id, "containment": views.containment(integration)}
    return asked.json(200, shown | views.diagnosis(found))


def _check(given: NewProbe) -> None:
    faults = of_reason(given.reason)
    if given.recovery_id is not None and not RECOVERY_ID.fullmatch(given.recovery_id):
        faults.append(Fault("/recovery_id", "1–64 of a-z 0-9 _ -"))
    if given.recovery_id is not None and given.reason is None:
        faults.append(Fault("/reason", "is missing: an item is sent for a reason"))
    refuse(faults)
