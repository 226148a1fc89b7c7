"""Of failure groups."""

from typing import Final

from redrive.api.groups import Acknowledgement, Muting, NewComment
from redrive.api.schemas.parts import (
    BOOLEAN,
    COUNT,
    CURSOR,
    FAILURE_CODE,
    GROUP,
    INSTANT,
    INTEGRATION,
    REASON,
    RECOVERY,
    STRING,
    Schema,
    array,
    bodies,
    obj,
    or_null,
    ref,
    reply,
    words,
)
from redrive.domain.failure_group import LONGEST_COMMENT, GroupState
from redrive.domain.grouping import FailureClass


def _asked() -> dict[str, Schema]:
    found = bodies(Acknowledgement, Muting, NewComment)
    for name in (Acknowledgement.__name__, Muting.__name__):
        found[name]["properties"]["reason"] |= or_null(REASON)
    found[Muting.__name__]["properties"]["until"] |= or_null(INSTANT)
    found[NewComment.__name__]["properties"]["text"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_COMMENT,
        "pattern": r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x08\x0b-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
    }
    return found


_BY: Schema = or_null(obj({"at": INSTANT, "by": STRING}))
_GROUP: dict[str, Schema] = {
    "group_id": GROUP,
    "integration_id": INTEGRATION,
    "failure_class": words(FailureClass),
    "failure_code": FAILURE_CODE,
    "detail": STRING | {"description": "What the receiver said, or how it failed, with what varies marked."},
    "fingerprint": {"type": "string", "pattern": "^v1:[0-9a-f]{64}$"},
    "why_grouped": STRING,
    "failures": COUNT | {"description": "Attempts that failed so."},
    "items": COUNT | {"description": "Failed and dlq items that wait for a person, counted up to 10,000."},
    "items_is_exact": BOOLEAN,
    "first_seen_at": INSTANT,
    "last_seen_at": INSTANT,
    "sample": RECOVERY | {"description": "The item that failed so last."},
    "state": words(GroupState),
    "regressed": BOOLEAN | {"description": "It failed again after it was resolved."},
    "acknowledged": _BY,
    "resolved": _BY,
    "muted_until": or_null(INSTANT),
}
_WRITTEN: dict[str, Schema] = {"written_at": INSTANT, "written_by": STRING, "text": STRING}


SCHEMAS: Final[dict[str, Schema]] = {
    **_asked(),
    "Group": obj(_GROUP),
    "Comment": obj(_WRITTEN),
    "Groups": reply(
        {
            "integration_id": INTEGRATION,
            "state": or_null(words(GroupState)),
            "limit": COUNT,
            "groups": array(ref("Group")),
            "next_cursor": CURSOR,
        }
    ),
    "GroupWithComments": reply(
        {
            "group": ref("Group"),
            "limit": COUNT,
            "comments": array(ref("Comment"), description="Newest first."),
            "next_cursor": CURSOR,
        }
    ),
    "JudgedGroup": reply({"group": ref("Group")}),
    "ResolvedGroup": reply({"group": ref("Group"), "resolved_items": COUNT, "reason": STRING}),
    "Commented": reply({"group_id": GROUP, "comment": ref("Comment")}),
}
