"""Which addresses and ports a delivery may go to: a judgement, made for every connection."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from redrive.delivery.addresses import NEVER, Address, Network, embedded, is_special
from redrive.domain.target import Target


class Guard:
    """The operator's rules. A verdict is None, or a sentence that says why not.

    `is_local` tells whether an address is one of this machine's own. *allow_targets_of* has ranges that are
    allowed to one integration: its rules are those of the guard that `of` gives.
    """

    def __init__(
        self,
        *,
        allow_targets: Sequence[Network] = (),
        allow_targets_of: Mapping[str, Sequence[Network]] = {},
        allow_ports: frozenset[int] = frozenset(),
        allow_http: bool = False,
        is_local: Callable[[str], bool],
    ) -> None:
        self._ranges = tuple(allow_targets)
        self._ports = allow_ports | ({80, 443} if allow_http else {443})
        self._is_local = is_local
        self._listeners: frozenset[tuple[Address, int]] = frozenset()
        self._port_verdict = lru_cache(maxsize=4096)(self._judge_port)  # asked for every request
        self._of = {
            integration_id: Guard(
                allow_targets=(*allow_targets, *ranges),
                allow_ports=allow_ports,
                allow_http=allow_http,
                is_local=is_local,
            )
            for integration_id, ranges in allow_targets_of.items()
        }

    def of(self, integration_id: str) -> "Guard":
        """The one that judges for an integration: the same one for all that have no ranges of their own."""
        return self._of.get(integration_id, self)

    def protect(self, listeners: Iterable[tuple[str, int]]) -> None:
        """Never deliver to *listeners*, our own; 0.0.0.0 or :: is any address of this machine."""
        listeners = list(listeners)
        self._listeners = frozenset((ip_address(host), port) for host, port in listeners)
        for guard in self._of.values():
            guard.protect(listeners)

    def judge_early(self, integration_id: str, target: Target) -> str | None:
        """The verdict on a target before it is kept: of its port, and of a host that is an address.

        A name is judged when it is sent to: what it leads to may be another address then.
        """
        guard = self.of(integration_id)
        if (why := guard.judge_port(target)) is not None or not is_literal(target.host):
            return why
        return guard.judge(target.host, target.port)

    def judge_port(self, target: Target) -> str | None:
        """The verdict before a name is resolved: None when some address may be allowed on this port."""
        return self._port_verdict(target.host, target.port)

    def judge(self, text: str, port: int) -> str | None:
        """The verdict on connecting to the address *text*."""
        address = _parse(text)
        if address is None:
            return f"{text} is not an address"
        faces = (address, *embedded(address))
        if any(face in NEVER for face in faces):
            return f"{text} belongs to a cloud's own services, which are never allowed"
        if any(self._is_ours(face, port) for face in faces):
            return f"{text} port {port} is this service itself, which is never allowed"
        if self._is_inside(address):
            return None
        if port not in self._ports:
            return _port_refusal(port)
        if any(is_special(face) for face in faces):
            return (
                f"{text} is a private, reserved or translated address; "
                "REDRIVE_ALLOW_TARGETS can allow its range, REDRIVE_ALLOW_TARGETS_OF to one integration"
            )
        return None

    def _is_ours(self, address: Address, port: int) -> bool:
        listening = [host for host, number in self._listeners if number == port]
        if not listening or address in listening or address.is_unspecified:
            return bool(listening)
        return any(host.is_unspecified for host in listening) and self._is_local(str(address))

    def _judge_port(self, host: str, port: int) -> str | None:
        address = _parse(host)
        if address is None and is_literal(host):
            return f"{host} is not an address"
        if port in self._ports:
            return None
        # An allowed range is allowed on every port; where a name leads, `judge` will see.
        possible = self._ranges if address is None else self._is_inside(address)
        return None if possible else _port_refusal(port)

    def _is_inside(self, address: Address) -> bool:
        return any(address in network for network in self._ranges)


def is_literal(host: str) -> bool:
    """Whether *host* is an address and not a name; the grammar of a target leaves nothing between."""
    return ":" in host or host.replace(".", "").isdigit()


def _parse(text: str) -> Address | None:
    """*text* as an address; None also for one with a scope, which two interfaces may share."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _port_refusal(port: int) -> str:
    return f"port {port} is not allowed; REDRIVE_ALLOW_PORTS can allow it"
