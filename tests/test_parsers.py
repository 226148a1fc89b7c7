"""Every parser of what strangers send, against a second reading of its grammar that shares no code with it.

A check runs on a few hundred examples, and on ten thousand with `--long`. Names of items have theirs in
`tests/domain/test_ids`, what is HTTP at all in `tests/test_incoming`.
"""

import json
import string
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url
from yarl import URL

from redrive.api import body
from redrive.api.call import Asked, Headers
from redrive.api.queue import Reason
from redrive.delivery.guard import Guard
from redrive.domain.alabel import wrong_label
from redrive.domain.errors import InvalidPayload
from redrive.domain.retry import parse_retry_after
from redrive.domain.target import parse_target
from redrive.domain.trace import parse_traceparent, parse_tracestate
from redrive.engine.look import Look
from redrive.engine.paging import Paging
from tests.domain.strategies import instants
from tests.vault import an_open_vault

FEW, MANY = 500, 10_000
VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))
DIGITS, LETTERS = frozenset(string.digits), frozenset(string.ascii_letters)
LOWER_HEX = frozenset("0123456789abcdef")

Address = IPv4Address | IPv6Address


def fuzzed(*drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """Make a test of a check: it is given what is *drawn*, a few times, or many with `--long`."""

    def made(check: Callable[..., None]) -> Callable[[int], None]:
        @pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
        def test(examples: int) -> None:
            settings(max_examples=examples, deadline=None)(given(*drawn)(check))()

        return test

    return made


def some_of(*pieces: str, most: int = 8) -> st.SearchStrategy[str]:
    """Texts made of *pieces*, and of a little of anything."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=2), max_size=most).map("".join)


@st.composite
def nearly(draw: st.DrawFn, valid: st.SearchStrategy[str], *other: str) -> str:
    """A valid text, often with something put in, taken out or put in its place."""
    text = draw(valid)
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 2)))
        text = text[:start] + draw(st.sampled_from(["", *other]) | st.text(max_size=1)) + text[end:]
    return text


# URLs

HOST_PIECES = (
    *"a b.c xn--a - _ . .. 0 1 127 255 256 127.0.0.1 1.2.3.4 0x7f 0X1 010 example %61 [ ] :: ::1".split(),
    *"fe80 1:2 ffff: [::1] [::ffff:1.2.3.4] [fe80::1%25a] @ u:p@ \\ ,".split(),
)
AFTER_HOST = ("", ":", ":0", ":1", ":443", ":65535", ":65536", ":00080", ":000443", ":x", ":+1", ":٣")
REST_PIECES = "/ // /a ? ?b=c & = %2f %0a %zz . .. ; @ : # \\ { } < \" ' | ^ ` ! $ * ( ) + , ~ é".split()
urls = st.builds(
    lambda *parts: "".join(parts),
    st.just("https://") | st.sampled_from(["http://", "HTTPS://", "https:/", "https:", "ftp://", "", "//"]),
    st.sampled_from(["a.example", "1.2.3.4", "[::1]"]) | some_of(*HOST_PIECES, most=4),
    st.sampled_from(AFTER_HOST),
    st.just("/") | some_of(*REST_PIECES, most=4),
)
SUB_DELIMS = frozenset("!$&'()*+,;=")
PCHAR = LETTERS | DIGITS | SUB_DELIMS | frozenset("-._~%:@")  # RFC 3986, but that a % may stand alone


def is_target(url: str) -> bool:
    """What a target is, in words of RFC 3986 §3 and of WHATWG's rule for hosts that end in a number."""
    scheme, _, rest = url.partition("://")
    at = min([rest.index(mark) for mark in "/?" if mark in rest], default=len(rest))
    authority, rest = rest[:at], rest[at:]
    if len(url) > 2048 or scheme not in ("http", "https") or not set(rest) <= PCHAR | {"/", "?"}:
        return False
    if authority.startswith("["):
        host, closing, port = authority[1:].partition("]")
        is_host = closing == "]" and "%" not in host and isinstance(_address(host), IPv6Address)
    else:
        host, colon, port = authority.partition(":")
        port, is_host = colon + port, is_host_name(host)
    return is_host and (port == "" or is_port(port))


def is_port(text: str) -> bool:
    digits = text.removeprefix(":")
    return digits != text and 0 < len(digits) <= 5 and set(digits) <= DIGITS and 0 < int(digits) < 65_536


def is_host_name(host: str) -> bool:
    labels = host.split(".")
    named = labels[:-1] if len(labels) > 1 and not labels[-1] else labels
    if set(named[-1]) <= DIGITS or named[-1].lower().startswith("0x"):
        return isinstance(_address(host), IPv4Address)
    return len(host) <= 253 and all(
        0 < len(label) < 64
        and set(label) <= LETTERS | DIGITS | frozenset("-_")
        and label[0] != "-" != label[-1]
        and (label[2:4] != "--" or wrong_label(label.lower()) is None)  # test_target tries those
        for label in named
    )


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


@fuzzed(urls | nearly(st.just("https://a.example:8443/b?c=d"), *HOST_PIECES, *REST_PIECES))
def test_a_target_is_exactly_its_grammar_and_all_read_the_same_in_it(url: str) -> None:
    try:
        target = parse_target(url, allow_http=True)
    except InvalidPayload:
        assert not is_target(url)
        return

    assert is_target(url)
    split, other, another = urlsplit(url), parse_url(url), URL(url)
    default = {"http": 80, "https": 443}[target.scheme]
    assert (split.username, split.password, split.fragment) == (None, None, "")
    assert split.scheme == target.scheme
    assert {split.hostname, str(other.host).strip("[]"), str(another.raw_host)} == {target.host} or (
        {ip_address(str(host).strip("[]")) for host in (split.hostname, other.host, another.raw_host)}
        == {ip_address(target.host)}
    )
    assert {split.port or default, other.port or default, another.port} == {target.port}
    assert (split.path or "/") + url[len(url) - len(split.query) - 1 :] * ("?" in url) == target.path


# addresses

# What Python takes for ordinary and is not: IANA's special-purpose registries, and tunnels.
NOT_ORDINARY = [
    ip_network(text)
    for text in """192.0.0.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24
    2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20""".split()
]
CLOUDS = frozenset(
    map(
        ip_address,
        """169.254.169.254 169.254.170.2 169.254.170.23 168.63.129.16 100.100.100.200 192.0.0.192 169.254.0.23
        169.254.42.42 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fe80::a9fe:a9fe
        fd00:42::42""".split(),
    )
)
EDGES = [
    *NOT_ORDINARY,
    *map(
        ip_network,
        """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.2.0/24
        192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
        ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2000::/3 2001::/32 fc00::/7
        fe80::/10 fec0::/10 ff00::/8""".split(),
    ),
]


def hidden(address: Address) -> set[Address]:
    """The IPv4 addresses in an IPv6 one, by the bytes it is written in."""
    if isinstance(address, IPv4Address):
        return set()
    octets, found = address.packed, set[bytes | None]()
    if octets[:12] in (bytes(12), bytes(10) + b"\xff\xff", bytes(8) + b"\xff\xff\0\0"):
        found.add(octets[12:])  # compatible, mapped, translated
    if octets[:12] == b"\0\x64\xff\x9b" + bytes(8):
        found.add(octets[12:])  # NAT64 (RFC 6052)
    if octets[:6] == b"\0\x64\xff\x9b\0\1":
        found |= {octets[12:], octets[6:8] + octets[9:11]}  # its local range (RFC 8215), either way
    if octets[8:12] in (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe"):
        found.add(octets[12:])  # ISATAP (RFC 5214)
    if address.sixtofour is not None:
        found.add(address.sixtofour.packed)
    if address.teredo is not None:
        found |= {each.packed for each in address.teredo}
    return {IPv4Address(each) for each in found if each is not None}


def is_ordinary(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (address.is_site_local or address not in ip_network("2000::/3")):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in NOT_ORDINARY)
    )


def in_each_disguise(address: IPv4Address) -> list[str]:
    four = address.packed
    return [
        str(IPv6Address(octets))
        for octets in (
            bytes(12) + four,
            bytes(10) + b"\xff\xff" + four,
            bytes(8) + b"\xff\xff\0\0" + four,
            b"\0\x64\xff\x9b" + bytes(8) + four,
            b"\0\x64\xff\x9b\0\1" + bytes(6) + four,
            b"\0\x64\xff\x9b\0\1" + four[:2] + b"\0" + four[2:] + bytes(5),
            b"\x20\x02" + four + bytes(10),
            b"\x20\1\0\0" + four + bytes(8),
            b"\x20\1\0\0\1\1\1\1" + bytes(4) + bytes(255 - octet for octet in four),
            b"\x26\6\x47\0" + bytes(4) + b"\0\0\x5e\xfe" + four,
            b"\x26\6\x47\0" + bytes(4) + b"\2\0\x5e\xfe" + four,
        )
    ]


def beside(text: str, step: int) -> str:
    address = ip_address(text)
    return str(type(address)((int(address) + step) % (1 << address.max_prefixlen)))


clouds = st.sampled_from(sorted(map(str, CLOUDS)))
any_v4: st.SearchStrategy[Any] = st.ip_addresses(v=4) | clouds.map(ip_address).filter(
    lambda a: a.version == 4
)
addresses = st.one_of(
    st.builds(
        beside,
        st.sampled_from([str(end) for network in EDGES for end in (network[0], network[-1])]),
        st.integers(-1, 1),
    ),
    st.ip_addresses().map(str),
    any_v4.flatmap(lambda address: st.sampled_from(in_each_disguise(address))),
    clouds,
)
ranges = st.lists(
    st.sampled_from("0.0.0.0/0 ::/0 10.0.0.0/8 169.254.0.0/16 fc00::/7 64:ff9b::/96 127.0.0.0/8".split()),
    max_size=2,
)


@fuzzed(addresses, ranges, st.sampled_from([443, 80, 8443, 22]))
def test_an_address_is_allowed_exactly_by_the_tables(text: str, allowed: list[str], port: int) -> None:
    guard = Guard(allow_targets=[ip_network(each) for each in allowed], is_local=lambda _: False)
    address = ip_address(text)
    faces = {address, *hidden(address)}
    is_inside = any(address in ip_network(each) for each in allowed)

    verdict = guard.judge(text, port)

    assert (verdict is None) == (
        not faces & CLOUDS and (is_inside or (port == 443 and all(is_ordinary(face) for face in faces)))
    )


@fuzzed(addresses)
def test_however_an_address_is_written_the_verdict_is_one(text: str) -> None:
    guard = Guard(is_local=lambda _: False)
    address = ip_address(text)

    verdicts = {guard.judge(each, 443) is None for each in (text, text.upper(), address.exploded)}

    assert len(verdicts) == 1


@fuzzed(some_of(*HOST_PIECES, most=4), ranges)
def test_what_is_no_address_is_never_allowed(text: str, allowed: list[str]) -> None:
    guard = Guard(allow_targets=[ip_network(each) for each in allowed], is_local=lambda _: False)

    if _address(text) is None:
        assert guard.judge(text, 443) is not None


# traces

traceparents = st.builds(
    lambda version, trace, span, flags, rest: f"{version}-{trace}-{span}-{flags}{rest}",
    st.sampled_from(["00", "01", "cc", "ff", "0"]),
    st.binary(min_size=16, max_size=16).map(bytes.hex) | st.just("0" * 32),
    st.binary(min_size=8, max_size=8).map(bytes.hex) | st.just("0" * 16),
    st.binary(min_size=1, max_size=1).map(bytes.hex),
    st.sampled_from(["", "-", "-x", "x", "\n"]),
)


def a_traceparent(text: str) -> str | None:
    """W3C Trace Context §3.2.2, by position."""
    version, trace, span, flags, rest = text[:2], text[3:35], text[36:52], text[53:55], text[55:]
    if len(text) < 55 or {text[2], text[35], text[52]} != {"-"}:
        return None
    if not set(version + trace + span + flags) <= LOWER_HEX or version == "ff":
        return None
    if set(trace) == {"0"} or set(span) == {"0"} or (rest and version == "00") or rest[:1] not in ("", "-"):
        return None
    return f"00-{trace}-{span}-{flags}"


@fuzzed(nearly(traceparents, "-", "0", "A", "g", " ", ","))
def test_a_traceparent_is_exactly_its_grammar(text: str) -> None:
    if "\n" not in text and "\r" not in text:  # which no header can hold
        assert parse_traceparent(text) == a_traceparent(text)


STATE_PIECES = (
    "a",
    "a=1",
    "b=2",
    "1t@s=x",
    "a@b",
    ",",
    ", ",
    "\t",
    " ",
    "=",
    "=x",
    "A",
    "z" * 250,
    "k*-_/=v",
)
KEY = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-*/")
MANY_MEMBERS = ",".join(f"k{n}=v" for n in range(31))


def is_tracestate(text: str) -> bool:
    """W3C Trace Context §3.3.1, by splitting."""
    members = [each.strip(" \t") for each in text.split(",")]
    pairs = [each.partition("=") for each in members if each]
    names = [name for name, _, _ in pairs]
    return (
        len(text) <= 2048
        and 0 < len(pairs) <= 32
        and len(set(names)) == len(names)
        and all(mark and is_state_key(name) and is_state_value(value) for name, mark, value in pairs)
    )


def is_state_key(name: str) -> bool:
    tenant, mark, system = name.rpartition("@")
    if not mark:
        return 0 < len(name) <= 256 and set(name) <= KEY and name[0] in string.ascii_lowercase
    return (
        0 < len(tenant) <= 241
        and 0 < len(system) <= 14
        and set(tenant + system) <= KEY
        and tenant[0] in string.ascii_lowercase + string.digits
        and system[0] in string.ascii_lowercase
    )


def is_state_value(value: str) -> bool:
    return 0 < len(value) <= 256 and value[-1] != " " and set(value) <= (VISIBLE | {" "}) - {",", "="}


@fuzzed(some_of(*STATE_PIECES) | nearly(st.just(f"{MANY_MEMBERS},a=1"), *STATE_PIECES))
def test_a_tracestate_is_exactly_its_grammar(text: str) -> None:
    assert parse_tracestate(text) == (text if is_tracestate(text) else None)


# Retry-After

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")


@st.composite
def asked_at(draw: st.DrawFn) -> tuple[str, datetime]:
    """What is asked for, and when: seconds or a date, often half a century away."""
    now = draw(instants)
    year = now.year + draw(st.sampled_from([-51, -50, -49, -1, 0, 1, 49, 50, 51]))
    date = draw(instants).replace(year=year, day=draw(st.integers(1, 28)))
    valid = st.integers(0, 10**9).map(str) | st.sampled_from([date.strftime(form) for form in DATES])
    return draw(nearly(valid, " ", "0", "1", "6", "GMT", "+", "-", "_", "٣", ":60 ")), now


def a_date(text: str, now: datetime) -> datetime | None:
    """RFC 9110 §5.6.7 by strptime, which is lenient: what it read must be what stands there.

    Which weekday it says is not looked at, as the date says it.
    """
    text = text.replace(":60 ", ":59 ")
    for form, days in zip(DATES, ([day[:3] for day in DAYS], DAYS, [day[:3] for day in DAYS]), strict=True):
        day = next((day for day in days if text.startswith(day)), "")
        try:
            found = datetime.strptime(text.removeprefix(day), form[2:].replace("%e", "%d")).replace(
                tzinfo=UTC
            )
        except ValueError:
            continue
        shown = {found.strftime(form[2:]), found.strftime(form[2:].replace("%e", "%d"))}
        if day and text.removeprefix(day) in shown:
            if "%y" in form:
                nearest = range(now.year - 49, now.year + 51)
                year = next(year for year in nearest if year % 100 == found.year % 100)
                found = found.replace(year=year)
            return found
    return None


def a_wait(text: str, now: datetime) -> timedelta | None:
    if text and set(text) <= DIGITS:
        return timedelta(seconds=min(int(text), 86_400))
    due = a_date(text, now)
    return None if due is None or due <= now else min(due - now, timedelta(days=1))


@fuzzed(asked_at())
def test_a_retry_after_is_exactly_its_grammar(asked: tuple[str, datetime]) -> None:
    text, now = asked

    assert parse_retry_after(text, now) == a_wait(text, now)


# Idempotency-Key


def the_key(raw: bytes) -> str | None:
    asked = Asked(
        engine=cast(Any, None),
        headers=Headers.of([(b"idempotency-key", raw)]),
        method="POST",
        route="",
        path={},
        raw_path="",
        query_string=b"",
        receive=cast(Any, None),
        request_id="",
        traceparent="",
        tracestate=None,
    )
    return asked.idempotency_key()


def a_key(text: str) -> str | None:
    """1–255 visible ASCII characters: bare, or a string of RFC 8941 that needs no escape."""
    inner = text[1:-1] if text[:1] == '"' and text[-1:] == '"' and len(text) > 1 else text
    if not 1 <= len(inner) <= 255 or not set(inner) <= VISIBLE:
        return None
    if text.startswith('"') and (inner is text or set(inner) & set('"\\')):
        return None
    return inner


keys = some_of("a", '"', "\\", "k" * 127, " ", "~", "!", "\x7f", "\t", "é", most=5)
long_keys = st.integers(253, 256).map(lambda size: "k" * size)


@fuzzed(keys | long_keys | long_keys.map('"{}"'.format))
def test_a_key_is_exactly_its_grammar(text: str) -> None:
    raw = text.encode("latin-1", "replace")
    expected = a_key(raw.decode("latin-1"))
    try:
        found = the_key(raw)
    except InvalidPayload:
        assert expected is None
        return

    assert found == expected is not None


@fuzzed(st.text(st.sampled_from(sorted(VISIBLE - {'"', "\\"})), min_size=1, max_size=255))
def test_a_key_is_the_same_bare_and_in_quotes(text: str) -> None:
    assert the_key(text.encode()) == the_key(f'"{text}"'.encode()) == text


# cursors


def a_look() -> Look:
    """As much of one as reads and makes cursors."""
    look = object.__new__(Look)
    look.paging = Paging(an_open_vault())
    return look


LOOK = a_look()
positions = st.integers(0, (1 << 63) - 1)
scopes = st.text(max_size=20)


@fuzzed(positions, scopes)
def test_a_cursor_says_where_it_was_made_and_is_fit_for_a_query(position: int, scope: str) -> None:
    cursor = LOOK._cursor(position, scope)

    assert cursor is not None
    assert LOOK._read(cursor, scope) == position
    assert set(cursor) <= LETTERS | DIGITS | {"-", "_"}


@fuzzed(positions, scopes, scopes, st.data())
def test_no_other_text_is_a_cursor_and_it_is_none_elsewhere(
    position: int, scope: str, elsewhere: str, data: st.DataObject
) -> None:
    cursor = str(LOOK._cursor(position, scope))
    forged = data.draw(nearly(st.just(cursor), "A", "=", ".", "-", "%", "\n", "é") | st.text(max_size=30))
    whole = data.draw(st.binary(min_size=16, max_size=16).map(lambda raw: urlsafe_b64encode(raw).decode()))

    for text in (forged, whole, whole.rstrip("=")):
        assert (is_read(text, scope)) == (text == cursor)
    assert is_read(cursor, elsewhere) == (elsewhere == scope)


def is_read(cursor: str, scope: str) -> bool:
    try:
        return LOOK._read(cursor, scope) is not None
    except InvalidPayload:
        return False


# JSON

JSON_PIECES = (
    *'{ } [ ] , : " \\ \\u \\ud800 \\udc00 \\ud83d\\ude00 \\u0061 "a" "a": "reason" {} [] null true'.split(),
    *"nul 0 01 -0 1. .5 1e5 1E+400 1e -1 NaN Infinity \ufeff \x00 \x1f \x7f \u2028 é 😀 /**/ '".split(),
    *" \n\t\r\x0b\x0c\xa0",
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = ('"a"', '"\\u0061"', '"reason"', '"payload"', '"é"', '""')
VALUES = ("0", '"b"', '"é"', "null", "[]", '{"a":1,"a":2}', "1E+400", '"\\ud83d\\ude00"')


@st.composite
def objects(draw: st.DrawFn) -> str:
    """Objects as people write them; a name may stand in one twice."""
    one = st.sampled_from(VALUES) | values.map(json.dumps)
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), ("\n,\t", " :\r\n")]))
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), one).map(colon.join), max_size=3))
    return "{" + comma.join(pairs) + "}"


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Bytes that are often an object, and sometimes hold some that are no UTF-8."""
    text = draw(objects() | nearly(objects(), *JSON_PIECES) | some_of(*JSON_PIECES))
    raw = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(raw)))
    octets = (b"", b"", b"", b"\xff", b"\x80", b"\xed\xa0\x80", b"\xc0\xaf", b"\0", b"\xef\xbb\xbf")
    return raw[:at] + draw(st.sampled_from(octets)) + raw[at:]


def an_object(raw: bytes) -> dict[str, Any] | None:
    """RFC 8259 by Python's reader, made strict: no constants of its own, no name twice, no half surrogate."""

    def no_constant(word: str) -> None:
        raise ValueError(word)

    try:
        pairs = json.loads(raw.decode(), object_pairs_hook=Pairs, parse_constant=no_constant)
        json.dumps(pairs, ensure_ascii=False).encode()
    except ValueError:
        return None
    return dict(pairs) if isinstance(pairs, Pairs) and len(dict(pairs)) == len(pairs) else None


class Pairs(list[Any]):
    """An object as it stands: a name may stand in it twice."""


@fuzzed(documents())
def test_an_object_is_exactly_strict_json_and_each_value_as_it_came(raw: bytes) -> None:
    expected = an_object(raw)
    try:
        found = body.members(raw)
    except InvalidPayload:
        assert expected is None
        return

    assert expected is not None
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert bytes(value) in raw
        assert json.loads(bytes(value), object_pairs_hook=Pairs) == expected[name]


@fuzzed(
    documents()
    | nearly(st.just('{"reason":"a"}'), *JSON_PIECES).map(lambda text: text.encode("utf-8", "replace"))
)
def test_a_reason_is_read_from_an_object_of_one_text_and_nothing_else(raw: bytes) -> None:
    expected = an_object(raw)
    try:
        found = body.read(raw, Reason)
    except InvalidPayload:
        assert expected is None or expected.keys() != {"reason"} or not isinstance(expected["reason"], str)
        return

    assert expected == {"reason": found.reason}
