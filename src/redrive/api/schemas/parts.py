"""What schemas are made of: kinds of values, and the names that many of them hold."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from redrive.api import views
from redrive.api.faults import MOST_NAME, MOST_REASON
from redrive.api.queue import FAILURE_CODES
from redrive.domain.headers import HEADER_NAME, HEADER_VALUE, MAX_HEADERS
from redrive.domain.ids import ALPHABET, GROUP_ID, RECOVERY_ID, REPLAY_PREFIX
from redrive.domain.integration import INTEGRATION_ID

Schema = dict[str, Any]
_REF: Final = "#/components/schemas/"
_LINE: Final = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": _REF + name}


def whole(pattern: re.Pattern[str]) -> Schema:
    """A string that matches all of *pattern* (JSON Schema's patterns are not anchored)."""
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$"}


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}, **more: Any) -> Schema:
    """An object; what it may hold besides is left open, because a reply may grow."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        **more,
    }


STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
HTTP_STATUS: Schema = {"type": "integer", "minimum": 100, "maximum": 599}
BYTES: Schema = {"type": "string", "contentEncoding": "base64"}


def line(most: int) -> Schema:
    """A text on one line."""
    told = "One line of printable characters, no space at either end."
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": _LINE, "description": told}


def words(among: Any) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": [str(word) for word in among]}


def or_null(schema: Schema) -> Schema:
    """*schema*, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def closed(schema: Schema) -> Schema:
    """An object that holds nothing else."""
    return schema | {"additionalProperties": False}


def array(of: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": of, **more}


def bodies(*kinds: type[msgspec.Struct]) -> dict[str, Schema]:
    """The schemas of request bodies, and of what they hold, by name; their values are not bounded yet."""
    return msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")[1]


def reply(required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}) -> Schema:
    """What a 2xx holds: that, and the request_id of its call."""
    return obj({**required, "request_id": REQUEST_ID}, optional)


INTEGRATION = whole(INTEGRATION_ID)
RECOVERY = whole(RECOVERY_ID)
GROUP = whole(GROUP_ID)
REPLAY_ID = whole(re.compile(f"{REPLAY_PREFIX}[0-7][{ALPHABET}]{{12}}"))
REQUEST_ID: Schema = {"type": "string"}
CURSOR = or_null({"type": "string", "description": "Pass it on as `cursor`, with the same filters."})
FAILURE_CODE: Schema = {
    "anyOf": [words(sorted(FAILURE_CODES)), {"type": "string", "pattern": "^HTTP_[1-5][0-9]{2}$"}]
}
SENT_HEADERS: Schema = {
    "type": "object",
    "propertyNames": whole(HEADER_NAME),
    "additionalProperties": whole(HEADER_VALUE),
    "maxProperties": MAX_HEADERS,
}
DUPLICATE_RISK = words(views.RISKS)
REASON = line(MOST_REASON)
NAME = line(MOST_NAME)
