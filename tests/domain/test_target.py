# ruff: noqa: RUF001 - digits of other scripts are what some cases are about
import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.errors import InvalidPayload
from redrive.domain.target import MAX_URL, Target, origin_of, parse_target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://a.example", Target("https", "a.example", 443, "/")),
        ("https://a.example/", Target("https", "a.example", 443, "/")),
        ("http://a.example/x", Target("http", "a.example", 80, "/x")),
        ("https://A.Example:8443/X?y=Z", Target("https", "a.example", 8443, "/X?y=Z")),
        ("https://a.example?q", Target("https", "a.example", 443, "/?q")),
        ("https://a.example/p?q?r/s", Target("https", "a.example", 443, "/p?q?r/s")),
        ("https://a.example/%2e%2e/%0d%0a", Target("https", "a.example", 443, "/%2e%2e/%0d%0a")),
        ("https://a.example/a@b:c", Target("https", "a.example", 443, "/a@b:c")),
        ("https://a.example.", Target("https", "a.example.", 443, "/")),
        ("https://localhost:1", Target("https", "localhost", 1, "/")),
        ("https://my_host-1:65535", Target("https", "my_host-1", 65535, "/")),
        ("https://xn--mnchen-3ya.example", Target("https", "xn--mnchen-3ya.example", 443, "/")),
        ("https://1.example", Target("https", "1.example", 443, "/")),
        ("https://127.0.0.1", Target("https", "127.0.0.1", 443, "/")),
        ("https://0.0.0.0:00080", Target("https", "0.0.0.0", 80, "/")),
        ("https://255.255.255.255", Target("https", "255.255.255.255", 443, "/")),
        ("https://[::1]", Target("https", "::1", 443, "/")),
        ("https://[2001:DB8::1]:8080/x", Target("https", "2001:db8::1", 8080, "/x")),
        ("https://[::ffff:127.0.0.1]", Target("https", "::ffff:127.0.0.1", 443, "/")),
        (f"https://a.example/{'x' * (MAX_URL - 18)}", Target("https",
        "a.example", 443, "/" + "x" * (MAX_URL - 18))),
        ("https://" + "a" * 63 + ".example", Target("https", "a" * 63 + ".example", 443, "/")),
    ],
)  # fmt: skip
def test_a_url_is_read_one_way(url: str, target: Target) -> None:
    assert parse_target(url, allow_http=True) == target


NUMERIC = [  # all of these mean an address to some resolver
    "127.1", "127.0.1", "1", "0", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1", "0x7f.0.0.1",
    "0x7f000001",
    "0X7F.0X1", "127.0.0.0x1", "a.0x1", "a.1", "a.127.0.0.1", "127.0.0.01", "127.0.0.001", "127.0.0.1.",
    "1.2.3.4.5",
    "256.0.0.1", "1.2.3.256", "1.2.3.", ".1.2.3", "1..2.3", "127.0.0.1.0x", "4294967296", "00.0.0.0",
    "3232235521.",
    "①②⑦.⓪.⓪.①", "１２７.0.0.1", "١٢٧.0.0.1", "127。0。0。1", "127．0.0.1", "[127.0.0.1]", "[::ffff:127.1]",
]  # fmt: skip


@pytest.mark.parametrize("host", NUMERIC)
def test_a_host_that_some_resolver_reads_as_a_number_is_refused(host: str) -> None:
    with pytest.raises(InvalidPayload):
        parse_target(f"https://{host}/", allow_http=True)


