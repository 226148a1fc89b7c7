"""Text from elsewhere, made harmless to a terminal: it can move nothing, colour nothing, hide nothing."""

import re


def inert(value: object) -> str:
    """*value* on one line, each character that would not print itself as its escape."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\u200d" else _escape(c) for c in text)  # U+200D joins emoji


def inert_json(text: str, *, only_ascii: bool = False) -> str:
    """JSON text with its invisible characters escaped: it stays the same JSON."""
    if text.isascii() and "\x7f" not in text:
        return text
    pattern = _NOT_ASCII if only_ascii else _UNSEEN
    return pattern.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _utf16(match[0])), text)


# In valid JSON these stand inside strings only: controls, what turns writing around, hides, or breaks lines.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\ud800-\udfff\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
_NOT_ASCII = re.compile("[^\x00-\x7e]")


def _escape(character: str) -> str:
    return _SHORT.get(character) or (
        f"\\x{ord(character):02x}" if character < "\u0100" else f"\\u{ord(character):04x}"
    )


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _utf16(character: str) -> list[int]:
    encoded = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(encoded[at : at + 2]) for at in range(0, len(encoded), 2)]
