"""What kind of address it is: tables of our own, for `is_global` is wrong in too many ways.

Python 3.11 takes NAT64, 6to4, IPv4-compatible, site-local, multicast and more for global.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NEVER: Final[frozenset[Address]] = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, GCP, OpenStack, DigitalOcean, Oracle, …
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS pod identity
        "fd20:ce::254",  # GCP
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fe80::a9fe:a9fe",  # OpenStack
        "168.63.129.16",  # Azure's platform
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle Classic
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "fd00:42::42",  # Scaleway
    )
)


def is_special(address: Address) -> bool:
    """Whether *address* is anything but ordinary: private, reserved, translated or multicast."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in _SPECIAL_V4)
    return address not in _GLOBAL_V6 or any(address in network for network in _SPECIAL_V6)


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a gateway may read in *address*, wherever that is possible."""
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    if address in _TEREDO:
        return (_v4(number >> 64), _v4(~number))  # the server, and the client in disguise
    if address in _SIX_TO_FOUR:
        return (_v4(number >> 80),)
    if address in _LOCAL_NAT64:  # RFC 6052: a /96 in it, or the /48 with bits 64 to 71 left out
        return (_v4(number), _v4((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF))
    is_isatap = number >> 32 & 0xFDFFFFFF == 0x00005EFE
    if is_isatap or any(address in network for network in _V4_IN_LOW_BITS):
        return (_v4(number),)
    return ()


def _v4(number: int) -> IPv4Address:
    return IPv4Address(number & 0xFFFFFFFF)


# IANA's special-purpose registries, and multicast.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
    192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16
    192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4""".split()
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_TEREDO: Final = IPv6Network("2001::/32")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SPECIAL_V6: Final = (
    IPv6Network("2001::/23"),  # IETF protocols, Teredo among them
    IPv6Network("2001:db8::/32"),  # documentation
    _SIX_TO_FOUR,
    IPv6Network("2620:4f:8000::/48"),  # AS112
    IPv6Network("3fff::/20"),  # documentation
)
_V4_IN_LOW_BITS: Final = (
    IPv6Network("::/96"),  # IPv4-compatible
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated (SIIT)
    IPv6Network("64:ff9b::/96"),  # NAT64
)
