"""What differs from one failure to the next of the same cause, taken out of its text.

Ids, numbers, addresses and times become marks; so do values that look like secrets. Words stay: a name that a
receiver writes into its sentence is no number, and cannot be told from the rest.
"""

import re
from typing import Final

MOST: Final = 200  # characters of a masked text
LOOKED_AT: Final = (
    2_048  # characters of the text it is made of: a long id must not push others out of the rest
)
MARK: Final = "#"
_MONTH: Final = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DAY: Final = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? )?"
_ZONE: Final = r"(?: ?(?:Z\b|UTC|GMT|[+-]\d{2}:?\d{2}))?"
_CLOCK: Final = rf"\d{{1,2}}:\d{{2}}:\d{{2}}(?:[.,]\d{{1,9}})?(?: ?[ap]m\b)?{_ZONE}"
_TIMES: Final = (
    rf"(?<!\d)\d{{4}}-\d{{2}}-\d{{2}}(?:[T ](?:{_CLOCK}|\d{{2}}:\d{{2}}{_ZONE}))?",
    rf"{_DAY}(?<!\d)\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}(?: {_CLOCK})?",
    rf"\b{_DAY}{_MONTH}  ?\d{{1,2}},?(?: \d{{4}})?(?: {_CLOCK})?(?: \d{{4}})?",
    rf"(?<![\d:]){_CLOCK}(?![\d:])",
)
_IP4: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
_IP6: Final = (
    r"(?=[0-9a-f:]*::|(?:[0-9a-f]{1,4}:){7})(?:[0-9a-f]{0,4}:){2,7}"
    rf"(?:[0-9a-f]{{1,4}}|{_IP4})?(?:%\w+)?"
)
_IPS: Final = (
    rf"(?<![\w.]){_IP4}(?![\w.]*\d)(?:/\d{{1,2}}|:\d{{1,5}})?",
    rf"(?<![\w:])\[?{_IP6}(?:\](?::\d{{1,5}})?)?(?![\w:])",
)
_EMAIL: Final = r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
_UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MAC: Final = "(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}"
_KNOWN: Final = re.compile(
    rf"(?P<email>{_EMAIL})|(?P<time>{'|'.join(_TIMES)})|(?P<ip>{'|'.join(_IPS)})"
    rf"|(?P<id>(?<![\w-])(?:{_UUID}|{_MAC})(?![\w-]))",
    re.IGNORECASE,
)
_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]{1,15})://([^\s\"'<>`\\|^{}]+)", re.ASCII | re.IGNORECASE)
_SECRET: Final = re.compile(
    r"((?:token|secret|password|passwd|pwd|api[_-]?key|signature|\bsig)(?:=|[\"']\s?:\s?)[\"']?)[^\s\"'&,;]+",
    re.IGNORECASE,
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_=-]{16,}")
_PREFIX: Final = re.compile("[a-z]{2,8}_")
_DECIMAL: Final = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)+")
_RUN: Final = re.compile(r"[A-Za-z0-9]+")
_DIGITS: Final = re.compile(r"\d+")
_SIGN: Final = re.compile(rf"(?<![\w{MARK}])[-+]{{1,3}}(?={MARK})")
_SWITCH: Final = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_LETTERS_OR_DIGITS: Final = re.compile(r"[A-Za-z]+|[0-9]+")
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_SYMBOL: Final = re.compile(r"[A-Za-z0-9]+(?:[._:/-]{1,2}[A-Za-z0-9]+)*")
_VERSION: Final = re.compile(r"v\d{1,3}", re.IGNORECASE)
_LONGEST_SEGMENT: Final = 32
_LONGEST_SYMBOL: Final = 64
_MOST_DIGITS: Final = 5  # of a symbol: `ORA-00942` is one, an order's number is none


def masked(text: str) -> str:
    """*text* on one line, at most 200 characters, with marks for what varies: of one cause all are alike."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:LOOKED_AT]).split())
    text = _URL.sub(lambda found: _plain_url(found[1], found[2]), text)
    text = _SECRET.sub(rf"\1{MARK}", text)
    text = _KNOWN.sub(lambda found: MARK if found.lastgroup == "id" else f"<{found.lastgroup}>", text)
    text = _TOKEN.sub(lambda found: _plain_token(found[0]), text)
    text = _DECIMAL.sub(MARK, text)
    text = _RUN.sub(lambda found: _plain_run(found[0]), text)
    text = _DIGITS.sub(MARK, text)  # digits of any script
    return _SIGN.sub("", text)[:MOST].rstrip()


def is_symbol(text: str) -> bool:
    """Whether *text* is a word that a program chose (`card_declined`, `ORA-00942`), and no id."""
    return (
        len(text) <= _LONGEST_SYMBOL
        and _SYMBOL.fullmatch(text) is not None
        and sum(map(str.isdigit, text)) <= _MOST_DIGITS
        and all(_plain_run(run) != MARK or run.isdigit() for run in _RUN.findall(text))
        and _plain_token(text) == text
    )


def _plain_url(scheme: str, rest: str) -> str:
    """Without user, query and fragment; of its path, what varies is marked."""
    authority, slash, path = re.split("[?#]", rest, maxsplit=1)[0].rstrip(".,;:)!]").partition("/")
    segments = [segment if _is_plain_segment(segment) else MARK for segment in path.split("/")]
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{'/'.join(segments) if slash else ''}"


def _is_plain_segment(segment: str) -> bool:
    is_word = len(segment) <= _LONGEST_SEGMENT and segment.replace("-", "").replace("_", "").isalpha()
    return not segment or is_word or _VERSION.fullmatch(segment) is not None


def _plain_token(token: str) -> str:
    """Letters of both cases and digits, mixed as no word is: an id or a secret. Its prefix says of what."""
    switches = len(_SWITCH.findall(token)) - 1
    if len(token) < 16 or switches < len(token) / 4:
        return token
    prefix = _PREFIX.match(token)
    return MARK if prefix is None else prefix[0] + MARK


def _plain_run(run: str) -> str:
    """An id as one mark; of another word, its digits."""
    if run.isalpha():
        return run
    if run.isdigit():
        return MARK
    parts = len(_LETTERS_OR_DIGITS.findall(run))
    is_hex = _HEX.fullmatch(run) is not None
    if parts > 3 or len(run) >= 20 or (is_hex and (parts > 2 or len(run) >= 8)):
        return MARK
    return _DIGITS.sub(MARK, run)
