"""Calls on replays of many: plan, run, list, show, pause, resume, cancel, pace."""

from collections.abc import Awaitable, Callable

from redrive.api import body
from redrive.api.call import MIB, Asked, Reply
from redrive.api.faults import refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.api.replay_bodies import NewRate, ReplayPlan, ReplayRun, check_rate, read_options, read_wanted
from redrive.api.replay_views import view, view_item
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.ids import parse_replay_id
from redrive.domain.replay import ItemState
from redrive.engine.once import Told
from redrive.engine.seeing import SeenJob

MOST_BODY = 4 * MIB  # a hundred thousand recovery ids
ITEM_FILTERS = ("state", "limit", "cursor")
LIST_FILTERS = ("limit", "cursor")


async def start_replay(asked: Asked) -> Reply:
    """Make a plan of what a filter matches (201), or run a plan by its digest (202)."""
    integration_id = path_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body(MOST_BODY)
    key = asked.key(raw)
    if "plan_digest" in body.members(raw):
        given = body.read(raw, ReplayRun)
        options = read_options(given)
        told = await asked.engine.replays.run(
            asked.call, integration_id, given.plan_digest, options, render=_render(asked, 202), key=key
        )
    else:
        wanted = read_wanted(body.read(raw, ReplayPlan).filter)
        told = await asked.engine.planning.plan(
            asked.call, integration_id, wanted, render=_render(asked, 201), key=key
        )
    return asked.reply(told)


async def list_replays(asked: Asked) -> Reply:
    """A page of an integration's plans and jobs, newest first."""
    integration_id = path_id(asked)
    query = Query(asked.query_string, LIST_FILTERS)
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    page, next_cursor = await asked.engine.replays.list(
        asked.call, integration_id, limit=limit, cursor=cursor
    )
    shown = [view(one) for one in page]
    return asked.json(
        200,
        {"integration_id": integration_id, "limit": limit, "replays": shown, "next_cursor": next_cursor},
    )


async def show_replay(asked: Asked) -> Reply:
    """One plan or job, and how far it is: counts by outcome, all of one moment."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    seen = await asked.engine.replays.show(asked.call, integration_id, name)
    return asked.json(200, {"replay": view(seen)})


async def list_replay_items(asked: Asked) -> Reply:
    """What became of each item, and why, in the order in which the items were accepted."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    query = Query(asked.query_string, ITEM_FILTERS)
    state = query.choice("state", [state.value for state in ItemState])
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    job, rows, next_cursor = await asked.engine.replays.items(
        asked.call,
        integration_id,
        name,
        None if state is None else ItemState(state),
        limit=limit,
        cursor=cursor,
    )
    return asked.json(
        200,
        {
            "replay_id": job.replay_id,
            "state": state,
            "limit": limit,
            "items": [view_item(row) for row in rows],
            "next_cursor": next_cursor,
        },
    )


async def pause_replay(asked: Asked) -> Reply:
    """Replay nothing more of it for now; what was replayed goes on."""
    return await _changed(asked, asked.engine.replays.pause)


async def resume_replay(asked: Asked) -> Reply:
    """Let a paused job go on; what failed before is no reason to halt."""
    return await _changed(asked, asked.engine.replays.resume)


async def cancel_replay(asked: Asked) -> Reply:
    """Replay nothing more of it, for good; what was replayed stays so, and goes on."""
    return await _changed(asked, asked.engine.replays.cancel)


async def pace_replay(asked: Asked) -> Reply:
    """Change how many items a second it replays; null: as fast as the integration's own limits."""
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    rate = body.read(raw, NewRate).rate
    check_rate(rate)
    told = await asked.engine.replays.set_rate(
        asked.call, integration_id, name, rate, render=_render(asked, 200), key=asked.key(raw)
    )
    return asked.reply(told)


def path_replay_id(asked: Asked) -> str:
    """The replay_id of the path, or InvalidPayload when it breaks its grammar."""
    found = asked.path["replay_id"]
    if parse_replay_id(found) is None:
        raise InvalidPayload(Fault("replay_id", "rpl_ and 13 characters"))
    return found


async def _changed(asked: Asked, verb: Callable[..., Awaitable[Told]]) -> Reply:
    integration_id, name = path_id(asked), path_replay_id(asked)
    Query(asked.query_string, ()).done()
    raw = await asked.body()
    refuse(body.check_names(body.members(raw), frozenset()))
    told = await verb(asked.call, integration_id, name, render=_render(asked, 200), key=asked.key(raw))
    return asked.reply(told)


def _render(asked: Asked, status: int) -> Callable[[SeenJob], Told]:
    return lambda seen: asked.told(status, {"replay": view(seen)})