@pytest.mark.parametrize(
    "url",
    [
        "", " ", "a", "a.example", "//a.example", "/x", "https:", "https:/a.example", "https:///", "https://",
        "https://:443", "https:a.example", "ftp://a.example", "file:///etc/passwd", "gopher://a.example",
        "javascript:alert(1)", "HTTPS://a.example", "Https://a.example", "https ://a.example", "https://?q",
        "https://#f",
        # who and what beside the host
        "https://user@a.example", "https://user:pw@a.example", "https://@a.example",
        "https://a.example@b.example",
        "https://127.0.0.1@a.example", "https://a.example#f", "https://a.example/#",
        "https://a.example/x?y#f",
        # bytes no URL holds
        "https://a.example\\@b.example", "https://a.example/\\x", "https:\\\\a.example",
        "https://a.example/\r\nX: 1",
        "https://a.example/x\n", "\nhttps://a.example", " https://a.example", "https://a.example ",
        "https://a .example",
        "https://a.example/a b", "https://a.example/\t", "https://a\t.example", "https://a.example/\x00",
        "https://a.example/\x7f", "https://a.example/é", "https://münchen.example", "https://a\u00ad.example",
        "https://a.example/<>", 'https://a.example/"', "https://a.example/{x}", "https://a.example/^",
        "https://a.example/`",
        "https://a.example/|", "https://a.example/[x]", "https://a.example/?[x]",
        # hosts
        "https://%61.example", "https://a%2eexample", "https://127.0.0.1%2f@a", "https://a..example",
        "https://.a", "https://.",
        "https://..", "https://-a.example", "https://a-.example", "https://a.-b", "https://a!b",
        "https://a,b", "https://a;b",
        "https://a*b", "https://*.example", "https://a$b", "https://a'b", "https://(a)",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 127 + "example",
        # IPv6
        "https://::1", "https://[::1", "https://::1]", "https://[]", "https://[:]", "https://[::1]x",
        "https://x[::1]",
        "https://[::1%25eth0]", "https://[fe80::1%eth0]", "https://[::g]", "https://[1::2::3]",
        "https://[:::]",
        "https://[12345::]", "https://[v1.a]", "https://[[::1]]", "https://[::1].example",
        "https://[1:2:3:4:5:6:7:8:9]",
        # ports
        "https://a.example:", "https://a.example:0", "https://a.example:00000", "https://a.example:65536",
        "https://a.example:99999", "https://a.example:000443", "https://a.example:-1",
        "https://a.example:+443",
        "https://a.example:4 43", "https://a.example:٤٤٣", "https://a.example:x", "https://a.example:443:443",
        "https://a.example:0x1bb", "https://a.example:1e3", "https://[::1]:0", "https://a.example:/",
        "https://a.example/" + "x" * MAX_URL,
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        parse_target(url, allow_http=True, pointer="/health_url")

    [fault] = caught.value.faults
    assert fault.pointer == "/health_url"
    assert fault.detail


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://a.example", "REDRIVE_ALLOW_HTTP"),
        ("https://é.example", "write the host as xn--9ca.example"),
        ("https://BÜCHER。example:8443/é", "write the host as xn--bcher-kva.example"),
        ("https://☃.example", "A-label"),
        ("https://a.example/é", "percent-encode"),
        ("é.example", "A-label"),
        ("https://xn--9ca.xn--n3h.example", "'xn--n3h' is not an A-label"),
        ("https://ab--c.example", "'ab--c' has -- where"),
        ("https://a.example/#f", "fragment"),
        ("https://me@a.example", "auth_mode"),
        ("a.example", "https://partner.example/hooks"),
        ("https://a.example:0", "port"),
        ("https://127.1", "neither a host name nor"),
        ("x" * 3_000, "2048"),
    ],
)
def test_a_refusal_says_what_to_do(url: str, told: str) -> None:
    with pytest.raises(InvalidPayload, match=told):
        parse_target(url, allow_http=False)


@pytest.mark.parametrize(
    "host",
    [
        "xn--mnchen-3ya.example", "XN--Mnchen-3YA.example", "xn--fa-hia.de", "a.xn--fiqs8s",
        "xn--80ak6aa92e.com",
        "xn--mgbh0fb.xn--kgbechtv", "a--b.example", "a-b--c.example", "xn-a.example", "axn--b.example",
    ],
)  # fmt: skip
def test_a_name_in_a_labels_is_taken(host: str) -> None:
    assert parse_target(f"https://{host}/", allow_http=False).host == host.lower()


@pytest.mark.parametrize(
    "host",
    [
        "xn--", "xn--.example", "xn--a", "xn--a-", "xn--abc-", "xn--abc", "xn--9", "xn--99999999",
        "xn--n3h.example", "xn--ls8h.example",  # a snowman, a heap: IDNA 2003 took them
        "xn--xn---epa.example",  # what it means begins with xn-- again
        "xn--a_b-x8a.example", "xn--mnchen-3yb-.example", "a.xn--mnchen-3ya3.example",
        "xn--wgv71a309e.xn--a", "ab--c.example", "yn--mnchen-3ya.example", "r3---sn.example", "0---0.example",
        "1---.example", "xn---.example",
    ],
)  # fmt: skip
def test_a_label_that_is_none_of_idna_2008_is_refused(host: str) -> None:
    with pytest.raises(InvalidPayload):
        parse_target(f"https://{host}/", allow_http=False)


@given(st.from_regex(r"xn--[a-z0-9-]{0,40}", fullmatch=True))
def test_an_a_label_that_is_taken_is_the_only_way_to_write_its_name(label: str) -> None:
    try:
        parse_target(f"https://{label}.example", allow_http=False)
    except InvalidPayload:
        return

    assert idna.encode(idna.decode(label), strict=True).decode() == label


def test_what_was_stored_before_has_an_origin_whatever_its_labels() -> None:
    assert origin_of("https://ab--c.example/x") == "https://ab--c.example:443"


@given(st.text(max_size=80) | st.from_regex(r"https?://[ -~]{0,40}", fullmatch=True))
def test_no_text_breaks_the_reader_and_what_it_reads_is_harmless(url: str) -> None:
    try:
        target = parse_target(url, allow_http=True)
    except InvalidPayload:
        return

    assert target.scheme in ("http", "https")
    assert 1 <= target.port <= 65535
    assert target.path.startswith("/")
    assert all("!" <= c <= "~" for c in target.host + target.path)
    assert not set(target.host + target.path) & set('\\#<>"{}|^`')
