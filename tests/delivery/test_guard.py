from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.delivery.addresses import NEVER
from redrive.delivery.guard import Guard
from redrive.domain.target import Target
from tests.delivery.receivers import a_guard

v4 = st.ip_addresses(v=4)


def allows(guard: Guard, address: str, port: int = 443) -> bool:
    return guard.judge(address, port) is None


def target(host: str, port: int) -> Target:
    return Target("https", host, port, "/")


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_an_ordinary_address_is_allowed(address: str) -> None:
    assert allows(a_guard(), address)


@pytest.mark.parametrize(
    "address",
    """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.1.1 172.16.0.1 172.31.255.255
    192.0.0.1 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.175.48.1 198.18.0.1
    198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::7f00:1
    64:ff9b::808:808
    64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe 64:ff9b:1:7f00:0:100:: 100::1 2001::1 2001:0:7f00:1::1
    2001:20::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd00::1
    fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 ff02::1 2606:4700::5efe:a00:1 2606:4700::200:5efe:7f00:1
    4000::1""".split(),
)
def test_a_special_address_is_refused(address: str) -> None:
    assert not allows(a_guard(), address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "1.2.3.4 "])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not allows(a_guard("0.0.0.0/0", "::/0"), text)


@given(address=v4)
def test_whatever_a_translation_hides_it_is_refused(address: IPv4Address) -> None:
    number = int(address)
    hiding = [
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0x64FF9B << 96 | number,  # NAT64
        0x64FF9B0001 << 80 | number,  # local-use NAT64
        0x2002 << 112 | number << 80 | 1,  # 6to4
        0x20010000 << 96 | number << 64 | 0xFFFFFFFF,  # Teredo server
        0x20010000 << 96 | 0x01010101 << 64 | (~number & 0xFFFFFFFF),  # Teredo client
    ]

    assert not any(allows(a_guard(), str(IPv6Address(hidden))) for hidden in hiding)


