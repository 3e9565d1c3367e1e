"""The address of who is asking, with trusted proxies in between."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_HOPS = 32


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed; none, unless named.

    Raises:
        ValueError: one of the names is not an address or a network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(network, strict=False) for network in networks
        )

    def client_address(self, peer: str | None, forwarded_for: Sequence[str]) -> str | None:
        """The address of the client, by its connection and the ``X-Forwarded-For`` headers in their order.

        It is the right-most hop that is not a trusted proxy: everything left of it may be made up. Where a
        trusted proxy passed on something that is no address, it is the last address that is known.
        """
        address = _parsed(peer)
        if address is None:
            return peer
        hops = [hop for header in forwarded_for for hop in header.split(",")]
        for hop in reversed(hops[-_MAX_HOPS:]):
            if not self._trusts(address):
                break
            further = _parsed(hop)
            if further is None:
                break
            address = further
        return str(address)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own."""
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback


def _parsed(text: str | None) -> _Address | None:
    """An address from ``1.2.3.4``, ``1.2.3.4:80``, ``::1``, ``[::1]:80``; an IPv4 one inside IPv6 is that IPv4 one."""
    if text is None or len(text) > 64:
        return None
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
