"""Calls on groups of failures: list, show, and what people say of one."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from redrive.api import body, views
from redrive.api.call import Asked, Reply
from redrive.api.faults import of_reason, read_instant, refuse
from redrive.api.integrations import path_id
from redrive.api.query import Query
from redrive.api.queue import Reason
from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.failure_group import LONGEST_COMMENT, Comment, FailureGroup, GroupState, is_comment
from redrive.domain.ids import GROUP_ID
from redrive.engine.groups import Settled
from redrive.engine.once import Key, Told

FILTERS = ("state", "limit", "cursor")
PAGES = ("limit", "cursor")


class Acknowledgement(msgspec.Struct, forbid_unknown_fields=True):
    """The body that acknowledges a group; a reason may be given."""

    reason: str | None = None


class Muting(msgspec.Struct, forbid_unknown_fields=True):
    """The body that mutes a group until an instant; null ends that."""

    until: str | None
    reason: str | None = None


class NewComment(msgspec.Struct, forbid_unknown_fields=True):
    """The body that adds a comment to a group."""

    text: str


async def list_groups(asked: Asked) -> Reply:
    """Groups of failures of one cause, those that failed last first."""
    integration_id = path_id(asked)
    query = Query(asked.query_string, FILTERS)
    state = query.choice("state", [state.value for state in GroupState])
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    wanted = None if state is None else GroupState(state)
    listed = await asked.engine.groups.page(asked.call, integration_id, wanted, limit=limit, cursor=cursor)
    return asked.json(
        200,
        {
            "integration_id": integration_id,
            "state": state,
            "limit": limit,
            "groups": [_shown(asked, integration_id, group) for group in listed.groups],
            "next_cursor": listed.next_cursor,
        },
    )


async def show_group(asked: Asked) -> Reply:
    """One group with a page of its comments, newest first."""
    integration_id, group_id = path_id(asked), path_group_id(asked)
    query = Query(asked.query_string, PAGES)
    limit, cursor = query.limit(), query.text("cursor")
    query.done()
    seen = await asked.engine.groups.show(asked.call, integration_id, group_id, limit=limit, cursor=cursor)
    return asked.json(
        200,
        {
            "group": _shown(asked, integration_id, seen.group),
            "limit": limit,
            "comments": [views.comment(each) for each in seen.comments.rows],
            "next_cursor": seen.next_cursor,
        },
    )


async def acknowledge_group(asked: Asked) -> Reply:
    """Say that you look at an open group; it is named in the audit log."""
    raw = await _body(asked)
    given = body.read(raw, Acknowledgement)
    refuse(of_reason(given.reason))
    return await _say(asked, asked.engine.groups.acknowledge, raw, given.reason)


async def reopen_group(asked: Asked) -> Reply:
    """Open a group again, with a reason. Items that were resolved with it stay so."""
    raw = await _body(asked)
    given = body.read(raw, Reason)
    given.check()
    return await _say(asked, asked.engine.groups.reopen, raw, given.reason, given.incident)


async def mute_group(asked: Asked) -> Reply:
    """Hold alerts of a group back until an instant; null ends that."""
    raw = await _body(asked)
    given = body.read(raw, Muting)
    faults = of_reason(given.reason)
    until = read_instant("/until", given.until, faults)
    refuse(faults)
    return await _say(asked, asked.engine.groups.mute, raw, until, given.reason)


async def resolve_group(asked: Asked) -> Reply:
    """Close a group and every item that waits in it for good, with a reason.

    The items are closed some at a time, each with its own audit event under this call's request id. A call
    that was cut short can be made again and goes on. What fails later opens the group again, as regressed.
    """
    integration_id, group_id = path_id(asked), path_group_id(asked)
    raw = await _body(asked)
    given = body.read(raw, Reason)
    given.check()

    def render(done: Settled) -> Told:
        shown = _shown(asked, integration_id, done.group)
        return asked.told(200, {"group": shown, "resolved_items": done.closed, "reason": given.reason})

    told = await asked.engine.groups.resolve(
        asked.call,
        integration_id,
        group_id,
        given.reason,
        given.incident,
        render=render,
        key=asked.key(raw),
    )
    return asked.reply(told)


async def comment_on_group(asked: Asked) -> Reply:
    """Write something about a group; nobody can change it afterwards."""
    integration_id, group_id = path_id(asked), path_group_id(asked)
    raw = await _body(asked)
    text = body.read(raw, NewComment).text
    if not is_comment(text):
        raise InvalidPayload(
            Fault(
                "/text",
                f"1–{LONGEST_COMMENT:,} characters; no control but line breaks, no space at either end",
            )
        )

    def render(made: Comment) -> Told:
        return asked.told(201, {"group_id": group_id, "comment": views.comment(made)})

    told = await asked.engine.groups.comment(
        asked.call, integration_id, group_id, text, render=render, key=asked.key(raw)
    )
    return asked.reply(told)


def path_group_id(asked: Asked) -> str:
    """The group_id of the path, or InvalidPayload when it breaks its grammar."""
    found = asked.path["group_id"]
    if not GROUP_ID.fullmatch(found):
        raise InvalidPayload(Fault("group_id", "grp_ and 13 characters"))
    return found


async def _say(asked: Asked, verb: Callable[..., Awaitable[Told]], raw: bytes, *given: object) -> Reply:
    integration_id, group_id = path_id(asked), path_group_id(asked)

    def render(group: FailureGroup) -> Told:
        return asked.told(200, {"group": _shown(asked, integration_id, group)})

    key: Key | None = asked.key(raw)
    told = await verb(asked.call, integration_id, group_id, *given, render=render, key=key)
    return asked.reply(told)


def _shown(asked: Asked, integration_id: str, group: FailureGroup) -> dict[str, Any]:
    return views.group(group, asked.engine.catalogue.find(integration_id))


async def _body(asked: Asked) -> bytes:
    path_id(asked)
    path_group_id(asked)
    Query(asked.query_string, ()).done()
    return await asked.body()