@given(address=v4)
def test_what_python_calls_private_or_multicast_is_refused(address: IPv4Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not allows(a_guard(), str(address))


@given(address=st.ip_addresses(v=6))
def test_what_python_does_not_call_global_is_refused(address: IPv6Address) -> None:
    if not address.is_global:
        assert not allows(a_guard(), str(address))


@given(address=v4, port=st.integers(1, 65535), prefix=st.integers(0, 32))
def test_inside_an_allowed_range_every_port_is_allowed(address: IPv4Address, port: int, prefix: int) -> None:
    guard = a_guard(str(ip_network((int(address), prefix), strict=False)))

    assert allows(guard, str(address), port) == (address not in NEVER)


@pytest.mark.parametrize("address", sorted(str(address) for address in NEVER))
def test_no_range_allows_a_clouds_own_services(address: str) -> None:
    assert not allows(a_guard("0.0.0.0/0", "::/0"), address)


@pytest.mark.parametrize(
    "address",
    """::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00::
    2002:a9fe:a9fe::1
    ::169.254.169.254 2001:0:a9fe:a9fe:: 2001:0:101:101:0:0:5601:5601 2606:4700::5efe:a9fe:a9fe
    fe80::a9fe:a9fe%eth0""".split(),
)
def test_no_range_allows_them_in_disguise(address: str) -> None:
    assert not allows(a_guard("0.0.0.0/0", "::/0"), address)


@pytest.mark.parametrize(("port", "allowed"), [(443, True), (80, False), (8443, False), (22, False)])
def test_only_443_is_open(port: int, *, allowed: bool) -> None:
    assert allows(a_guard(), "1.1.1.1", port) == allowed
    assert (a_guard().judge_port(target("1.1.1.1", port)) is None) == allowed
    assert (a_guard().judge_port(target("partner.test", port)) is None) == allowed


def test_80_is_open_when_http_is_allowed() -> None:
    assert allows(a_guard(allow_http=True), "1.1.1.1", 80)


def test_a_configured_port_is_open_to_ordinary_addresses_only() -> None:
    guard = a_guard(ports=frozenset({8443}))

    assert allows(guard, "1.1.1.1", 8443)
    assert not allows(guard, "10.0.0.1", 8443)


def test_an_unusual_port_of_a_name_waits_for_its_addresses_when_a_range_is_allowed() -> None:
    guard = a_guard("10.0.0.0/8")

    assert guard.judge_port(target("partner.test", 9000)) is None
    assert allows(guard, "10.1.2.3", 9000)
    assert not allows(guard, "1.1.1.1", 9000)


def test_an_unusual_port_of_a_literal_is_judged_at_once() -> None:
    guard = a_guard("10.0.0.0/8")

    assert guard.judge_port(target("10.1.2.3", 9000)) is None
    assert guard.judge_port(target("1.1.1.1", 9000)) is not None


@pytest.mark.parametrize("host", ["1234", "127.1", ":::::", "1.2.3.4.5", "fe80::1%eth0"])
def test_a_literal_that_is_no_address_is_refused_on_any_port(host: str) -> None:
    guard = a_guard("0.0.0.0/0", "::/0")

    assert guard.judge_port(target(host, 443)) is not None
    assert guard.judge_port(target(host, 9000)) is not None


def test_a_range_of_one_integration_opens_nothing_that_is_never_open() -> None:
    guard = Guard(
        allow_targets=[ip_network("10.0.0.0/8")],
        allow_targets_of={"inside": [ip_network("0.0.0.0/0")]},
        is_local=lambda _: False,
    )
    guard.protect([("10.0.0.7", 8080)])
    inside, other = guard.of("inside"), guard.of("other")

    assert guard.of("another") is other is guard
    assert [allows(one, "192.168.0.1", 9000) for one in (inside, other)] == [True, False]
    assert [allows(one, "10.1.1.1", 9000) for one in (inside, other)] == [True, True]
    assert [allows(one, "169.254.169.254", 80) for one in (inside, other)] == [False, False]
    assert [allows(one, "10.0.0.7", 8080) for one in (inside, other)] == [False, False]


@pytest.mark.parametrize(
    ("listener", "address", "refused"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.9.9.9", True),
        ("0.0.0.0", "10.0.0.7", True),
        ("0.0.0.0", "10.0.0.8", False),
        ("0.0.0.0", "::ffff:10.0.0.7", True),
        ("::", "10.0.0.7", True),
    ],
)
def test_our_own_listener_is_never_allowed(listener: str, address: str, *, refused: bool) -> None:
    mine = {"10.0.0.7"}
    guard = Guard(
        allow_targets=[ip_network("0.0.0.0/0"), ip_network("::/0")],
        is_local=lambda text: text in mine or ip_address(text).is_loopback,
    )

    guard.protect([(listener, 8080)])

    assert allows(guard, address, 8080) != refused
    assert allows(guard, address, 8081)


def test_a_refusal_says_what_to_set() -> None:
    assert "REDRIVE_ALLOW_TARGETS" in (a_guard().judge("10.0.0.1", 443) or "")
    assert "REDRIVE_ALLOW_PORTS" in (a_guard().judge("1.1.1.1", 444) or "")


@pytest.mark.parametrize(
    ("host", "port", "inside", "other"),
    [
        ("10.1.2.3", 443, True, False),
        ("10.1.2.3", 9000, True, False),
        ("169.254.169.254", 443, False, False),
        ("1.1.1.1", 443, True, True),
        ("1.1.1.1", 22, False, False),
        ("partner.test", 443, True, True),
        ("partner.test", 9000, True, False),
    ],
)
def test_before_a_lookup_an_integrations_own_rules_judge_what_they_can(
    host: str, port: int, *, inside: bool, other: bool
) -> None:
    guard = Guard(allow_targets_of={"inside": [ip_network("10.0.0.0/8")]}, is_local=lambda _: False)

    verdicts = [guard.judge_early(name, target(host, port)) for name in ("inside", "other")]

    assert [verdict is None for verdict in verdicts] == [inside, other]
