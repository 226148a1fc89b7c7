"""JSON lines in files: split without touching what a payload's bytes are."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import DecodeError, Raw, json

from redrive.cli.values import unreadable

_MEMBERS = json.Decoder(dict[str, Raw])
_KEY = json.Decoder(str | None)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that can be sent, its members as they came. `size` is that of its bytes."""

    number: int
    members: dict[str, Raw]
    idempotency_key: str | None
    size: int

    def for_batch(self) -> dict[str, Any]:
        """A delivery of a batch, as the client takes it."""
        delivery = {name: json.decode(raw) for name, raw in self.members.items() if name != "payload"}
        if "payload" in self.members:
            delivery["payload_json"] = bytes(self.members["payload"])
        if self.idempotency_key is not None:
            delivery["idempotency_key"] = self.idempotency_key
        return delivery

    def written(self) -> bytes:
        """The whole object but its key: every member byte for byte, evidence included."""
        members = (json.encode(name) + b":" + bytes(raw) for name, raw in self.members.items())
        return b"{" + b",".join(members) + b"}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One line that was not taken, and why."""

    line: int
    error_code: str | None  # None: it was not even sent
    detail: str


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file of that name; `-` is standard input."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise unreadable(name, error) from error
        yield file


def read_lines(file: BinaryIO, key_prefix: str | None) -> Iterator[Line | Rejection]:
    """Each line that is not blank; *key_prefix* gives those without an idempotency_key one."""
    for number, text in enumerate(file, 1):
        if text.strip():
            yield _read(number, text, key_prefix)


def _read(number: int, text: bytes, key_prefix: str | None) -> Line | Rejection:
    try:
        text.decode()  # msgspec skips over a payload without judging its UTF-8
        members = _MEMBERS.decode(text)
        own_key = _KEY.decode(members.pop("idempotency_key", b"null"))
    except (UnicodeDecodeError, DecodeError, RecursionError) as error:
        return Rejection(number, None, f"not a JSON object in UTF-8: {error}")
    if "event_type" not in members:
        return Rejection(number, None, "it has no event_type")
    if ("payload" in members) == ("payload_base64" in members):
        return Rejection(number, None, "it needs one of payload and payload_base64")
    if "payload_json" in members:  # the client's own word, unknown to the service
        return Rejection(number, None, "there is no member payload_json")
    made_key = None if key_prefix is None else f"{key_prefix}-{number}"
    return Line(number, members, made_key if own_key is None else own_key, len(text))
